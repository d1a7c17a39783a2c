"""Radiographs with true boxes, to train on or to be judged on: the RSNA challenge's folder, or a table of one's own.

The table is a CSV with the columns ``path``, ``x``, ``y``, ``width`` and ``height``: a row for each box, in pixels of
its own image, and one row without numbers for an image without a box. Images may have any sizes. ``patient`` and
further columns say something of the image; each row of an image says the same.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import reading, subgroups, tables
from cxr.patients import identified
from cxr.reading import Decoded
from cxr.text import first_of
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
    said = subgroups.of_headers(store.headers)
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
    patients = identified(listing.paths, store.headers, stated=listing.patients, named=unnamed, otherwise=listing.names)
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
