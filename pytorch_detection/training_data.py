"""What a training run learns from and chooses by: exams divided by patient, their squares, augmented batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr import augment, patients, runtime
from cxr.augment import bernoulli_mask, per_image, uniform
from cxr.runtime import Squares
from pytorch_detection import box_tables, rsna_dataset
from pytorch_detection.box_tables import Collection
from pytorch_detection.model import Target
from pytorch_detection.settings import TrainConfig


def move_boxes(boxes: Sequence[Tensor], matrices: Tensor, size: int, *, least_kept: float) -> list[Tensor]:
    """Where ``warp`` with the same ``matrices`` puts the boxes of a batch of squares of ``size`` pixels.

    A box stands for the ellipse within it, which is what an opacity fills: after a rotation or shear the new box bounds
    the moved ellipse. One around the moved corners would grow by 7 % of the height for each 4 degrees (Kalra et al.
    2021, doi:10.1109/ICCV48922.2021.00348). Without rotation and shear there is no difference.

    Args:
        boxes: for each image float32 [N, 4] xyxy in pixels; N may be 0.
        matrices: [B, 2, 3], from output to input, as ``random_affine`` makes them.
        size: side of the image before and after.
        least_kept: a box of which less than this share of the area stays inside the image is dropped.

    Returns:
        For each image float32 [M, 4] xyxy, clipped to the image; M is N less what was dropped.
    """
    counts = torch.tensor([len(some) for some in boxes], device=matrices.device)
    image = torch.repeat_interleave(torch.arange(len(boxes), device=matrices.device), counts)
    corners = torch.cat([*boxes]) * (2 / size) - 1  # in the matrices' coordinates, from -1 to 1 over the image
    centres, halves = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    forward = torch.linalg.inv(matrices[:, :, :2])[image]  # from input to output
    centres = (forward @ (centres - matrices[image, :, 2])[..., None]).squeeze(-1)
    halves = (forward * halves[:, None, :]).square().sum(-1).sqrt()
    moved = (torch.cat([centres - halves, centres + halves], dim=1) + 1) * (size / 2)
    clipped = moved.clamp(0, size)
    kept = _areas(clipped) >= least_kept * _areas(moved)
    return [clipped[kept & (image == index)] for index in range(len(boxes))]


def join_halves(
    images: Tensor, boxes: Sequence[Tensor], generator: torch.Generator, *, share: float, least_kept: float
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Give ``share`` of the images the right half of another image of the batch, with its boxes.

    Chests lie alike and each lung has its own opacities, so a few hundred exams make many thousand pairs of lungs (as
    in CutMix, Yun et al. 2019, arXiv:1905.04899). The halves meet near the middle and fade into each other.

    Args:
        images: float32 [B, 1, S, S].
        boxes: for each image float32 [N, 4] xyxy in pixels; N may be 0.
        least_kept: a box of which less than this share of the width stays in its half is dropped.

    Returns:
        Images and boxes of the same forms, and int64 [B]: the place in the batch that each right half comes from.
    """
    count, size = len(images), images.shape[-1]
    seam = uniform(count, 0.46, 0.54, generator) * size
    position = torch.arange(size, device=images.device) + 0.5
    joined = bernoulli_mask(count, share, generator)
    right = torch.where(joined, ((position - per_image(seam)) / (0.04 * size) + 0.5).clamp(0, 1), 0)
    partner = torch.randperm(count, generator=generator, device=generator.device)
    together: list[Tensor] = []
    for own, other, is_joined, edge in zip(
        boxes, partner.tolist(), joined.flatten().tolist(), seam.tolist(), strict=True
    ):
        if not is_joined:
            together.append(own)
            continue
        wholes = own, boxes[other]
        halves = [whole.clone() for whole in wholes]
        halves[0][:, 2].clamp_(max=edge)
        halves[1][:, 0].clamp_(min=edge)
        kept = [half[_widths(half) >= least_kept * _widths(whole)] for half, whole in zip(halves, wholes, strict=True)]
        together.append(torch.cat(kept))
    source = torch.where(joined.flatten(), partner, torch.arange(count, device=images.device))
    return images * (1 - right) + images[partner] * right, together, source


def _widths(boxes: Tensor) -> Tensor:
    return boxes[:, 2] - boxes[:, 0]


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


