"""The RSNA Pneumonia Detection Challenge folder: exams with boxes and patients, and the torch dataset.

Boxes in the tables are ``x, y, width, height`` in pixels of the original image, x to the right and y down from the top
left corner. Here they are xyxy: ``(x, y, x + width, y + height)``.
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxr.patients import distinguishing
from cxr.reading import Decoded
from cxr.tables import Table, as_numbers, read_table, refuse

XYXY: TypeAlias = tuple[float, float, float, float]

OPACITY = 1  # the label of a box; 0 is the background of torchvision's detectors
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
OPACITY_CLASS = CLASSES[-1]
UNCLASSIFIED = "No Lung Opacity"  # an image without a box whose class is unknown
_ABNORMAL = {CLASSES[0]: 0.0, CLASSES[1]: 1.0, CLASSES[2]: 1.0, UNCLASSIFIED: float("nan")}

IMAGES = "stage_2_train_images"
LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{MAPPING}"

SIDES = ("x", "y", "width", "height")
_NIH_NAME = re.compile(r"(\d{8})_\d+\.\w+")
_SIZES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Exam:
    """One radiograph; the challenge calls its id ``patientId`` although a patient may have several.

    Attributes:
        exam_id: file name without ``.dcm``; the path as written in a table.
        path: of the image file.
        boxes_xyxy: opacities, in pixels of the original image; empty without opacity.
        finding: one of ``CLASSES``, or ``UNCLASSIFIED``.
        patient: NIH patient number or other identity; the exam id where unknown.
        age_years, sex, view: from the DICOM header: completed years, ``M`` or ``F``, ``AP`` or ``PA``; None where
            missing or impossible.
    """

    exam_id: str
    path: Path
    boxes_xyxy: tuple[XYXY, ...]
    finding: str
    patient: str
    age_years: int | None
    sex: str | None
    view: str | None


@dataclass(frozen=True)
class Listing:
    """Exams as their tables list them, checked, before any image is read.

    Attributes:
        source: the folder of the challenge, or the table.
        box_table: the file with the boxes.
        exam_ids: N; ``paths`` of the image files are in the same order.
        boxes: rows of ``box_table`` with a box; the index is the line in the file, the column ``exam`` an index into
            ``exam_ids``.
        findings: N classes.
        patients: N, empty where unknown.
        columns: further columns of the table, N values each.
    """

    source: Path
    box_table: Path
    exam_ids: list[str]
    paths: list[Path]
    boxes: Table
    findings: list[str]
    patients: list[str]
    columns: dict[str, list[str]]


def list_exams(data_dir: Path, *, allow_missing: bool = False) -> Listing:
    """The exams of a folder as the Kaggle zip unpacks, sorted by id.

    The folder holds ``IMAGES`` and ``LABELS``; ``CLASS_INFO`` and ``MAPPING`` are optional.

    Args:
        allow_missing: leave out, with a warning, exams that have a label but no DICOM file or the reverse.

    Raises:
        FileNotFoundError: the folder, its images or its labels are missing.
        ValueError: a table or the mapping is invalid, or exams are incomplete (unless ``allow_missing``). Messages on
            tables name column, reason and lines.
    """
    if not (data_dir / IMAGES).is_dir():
        missing = data_dir / IMAGES if data_dir.is_dir() else data_dir
        raise FileNotFoundError(f"no folder {missing.resolve()}; expected a data folder with {IMAGES}/ and {LABELS}")
    labels = _read_labels(data_dir / LABELS)
    files = (data_dir / IMAGES).iterdir()
    paths = {path.stem: path for path in files if path.suffix.lower() == ".dcm" and path.name[0] != "."}
    exam_ids = _complete_exams(data_dir, set(labels["patientId"]), set(paths), allow_missing)
    labels = labels[labels["patientId"].isin(exam_ids)]
    boxes = labels[labels["Target"] == 1]
    boxes = boxes.assign(exam=boxes["patientId"].map({exam_id: index for index, exam_id in enumerate(exam_ids)}))
    findings = _read_findings(data_dir / CLASS_INFO, set(boxes["patientId"]), exam_ids)
    patients = _read_patients(data_dir / MAPPING, exam_ids)
    files = [paths[exam_id] for exam_id in exam_ids]
    return Listing(data_dir, data_dir / LABELS, exam_ids, files, boxes, findings, patients, {})


def read_exams(listing: Listing, store: Decoded) -> list[Exam]:
    """The exams of the challenge's folder with the headers and image sizes of ``store``, decoded from its paths.

    Raises:
        ValueError: the images differ in size, or a box exceeds its image.
    """
    _require_one_size(listing, store.sizes)
    return exams_of(listing, store, _patients(listing, [header.patient for header in store.headers]))


def exams_of(listing: Listing, store: Decoded, patients: Sequence[str]) -> list[Exam]:
    """The exams of ``listing`` with the headers and image sizes of ``store``, decoded from its paths.

    Raises:
        ValueError: a box exceeds its image.
    """
    indices = listing.boxes["exam"].to_numpy(np.int64)
    boxes: list[list[XYXY]] = [[] for _ in listing.exam_ids]
    for index, box in zip(indices, _boxes_inside(listing, store.sizes[indices]), strict=True):
        boxes[index].append(box)
    rows = zip(listing.exam_ids, listing.paths, map(tuple, boxes), listing.findings, patients, strict=True)
    return [Exam(*row, head.age_years, head.sex, head.view) for row, head in zip(rows, store.headers, strict=True)]


def _patients(listing: Listing, in_header: Sequence[str]) -> list[str]:
    """The patient of each exam: by the mapping, else by the Patient ID, else the exam id.

    The challenge's own files have the exam's id as Patient ID: an ID that is different in each file is no patient.
    """
    in_header = distinguishing(in_header)
    unmapped = [found for found, mapped in zip(in_header, listing.patients, strict=True) if found and not mapped]
    is_patient = 1 < len({*unmapped}) < len(unmapped)
    if not any(listing.patients) and not is_patient:
        warnings.warn(
            f"no {listing.source / MAPPING}: each exam counts as one patient, so patients may be in both training and "
            f"held-out exams and scores are too optimistic. Download the mapping from {MAPPING_URL}",
            stacklevel=4,
        )
    return [
        mapped or (found if is_patient else "") or exam_id
        for mapped, found, exam_id in zip(listing.patients, in_header, listing.exam_ids, strict=True)
    ]


def describe(exams: Sequence[Exam]) -> str:
    """One line for the terminal: how many exams, patients, opacities and boxes."""
    unknown = sum(exam.patient == exam.exam_id for exam in exams)
    line = (
        f"{len(exams):,} exams of {len({exam.patient for exam in exams}):,} patients, "
        f"{sum(bool(exam.boxes_xyxy) for exam in exams):,} with opacity "
        f"({sum(len(exam.boxes_xyxy) for exam in exams):,} boxes)"
    )
    return line + (f"; {unknown:,} exams of unknown patients count as one patient each" if unknown else "")


class RsnaDetectionDataset(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Radiographs with boxes in the format of torchvision's detection models.

    Item:
        image: uint8 [1, S, S]; bone is white in MONOCHROME1 and MONOCHROME2.
        target: ``boxes`` float32 [N, 4] xyxy in pixels of *this* image, ``labels`` int64 [N] all ``OPACITY``,
            ``image_id`` int64 scalar, the index into ``exams``. N is 0 without opacity. ``abnormal``
            float32 scalar: 0 for a Normal chest, 1 for others, NaN where the class is unknown.

    Args:
        images: uint8 [number of exams, S, S], each the whole original resized to a square; may be mapped from disk.
        sizes: [number of exams, 2], height and width of the originals.
        exams: in the same order.
    """

    def __init__(self, images: NDArray[np.uint8], sizes: NDArray[np.int32], exams: Sequence[Exam]) -> None:
        self.images = images
        counts = [len(exam.boxes_xyxy) for exam in exams]
        self._first = torch.tensor([0, *counts]).cumsum(0)
        # An unreadable image has height 0; its item is invalid.
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
    columns = (*SIDES, "Target")
    table = as_numbers(path, read_table(path, ["patientId"], columns), columns)
    box, positive = table[[*SIDES]], table["Target"] == 1
    refuse(path, ~table["Target"].isin([0, 1]), "Target is neither 0 nor 1")
    refuse(path, positive & box.isna().any(axis=1), "Target is 1 but x, y, width or height is missing")
    refuse(path, positive & (box[["width", "height"]] <= 0).any(axis=1), "width or height is not above 0")
    refuse(path, ~positive & box.notna().any(axis=1), "Target is 0 but there is a box")
    refuse(path, table.duplicated(), "duplicate row")
    with_box = set(table["patientId"][positive])
    refuse(path, ~positive & table["patientId"].isin(with_box), "Target is 0 but another row has a box for this exam")
    return table


