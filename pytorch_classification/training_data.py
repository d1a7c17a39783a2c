"""What a training run learns from and chooses by: images divided by patient, their squares, how they are varied.

The published ``val/`` holds 16 images, too few to choose anything by; it is pooled with ``train/``, and a validation
set of other patients is carved from both.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr import augment, patients, reading, runtime
from cxr.runtime import Squares
from pytorch_classification import data_load
from pytorch_classification.settings import TrainConfig
from pytorch_classification.shifted_validation import Labelled, list_external, style_transferred


@dataclass(frozen=True)
class Data:
    """What a run learns from and chooses by.

    ``squares`` are [N, S', S'], ``labels`` int64 [N], ``hashes`` the content of each file; ``train`` and
    ``validation`` are indices into them, not of images that cannot be read. ``shifted`` is unlike training's images:
    another source's, or validation's style_transferred.
    """

    listing: data_load.Listing
    squares: Squares
    labels: NDArray[np.int64]
    hashes: list[str]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    shifted: Labelled

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [N, S', S'], mapped from disk."""
        return self.squares.array

    def sets(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]]:
        """What to choose by: of each set its squares, which of them belong to it, and the labels of those."""
        return {
            "val": (self.images, self.validation, self.labels[self.validation]),
            "shifted": (self.shifted.images, np.arange(len(self.shifted.labels)), self.shifted.labels),
        }

    def patients(self, indices: NDArray[np.int64]) -> int:
        """How many patients the images at ``indices`` are of."""
        return len({self.listing.patients[index] for index in indices})

    def flow(self) -> dict[str, Any]:
        """How many images and patients went where, and how many were left out, as plain values."""
        learnt = np.concatenate([self.train, self.validation])
        parts = {"train": self.train, "validation": self.validation}
        return {
            "listed": len(self.listing),
            "unreadable": len(self.listing) - len(learnt),
            "repeated": len(learnt) - len({self.hashes[index] for index in learnt}),
            "parts": {
                name: {"images": _by_class(self.labels[part]), "patients": self.patients(part)}
                for name, part in parts.items()
            },
            "shifted": {
                "name": Path(self.shifted.name).name,
                "external": self.shifted.external,
                "images": _by_class(self.shifted.labels),
            },
            "named_as_kaggle": all(data_load.patient_of(path) is not None for path in self.listing.paths),
        }

    def facts(self, root: Path) -> dict[str, str]:
        """Content, class and patient of each image, by its name below ``root``."""
        names = [data_load.place(path, root) for path in self.listing.paths]
        facts = map(" ".join, zip(self.hashes, map(str, self.labels), self.listing.patients, strict=True))
        return dict(zip(names, facts, strict=True)) | (
            {self.shifted.name: self.shifted.digest()} if self.shifted.external else {}
        )


def _by_class(labels: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(data_load.CLASSES, np.bincount(labels, minlength=2).tolist(), strict=True))


def store_size(size: int) -> int:
    """Side of the stored squares: an eighth over the training size, so that warping does not blur them."""
    return size + size // 8


def _decoded(listing: data_load.Listing, name: str, config: TrainConfig, run: runtime.Runtime) -> reading.Decoded:
    size, place = store_size(config.size), config.output_dir / "decoded"
    return reading.decode_once(listing.paths, size, place, name=name, skip_bad=config.skip_bad, progress=run.is_main)


def load_data(config: TrainConfig, run: runtime.Runtime) -> Data:
    """train/ and val/, or those rows of the table, decoded and divided by patient; test images are not opened."""
    pool = ("train", "val") if config.table or (config.data_dir / "val").is_dir() else ("train",)
    listing = data_load.listed(config, *pool)
    if missing := data_load.missing_test(config):
        warnings.warn(f"{missing}: the run will end without a test report", stacklevel=2)
    store = _decoded(listing, "train", config, run)
    listing = data_load.identified(listing, store.headers)
    readable = np.flatnonzero(store.readable)
    if len(readable) < len(listing):
        warnings.warn(f"{len(listing) - len(readable)} images that cannot be read are left out", stacklevel=2)
    hashes = [store.hashes[i] for i in readable]
    kept = listing.take(readable)
    parts = patients.split(
        kept.patients,
        [data_load.CLASSES[label] for label in kept.labels],
        hashes,
        {"validation": config.validation_share},
        config.seed,
        needed=data_load.CLASSES,
    )
    conflicts = data_load.conflicting_duplicates(kept, hashes)
    if conflicts:
        warnings.warn(
            f"{len(conflicts)} files stand in both classes with the same content: {conflicts[0]}", stacklevel=2
        )
    train, validation = readable[parts["train"]], readable[parts["validation"]]
    if config.ood_val_dir is None:
        plain = Labelled("validation", store.images[validation], listing.labels[validation])
        shifted = style_transferred(plain, config.seed)
    else:
        shifted = external(config, {store.hashes[i] for i in readable}, run)
    return Data(listing, Squares(store.images, run.device), listing.labels, store.hashes, train, validation, shifted)


def external(config: TrainConfig, known: set[str], run: runtime.Runtime) -> Labelled:
    """``--ood-val-dir`` decoded; a file that stands in training too, as ``known`` says by content, is left out."""
    folder = cast(Path, config.ood_val_dir)
    listing = list_external(folder)
    store = _decoded(listing, "external", config, run)
    kept = np.flatnonzero(store.readable & [content not in known for content in store.hashes])
    counts = np.bincount(listing.labels[kept], minlength=2)
    if not counts.all():
        raise ValueError(
            f"--ood-val-dir {folder}: of its {len(listing)} images {counts[0]} NORMAL and {counts[1]} PNEUMONIA can "
            "be read and do not stand in training; both classes are needed"
        )
    return Labelled(str(folder), store.images[kept], listing.labels[kept], external=True)


def augmented(stored: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """What the network sees of ``stored`` uint8 [B, S', S'] while it learns: float32 [B, 1, size, size].

    Tone, sharpness and the frame differ between sources and, in Kaggle's set, so between classes: they vary, and pass
    from image to image, or they would be learnt in place of the lungs. Some looks are at a part of the picture, which
    hides the outline and the border; the others at the whole, as prediction sees it (docs/experiments.md).
    """
    count = len(stored)
    curves = augment.identity_curves(count, stored.device)
    curves = augment.match_histograms(curves, stored, generator, prob=config.style_mix_prob)
    curves = augment.jitter_tone(curves, generator, gamma=0.5, contrast=0.4, brightness=0.15)
    images = augment.apply_curves(stored, curves)
    whole = augment.random_affine(
        count, generator, rotation_degrees=12, zoom=0.2, stretch=0.12, shear=0.1, shift=0.12, flip=0.5
    )
    part = augment.random_crop(
        count, generator, smallest_area=0.08, stretch=math.log(4 / 3), rotation_degrees=12, shear=0.1, flip=0.5
    )
    matrices = torch.where(augment.bernoulli_mask(count, config.crop_prob, generator)[:, 0], part, whole)
    images = augment.warp(images, matrices, config.size)
    images = augment.random_convolution(images, generator, prob=config.randconv_prob)
    images = augment.swap_borders(images, generator, prob=config.style_mix_prob, inner=0.72)
    images = augment.jitter_sharpness(images, generator, sigma=1.6, blur_prob=0.4, sharpen_prob=0.2)
    return augment.erase(images, generator, prob=0.4, smallest=0.1, largest=0.35)
