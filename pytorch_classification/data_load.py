"""The Kaggle chest-xray-pneumonia folders as lists of images with their class and patient."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import ImageFolder

from cxr import reading

CLASSES = ("NORMAL", "PNEUMONIA")
PNEUMONIA = CLASSES.index("PNEUMONIA")

# Numbers of bacteria and virus names count separately, so person17 may be two children; one group of both never leaks.
_PNEUMONIA_NAME = re.compile(r"(person\d+)_(?:bacteria|virus)_\d+")
# The NORMAL2- prefix is a numbering of its own and must stay part of the name.
_NORMAL_NAME = re.compile(r"((?:NORMAL2-)?IM-\d+)-\d+")


@dataclass(frozen=True)
class Listing:
    """Images of one or more folders.

    Attributes:
        paths: N files.
        labels: int64 [N], index into ``CLASSES``.
        patients: N group names; images that may show one patient have the same one.
    """

    paths: list[Path]
    labels: NDArray[np.int64]
    patients: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: NDArray[np.int64]) -> "Listing":
        """The images at ``indices``, in that order."""
        return Listing([self.paths[i] for i in indices], self.labels[indices], [self.patients[i] for i in indices])


def patient_of(path: Path) -> str | None:
    """The patient of a Kaggle file name: ``person17_bacteria_56.jpeg`` is ``person17``; None for another form."""
    found = _PNEUMONIA_NAME.match(path.name) or _NORMAL_NAME.match(path.name)
    return found.group(1) if found else None


def list_images(data_dir: Path, *splits: str) -> Listing:
    """The images of ``data_dir/<split>/{NORMAL,PNEUMONIA}`` for every one of ``splits``.

    Raises:
        FileNotFoundError: a split folder is missing, or a class folder is missing or empty.
        ValueError: the class folders are not the two expected.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for split in splits:
        for path, label in _samples(data_dir / split):
            paths.append(path)
            labels.append(label)
    return Listing(paths, np.array(labels, dtype=np.int64), patients_of(paths, data_dir))


def patients_of(paths: Sequence[Path], folder: Path) -> list[str]:
    """The patient of each of ``paths``; a file whose name tells none becomes one of its own, named by its place below
    ``folder``.

    One warning counts those.
    """
    patients = [patient_of(path) for path in paths]
    unknown = [path for path, patient in zip(paths, patients, strict=True) if patient is None]
    if unknown:
        warnings.warn(
            f"{len(unknown)} of {len(paths)} file names tell no patient (first: {unknown[0].name}); each counts as a "
            "patient of its own. If one patient has several of these images, scores are too optimistic",
            stacklevel=3,
        )
    # as_posix: the split depends on these names and is to be the same on Windows
    return [patient or path.relative_to(folder).as_posix() for path, patient in zip(paths, patients, strict=True)]


def _samples(folder: Path) -> list[tuple[Path, int]]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder.resolve()}; --data-dir is to hold {{train,test}}/{{NORMAL,PNEUMONIA}} as from Kaggle"
        )
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    found = sorted(name for name in folders if not reading.is_of_a_system(name))
    if tuple(found) != CLASSES:
        raise ValueError(
            f"{folder}: expected the class folders {', '.join(CLASSES)}, found {', '.join(found) or 'none'}"
        )
    numbers = {name: label for label, name in enumerate(CLASSES)}
    listed = ImageFolder.make_dataset(
        str(folder), numbers, is_valid_file=lambda path: _is_image(Path(path), folder), allow_empty=True
    )
    for name, number in numbers.items():
        if not any(label == number for _, label in listed):
            raise FileNotFoundError(f"no images in {(folder / name).resolve()}; both classes are needed")
    return [(Path(path), label) for path, label in listed]


def _is_image(path: Path, folder: Path) -> bool:
    """As prediction tells it; what file servers and systems add are copies, which would cross the split."""
    return not any(map(reading.is_of_a_system, path.relative_to(folder).parts)) and reading.is_radiograph(path)


def conflicting_duplicates(listing: Listing, hashes: Sequence[str]) -> list[Path]:
    """Files whose exact content also stands in the other class."""
    classes = Counter(content for content, _ in {*zip(hashes, listing.labels.tolist(), strict=True)})
    return [path for path, content in zip(listing.paths, hashes, strict=True) if classes[content] > 1]