def _boxes_inside(listing: Listing, sizes: NDArray[np.int32]) -> list[XYXY]:
    """The xyxy box of each row of ``listing.boxes``, whose images have ``sizes`` [rows, 2], height and width.

    Unreadable images have height 0; their boxes are not checked.

    Raises:
        ValueError: a box exceeds its image.
    """
    x1, y1 = listing.boxes["x"], listing.boxes["y"]
    x2, y2 = x1 + listing.boxes["width"], y1 + listing.boxes["height"]
    height, width = sizes.T
    outside = (x1 < 0) | (y1 < 0) | (x2 > width) | (y2 > height)
    refuse(listing.box_table, (height > 0) & outside, "the box exceeds the image")
    sides = zip(*(side.tolist() for side in (x1, y1, x2, y2)), strict=True)
    return [cast(XYXY, box) for box in sides]


def _read_findings(path: Path, with_box: set[str], exam_ids: Sequence[str]) -> list[str]:
    """The class of each exam; without a table ``OPACITY_CLASS`` with a box, else ``UNCLASSIFIED``."""
    findings = {exam_id: OPACITY_CLASS if exam_id in with_box else UNCLASSIFIED for exam_id in exam_ids}
    if path.is_file():
        table = read_table(path, ["patientId"], ["class"]).drop_duplicates()  # one row a box
        refuse(path, ~table["class"].isin(CLASSES), f"class is none of {', '.join(CLASSES)}")
        refuse(path, table.duplicated("patientId"), "another row has a different class for this exam")
        table = table[table["patientId"].isin(exam_ids)]
        wrong = (table["class"] == OPACITY_CLASS) != table["patientId"].isin(with_box)
        refuse(path, wrong, f"class is {OPACITY_CLASS} without a box in {LABELS}, or another class with one")
        findings |= dict(zip(table["patientId"], table["class"], strict=True))
    return [findings[exam_id] for exam_id in exam_ids]


