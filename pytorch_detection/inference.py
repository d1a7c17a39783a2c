"""Boxes that networks detect in stored squares; TTA and ensemble outputs are fused."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_area, box_iou
from tqdm import tqdm

from cxr import runtime
from cxr.metrics import Array
from cxr.runtime import to_device
from pytorch_detection.model import Detection, GreyFasterRCNN

_BATCH = 16  # images at once when no gradients are kept
_SAME_OPACITY = 0.5  # boxes of an image and its mirror image with more overlap (IoU) than this are one
_NESTED = 0.7  # a box of which more than this share lies in another, or around it, tells of the same opacity


@dataclass(frozen=True)
class RawDetections:
    """What a network finds in N images, before any threshold.

    Attributes:
        boxes: N of float64 [n, 4] xyxy in pixels of the square.
        scores: N of float64 [n] in 0..1, of the boxes alone.
        probability: float64 [N] that the image shows an opacity; 1 without an image head.
    """

    boxes: list[Array]
    scores: list[Array]
    probability: Array

    @classmethod
    def of(cls, detections: Sequence[Detection]) -> "RawDetections":
        """From the network's output."""
        return cls(
            [one["boxes"].double().cpu().numpy() for one in detections],
            [one["scores"].double().cpu().numpy() for one in detections],
            np.array([one["image_probability"].item() for one in detections], np.float64),
        )

    def gathered(self, run: runtime.Runtime) -> "RawDetections":
        """The images of all processes in the order that ``runtime.shard`` took them from; in every process."""
        parts = runtime.gather_objects(self, run)
        count = sum(len(part.boxes) for part in parts)
        order = [(number % run.world_size, number // run.world_size) for number in range(count)]
        return RawDetections(
            [parts[rank].boxes[row] for rank, row in order],
            [parts[rank].scores[row] for rank, row in order],
            np.array([parts[rank].probability[row] for rank, row in order], np.float64),
        )

    def gated(self, gate_power: float) -> list[Array]:
        """Scores times the image's probability to ``gate_power``."""
        return [scores * gate for scores, gate in zip(self.scores, self.probability**gate_power, strict=True)]


@torch.inference_mode()
def find_boxes(
    networks: Sequence[GreyFasterRCNN],
    images: NDArray[np.uint8],
    indices: NDArray[np.int64],
    flip_tta: bool,
    run: runtime.Runtime,
) -> RawDetections:
    """Boxes in the stored squares uint8 [N, S, S] at ``indices``.

    Every process computes its share of the images, each once, and has the boxes of all. The boxes of all
    ``networks``, and with ``flip_tta`` also those of the mirror image, are fused, and nested boxes are downweighted.
    """
    for network in networks:
        network.eval()
    mine = runtime.shard(indices, run)
    detections: list[Detection] = []
    few = len(mine) <= 4 * _BATCH or not run.is_main  # the batches of a prediction have a bar of their own
    for first in tqdm(range(0, len(mine), _BATCH), "detecting", unit="batch", disable=few, leave=False):
        seen = as_input(to_device(images[mine[first : first + _BATCH]], run.device))
        with run.autocast():
            outputs: list[list[Detection]] = [network(seen) for network in networks]
            if flip_tta:
                mirrored = seen.flip(3)
                outputs += [[_mirrored(one, seen.shape[-1]) for one in network(mirrored)] for network in networks]
        fused = outputs[0] if len(outputs) == 1 else [fuse(views) for views in zip(*outputs, strict=True)]
        detections += [downweight_nested_boxes(one) for one in fused]
    return RawDetections.of(detections).gathered(run)


def as_input(stored: Tensor) -> Tensor:
    """Stored uint8 [B, S, S] as float32 [B, 1, S, S] in 0..1, the network's input outside training."""
    return stored.unsqueeze(1).float().div_(255).contiguous(memory_format=torch.channels_last)


def in_original(boxes: Array, side: int, size: tuple[int, int]) -> Array:
    """Boxes [n, 4] xyxy in pixels of a square of ``side`` in those of the original of ``size`` (height, width)."""
    height, width = size
    whole = np.array([width, height, width, height], np.float64)
    return np.clip(boxes * whole / side, 0, whole)


def _mirrored(found: Detection, size: int) -> Detection:
    left, top, right, bottom = found["boxes"].unbind(1)
    return {**found, "boxes": torch.stack([size - right, top, size - left, bottom], dim=1)}


def fuse(views: Sequence[Detection]) -> Detection:
    """Weighted box fusion of several views of an image (Solovyev 2021, doi:10.1016/j.imavis.2021.104117).

    From the highest score down, a box draws to it those with IoU above .5. Their mean, weighted by score, is the new
    box; its score is their sum divided by the number of views, so that a box of one view alone counts less.
    """
    boxes, scores = torch.cat([view["boxes"] for view in views]), torch.cat([view["scores"] for view in views])
    together = box_iou(boxes, boxes) > _SAME_OPACITY
    free = torch.ones_like(scores, dtype=torch.bool)
    fused: list[Tensor] = []
    heights: list[Tensor] = []
    for leader in scores.argsort(descending=True, stable=True):
        if not free[leader]:
            continue
        members = free & together[leader]
        members[leader] = True  # also a box without area, which overlaps nothing
        free &= ~members
        weights = scores[members]
        fused.append((boxes[members] * weights[:, None]).sum(0) / weights.sum())
        heights.append(weights.sum() / max(len(views), len(weights)))
    probability = torch.stack([view["image_probability"] for view in views]).mean()
    if not fused:
        return {**views[0], "image_probability": probability}
    score, order = torch.stack(heights).sort(descending=True, stable=True)
    labels = torch.ones(len(order), dtype=torch.int64, device=boxes.device)
    return {"boxes": torch.stack(fused)[order], "scores": score, "labels": labels, "image_probability": probability}


def downweight_nested_boxes(found: Detection) -> Detection:
    """``found`` with half the score for each box that lies in one of higher score, or around it, by more than .7.

    Non-maximum suppression leaves both where one is much smaller, because their IoU is low. Half the score gains in AP
    and in the RSNA score; without the second box AP would lose (docs/experiments.md).
    """
    boxes, scores = found["boxes"], found["scores"]
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clamp(min=0).prod(dim=2)
    area = box_area(boxes)
    nested = shared > _NESTED * torch.minimum(area[:, None], area[None])
    second = (nested & (scores[None] > scores[:, None])).any(dim=1)
    scores, order = torch.where(second, scores / 2, scores).sort(descending=True, stable=True)
    return {**found, "boxes": boxes[order], "scores": scores, "labels": found["labels"][order]}
