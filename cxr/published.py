"""What the published data sets hold: where each file belongs, how many there are, how a whole set is told."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cxr.files import sha256_of
from cxr.unpacking import Member, chunks_of

CHEST_XRAY_IMAGES = {
    ("train", "NORMAL"): 1_341,
    ("train", "PNEUMONIA"): 3_875,
    ("val", "NORMAL"): 8,
    ("val", "PNEUMONIA"): 8,
    ("test", "NORMAL"): 234,
    ("test", "PNEUMONIA"): 390,
}
RSNA_IMAGES = "stage_2_train_images"
RSNA_EXAMS = 26_684
RSNA_LABELS = "stage_2_train_labels.csv"
RSNA_ROWS = 30_227  # in either table: one for each box, one for each exam without a box
RSNA_TABLES = {  # sha256
    RSNA_LABELS: "bb40b7e956e9922a6b275ed4a158197568cf9ab618017d53db6159b1b624bb65",
    "stage_2_detailed_class_info.csv": "c004c12dea2042cc23e3b848f65e8cb2e725799afaa90f13ee81f854bcc9614d",
}


@dataclass(frozen=True)
class DataSet:
    """A published set: where it is, and where its files belong."""

    folder: str
    content: str
    page: str
    rules: str | None
    kagglehub_function: str
    handle: str
    zip_bytes: int
    place: Callable[[PurePosixPath], str | None]
    problems: Callable[[Path], list[str]]


def place_chest_xray(path: PurePosixPath) -> str | None:
    """``train/NORMAL/x.jpeg`` for a published image wherever the zip has it, None for what is not an image of the set.

    Kaggle's zip holds everything twice, in chest_xray/ and in chest_xray/chest_xray/; both fall on the same place.
    """
    if path.parts[-3:-1] in CHEST_XRAY_IMAGES and path.suffix.lower() in (".jpeg", ".jpg"):
        return "/".join(path.parts[-3:])
    return None


def place_rsna(path: PurePosixPath) -> str | None:
    """The place of a table or a training DICOM in dataset_det/; None for the unlabelled test images and the rest."""
    if path.name in RSNA_TABLES:
        return path.name
    if path.parts[-2:-1] == (RSNA_IMAGES,) and path.suffix == ".dcm":
        return f"{RSNA_IMAGES}/{path.name}"
    return None


def wanted(entries: Iterable[tuple[PurePosixPath, Member]], dataset: DataSet, source: Path) -> dict[str, Member]:
    """The files that belong to ``dataset`` by their place in it; clutter of macOS is left out.

    Raises:
        ValueError: none belongs, two different files claim one place, or they declare more bytes than the set can have.
    """
    members: dict[str, Member] = {}
    for path, member in entries:
        clutter = any(part == "__MACOSX" or part.startswith(".") for part in path.parts)
        where = None if clutter else dataset.place(path)
        if where is None:
            continue
        twin = members.setdefault(where, member)
        if (twin.size, twin.crc) != (member.size, member.crc):
            raise ValueError(f"{source}: {twin.name} and {member.name} differ but are both {where}; expected one file")
    if not members:
        raise ValueError(f"{source}: nothing in it belongs to the set; expected what {dataset.page} gives")
    declared = sum(member.size for member in members.values())
    if declared > 2 * dataset.zip_bytes:  # radiographs hardly compress: this much more is no copy of the set
        raise ValueError(f"{source} declares {declared:,} bytes; the published zip has only {dataset.zip_bytes:,}")
    return members


def chest_xray_problems(folder: Path) -> list[str]:
    """What is wrong in ``folder``, one sentence each: numbers of images by class, files that are no JPEG."""
    problems: list[str] = []
    for (split, label), expected in CHEST_XRAY_IMAGES.items():
        images = files_in(folder / split / label, (".jpeg", ".jpg"))
        if len(images) != expected:
            problems.append(f"{split}/{label}: {len(images):,} images, expected {expected:,}")
        for image in tqdm(images, f"{split}/{label}", disable=None, leave=False):
            if not has_bytes(image, b"\xff\xd8\xff", at=0):
                problems.append(f"{split}/{label}/{image.name}: not a JPEG file")
    return problems


def rsna_problems(folder: Path) -> list[str]:
    """What is wrong in ``folder``, one sentence each: tables, then images; the mapping is looked at apart."""
    problems = [problem for table, sha256 in RSNA_TABLES.items() for problem in file_problems(folder / table, sha256)]
    images = files_in(folder / RSNA_IMAGES, (".dcm",))
    if len(images) != RSNA_EXAMS:
        problems.append(f"{RSNA_IMAGES}: {len(images):,} DICOM files, expected {RSNA_EXAMS:,}")
    if not file_problems(folder / RSNA_LABELS, RSNA_TABLES[RSNA_LABELS]):
        with (folder / RSNA_LABELS).open(newline="", encoding="utf-8") as file:
            exams = {row["patientId"] for row in csv.DictReader(file)}
        names = {image.stem for image in images}
        if missing := sorted(exams - names):
            problems.append(f"{RSNA_IMAGES}: {len(missing):,} exams have no DICOM file, the first is {missing[0]}.dcm")
        if strange := sorted(names - exams):
            problems.append(f"{RSNA_IMAGES}: {len(strange):,} files are in no table, the first is {strange[0]}.dcm")
    for image in tqdm(images, RSNA_IMAGES, disable=None, leave=False):
        if not has_bytes(image, b"DICM", at=128):  # DICOM PS3.10 7.1
            problems.append(f"{RSNA_IMAGES}/{image.name}: not a DICOM file")
    return problems


def file_problems(path: Path, sha256: str) -> list[str]:
    """At most one sentence: the file is missing, or is not the published one."""
    if not path.is_file():
        return [f"{path.name}: missing"]
    if (found := sha256_of(path)) == sha256:
        return []
    rows = sum(chunk.count(b"\n") for chunk in chunks_of(path)) - 1
    of_published = f" of {RSNA_ROWS:,} rows" if path.name in RSNA_TABLES else ""
    return [f"{path.name}: {rows:,} rows with sha256 {found}, expected {sha256}{of_published}"]


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files directly in ``folder`` with one of ``suffixes``, sorted, without hidden ones; none without a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != ".")


def has_bytes(path: Path, signature: bytes, at: int) -> bool:
    """Whether the file carries the ``signature`` of its format ``at`` so many bytes from its start."""
    with path.open("rb") as file:
        return file.read(at + len(signature))[at:] == signature


DATASETS = {
    "chest_xray": DataSet(
        folder="chest_xray",
        content="5,216 training, 16 validation and 624 test images",
        page="https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
        rules=None,
        kagglehub_function="dataset_download",
        handle="paultimothymooney/chest-xray-pneumonia",
        zip_bytes=2_460_000_000,  # about: 1.23 GB of images, twice
        place=place_chest_xray,
        problems=chest_xray_problems,
    ),
    "rsna": DataSet(
        folder="dataset_det",
        content="26,684 DICOM files, 30,227 rows in either table, the mapping to NIH patients",
        page="https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge/data",
        rules="https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge/rules",
        kagglehub_function="competition_download",
        handle="rsna-pneumonia-detection-challenge",
        zip_bytes=3_932_287_530,
        place=place_rsna,
        problems=rsna_problems,
    ),
}
