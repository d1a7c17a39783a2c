"""The RSNA Pneumonia Detection Challenge folder as exams with boxes, divided by patient, and as a torch dataset.

Boxes in the table are ``x, y, width, height`` in pixels of the original image, x to the right and y down from the top
left corner. Here they are xyxy: ``(x, y, x + width, y + height)``.
"""

import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxr.reading import Decoded
from cxr.tables import Table, as_numbers, read_table, refuse

Box: TypeAlias = tuple[float, float, float, float]

OPACITY = 1  # the label of a box; 0 is the background of torchvision's detectors
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
OPACITY_CLASS = CLASSES[-1]
UNCLASSIFIED = "No Lung Opacity"  # a chest without a box, of which no class is given
_ABNORMAL = {CLASSES[0]: 0.0, CLASSES[1]: 1.0, CLASSES[2]: 1.0, UNCLASSIFIED: float("nan")}

IMAGES = "stage_2_train_images"
LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{MAPPING}"

_NIH_NAME = re.compile(r"(\d{8})_\d+\.\w+")
_LINES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Exam:
    """One radiograph of the challenge, which calls its id ``patientId`` although a patient may have many.

    Attributes:
        exam_id: file name without ``.dcm``.
        path: of the DICOM file.
        boxes_xyxy: opacities, in pixels of the original image; none for a chest without opacity.
        finding: one of ``CLASSES``, or ``UNCLASSIFIED``.
        patient: NIH patient number; the exam id where that is unknown.
        age_years, sex, view: from the DICOM header: completed years, ``M`` or ``F``, ``AP`` or ``PA``; None where it
            does not say, or says something impossible.
    """

    exam_id: str
    path: Path
    boxes_xyxy: tuple[Box, ...]
    finding: str
    patient: str
    age_years: int | None
    sex: str | None
    view: str | None


@dataclass(frozen=True)
class Listing:
    """What the tables of a folder say of its complete exams, checked; no picture was read for it.

    Attributes:
        source: the folder.
        exam_ids: sorted; ``paths`` of the DICOM files are in the same order.
        labels: rows of ``LABELS`` of these exams; the index is the line in the file.
        findings, patients: of each exam that a table knows.
    """

    source: Path
    exam_ids: list[str]
    paths: list[Path]
    labels: Table
    findings: dict[str, str]
    patients: dict[str, str]


def list_exams(data_dir: Path, *, allow_missing: bool = False) -> Listing:
    """The exams of a folder as the Kaggle zip unpacks, sorted by id.

    The folder holds ``IMAGES`` and ``LABELS``; ``CLASS_INFO`` and ``MAPPING`` are read where they are. Without the
    mapping each exam counts as a patient, with a warning; an exam that the mapping does not know does so too.

    Args:
        allow_missing: leave out, with a warning, exams that have a label but no DICOM file or the reverse.

    Raises:
        FileNotFoundError: the folder, its images or its labels are not there.
        ValueError: a table or the mapping is not what it should be, or exams are incomplete (unless
            ``allow_missing``). Tables are refused by column, reason and lines.
    """
    if not data_dir.is_dir():
        raise FileNotFoundError(f"no folder {data_dir.resolve()}; the data folder is to hold {IMAGES}/ and {LABELS}")
    labels = _read_labels(data_dir / LABELS)
    paths = _image_paths(data_dir / IMAGES)
    exam_ids = _complete_exams(data_dir, set(labels["patientId"]), set(paths), allow_missing)
    labels = labels[labels["patientId"].isin(exam_ids)]
    with_box = set(labels["patientId"][labels["Target"] == 1])
    findings = _read_findings(data_dir / CLASS_INFO, with_box, exam_ids)
    patients = _read_patients(data_dir / MAPPING, exam_ids)
    return Listing(data_dir, exam_ids, [paths[exam_id] for exam_id in exam_ids], labels, findings, patients)


def read_exams(listing: Listing, store: Decoded) -> list[Exam]:
    """The exams of ``listing`` with what ``store``, decoded from its paths, knows of their pictures and headers.

    Raises:
        ValueError: the images differ in size, or a box reaches outside of its image.
    """
    sizes = dict(zip(listing.exam_ids, map(tuple, store.sizes.tolist()), strict=True))
    _require_one_size(listing.source / IMAGES, sizes)
    boxes = _boxes(listing.source / LABELS, listing.labels, sizes)
    patients = _patients(listing, [header.patient for header in store.headers])
    return [
        Exam(
            exam_id,
            path,
            tuple(boxes.get(exam_id, ())),
            listing.findings[exam_id],
            patient,
            header.age_years,
            header.sex,
            header.view,
        )
        for exam_id, path, patient, header in zip(listing.exam_ids, listing.paths, patients, store.headers, strict=True)
    ]


