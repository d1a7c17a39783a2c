"""The training, validation and shifted images of a run: split by patient, and decoded into squares.

The published ``val/`` holds 16 images, too few for model selection; it is pooled with ``train/``, and a validation set
of other patients is split off from both.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import patients, reading, runtime
from cxr.runtime import Squares
from pytorch_classification import data_load
from pytorch_classification.data_load import CLASSES
from pytorch_classification.settings import TrainConfig
from pytorch_classification.shifted_validation import ShiftedSet, list_ood_images, style_transferred


@dataclass(frozen=True)
class TrainingData:
    """The images of a run.

    Attributes:
        listing: N images. squares: of them, [N, S', S']. labels: int64 [N]. hashes: [N], of each file's content.
        train, validation: indices of readable images.
        shifted: out-of-domain validation images, of another source or style-transferred.
    """

    listing: data_load.Listing
    squares: Squares
    labels: NDArray[np.int64]
    hashes: list[str]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    shifted: ShiftedSet

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [N, S', S'], mapped from disk."""
        return self.squares.array

    def validation_sets(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]]:
        """For model selection: of each set its squares, the indices of its images in them, and their labels."""
        return {
            "val": (self.images, self.validation, self.labels[self.validation]),
            "shifted": (self.shifted.images, np.arange(len(self.shifted.labels)), self.shifted.labels),
        }

    def count_patients(self, indices: NDArray[np.int64]) -> int:
        """The number of patients of the images at ``indices``."""
        return len({self.listing.patients[index] for index in indices})

    def flow(self) -> dict[str, Any]:
        """How many images and patients are in each set, and how many were left out, as plain values."""
        readable = np.concatenate([self.train, self.validation])
        parts = {"train": self.train, "validation": self.validation}
        return {
            "listed": len(self.listing),
            "unreadable": len(self.listing) - len(readable),
            "repeated": len(readable) - len({self.hashes[index] for index in readable}),
            "parts": {
                name: {"images": _by_class(self.labels[part]), "patients": self.count_patients(part)}
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
        """Content, class and patient of each image by its name below ``root``, to compare runs by."""
        names = [data_load.relative_name(path, root) for path in self.listing.paths]
        facts = map(" ".join, zip(self.hashes, map(str, self.labels), self.listing.patients, strict=True))
        shifted = {self.shifted.name: self.shifted.digest()} if self.shifted.external else {}
        return dict(zip(names, facts, strict=True)) | shifted


def _by_class(labels: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(CLASSES, np.bincount(labels, minlength=2).tolist(), strict=True))


def store_size(size: int) -> int:
    """Side of the stored squares: an eighth over the input size, so that warping does not blur them."""
    return size + size // 8


def load_data(config: TrainConfig, run: runtime.Runtime) -> TrainingData:
    """Decode train/ and val/, or these rows of the table, and split them by patient; test images are not opened."""

    def decode(listing: data_load.Listing, name: str) -> reading.Decoded:
        size, folder = store_size(config.size), config.output_dir / "decoded"
        return reading.decode_once(
            listing.paths, size, folder, name=name, skip_bad=config.skip_bad, progress=run.is_main
        )

    splits = ("train", "val") if config.table or (config.data_dir / "val").is_dir() else ("train",)
    listing = data_load.list_splits(config.data_dir, config.table, *splits, names=(config.normal, config.pneumonia))
    if missing := data_load.missing_test(config.data_dir, config.table):
        warnings.warn(f"{missing}: the run will end without a test report", stacklevel=2)
    store = decode(listing, "train")
    listing = data_load.identify_patients(listing, store.headers)
    readable = np.flatnonzero(store.readable)
    if len(readable) < len(listing):
        warnings.warn(f"{len(listing) - len(readable)} unreadable images are skipped", stacklevel=2)
    hashes = [store.hashes[i] for i in readable]
    kept = listing.take(readable)
    labels = [CLASSES[label] for label in kept.labels]
    shares = {"validation": config.validation_share}
    parts = patients.split(kept.patients, labels, hashes, shares, config.seed, needed=CLASSES)
    if conflicts := data_load.conflicting_duplicates(kept.paths, kept.labels, hashes):
        warnings.warn(f"{len(conflicts)} files are in both classes with the same content: {conflicts[0]}", stacklevel=2)
    train, validation = readable[parts["train"]], readable[parts["validation"]]
    if config.ood_val_dir is None:
        shifted = style_transferred(store.images[validation], listing.labels[validation], config.seed)
    else:
        candidates = list_ood_images(config.ood_val_dir)
        shifted = ood_validation(config.ood_val_dir, candidates, decode(candidates, "ood_validation"), {*hashes})
    return TrainingData(
        listing, Squares(store.images, run.device), listing.labels, store.hashes, train, validation, shifted
    )


def ood_validation(
    folder: Path, listing: data_load.Listing, store: reading.Decoded, training_hashes: set[str]
) -> ShiftedSet:
    """The readable images of ``--ood-val-dir``, without files that are in the training data too.

    Raises:
        ValueError: a class has no image left.
    """
    kept = np.flatnonzero(store.readable & [content not in training_hashes for content in store.hashes])
    counts = np.bincount(listing.labels[kept], minlength=2)
    if not counts.all():
        raise ValueError(
            f"--ood-val-dir {folder}: of {len(listing)} images, {counts[0]} NORMAL and {counts[1]} PNEUMONIA are "
            "readable and not in the training data; both classes are needed"
        )
    return ShiftedSet(str(folder), store.images[kept], listing.labels[kept], external=True)
