"""Exams with ground-truth boxes from a folder or a table, and prediction files."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import patients, reading, tables
from cxr.messages import first_of, quoted
from cxr.metrics import Array
from pytorch_detection import rsna_dataset
from pytorch_detection.rsna_dataset import SIDES, Exam, Listing, RsnaDetectionDataset

_PATIENT = "patient"
_PREDICTION_STRING = "PredictionString"


# ------------------------------------------------------------------------------------------------ ground-truth boxes


@dataclass(frozen=True)
class ExamSet:
    """Exams with their squares.

    Attributes:
        source: the folder or the table.
        exams: N, unreadable ones too.
        images: their squares and boxes, in the same order.
        sizes: int32 [N, 2], height and width of the originals in pixels.
        hashes: of the content of each file.
        readable: indices of the exams with a readable image.
        columns: for subgroups, N values each, empty where unknown: age, sex, view and the further columns of a table.
    """

    source: Path
    exams: list[Exam]
    images: RsnaDetectionDataset
    sizes: NDArray[np.int32]
    hashes: list[str]
    readable: NDArray[np.int64]
    columns: Mapping[str, list[str]]

    def of(self, indices: NDArray[np.int64]) -> list[Exam]:
        """The exams at ``indices``."""
        return [self.exams[index] for index in indices]


def load(
    data_dir: Path | None,
    table: Path | None,
    size: int,
    store_dir: Path,
    *,
    skip_bad: bool,
    allow_missing: bool,
    progress: bool = True,
) -> ExamSet:
    """The exams of ``table``, or else of the challenge's folder ``data_dir``, decoded to squares of ``size`` pixels.

    Raises:
        FileNotFoundError, ValueError: as ``rsna_dataset.list_exams``, ``list_table`` and ``reading.decode_once``, or a
            box exceeds its image.
    """
    if table is not None:
        listing = list_table(table)
    else:
        assert data_dir is not None
        listing = rsna_dataset.list_exams(data_dir, allow_missing=allow_missing)
    store = reading.decode_once(listing.paths, size, store_dir, name="exams", skip_bad=skip_bad, progress=progress)
    if not store.readable.all():
        warnings.warn(f"{(~store.readable).sum()} unreadable images are left out", stacklevel=2)
    if table is not None:
        by_name, ids = [""] * len(listing.paths), listing.exam_ids  # file names of other sources identify no patient
        identities = patients.identify(
            listing.paths, store.headers, stated=listing.patients, named=by_name, otherwise=ids
        )
        exams = rsna_dataset.exams_of(listing, store, identities)
    else:
        exams = rsna_dataset.read_exams(listing, store)
    return ExamSet(
        listing.source,
        exams,
        RsnaDetectionDataset(store.images, store.sizes, exams),
        store.sizes,
        store.hashes,
        np.flatnonzero(store.readable),
        patients.with_header_columns(listing.columns, store.headers),
    )


def list_table(path: Path) -> Listing:
    """The images of a table and their boxes; a path begins at the folder of the table if it is not absolute.

    The table has the columns path, x, y, width, height, a row for each box, and one without numbers for an image
    without a box; and optionally patient and others.

    Raises:
        FileNotFoundError: no such table.
        ValueError: not such a table, missing files, or invalid rows; names reason and lines.
    """
    rows = tables.read_table(path, ("path",), SIDES, others=True)
    files = tables.named_files(path, rows)
    rows = tables.as_numbers(path, rows, SIDES)
    names = [tables.slashed(name) for name in rows["path"]]
    rows = rows.assign(path=[str(file.resolve()) for file in files])  # one image may have several spellings
    sides = rows[[*SIDES]]
    boxed = sides.notna().all(axis=1)
    tables.refuse(path, sides.notna().any(axis=1) & ~boxed, "x, y, width or height is missing")
    sizes = sides[["width", "height"]]
    tables.refuse(
        path,
        (sizes <= 0).any(axis=1),
        "width or height is not above 0; a row for an image without a box has no numbers",
    )
    tables.refuse(path, (sizes < 1).all(axis=1), "the box is smaller than a pixel; boxes are in pixels of their image")
    tables.refuse(path, rows.duplicated(["path", *SIDES]), "duplicate row")
    with_box = set(rows["path"][boxed])
    tables.refuse(path, ~boxed & rows["path"].isin(with_box), "no box, but another row has a box for this image")
    first = ~rows.duplicated("path")
    images = rows["path"][first].tolist()
    columns = _image_columns(path, rows, first)
    boxes = rows.assign(exam=rows["path"].map({image: index for index, image in enumerate(images)}))[boxed]
    kept = np.flatnonzero(first)
    return Listing(
        source=path,
        box_table=path,
        exam_ids=[names[row] for row in kept],
        paths=[files[row] for row in kept],
        boxes=boxes,
        findings=[rsna_dataset.OPACITY_CLASS if image in with_box else rsna_dataset.UNCLASSIFIED for image in images],
        patients=patients.without_placeholders(columns.pop(_PATIENT, [""] * len(images))),
        columns=columns,
    )


def _image_columns(path: Path, rows: tables.Table, first: tables.Table) -> dict[str, list[str]]:
    """The further columns, a value for each image; those that differ between the boxes of an image are left out.

    Args:
        first: whether each of ``rows`` is the first of its image.

    Raises:
        ValueError: two patients for one image.
    """
    columns: dict[str, list[str]] = {}
    of_boxes: list[str] = []
    for name in rows.columns.drop(["path", *SIDES]):
        values = rows[name].fillna("").str.strip()
        differs = values != rows["path"].map(dict(zip(rows["path"][first], values[first], strict=True)))
        if name == _PATIENT:
            tables.refuse(path, differs, "another row has a different patient for this image")
        if differs.any():
            of_boxes.append(name)
        else:
            columns[name] = values[first].tolist()
    if of_boxes:
        warnings.warn(
            f"{path}: {first_of(of_boxes)} differs between boxes of one image: no subgroups by it", stacklevel=3
        )
    return columns


# -------------------------------------------------------------------------------------------------- prediction files


def read_predictions(
    path: Path, exams: Sequence[Exam], sizes: NDArray[np.int32], *, allow_missing: bool = False
) -> tuple[list[Array], list[Array], NDArray[np.int64]]:
    """Predicted boxes and scores of ``exams``, and the indices of the exams in the file.

    A submission to the challenge has the columns ``patientId`` and ``PredictionString``: repeatedly score, x, y, width
    and height. The other format has ``path``, ``x``, ``y``, ``width``, ``height`` and ``score``, a row for each box,
    and one without numbers for an image without a box. A path is absolute, or relative to the current directory or to
    the folder of the file, or the name of the image alone where it is unique.

    Args:
        path: the file.
        exams: N.
        sizes: [N, 2], height and width of the images in pixels; 0 where unreadable.
        allow_missing: leave out, with a warning, exams without a row.

    Returns:
        For each of the indices boxes float64 [n, 4] xyxy in pixels of the original image, and scores float64 [n].

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, images that are not among ``exams``, duplicates, invalid numbers, a box outside its
            image, or exams without a row.
    """
    table = tables.read_table(path, ("path", "patientId"), (), others=True)
    key = str(table.columns[0])
    if _PREDICTION_STRING in table:
        tables.refuse(path, table.duplicated(key), "duplicate image")
        table = _one_row_per_box(path, table, key)
    numbers = [*SIDES, "score"]
    if missing := [name for name in numbers if name not in table]:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; expected patientId and {_PREDICTION_STRING}, or path, "
            f"{', '.join(numbers)}"
        )
    table = tables.as_numbers(path, table, numbers)
    boxed = table[numbers].notna().all(axis=1)
    tables.refuse(path, table[numbers].notna().any(axis=1) & ~boxed, "x, y, width, height or score is missing")
    tables.refuse(path, boxed & ~table["score"].between(0, 1), "score is not from 0 to 1")
    # Rounded to a tenth of a pixel, a narrow box has width 0; it matches nothing.
    tables.refuse(path, (table[["width", "height"]] < 0).any(axis=1), "width or height is below 0")
    tables.refuse(path, table.duplicated([key, *numbers]), "duplicate row")
    known = _exam_names(exams)
    names = [str(name).strip() for name in table[key]]
    index = np.array([_exam_index(known, path.parent, name) for name in names], np.int64)
    if (index < 0).any():
        unknown = quoted(names[int((index < 0).argmax())])
        tables.refuse(path, table[key].notna() & (index < 0), f"unknown image {unknown}, not among the exams")
    boxes = table[["x", "y", "x", "y"]].to_numpy(np.float64)
    boxes[:, 2:] += table[["width", "height"]].to_numpy(np.float64)
    boxed = boxed.to_numpy(np.bool_)
    if boxed.any() and boxes[boxed].max() <= 1:
        raise ValueError(f"{path}: all boxes lie in the first pixel; expected pixels of the original image")
    _require_inside(path, table, boxes, sizes[index], boxed)
    found = np.unique(index)
    _require_all(path, exams, found, sizes, allow_missing)
    rows = [np.flatnonzero((index == each) & boxed) for each in found]
    scores = table["score"].to_numpy(np.float64)
    return [boxes[at] for at in rows], [scores[at] for at in rows], found


def _require_inside(
    path: Path, table: tables.Table, boxes: Array, sizes: NDArray[np.int32], boxed: NDArray[np.bool_]
) -> None:
    """Refuse boxes that lie outside their image; warn of those that exceed it by more than a pixel."""
    first, last, size = boxes[:, :2], boxes[:, 2:], sizes[:, ::-1]  # x and y of each
    outside = (((first >= size) & (last > size)) | ((last <= 0) & (first < 0))).any(axis=1)
    exceeds = ((first < -1) | (last > size + 1)).any(axis=1)
    readable = boxed & (size > 0).all(axis=1)
    tables.refuse(path, table["score"].notna() & (readable & outside), "the box lies outside the image")
    if count := int((readable & exceeds).sum()):
        warnings.warn(f"{path}: {count} boxes exceed their image by more than a pixel", stacklevel=3)


def _require_all(
    path: Path, exams: Sequence[Exam], found: NDArray[np.int64], sizes: NDArray[np.int32], allow_missing: bool
) -> None:
    """Refuse, or warn, that readable exams have no row."""
    missing = np.setdiff1d(np.flatnonzero(sizes[:, 0] > 0), found)
    if not missing.size:
        return
    text = (
        f"{path}: no row for {missing.size} of {len(exams)} exams (first: {exams[int(missing[0])].exam_id}); an exam "
        "without a box needs a row without numbers"
    )
    if not allow_missing:
        raise ValueError(f"{text}. Leave such exams out with --allow-missing")
    warnings.warn(f"{text}; left out", stacklevel=3)


def _one_row_per_box(path: Path, table: tables.Table, key: str) -> tables.Table:
    """A row for each box of a submission, and one without numbers for each image without a box; indexed by line."""
    import pandas as pd

    lines: list[int] = []
    rows: list[list[str | None]] = []
    for line, name, text in zip(table.index, table[key], table[_PREDICTION_STRING].fillna(""), strict=True):
        words = text.split()
        if len(words) % 5:
            raise ValueError(
                f"{path}: {_PREDICTION_STRING} has {len(words)} numbers, found {quoted(text)}; expected score, x, y, "
                f"width and height for each box (line {line})"
            )
        for first in range(0, max(1, len(words)), 5):
            lines.append(line)
            rows.append([name, *(words[first : first + 5] or [None] * 5)])
    return pd.DataFrame(rows, index=lines, columns=[key, "score", *SIDES], dtype=str)


def _exam_names(exams: Sequence[Exam]) -> dict[str, int]:
    """The index of each exam by each of its names that is unique."""
    names_of = [{exam.exam_id, exam.path.name, exam.path.stem, str(exam.path.resolve())} for exam in exams]
    counts = Counter(name for names in names_of for name in names)
    return {name: index for index, names in enumerate(names_of) for name in names if counts[name] == 1}


def _exam_index(known: Mapping[str, int], folder: Path, name: str) -> int:
    """The exam that a row names; -1 for none."""
    slashed = tables.slashed(name)
    spellings = (name, *(str(place.resolve()) for place in (Path(slashed), folder / slashed)), Path(slashed).name)
    return next((known[spelling] for spelling in spellings if spelling in known), -1)