def _patients(listing: Listing, in_header: list[str]) -> list[str]:
    """The patient of each exam: by the mapping, else by the Patient ID, else each is one.

    The challenge's own files have the exam's id for a Patient ID: what is another one in each file says nothing.
    """
    unmapped = [
        found
        for exam_id, found in zip(listing.exam_ids, in_header, strict=True)
        if found and exam_id not in listing.patients
    ]
    tells = 1 < len({*unmapped}) < len(unmapped)
    if not listing.patients and not tells:
        warnings.warn(
            f"no {listing.source / MAPPING}: exams are split one by one, so that patients may be in two parts and "
            f"scores are too optimistic. Get the mapping from {MAPPING_URL}",
            stacklevel=4,
        )
    return [
        listing.patients.get(exam_id) or (found if tells else "") or exam_id
        for exam_id, found in zip(listing.exam_ids, in_header, strict=True)
    ]


def describe(exams: Sequence[Exam]) -> str:
    """One line for the terminal: how many exams, patients, opacities and boxes."""
    unknown = sum(exam.patient == exam.exam_id for exam in exams)
    line = (
        f"{len(exams):,} exams of {len({exam.patient for exam in exams}):,} patients, "
        f"{sum(bool(exam.boxes_xyxy) for exam in exams):,} with opacity "
        f"({sum(len(exam.boxes_xyxy) for exam in exams):,} boxes)"
    )
    return line + (f"; {unknown:,} exams of unknown patients count as patients of their own" if unknown else "")


def epoch_indices(
    exams: Sequence[Exam],
    indices: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    negatives_per_positive: float | None = None,
) -> NDArray[np.int64]:
    """The exams of one epoch in random order: all of ``indices`` with opacity, and some of those without.

    Args:
        exams: that ``indices`` point into.
        indices: training exams.
        seed: with ``epoch`` it decides the draw and the order.
        epoch: its number.
        negatives_per_positive: exams without opacity that are drawn (none twice) for each one with; all by default.
    """
    generator = np.random.default_rng([seed, epoch])
    positive = np.array([bool(exams[index].boxes_xyxy) for index in indices], dtype=np.bool_)
    negatives = indices[~positive]
    if negatives_per_positive is not None:
        wanted = min(len(negatives), round(negatives_per_positive * int(positive.sum())))
        negatives = generator.choice(negatives, wanted, replace=False)
    return generator.permutation(np.concatenate([indices[positive], negatives]))


