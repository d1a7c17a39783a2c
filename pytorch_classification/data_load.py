"""Lists of labelled images with their patients, from Kaggle's folders, other class folders, or a table."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxr import patients, reading, tables
from cxr.messages import composed, first_of, quoted
from cxr.reading import Header

CLASSES = ("NORMAL", "PNEUMONIA")
PNEUMONIA = CLASSES.index("PNEUMONIA")

# Bacterial and viral numbers count separately, so person17 may be two children; as one patient they cannot leak.
_PNEUMONIA_NAME = re.compile(r"(person\d+)_(?:bacteria|virus)_\d+")
# The NORMAL2- prefix starts a separate numbering and must stay part of the name.
_NORMAL_NAME = re.compile(r"((?:NORMAL2-)?IM-\d+)-\d+")

ClassNames: TypeAlias = tuple[Sequence[str], Sequence[str]]  # of NORMAL and PNEUMONIA, in folders and tables
KAGGLE_NAMES: ClassNames = ((CLASSES[0],), (CLASSES[1],))
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """Images of one or more folders, or of a table.

    Attributes:
        paths: N files.
        labels: int64 [N], index into ``CLASSES``.
        patients: N group names; images that may show one patient share one. DICOM headers are not used before
            ``identify_patients``.
        columns: the other columns of the table, N values each, empty where there is none.
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
    """The patient of a Kaggle file name: ``person17_bacteria_56.jpeg`` is ``person17``; None for any other name."""
    found = _PNEUMONIA_NAME.match(path.name) or _NORMAL_NAME.match(path.name)
    return found.group(1) if found else None


def patients_of_each_class(labels: NDArray[np.int64], groups: Sequence[str]) -> list[set[str]]:
    """The patients with an image of class 0, and those with one of class 1."""
    return [{name for name, of in zip(groups, labels, strict=True) if of == label} for label in range(len(CLASSES))]


def relative_name(path: Path, root: Path) -> str:
    """``path`` below ``root`` with slashes on every system; where no patient is known, the split depends on it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def list_splits(data_dir: Path, table: Path | None, *splits: str, names: ClassNames = KAGGLE_NAMES) -> Listing:
    """The images of ``splits`` in the table if there is one, otherwise in the folders of ``data_dir``."""
    return list_table(table, *splits, names=names) if table else list_folders(data_dir, *splits, names=names)


def list_folders(data_dir: Path, *splits: str, names: ClassNames = KAGGLE_NAMES) -> Listing:
    """The images of ``data_dir/<split>/{NORMAL,PNEUMONIA}``, under other class ``names`` if given.

    Raises:
        FileNotFoundError: a split folder is missing, or a class folder is empty.
        ValueError: the class folders are not those expected.
    """
    found = [sample for split in splits for sample in _samples(data_dir / split, names)]
    groups = [patient_of(path) or relative_name(path, data_dir) for path, _ in found]
    return Listing([path for path, _ in found], np.array([label for _, label in found], dtype=np.int64), groups)


def list_table(table: Path, *splits: str, names: ClassNames = KAGGLE_NAMES) -> Listing:
    """The images of a CSV with the columns ``path`` and ``label``, and optionally ``patient``, ``split`` and others.

    Paths are relative to the folder of the table, or absolute. With a column ``split``, only the rows of ``splits``.

    Raises:
        FileNotFoundError: no such table.
        ValueError: not such a table, missing or repeated files, an unknown label or split, or only one class.
    """
    rows = tables.read_table(table, ("path",), ("label",), others=True)
    files = tables.named_files(table, rows)
    tables.refuse_repeated(table, rows, files)
    text: tables.Table = rows.fillna("").map(str.strip)
    text["label"] = text["label"].map(composed)
    number = _labels(names)
    found = first_of([quoted(label) for label in sorted({*text["label"]})])
    expected = f"label is none of {', '.join(number)}; found {found}. Name yours with --normal and --pneumonia"
    tables.refuse(table, ~text["label"].isin([*number]), expected)
    columns = {name: text[name].tolist() for name in text if name not in ("path", "label")}
    if "patient" in columns:
        columns["patient"] = patients.without_placeholders(columns["patient"])
    groups = [
        patient or patient_of(file) or tables.slashed(name)
        for patient, file, name in zip(columns.get("patient", [""] * len(files)), files, rows["path"], strict=True)
    ]
    listing = Listing(files, np.array([number[name] for name in text["label"]], dtype=np.int64), groups, columns)
    if "split" in columns:
        tables.refuse(table, ~text["split"].isin(SPLITS), f"split is none of {', '.join(SPLITS)}")
        listing = listing.take(np.flatnonzero(text["split"].isin(splits)))
    for label, class_names in enumerate(names):
        if label not in listing.labels:
            where = f" and split {' or '.join(splits)}" if "split" in columns else ""
            raise ValueError(f"{table}: no image of label {' or '.join(class_names)}{where}; both classes are needed")
    return listing


def missing_test(data_dir: Path, table: Path | None) -> str:
    """Why there are no test images; empty where there is a folder ``test``, or rows of that split."""
    if table is None:
        return "" if (data_dir / "test").is_dir() else f"no folder {data_dir / 'test'}"
    rows = tables.read_table(table, ("path",), (), others=True)
    has_test = "split" in rows and bool((rows["split"].str.strip() == "test").any())
    return "" if has_test else f"no row of split test in {table}"


def identify_patients(listing: Listing, headers: Sequence[Header]) -> Listing:
    """``listing`` with patients from DICOM headers where its table has none; a warning counts unknown patients."""
    identified = patients.identify(
        listing.paths,
        headers,
        stated=listing.columns.get("patient", [""] * len(listing)),
        named=[patient_of(path) or "" for path in listing.paths],
        otherwise=listing.patients,
    )
    return replace(listing, patients=identified)


def _labels(names: ClassNames) -> dict[str, int]:
    """The label of each class name."""
    if both := [name for name in names[0] if name in names[1]]:
        raise ValueError(f"both --normal and --pneumonia name {both[0]}")
    return {composed(name): label for label, class_names in enumerate(names) for name in class_names}


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, sorted, without those of file servers and operating systems."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not reading.is_system_file(entry.name))


def _samples(folder: Path, names: ClassNames) -> list[tuple[Path, int]]:
    labels = _labels(names)
    expected = f"expected the class folders {', '.join(labels)}"
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.resolve()}; --data-dir needs it; {expected} in it")
    found = {composed(name): folder / name for name in class_folders(folder)}
    if sorted(found) != sorted(labels):
        given = ", ".join(found) or "none"
        raise ValueError(f"{folder}: {expected} (name yours with --normal and --pneumonia), found {given}")
    return [(path, labels[name]) for name, place in found.items() for path in reading.find_images([str(place)])]


def conflicting_duplicates(paths: Sequence[Path], labels: NDArray[np.int64], hashes: Sequence[str]) -> list[Path]:
    """Files whose exact content is also in the other class."""
    classes = Counter(content for content, _ in {*zip(hashes, labels.tolist(), strict=True)})
    return [path for path, content in zip(paths, hashes, strict=True) if classes[content] > 1]
