"""Tables of boxes: exams with true boxes, and boxes that anyone has predicted."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import patients, reading, tables
from cxr.messages import first_of, quoted
from cxr.metrics import Array
from cxr.patients import identify
from cxr.reading import Decoded
from pytorch_detection import rsna_dataset
from pytorch_detection.rsna_dataset import Box, Exam, RsnaDetectionDataset

PATIENT = "patient"
_SIDES = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Collection:
    """Exams with their squares.

    Attributes:
        source: the folder or the table.
        exams: N, also those that cannot be read.
        images: their squares and boxes, in the same order.
        sizes: int32 [N, 2], height and width of the originals in pixels.
        hashes: of the content of each file.
        readable: indices of the exams whose image can be read.
        columns: what else is known of each exam, N values each, empty where it is not: age, sex, view and the further
            columns of a table.
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
) -> Collection:
    """The exams of ``table``, or of the challenge's folder ``data_dir``, decoded to squares of ``size`` pixels.

    Raises:
        FileNotFoundError, ValueError: as ``rsna_dataset.list_exams``, ``read_table`` and ``reading.decode_once``, or a
            box reaches outside its image.
    """
    if table is not None:
        listing = read_table(table)
    else:
        assert data_dir is not None
        listing = rsna_dataset.list_exams(data_dir, allow_missing=allow_missing)
    store = reading.decode_once(listing.paths, size, store_dir, name="exams", skip_bad=skip_bad, progress=progress)
    if not store.readable.all():
        warnings.warn(f"{(~store.readable).sum()} images that cannot be read are left out", stacklevel=2)
    said = patients.header_columns(store.headers)
    if isinstance(listing, TableListing):
        exams = read_exams(listing, store)
        own = {name.casefold() for name in listing.columns}
        said = {name: values for name, values in said.items() if name not in own} | listing.columns
    else:
        exams = rsna_dataset.read_exams(listing, store)
    return Collection(
        listing.source,
        exams,
        RsnaDetectionDataset(store.images, store.sizes, exams),
        store.sizes,
        store.hashes,
        np.flatnonzero(store.readable),
        said,
    )


@dataclass(frozen=True)
class TableListing:
    """What a table says, checked; no picture was read for it.

    Attributes:
        source: the table.
        names: of the images, as the table has them, in its order; ``paths`` are in the same order.
        rows: with a box; the index is the line in the file, the column ``image`` an index into ``names``.
        patients: of each image, empty where the table does not say.
        columns: its further columns, a value for each image.
    """

    source: Path
    names: list[str]
    paths: list[Path]
    rows: tables.Table
    patients: list[str]
    columns: dict[str, list[str]]


def read_table(path: Path) -> TableListing:
    """The images of a table and their boxes; a path begins at the folder of the table if it is not absolute.

    Raises:
        FileNotFoundError: no such table.
        ValueError: not such a table, files that are not there, or rows that cannot be; by reason and lines.
    """
    rows = tables.read_table(path, ("path",), _SIDES, others=True)
    files = tables.named_files(path, rows)
    rows = tables.as_numbers(path, rows, _SIDES)
    names = [tables.slashed(name) for name in rows["path"]]
    rows = rows.assign(path=[str(file.resolve()) for file in files])  # one image may be named in several ways
    sides = rows[[*_SIDES]]
    boxed = sides.notna().all(axis=1)
    tables.refuse(path, sides.notna().any(axis=1) & ~boxed, "x, y, width or height is missing")
    sizes = sides[["width", "height"]]
    tables.refuse(
        path,
        (sizes <= 0).any(axis=1),
        "width or height is not above 0; a row for an image without a box has no numbers",
    )
    tables.refuse(path, (sizes < 1).all(axis=1), "the box is smaller than a pixel; boxes are in pixels of their image")
    tables.refuse(path, rows.duplicated(["path", *_SIDES]), "the row stands there before")
    with_box = set(rows["path"][boxed])
    tables.refuse(path, ~boxed & rows["path"].isin(with_box), "no box, but another row has one for this image")
    first = ~rows.duplicated("path")
    images = rows["path"][first]
    further = rows.drop(columns=["path", *_SIDES]).fillna("")
    columns: dict[str, list[str]] = {}
    of_boxes: list[str] = []
    for name in further:
        values = further[name].str.strip()
        differs = values != rows["path"].map(dict(zip(images, values[first], strict=True)))
        if name == PATIENT:
            tables.refuse(path, differs, "the image has another patient in a row before")
        if differs.any():
            of_boxes.append(name)
        else:
            columns[name] = values[first].tolist()
    if of_boxes:
        warnings.warn(
            f"{path}: {first_of(of_boxes)} differs between boxes of one image, so there are no results by it",
            stacklevel=2,
        )
    patients = columns.pop(PATIENT, [""] * len(images))
    at = np.flatnonzero(first)
    place = {image: number for number, image in enumerate(images)}
    boxes = rows.assign(image=rows["path"].map(place))[boxed]
    return TableListing(path, [names[row] for row in at], [files[row] for row in at], boxes, patients, columns)


