"""A finished detector: which boxes it finds in stored squares, and the file that holds all that prediction needs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchvision.ops import box_iou

from cxr import cautions, checkpoints, known_images, runtime
from cxr.grey_resnet import tensors
from cxr.likeness import Likeness, features
from cxr.origin import UNSAVED, Origin
from cxr.squares import to_device
from cxr.text import quoted
from pytorch_detection import box_metrics
from pytorch_detection.model import TASK, Architecture, Detection, GreyFasterRCNN, construct

SHRINK_FACTORS = (1.0, 0.95, 0.9, 0.875, 0.85)
GATE_POWERS = (0.0, 0.5, 1.0)
_BATCH = 16  # images at once when no gradients are kept
_SAME_OPACITY = 0.5  # boxes of an image and its mirror image with more overlap (IoU) than this are one

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
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
    def of(cls, detections: Sequence[Detection]) -> "Found":
        """From what the network answers."""
        return cls(
            [one["boxes"].double().cpu().numpy() for one in detections],
            [one["scores"].double().cpu().numpy() for one in detections],
            np.array([one["image_probability"].item() for one in detections], np.float64),
        )

    def gathered(self, run: runtime.Runtime) -> "Found":
        """The images of all processes in the order that ``runtime.shard`` took them from; in every process."""
        parts = runtime.gather_objects(self, run)
        count = sum(len(part.boxes) for part in parts)
        order = [(number % run.world_size, number // run.world_size) for number in range(count)]
        return Found(
            [parts[rank].boxes[row] for rank, row in order],
            [parts[rank].scores[row] for rank, row in order],
            np.array([parts[rank].probability[row] for rank, row in order], np.float64),
        )

    def gated(self, gate_power: float) -> list[Array]:
        """Scores times the image's probability to ``gate_power``."""
        return [scores * gate for scores, gate in zip(self.scores, self.probability**gate_power, strict=True)]


@dataclass(frozen=True)
class Rule:
    """How the boxes that were found are scored, scaled and selected; chosen on validation images.

    Attributes:
        gate_power: a box scores its own score times the image's probability to this power; 0 leaves it as it is.
        shrink: the factor for width and height.
        threshold: on that score; boxes below it are not reported.
    """

    gate_power: float
    shrink: float
    threshold: float

    def apply(self, found: Found) -> tuple[list[Array], list[Array]]:
        """All boxes, shrunk, and their gated scores; the threshold is left to the caller."""
        return [box_metrics.shrink(boxes, self.shrink) for boxes in found.boxes], found.gated(self.gate_power)


def choose_rule(found: Found, truths: Sequence[ArrayLike]) -> tuple[Rule, float]:
    """The rule for ``found`` and the RSNA score that it has on these images.

    The gate is chosen by AP50, which depends on every box and not on a threshold; the rest by the RSNA score.

    Args:
        found: on validation images.
        truths: N of [m, 4] xyxy in pixels of the square.

    Raises:
        ValueError: as ``box_metrics.choose_rule``.
    """
    gate_power = choose_gate(found, truths)
    chosen = box_metrics.choose_rule(found.boxes, found.gated(gate_power), truths, SHRINK_FACTORS)
    return Rule(gate_power, chosen.shrink, chosen.threshold), chosen.rsna_score


def choose_gate(found: Found, truths: Sequence[ArrayLike]) -> float:
    """The power among ``GATE_POWERS`` with the highest AP50; the lowest of those that do equally well."""
    weights = np.ones((1, len(truths)))

    def ap50(power: float) -> float:
        matches = box_metrics.match(found.boxes, found.gated(power), truths)
        return float(box_metrics.average_precisions(matches, weights)["ap50"][0])

    return max(GATE_POWERS, key=ap50)


# ------------------------------------------------------------------------------------------------- finding boxes