def _read_patients(path: Path, exam_ids: Sequence[str]) -> list[str]:
    """The NIH patient of each exam; empty where the mapping does not have it."""
    if not path.is_file():
        return [""] * len(exam_ids)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        names = {str(entry["subset_img_id"]): str(entry["img_id"]) for entry in entries}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{type(error).__name__} ({error})"
        raise ValueError(f"{path}: expected a list of subset_img_id and img_id, found {what}") from error
    if not names.keys() & {*exam_ids}:
        raise ValueError(f"{path}: has none of the {len(exam_ids)} exams; is it the mapping of this data set?")
    found = [names.get(exam_id, "") for exam_id in exam_ids]
    matches = [_NIH_NAME.fullmatch(name) for name in found]
    for name, match in zip(found, matches, strict=True):
        if name and not match:
            raise ValueError(f"{path}: expected img_id such as 00012345_006.png, found {name!r}")
    return [match.group(1) if match else "" for match in matches]


def _complete_exams(data_dir: Path, labelled: set[str], imaged: set[str], allow_missing: bool) -> list[str]:
    """Ids, sorted, of exams that have both a label and an image."""
    problems = [
        f"{len(exam_ids)} {what} (first: {min(exam_ids)})"
        for exam_ids, what in (
            (labelled - imaged, f"exams of {LABELS} have no DICOM file in {IMAGES}/"),
            (imaged - labelled, f"DICOM files have no row in {LABELS}"),
        )
        if exam_ids
    ]
    if problems and (not allow_missing or not labelled & imaged):
        raise ValueError(
            f"{data_dir}: {' and '.join(problems)}; complete the folder, or leave them out with --allow-missing"
        )
    if problems:
        warnings.warn(f"{data_dir}: {' and '.join(problems)}; left out", stacklevel=3)
    return sorted(labelled & imaged)


def _require_one_size(listing: Listing, sizes: NDArray[np.int32]) -> None:
    """Refuse images of several sizes: the boxes would be in pixels of one of them, and it is unknown of which."""
    pairs = [(height, width) for height, width in sizes.tolist() if height]  # 0 where unreadable
    counts = Counter(pairs).most_common()
    if len(counts) > 1:
        shown = ", ".join(f"{width}x{height} ({number})" for (height, width), number in counts[:_SIZES_SHOWN])
        raise ValueError(f"{listing.source / IMAGES}: expected images of one size, found {shown}")