def read_exams(listing: TableListing, store: Decoded) -> list[Exam]:
    """The exams of ``listing`` with what ``store``, decoded from its paths, knows of their pictures and headers.

    Raises:
        ValueError: a box reaches outside of its image.
    """
    rows = listing.rows
    boxes = rsna_dataset.inside(listing.source, rows, store.sizes[rows["image"].to_numpy(np.int64)])
    of_image: list[list[Box]] = [[] for _ in listing.names]
    for image, box in zip(rows["image"], boxes, strict=True):
        of_image[image].append(box)
    unnamed = [""] * len(listing.names)
    patients = identify(listing.paths, store.headers, stated=listing.patients, named=unnamed, otherwise=listing.names)
    return [
        Exam(
            name,
            path,
            tuple(found),
            rsna_dataset.OPACITY_CLASS if found else rsna_dataset.UNCLASSIFIED,
            patient,
            header.age_years,
            header.sex,
            header.view,
        )
        for name, path, found, patient, header in zip(
            listing.names, listing.paths, of_image, patients, store.headers, strict=True
        )
    ]


_SUBMITTED = "PredictionString"


def read_predictions(
    path: Path, exams: Sequence[Exam], sizes: NDArray[np.int32], *, allow_missing: bool = False
) -> tuple[list[Array], list[Array], NDArray[np.int64]]:
    """Predicted boxes and scores of ``exams``, and the indices of those that the file speaks of.

    A submission has the columns ``patientId`` and ``PredictionString``: score, x, y, width and height, again and again.
    The other form has ``path``, ``x``, ``y``, ``width``, ``height`` and ``score``, a row for each box, and one without
    numbers for an image without a box. A path may be whole, from the current directory or the folder of the file on,
    or the name of the image alone where no other has it.

    Args:
        path: the file.
        exams: N.
        sizes: [N, 2], height and width of the images in pixels.
        allow_missing: exams without a row are left out, instead of refused.

    Returns:
        For each of the indices boxes float64 [n, 4] xyxy in pixels of the original image, and scores float64 [n].

    Raises:
        FileNotFoundError: no such file.
        ValueError: another form, images that are none of ``exams`` or stand there twice, numbers that cannot be, a box
            outside its image, or exams without a row.
    """
    table = tables.read_table(path, ("path", "patientId"), (), others=True)
    key = str(table.columns[0])
    if _SUBMITTED in table:
        tables.refuse(path, table.duplicated(key), "the image stands in a row before")
        table = _unpacked(path, table, key)
    elif missing := [name for name in (*_SIDES, "score") if name not in table]:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; expected patientId and {_SUBMITTED}, or path, "
            f"{', '.join(_SIDES)} and score"
        )
    table = tables.as_numbers(path, table, (*_SIDES, "score"))
    sides, boxed = table[[*_SIDES, "score"]], table[[*_SIDES, "score"]].notna().all(axis=1)
    tables.refuse(path, sides.notna().any(axis=1) & ~boxed, "x, y, width, height or score is missing")
    tables.refuse(path, boxed & ~table["score"].between(0, 1), "score is not from 0 to 1")
    # One narrower than the table's digits is 0 wide, and hits nothing.
    tables.refuse(path, (sides[["width", "height"]] < 0).any(axis=1), "width or height is below 0")
    tables.refuse(path, table.duplicated([key, *_SIDES, "score"]), "the row stands there before")
    known = _names(exams)
    names = [str(name).strip() for name in table[key]]
    index = np.array([_index(known, path.parent, name) for name in names], np.int64)
    if (index < 0).any():
        unknown = quoted(names[int((index < 0).argmax())])
        tables.refuse(path, table[key].notna() & (index < 0), f"an image is none of those to judge: {unknown}")
    boxes = sides.to_numpy(np.float64)[:, [0, 1, 0, 1]]
    boxes[:, 2:] += sides[["width", "height"]].to_numpy(np.float64)
    if boxed.any() and boxes[boxed].max() <= 1:
        raise ValueError(f"{path}: all boxes lie in the first pixel; expected them in pixels of their image")
    first, last, size = boxes[:, :2], boxes[:, 2:], sizes[index, ::-1]  # x and y of each
    outside = (((first >= size) & (last > size)) | ((last <= 0) & (first < 0))).any(axis=1)
    beyond = ((first < -1) | (last > size + 1)).any(axis=1)
    readable = boxed.to_numpy(np.bool_) & (size > 0).all(axis=1)
    tables.refuse(path, boxed & (readable & outside), "the box lies outside the image")
    if across := int((readable & beyond).sum()):
        warnings.warn(f"{path}: {across} boxes reach beyond their image by more than a pixel", stacklevel=2)
    there = np.unique(index)
    _require_all(path, exams, there, sizes, allow_missing)
    rows = {place: np.flatnonzero((index == place) & boxed) for place in there.tolist()}
    score = sides["score"].to_numpy(np.float64)
    return [boxes[at] for at in rows.values()], [score[at] for at in rows.values()], there