@torch.inference_mode()
def find_boxes(
    model: GreyFasterRCNN,
    images: NDArray[np.uint8],
    indices: NDArray[np.int64],
    flip_average: bool,
    run: runtime.Runtime,
) -> Found:
    """Boxes in the stored squares uint8 [N, S, S] at ``indices``.

    Every process computes its share of the images, each once, and has the answers of all. With ``flip_average`` an
    image's answer is fused from itself and its mirror image.
    """
    model.eval()
    mine = runtime.shard(indices, run)
    detections: list[Detection] = []
    for first in range(0, len(mine), _BATCH):
        seen = as_input(to_device(images[mine[first : first + _BATCH]], run.device))
        with run.autocast():
            answers = model(seen)
            if flip_average:
                mirrored = [_mirrored(one, seen.shape[-1]) for one in model(seen.flip(3))]
                answers = [fuse(pair) for pair in zip(answers, mirrored, strict=True)]
        detections += answers
    return Found.of(detections).gathered(run)


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
    """One answer from several views of an image: weighted box fusion (Solovyev 2021, doi:10.1016/j.imavis.2021.104117).

    From the highest score down, a box draws to it those with IoU above .5. Their mean, weighted by score, is the new
    box; its score is their sum divided by the number of views, so that what one view alone has found counts less.
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


# ------------------------------------------------------------------------------------------------- the file


@dataclass(frozen=True)
class Detector:
    """A finished model with everything that prediction needs; ``save`` and ``load`` are its file.

    Attributes:
        flip_average: whether the mirror image is evaluated too.
        rule: how boxes are scored, scaled and selected.
        likeness: what training's images look like to the network; None in files from before it was kept.
        known: the keys of ``known_images`` of what was learnt from or chosen by; None as above.
        origin: what the file says of itself.
    """

    model: GreyFasterRCNN
    flip_average: bool
    rule: Rule
    likeness: Likeness | None = None
    known: frozenset[str] | None = None
    origin: Origin = UNSAVED

    @property
    def size(self) -> int:
        """Side in pixels of the square the network sees."""
        return self.model.architecture.size

    def save(self, path: Path, **record: Any) -> None:
        """Write the model file, with ``record`` (plain values) for a later reader."""
        settings = {"flip_average": self.flip_average, "rule": asdict(self.rule)}
        architecture = asdict(self.model.architecture)
        checkpoints.save(
            path,
            task=TASK,
            model=self.model.state_dict(),
            architecture=architecture,
            prediction=settings,
            likeness=None if self.likeness is None else self.likeness.plain(),
            known_images=known_images.packed(self.known),
            **record,
        )

    @classmethod
    def load(cls, path: Path, run: runtime.Runtime) -> "Detector":
        """The model file at ``path``, its network in evaluation mode on the run's device.

        Raises:
            FileNotFoundError, ValueError: no file, or not a finished detection model.
        """
        state = checkpoints.load(path, task=TASK)
        if "prediction" not in state:
            raise ValueError(
                f"{path}: from a training, without the operating point that prediction needs; the finished model is "
                "pneumonia_fasterrcnn.pth, unless --model-file named another"
            )
        settings = _settings(state["prediction"], path)
        model = load_model(state, path, run)
        likeness = Likeness.of(state.get("likeness"), model.backbone.body, path)
        known = known_images.unpacked(state.get("known_images"), path)
        return cls(model, **settings, likeness=likeness, known=known, origin=Origin.of(state, path))

    @classmethod
    def of_user(cls, path: Path, run: runtime.Runtime, threshold: float | None) -> "Detector":
        """The model that a user names, with another ``threshold`` than its own if there is one.

        Raises:
            FileNotFoundError, ValueError: as ``load``; says how to get a model where there is none.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"no model at {path.resolve()}; train one with `python pytorch_detection/train_detection.py` or name "
                "one with --model"
            )
        detector = cls.load(path, run)
        if detector.likeness is None:
            cautions.warn_without_likeness(path)
        if threshold is None:
            return detector
        rule, origin = replace(detector.rule, threshold=threshold), detector.origin.adapted_by_hand()
        return replace(detector, rule=rule, origin=origin)

    def find(self, images: NDArray[np.uint8], run: runtime.Runtime, indices: NDArray[np.int64] | None = None) -> Found:
        """Boxes in squares uint8 [N, size, size], in those at ``indices`` or in all.

        Always in float32, so that every machine and batch gives the same answer.
        """
        return self.look(images, run, indices)[0]

    def look(
        self, images: NDArray[np.uint8], run: runtime.Runtime, indices: NDArray[np.int64] | None = None
    ) -> tuple[Found, list[Array]]:
        """What ``find`` gives, and of each stage of the backbone what ``Likeness`` judges by."""
        exact = replace(run, bf16=False)
        which = np.arange(len(images)) if indices is None else indices
        with features(self.model.backbone.body) as seen:
            found = find_boxes(self.model, images, which, self.flip_average, exact)
        return found, seen.rows(2 if self.flip_average else 1, run)


def _settings(found: Any, path: Path) -> dict[str, Any]:
    """``found`` with rules as rules if prediction can work with it; a model file may come from anywhere."""
    rule: Any = found.get("rule") if isinstance(found, dict) else None
    if not isinstance(rule, dict) or found.keys() != {"flip_average", "rule"}:
        raise ValueError(
            f"{path}: expected the prediction settings flip_average and rule, as this version writes them to "
            f"pneumonia_fasterrcnn.pth, found {quoted(found)}; train anew"
        )
    sound = (
        type(found["flip_average"]) is bool
        and {name: type(value) for name, value in rule.items()} == dict.fromkeys(_RULE, float)
        and 0 <= rule["gate_power"] < float("inf")
        and 0 < rule["shrink"] < float("inf")
        and 0 <= rule["threshold"] <= 1
    )
    if not sound:
        raise ValueError(f"{path}: prediction settings that no training writes: {quoted(found)}")
    return {"flip_average": found["flip_average"], "rule": Rule(**rule)}


_RULE = tuple(field.name for field in fields(Rule))


def load_model(state: dict[str, Any], path: Path, run: runtime.Runtime) -> GreyFasterRCNN:
    """The network of a checkpoint at ``path``, in evaluation mode on the run's device.

    Raises:
        ValueError: the tensors are not those of the architecture that the checkpoint names, or not finite numbers,
            from which no box would come and every chest would seem clear.
    """
    weights = tensors(state.get("model"), path)
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ValueError(f"{path}: weights that are not finite numbers; train anew")
    model = construct(Architecture.of(state, path))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not the weights of its own architecture ({reason})") from error
    return model.to(run.device).to(memory_format=torch.channels_last).eval()
