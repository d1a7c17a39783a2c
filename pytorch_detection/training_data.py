"""What a training run learns from and chooses by: exams divided by patient, their squares, batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr import augment, patient_split, runtime
from cxr.squares import Squares
from pytorch_detection import rsna_dataset, sources
from pytorch_detection.augment_boxes import join_halves, move_boxes
from pytorch_detection.model import Target
from pytorch_detection.settings import TrainConfig
from pytorch_detection.sources import Collection


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
    collection = sources.load(
        config.data_dir,
        config.table,
        config.size,
        config.out_dir / "decoded",
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
    return patient_split.split(
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
    curves = augment.plain_curves(count, device)
    if not light:
        curves = augment.vary_tone(curves, generator, gamma=0.4, contrast=0.3, brightness=0.1)
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