def _require_all(
    path: Path, exams: Sequence[Exam], there: NDArray[np.int64], sizes: NDArray[np.int32], allow_missing: bool
) -> None:
    """Refuse, or say, that exams have no row; those that cannot be read need none."""
    missing = np.setdiff1d(np.flatnonzero(sizes[:, 0] > 0), there)
    if not missing.size:
        return
    text = (
        f"{path}: no row for {missing.size} of {len(exams)} exams (first: {exams[int(missing[0])].exam_id}); one "
        "without a box needs a row without numbers"
    )
    if not allow_missing:
        raise ValueError(f"{text}. Leave such exams out with --allow-missing")
    warnings.warn(f"{text}; left out", stacklevel=3)


def _unpacked(path: Path, table: tables.Table, key: str) -> tables.Table:
    """A row for each box of a submission, and one without numbers for each image without one; indexed by line."""
    import pandas as pd

    rows = list(_boxes_of(path, table, key))
    lines = [line for line, *_ in rows]
    return pd.DataFrame([row for _, *row in rows], index=lines, columns=[key, "score", *_SIDES], dtype=str)


def _boxes_of(path: Path, table: tables.Table, key: str) -> Iterator[tuple[object, ...]]:
    """Line, image, score and sides as text."""
    for line, name, text in zip(table.index, table[key], table[_SUBMITTED].fillna(""), strict=True):
        words = str(text).split()
        if len(words) % 5:
            raise ValueError(
                f"{path}: {_SUBMITTED} has {len(words)} numbers, found {quoted(text)}; expected score, x, y, width and "
                f"height for each box (line {line})"
            )
        for first in range(0, max(1, len(words)), 5):
            yield (line, name, *(words[first : first + 5] or [None] * 5))


def _names(exams: Sequence[Exam]) -> dict[str, int]:
    """The index of each exam by every name that only it has."""
    ways = [{exam.exam_id, exam.path.name, exam.path.stem, str(exam.path.resolve())} for exam in exams]
    counts = Counter(name for names in ways for name in names)
    return {name: index for index, names in enumerate(ways) for name in names if counts[name] == 1}


def _index(known: dict[str, int], folder: Path, name: str) -> int:
    """The exam that a row names; -1 for none."""
    slashed = tables.slashed(name)
    ways = (name, *(str(place.resolve()) for place in (Path(slashed), folder / slashed)), Path(slashed).name)
    return next((known[way] for way in ways if way in known), -1)


def lowest(scores: Sequence[Array]) -> float | None:
    """The lowest score of all boxes, at which all of them count; None without a box."""
    return min((float(some.min()) for some in scores if some.size), default=None)
