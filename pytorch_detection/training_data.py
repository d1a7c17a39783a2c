"""The data of a training: exams split by patient, their squares, augmented batches."""

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
from pytorch_detection.box_tables import ExamSet
from pytorch_detection.model import Target
from pytorch_detection.settings import TrainConfig

LEAST_KEPT = 0.4  # boxes of which augmentation leaves less than this fraction are dropped


@dataclass(frozen=True)
class TrainingData(ExamSet):
    """Exams split into training, validation and held-out exams.

    Attributes:
        squares: those of ``images`` alone.
        train, validation, held_out: indices into ``exams``; no patient is in two of them.
    """

    squares: Squares
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def truths(self, indices: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Ground-truth boxes [m, 4] xyxy in pixels of the stored square."""
        return [self.images.target(int(index))["boxes"].numpy() for index in indices]

    def facts(self) -> dict[str, str]:
        """What decides the weights: content, boxes and split of each image, by its path below the source."""
        splits = np.full(len(self.exams), "unreadable")
        for name in ("train", "validation", "held_out"):
            splits[getattr(self, name)] = name
        root = self.source if self.source.is_dir() else self.source.parent
        paths = [exam.path for exam in self.exams]
        names = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
        rows = zip(names, self.hashes, self.exams, splits.tolist(), strict=True)
        return {name.as_posix(): f"{content} {exam.boxes_xyxy} {split}" for name, content, exam, split in rows}


def load_data(config: TrainConfig, run: runtime.Runtime) -> TrainingData:
    """The exams, decoded and split by patient.

    The held-out ones are decoded with the rest, so that an unreadable one does not stop a run at its very end.
    """
    exam_set = box_tables.load(
        config.data_dir,
        config.table,
        config.size,
        config.output_dir / "decoded",
        skip_bad=config.skip_bad,
        allow_missing=config.allow_missing,
        progress=run.is_main,
    )
    readable = exam_set.readable
    parts = split(exam_set.of(readable), [exam_set.hashes[index] for index in readable], config.seed)
    squares = Squares(exam_set.images.images, run.device)
    train, validation, held_out = (readable[parts[name]] for name in ("train", "validation", "held_out"))
    return TrainingData(**vars(exam_set), squares=squares, train=train, validation=validation, held_out=held_out)


def split(exams: Sequence[rsna_dataset.Exam], hashes: Sequence[str], seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of ``train``, ``held_out`` and ``validation``, the last two a tenth each; as ``patients.split``."""
    return patients.split(
        [exam.patient for exam in exams],
        [exam.finding for exam in exams],
        hashes,
        {"held_out": 0.1, "validation": 0.1},
        seed,
        needed=[rsna_dataset.OPACITY_CLASS],
    )


def epoch_order(data: TrainingData, seed: int, epoch: int, negatives_per_positive: float | None) -> NDArray[np.int64]:
    """The exams of an epoch in random order, the same in every process.

    Args:
        negatives_per_positive: training exams without opacity, drawn without replacement, for each one with opacity;
            None for all.
    """
    generator = np.random.default_rng([seed, epoch])
    positive = np.array([bool(data.exams[index].boxes_xyxy) for index in data.train], np.bool_)
    negatives = data.train[~positive]
    if negatives_per_positive is not None:
        count = min(len(negatives), round(negatives_per_positive * int(positive.sum())))
        negatives = generator.choice(negatives, count, replace=False)
    return generator.permutation(np.concatenate([data.train[positive], negatives]))


def batch_of(data: TrainingData, indices: NDArray[np.int64], run: runtime.Runtime) -> tuple[Tensor, list[Target]]:
    """Stored squares uint8 [B, S, S] and their targets, on the run's device."""
    targets = [data.images.target(int(index)) for index in indices]
    abnormal = torch.stack([target["abnormal"] for target in targets]).to(run.device)
    return data.squares[indices], labelled([target["boxes"].to(run.device) for target in targets], abnormal)


def labelled(boxes: Sequence[Tensor], abnormal: Tensor) -> list[Target]:
    """Targets of images with ``boxes`` that all are opacities; ``abnormal`` float32 [B]."""
    ones = (torch.full((len(some),), rsna_dataset.OPACITY, device=some.device) for some in boxes)
    return [
        {"boxes": some, "labels": labels, "abnormal": one}
        for some, labels, one in zip(boxes, ones, abnormal, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------ augmentation


def augmented(
    stored: Tensor, targets: Sequence[Target], generator: torch.Generator, light: bool
) -> tuple[Tensor, list[Target]]:
    """Training samples from ``stored`` uint8 [B, S, S]: float32 [B, 1, S, S], and their targets.

    Position, size, shape and tone vary, and half of the images are joined from two patients. ``light`` augmentation is
    flips and small shifts only: the final epochs adapt to images as they are.
    """
    count, size = len(stored), stored.shape[-1]
    curves = augment.identity_curves(count, stored.device)
    if not light:
        curves = augment.jitter_tone(curves, generator, gamma=0.4, contrast=0.3, brightness=0.1)
    images = augment.apply_curves(stored, curves)
    strength = 0.25 if light else 1.0
    matrices = augment.random_affine(
        count,
        generator,
        rotation_degrees=6 * strength,
        zoom=0.2 * strength,
        stretch=0.12 * strength,
        shear=0.05 * strength,
        shift=0.12 * strength,
        flip=0.5,
    )
    images = augment.warp(images, matrices, size)
    boxes = move_boxes([target["boxes"] for target in targets], matrices, size, least_kept=LEAST_KEPT)
    abnormal = torch.stack([target["abnormal"] for target in targets])
    if not light:
        images, boxes, source = join_halves(images, boxes, generator, prob=0.5, least_kept=LEAST_KEPT)
        abnormal = joined_labels(abnormal, source, boxes)
    return images, labelled(boxes, abnormal)


def move_boxes(boxes: Sequence[Tensor], matrices: Tensor, size: int, *, least_kept: float) -> list[Tensor]:
    """The boxes of a batch of squares of ``size`` pixels after ``warp`` with the same ``matrices``.

    A box stands for its inscribed ellipse, the usual shape of an opacity: after a rotation or shear the new box bounds
    the transformed ellipse. A box around the moved corners would grow by 7 % of the height for each 4 degrees (Kalra et
    al. 2021, doi:10.1109/ICCV48922.2021.00348). Without rotation and shear there is no difference.

    Args:
        boxes: for each image float32 [N, 4] xyxy in pixels; N may be 0.
        matrices: [B, 2, 3], from output to input, as ``random_affine`` makes them.
        size: side of the image before and after.
        least_kept: a box is dropped if less than this fraction of its area stays inside the image.

    Returns:
        For each image float32 [M, 4] xyxy, clipped to the image; M is N less the dropped ones.
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
    area, area_left = ((some[:, 2:] - some[:, :2]).prod(dim=1) for some in (moved, clipped))
    kept = area_left >= least_kept * area
    return [clipped[kept & (image == index)] for index in range(len(boxes))]


def join_halves(
    images: Tensor, boxes: Sequence[Tensor], generator: torch.Generator, *, prob: float, least_kept: float
) -> tuple[Tensor, list[Tensor], Tensor]:
    """With probability ``prob``, replace the right half of an image and its boxes by those of another of the batch.

    Chests have the same position and each lung its own opacities, so a few hundred exams make many thousand pairs of
    lungs (similar to CutMix, Yun et al. 2019, arXiv:1905.04899). The halves are blended near the middle.

    Args:
        images: float32 [B, 1, S, S].
        boxes: for each image float32 [N, 4] xyxy in pixels; N may be 0.
        least_kept: a box is dropped if less than this fraction of its width stays in its half.

    Returns:
        Images and boxes of the same forms, and int64 [B]: the index in the batch of each right half.
    """
    count, size = len(images), images.shape[-1]
    seam = uniform(count, 0.46, 0.54, generator) * size
    position = torch.arange(size, device=images.device) + 0.5
    joined = bernoulli_mask(count, prob, generator)
    right = torch.where(joined, ((position - per_image(seam)) / (0.04 * size) + 0.5).clamp(0, 1), 0)
    partner = torch.randperm(count, generator=generator, device=generator.device)
    source = torch.where(joined.flatten(), partner, torch.arange(count, device=images.device))
    result: list[Tensor] = []
    for own, other, is_joined, edge in zip(
        boxes, partner.tolist(), joined.flatten().tolist(), seam.tolist(), strict=True
    ):
        if is_joined:
            left_half, right_half = own.clone(), boxes[other].clone()
            left_half[:, 2].clamp_(max=edge)
            right_half[:, 0].clamp_(min=edge)
            pairs = ((left_half, own), (right_half, boxes[other]))
            own = torch.cat([half[_widths(half) >= least_kept * _widths(whole)] for half, whole in pairs])
        result.append(own)
    return images * (1 - right) + images[partner] * right, result, source


def _widths(boxes: Tensor) -> Tensor:
    return boxes[:, 2] - boxes[:, 0]


def joined_labels(abnormal: Tensor, source: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Whether images are abnormal, float32 [B], after ``join_halves`` with right halves from ``source`` [B].

    Two normal halves are normal, and an opacity is abnormal; otherwise it is unknown which half was abnormal: NaN.
    """
    normal = (abnormal == 0) & (abnormal[source] == 0)
    has_box = torch.tensor([len(some) > 0 for some in boxes], device=abnormal.device)
    labels = torch.where(has_box, 1.0, torch.full_like(abnormal, float("nan")))
    labels = torch.where(normal, 0.0, labels)
    return torch.where(source == torch.arange(len(source), device=source.device), abnormal, labels)