class RsnaDetectionDataset(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Radiographs with boxes in the form that torchvision's detection models take.

    Item:
        image: uint8 [1, S, S]; bone is white whatever the file's convention.
        target: ``boxes`` float32 [N, 4] xyxy in pixels of *this* image, ``labels`` int64 [N] all ``OPACITY``,
            ``image_id`` int64 scalar, the index into ``exams``. N is 0 for a chest without opacity. ``abnormal``
            float32 scalar: 0 for a Normal chest, 1 for one that is not, NaN where no class is given.

    Args:
        images: uint8 [number of exams, S, S], each the whole original squashed; may be mapped from disk.
        sizes: [number of exams, 2], height and width of the originals.
        exams: in the same order.
    """

    def __init__(self, images: NDArray[np.uint8], sizes: NDArray[np.int32], exams: Sequence[Exam]) -> None:
        self.images = images
        counts = [len(exam.boxes_xyxy) for exam in exams]
        # Flat tensors, not a list of exams: forked workers would copy the pages of every Python object they touch.
        self._first = torch.tensor([0, *counts]).cumsum(0)
        # An image that could not be read has height 0; such exams are not to be asked for.
        scale = images.shape[1] / np.maximum(np.tile(sizes[:, ::-1], 2), 1)
        flat = np.array([box for exam in exams for box in exam.boxes_xyxy], dtype=np.float64).reshape(-1, 4)
        self._boxes = torch.from_numpy((flat * np.repeat(scale, counts, axis=0)).astype(np.float32))
        self._abnormal = torch.tensor([_ABNORMAL[exam.finding] for exam in exams], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = torch.from_numpy(np.array(self.images[index]))[None]  # a copy: the map is read-only
        return image, self.target(index)

    def target(self, index: int) -> dict[str, Tensor]:
        """The target of the item at ``index``, without reading its pixels."""
        boxes = self._boxes[self._first[index] : self._first[index + 1]].clone()
        labels = torch.full((len(boxes),), OPACITY, dtype=torch.int64)
        about = {"image_id": torch.tensor(index), "abnormal": self._abnormal[index].clone()}
        return {"boxes": boxes, "labels": labels, **about}


def _read_labels(path: Path) -> Table:
    """The checked rows of the label table; the index is the line in the file."""
    columns = ("x", "y", "width", "height", "Target")
    table = as_numbers(path, read_table(path, ["patientId"], columns), columns)
    box, positive = table[["x", "y", "width", "height"]], table["Target"] == 1
    refuse(path, ~table["Target"].isin([0, 1]), "Target is neither 0 nor 1")
    refuse(path, positive & box.isna().any(axis=1), "Target is 1 but x, y, width or height is missing")
    refuse(path, positive & (box[["width", "height"]] <= 0).any(axis=1), "width or height is not above 0")
    refuse(path, ~positive & box.notna().any(axis=1), "Target is 0 but there is a box")
    refuse(path, table.duplicated(), "the row stands there before")
    with_box = set(table["patientId"][positive])
    refuse(path, ~positive & table["patientId"].isin(with_box), "Target is 0 but another row has a box for this exam")
    return table


def _boxes(path: Path, labels: Table, sizes: dict[str, tuple[int, int]]) -> dict[str, list[Box]]:
    """The xyxy boxes of each exam that has any, in the order of the table."""
    rows = labels[labels["Target"] == 1]
    boxes: dict[str, list[Box]] = defaultdict(list)
    of_rows = np.array([sizes[exam_id] for exam_id in rows["patientId"]], np.int32).reshape(-1, 2)
    for exam_id, box in zip(rows["patientId"], inside(path, rows, of_rows), strict=True):
        boxes[exam_id].append(box)
    return boxes


def inside(path: Path, rows: Table, sizes: NDArray[np.int32]) -> list[Box]:
    """The xyxy box of each of ``rows``, whose images have ``sizes`` [rows, 2], height and width; 0 if not readable.

    Raises:
        ValueError: a box reaches outside of its image.
    """
    x1, y1 = rows["x"], rows["y"]
    x2, y2 = x1 + rows["width"], y1 + rows["height"]
    height, width = sizes.T
    outside = (x1 < 0) | (y1 < 0) | (x2 > width) | (y2 > height)
    refuse(path, (height > 0) & outside, "the box reaches outside the image")
    sides = zip(*(side.tolist() for side in (x1, y1, x2, y2)), strict=True)
    return [cast(Box, box) for box in sides]


def _read_findings(path: Path, with_box: set[str], exam_ids: Sequence[str]) -> dict[str, str]:
    """The class of each exam; without a table, what the labels say."""
    findings = {exam_id: OPACITY_CLASS if exam_id in with_box else UNCLASSIFIED for exam_id in exam_ids}
    if not path.is_file():
        return findings
    table = read_table(path, ["patientId"], ["class"]).drop_duplicates()  # one row a box
    refuse(path, ~table["class"].isin(CLASSES), f"class is none of {', '.join(CLASSES)}")
    refuse(path, table.duplicated("patientId"), "the exam has another class before")
    table = table[table["patientId"].isin(exam_ids)]
    wrong = (table["class"] == OPACITY_CLASS) != table["patientId"].isin(with_box)
    refuse(path, wrong, f"class is {OPACITY_CLASS} without a box in {LABELS}, or another class with one")
    return {**findings, **dict(zip(table["patientId"], table["class"], strict=True))}


def _read_patients(path: Path, exam_ids: Sequence[str]) -> dict[str, str]:
    """The NIH patient of each exam that the mapping knows."""
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        names = {str(entry["subset_img_id"]): str(entry["img_id"]) for entry in entries}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{type(error).__name__} ({error})"
        raise ValueError(f"{path}: expected a list of subset_img_id and img_id, found {what}") from error
    found = {exam_id: _NIH_NAME.fullmatch(names[exam_id]) for exam_id in exam_ids if exam_id in names}
    if not found:
        raise ValueError(f"{path}: knows none of the {len(exam_ids)} exams; is it the mapping of this data set?")
    strange = [names[exam_id] for exam_id, name in found.items() if name is None]
    if strange:
        raise ValueError(f"{path}: expected img_id such as 00012345_006.png, found {strange[0]!r}")
    return {exam_id: name.group(1) for exam_id, name in found.items() if name}


def _image_paths(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.resolve()}; the data folder is to hold {IMAGES}/ and {LABELS}")
    return {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".dcm" and path.name[0] != "."}


def _complete_exams(data_dir: Path, labelled: set[str], imaged: set[str], allow_missing: bool) -> list[str]:
    """Ids, sorted, of exams that have both a label and an image."""
    complaints = [
        f"{len(exam_ids)} {what} (first: {min(exam_ids)})"
        for exam_ids, what in (
            (labelled - imaged, f"exams of {LABELS} have no DICOM file in {IMAGES}/"),
            (imaged - labelled, f"DICOM files have no row in {LABELS}"),
        )
        if exam_ids
    ]
    if complaints and (not allow_missing or not labelled & imaged):
        raise ValueError(
            f"{data_dir}: {' and '.join(complaints)}; complete the folder, or leave them out with --allow-missing"
        )
    if complaints:
        warnings.warn(f"{data_dir}: {' and '.join(complaints)}; left out", stacklevel=3)
    return sorted(labelled & imaged)


def _require_one_size(folder: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """Refuse pictures of several sizes: boxes would be in pixels of one of them, and nobody knows of which.

    Those that could not be read have height 0.
    """
    first: dict[tuple[int, int], str] = {}
    for exam_id, size in sizes.items():
        if size[0]:
            first.setdefault(size, exam_id)
    if len(first) > 1:
        numbers = Counter(sizes.values())
        shown = [
            f"{width}x{height} ({numbers[height, width]}, such as {exam_id}.dcm)"
            for (height, width), exam_id in sorted(first.items(), key=lambda item: -numbers[item[0]])[:_LINES_SHOWN]
        ]
        raise ValueError(f"{folder}: expected images of one size, found {', '.join(shown)}")