@dataclass(frozen=True)
class Data(Collection):
    """What a run learns from, chooses by, and is judged by in the end.

    Attributes:
        squares: those of ``images`` alone.
        train, validation, held_out: indices into ``exams``, of other patients each.
    """

    squares: Squares
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def truths(self, indices: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """True boxes [m, 4] xyxy in pixels of the stored square."""
        return [self.images.target(int(index))["boxes"].numpy() for index in indices]

    def facts(self) -> dict[str, str]:
        """Content, boxes and part of each image, by its place below the source."""
        parts = np.full(len(self.exams), "unreadable")
        for name in ("train", "validation", "held_out"):
            parts[getattr(self, name)] = name
        root = self.source if self.source.is_dir() else self.source.parent
        paths = [exam.path for exam in self.exams]
        places = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
        rows = zip(places, self.hashes, self.exams, parts.tolist(), strict=True)
        return {place.as_posix(): f"{content} {exam.boxes_xyxy} {part}" for place, content, exam, part in rows}


def load_data(config: TrainConfig, run: runtime.Runtime) -> Data:
    """The exams, decoded and divided by patient.

    The held-out ones are decoded with the rest, so that one that cannot be read does not end a run in its last minute.
    """
    collection = box_tables.load(
        config.data_dir,
        config.table,
        config.size,
        config.output_dir / "decoded",
        skip_bad=config.skip_bad,
        allow_missing=config.allow_missing,
        progress=run.is_main,
    )
    readable = collection.readable
    parts = divided(collection.of(readable), [collection.hashes[index] for index in readable], config.seed)
    squares = Squares(collection.images.images, run.device)
    train, validation, held_out = (readable[parts[name]] for name in ("train", "validation", "held_out"))
    return Data(**vars(collection), squares=squares, train=train, validation=validation, held_out=held_out)


def divided(exams: Sequence[rsna_dataset.Exam], hashes: Sequence[str], seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of ``train``, ``held_out`` and ``validation``, the last two a tenth each; as ``patient_split.split``."""
    return patients.split(
        [exam.patient for exam in exams],
        [exam.finding for exam in exams],
        hashes,
        {"held_out": 0.1, "validation": 0.1},
        seed,
        needed=[rsna_dataset.OPACITY_CLASS],
    )


def augmented(
    stored: Tensor,
    targets: Sequence[Target],
    generator: torch.Generator,
    light: bool,
) -> tuple[Tensor, list[Target]]:
    """What the network sees of ``stored`` uint8 [B, S, S] while it learns: float32 [B, 1, S, S], and targets to match.

    Position, size and shape vary as chests do, tone as exposures do, and half of the images show lungs of two patients.
    ``light`` augmentation leaves the mirror image and a little shift: the last epochs settle on images as they are.
    """
    count, device = len(stored), stored.device
    curves = augment.identity_curves(count, device)
    if not light:
        curves = augment.jitter_tone(curves, generator, gamma=0.4, contrast=0.3, brightness=0.1)
    images = augment.apply_curves(stored, curves)
    much = 0.25 if light else 1.0
    matrices = augment.random_affine(
        count,
        generator,
        rotation_degrees=6 * much,
        zoom=0.2 * much,
        stretch=0.12 * much,
        shear=0.05 * much,
        shift=0.12 * much,
        flip=0.5,
    )
    size = stored.shape[-1]
    images = augment.warp(images, matrices, size)
    boxes = move_boxes([target["boxes"] for target in targets], matrices, size, least_kept=0.4)
    abnormal = torch.stack([target["abnormal"] for target in targets])
    if not light:
        images, boxes, source = join_halves(images, boxes, generator, share=0.5, least_kept=0.4)
        abnormal = of_joined(abnormal, source, boxes)
    return images, labelled(boxes, abnormal)


def shown(boxes: Sequence[Tensor], device: torch.device) -> Tensor:
    """Which images have a box, bool [B]."""
    return torch.tensor([len(some) > 0 for some in boxes], device=device)


def of_joined(abnormal: Tensor, source: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Whether chests are abnormal, float32 [B], whose right halves come from ``source`` [B].

    Two normal ones stay normal, and an opacity is abnormal; else nobody knows in which half the abnormality was.
    """
    normal = (abnormal == 0) & (abnormal[source] == 0)
    unknown = torch.full_like(abnormal, float("nan"))
    together = torch.where(normal, 0.0, torch.where(shown(boxes, abnormal.device), 1.0, unknown))
    return torch.where(source == torch.arange(len(source), device=source.device), abnormal, together)


def epoch_order(data: Data, config: TrainConfig, epoch: int) -> NDArray[np.int64]:
    """The exams of an epoch, the same in every process."""
    return rsna_dataset.epoch_indices(
        data.exams,
        data.train,
        seed=config.seed,
        epoch=epoch,
        negatives_per_positive=config.negatives_per_positive,
    )


def batch_of(data: Data, chosen: NDArray[np.int64], run: runtime.Runtime) -> tuple[Tensor, list[Target]]:
    """Stored squares uint8 [B, S, S] and their targets, on the run's device."""
    targets = [data.images.target(int(index)) for index in chosen]
    abnormal = torch.stack([target["abnormal"] for target in targets]).to(run.device)
    boxes = [target["boxes"].to(run.device) for target in targets]
    return data.squares[chosen], labelled(boxes, abnormal)


def labelled(boxes: Sequence[Tensor], abnormal: Tensor) -> list[Target]:
    """Targets of images with ``boxes`` that all are opacities; ``abnormal`` float32 [B]."""
    ones = (torch.full((len(some),), rsna_dataset.OPACITY, device=some.device) for some in boxes)
    return [
        {"boxes": some, "labels": labels, "abnormal": one}
        for some, labels, one in zip(boxes, ones, abnormal, strict=True)
    ]
