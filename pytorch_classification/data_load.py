"""Labelled images as lists with their class and patient: Kaggle's folders, folders of one's own, or a table."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxr import reading, tables
from cxr.messages import first_of, quoted
from cxr.patients import identify
from cxr.reading import Header
from pytorch_classification.settings import TrainConfig

CLASSES = ("NORMAL", "PNEUMONIA")
PNEUMONIA = CLASSES.index("PNEUMONIA")

# Numbers of bacteria and virus names count separately, so person17 may be two children; one group of both never leaks.
_PNEUMONIA_NAME = re.compile(r"(person\d+)_(?:bacteria|virus)_\d+")
# The NORMAL2- prefix is a numbering of its own and must stay part of the name.
_NORMAL_NAME = re.compile(r"((?:NORMAL2-)?IM-\d+)-\d+")

Names: TypeAlias = tuple[Sequence[str], Sequence[str]]  # what NORMAL and what PNEUMONIA is called in folders and tables
KAGGLE_NAMES: Names = ((CLASSES[0],), (CLASSES[1],))
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """Images of one or more folders, or of a table.

    Attributes:
        paths: N files.
        labels: int64 [N], index into ``CLASSES``.
        patients: N group names; images that may show one patient have the same one. Before ``identified``, DICOM
            headers have had no say.
        columns: the further columns of the table, N values each, empty where there is none.
    """

    paths: list[Path]
    labels: NDArray[np.int64]
    patients: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: NDArray[np.int64]) -> "Listing":
        """The images at ``indices``, in that order."""
        return Listing(
            [self.paths[i] for i in indices],
            self.labels[indices],
            [self.patients[i] for i in indices],
            {name: [values[i] for i in indices] for name, values in self.columns.items()},
        )


def patient_of(path: Path) -> str | None:
    """The patient of a Kaggle file name: ``person17_bacteria_56.jpeg`` is ``person17``; None for another form."""
    found = _PNEUMONIA_NAME.match(path.name) or _NORMAL_NAME.match(path.name)
    return found.group(1) if found else None


def patients_of_each_class(labels: NDArray[np.int64], patients: Sequence[str]) -> list[set[str]]:
    """Those with an image of class 0, and those with one of class 1."""
    return [{name for name, of in zip(patients, labels, strict=True) if of == label} for label in range(len(CLASSES))]


def place(path: Path, root: Path) -> str:
    """How ``path`` is called below ``root``, the same on Windows: the split depends on it where no patient is known."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def list_images(data_dir: Path, *splits: str, names: Names = KAGGLE_NAMES) -> Listing:
    """The images of ``data_dir/<split>/{NORMAL,PNEUMONIA}``, or what these are called, for every one of ``splits``.

    Raises:
        FileNotFoundError: a split folder is missing, or a class folder is empty.
        ValueError: the class folders are not those expected.
    """
    found = [sample for split in splits for sample in _samples(data_dir / split, names)]
    patients = [patient_of(path) or place(path, data_dir) for path, _ in found]
    return Listing([path for path, _ in found], np.array([label for _, label in found], dtype=np.int64), patients)


def read_table(table: Path, *splits: str, names: Names = KAGGLE_NAMES) -> Listing:
    """The images of a CSV with the columns ``path`` and ``label``, and ``patient``, ``split`` and others if you like.

    A path begins at the folder of the table if it is not absolute. Where there is a column ``split``, the rows of
    ``splits`` are taken.

    Raises:
        FileNotFoundError: no such table.
        ValueError: not such a table, files that are not there or named twice, a label or a split of another name, or
            one class alone.
    """
    rows = tables.read_table(table, ("path",), ("label",), others=True)
    files = tables.named_files(table, rows)
    tables.refuse_repeated(table, rows, files)
    text: tables.Table = rows.fillna("").map(str.strip)
    number = _numbered(names)
    strange = ~text["label"].isin([*number])
    kinds = sorted({*text["label"]})
    tables.refuse(
        table,
        strange,
        f"label is none of {', '.join(number)}; found {first_of([quoted(kind) for kind in kinds])}. Say with --normal "
        "and --pneumonia what yours are called",
    )
    columns = {name: text[name].tolist() for name in text if name not in ("path", "label")}
    patients = [
        patient or patient_of(file) or tables.slashed(name)
        for patient, file, name in zip(columns.get("patient", [""] * len(files)), files, rows["path"], strict=True)
    ]
    listing = Listing(files, np.array([number[name] for name in text["label"]], dtype=np.int64), patients, columns)
    if "split" in columns:
        tables.refuse(table, ~text["split"].isin(SPLITS), f"split is none of {', '.join(SPLITS)}")
        listing = listing.take(np.flatnonzero(text["split"].isin(splits)))
    for label, called in enumerate(names):
        if label not in listing.labels:
            where = f" and split {' or '.join(splits)}" if "split" in columns else ""
            raise ValueError(f"{table}: no image of label {' or '.join(called)}{where}; both classes are needed")
    return listing


def listed(config: TrainConfig, *splits: str) -> Listing:
    """The images of these ``splits`` that a training names, by folders or a table."""
    names = (config.normal, config.pneumonia)
    if config.table is None:
        return list_images(config.data_dir, *splits, names=names)
    return read_table(config.table, *splits, names=names)


def missing_test(config: TrainConfig) -> str:
    """Why there are no images to be judged on; empty where a folder ``test``, or rows of that split, are there."""
    if config.table is None:
        return "" if (config.data_dir / "test").is_dir() else f"no folder {config.data_dir / 'test'}"
    rows = tables.read_table(config.table, ("path",), (), others=True)
    there = "split" in rows and bool((rows["split"].str.strip() == "test").any())
    return "" if there else f"no row of split test in {config.table}"


def identified(listing: Listing, headers: Sequence[Header]) -> Listing:
    """``listing`` with the patients that DICOM files name, unless its table does; one warning counts who is unknown.

    The images of patients whom neither table nor header nor name tells count as one patient each.
    """
    patients = identify(
        listing.paths,
        headers,
        stated=listing.columns.get("patient", [""] * len(listing)),
        named=[patient_of(path) or "" for path in listing.paths],
        otherwise=listing.patients,
    )
    return replace(listing, patients=patients)


def _numbered(names: Names) -> dict[str, int]:
    """The label of each name."""
    numbers = {name: label for label, called in enumerate(names) for name in called}
    both = [name for name in names[0] if name in names[1]]
    if both:
        raise ValueError(f"both --normal and --pneumonia name {both[0]}")
    return numbers


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, sorted, without those of file servers and systems."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not reading.is_of_a_system(entry.name))


def _samples(folder: Path, names: Names) -> list[tuple[Path, int]]:
    numbers = _numbered(names)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder.resolve()}, which --data-dir names; expected the class folders {', '.join(numbers)} in "
            "it"
        )
    found = class_folders(folder)
    if found != sorted(numbers):
        raise ValueError(
            f"{folder}: expected the class folders {', '.join(numbers)} (--normal and --pneumonia say what yours are "
            f"called), found {', '.join(found) or 'none'}"
        )
    return [(path, numbers[name]) for name in found for path in reading.find_images([str(folder / name)])]


def conflicting_duplicates(listing: Listing, hashes: Sequence[str]) -> list[Path]:
    """Files whose exact content also stands in the other class."""
    classes = Counter(content for content, _ in {*zip(hashes, listing.labels.tolist(), strict=True)})
    return [path for path, content in zip(listing.paths, hashes, strict=True) if classes[content] > 1]
