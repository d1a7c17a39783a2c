"""Bring a real data set to where the training scripts look for it, and check that it is whole.

    python download_data.py --dataset chest_xray             # public: no Kaggle account needed
    python download_data.py --dataset rsna                   # needs a Kaggle token and accepted rules
    python download_data.py --dataset rsna --zip FILE        # from a zip downloaded by hand
    python download_data.py --dataset rsna --verify          # only look at what is there

Fills chest_xray/ or dataset_det/ at the repository root; started again, it goes on where it stopped. Exit code 0: the
set is whole; 1: files are missing or damaged, listed on stdout; 2: it could not be done, one line on stderr says why.
"""

import csv
import filecmp
import hashlib
import importlib
import os
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple
from urllib.request import urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from cxr import cli

ROOT = Path(__file__).resolve().parent
CHUNK_BYTES = 1 << 20
SPARE_BYTES = 100 << 20  # stays free on the disk
SHOWN_PROBLEMS = 5
EXIT_NOT_WHOLE = 1
KAGGLE_CACHE = ".kagglehub"  # inside the target: the same disk, and gone with the set
KAGGLE_TOKENS = "https://www.kaggle.com/settings/api"

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
MAPPING_FILE = "pneumonia-challenge-dataset-mappings_2018.json"  # which NIH patient each RSNA exam is of
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{MAPPING_FILE}"
MAPPING_BYTES = 17_587_143
MAPPING_SHA256 = "803ce79e3bc9c66d3631738e91e62e1175730e98ad1415e8dc4d6292ba10bf27"
CONNECT_SECONDS = 30


@dataclass(frozen=True)
class Config:
    """What to bring, from where, to where."""

    dataset: Literal["chest_xray", "rsna"] = cli.flag(help="chest_xray: images of two classes; rsna: DICOMs with boxes")
    zip: Path | None = cli.flag(None, help="zip downloaded by hand, or the folder it was unpacked to")
    mapping: Path | None = cli.flag(None, help=f"rsna: {MAPPING_FILE} downloaded by hand")
    out_dir: Path | None = cli.flag(None, help="folder to fill, else chest_xray/ or dataset_det/ in the repository")
    verify: bool = cli.flag(False, help="only check the set that is there; nothing is written")


class Member(NamedTuple):
    """One file of a published set: ``size`` in bytes and ``crc`` (CRC-32, None where unknown) are what it must have."""

    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


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


def zip_entries(archive: zipfile.ZipFile) -> Iterator[tuple[PurePosixPath, Member]]:
    """Every file in ``archive`` with its path.

    Raises:
        ValueError: an entry is a link or a device, is encrypted, or has a path that leads outside on some system
            (absolute, with a drive, a backslash or ``..``). One such entry condemns the archive.
    """
    for info in archive.infolist():
        name, path = info.orig_filename, PurePosixPath(info.orig_filename)
        if path.is_absolute() or ".." in path.parts or any(char in "\\:" or char < " " for char in name):
            raise ValueError(f"{archive.filename} is not safe to unpack: {name!r} is not a plain relative path")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{archive.filename} is not safe to unpack: {name!r} is a link or a device")
        if info.flag_bits & 1:
            raise ValueError(f"{archive.filename}: {name!r} is encrypted; the published zip is not")
        if not info.is_dir():
            yield path, Member(name, info.file_size, info.CRC, partial(archive.open, info))


def folder_entries(folder: Path) -> Iterator[tuple[PurePosixPath, Member]]:
    """Every file below ``folder`` with its path relative to it; a folder knows no checksums."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            relative = PurePosixPath(path.relative_to(folder).as_posix())
            yield relative, Member(str(path), path.stat().st_size, None, partial(path.open, "rb"))


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


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of ``folder``, which need not exist yet, has ``needed`` bytes and some to spare."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + SPARE_BYTES:
        raise OSError(
            f"{folder}: {(needed + SPARE_BYTES) / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; "
            "make room or choose another disk with --out-dir"
        )


def unpack(members: dict[str, Member], target: Path) -> None:
    """Write those ``members`` to ``target`` that are not there yet with their size and checksum."""
    lacking = {
        where: member
        for where, member in tqdm(members.items(), "comparing", unit=" files", disable=None, leave=False)
        if not is_in_place(target / where, member)
    }
    needed = sum(member.size for member in lacking.values())
    require_space(target, needed)
    with tqdm(total=needed, desc="unpacking", unit="B", unit_scale=True, disable=None) as progress:
        for where, member in lacking.items():
            write_whole(target / where, member, progress)
    print(f"{target}: {len(lacking):,} files written, {len(members) - len(lacking):,} were there")


def is_in_place(path: Path, member: Member) -> bool:
    """Whether ``path`` already holds the bytes of ``member``: by its checksum, or by comparison with the file it is."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    if member.crc is None:
        return filecmp.cmp(member.name, path, shallow=False)
    crc = 0
    for chunk in chunks_of(path):
        crc = zlib.crc32(chunk, crc)
    return crc == member.crc


def write_whole(path: Path, member: Member, progress: "tqdm[Any]", sha256: str | None = None) -> None:
    """Write ``member`` to ``path`` by way of a .partial file, so that ``path`` is never half a file.

    Not one byte more than declared is written. A zip entry is held to its CRC-32 by zipfile as it is read.

    Raises:
        ValueError: more or fewer bytes than declared, or another ``sha256``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(path.name + ".partial")
    written = 0
    try:
        with member.open() as source, side.open("wb") as sink:
            while chunk := source.read(min(CHUNK_BYTES, member.size - written + 1)):
                written += len(chunk)
                if written > member.size:
                    raise ValueError(f"{member.name}: more than the expected {member.size:,} bytes")
                sink.write(chunk)
                progress.update(len(chunk))
        if written != member.size:
            raise ValueError(f"{member.name}: {written:,} bytes, expected {member.size:,}")
        if sha256 and (found := sha256_of(side)) != sha256:
            raise ValueError(f"{member.name}: sha256 is {found}, expected {sha256}")
        side.replace(path)
    finally:
        side.unlink(missing_ok=True)


def chunks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a bounded piece at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def sha256_of(path: Path) -> str:
    """The checksum of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in chunks_of(path):
        digest.update(chunk)
    return digest.hexdigest()


def unpack_by_hand(source: Path, dataset: DataSet, target: Path) -> None:
    """Fill ``target`` from a zip, or from the folder that a browser has unpacked one to."""
    if not source.exists():
        raise FileNotFoundError(f"{source.resolve()}: no such file; expected the zip of {dataset.page}")
    if source.is_dir():
        unpack(wanted(folder_entries(source), dataset, source), target)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            unpack(wanted(zip_entries(archive), dataset, source), target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{source} cannot be unpacked ({error}); download it again") from error


def kaggle_folder(dataset: DataSet, target: Path) -> Path:
    """The folder to which kagglehub has downloaded and unpacked ``dataset``; it resumes a broken download by itself.

    kagglehub's ``output_dir`` is not used: it refuses a folder that is not empty, so nothing could be resumed there.

    Raises:
        ValueError: kagglehub is not installed, or what it downloaded is damaged.
        PermissionError: no token, a wrong one, or rules not accepted.
        ConnectionError: Kaggle cannot be reached or answers with another error.
    """
    by_hand = (
        f"download the zip at {dataset.page} in a browser and add `--zip FILE` to this command, "
        f"which unpacks it to {target.resolve()}"
    )
    try:
        kagglehub = importlib.import_module("kagglehub")
        requests = importlib.import_module("requests")
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: `pip install kagglehub`, or {by_hand}") from error
    if "KAGGLEHUB_CACHE" not in os.environ:
        os.environ["KAGGLEHUB_CACHE"] = str(target.resolve() / KAGGLE_CACHE)
        there = sum(file.stat().st_size for file in (target / KAGGLE_CACHE).rglob("*") if file.is_file())
        require_space(target, max(0, 2 * dataset.zip_bytes - there))  # the archive and what comes out of it
    try:
        return Path(getattr(kagglehub, dataset.kagglehub_function)(dataset.handle))
    except (kagglehub.exceptions.UnauthenticatedError, kagglehub.exceptions.CredentialError) as error:
        raise PermissionError(_login_advice(dataset, by_hand)) from error
    except requests.exceptions.RequestException as error:
        if error.response is None:
            failure = f"the connection to Kaggle failed ({type(error).__name__})"
            raise ConnectionError(f"{failure}: run this again to go on where it stopped, or {by_hand}") from error
        raise _refusal(error.response.status_code, dataset, by_hand) from error
    except (kagglehub.exceptions.DataCorruptionError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        kept = f"what it keeps of {dataset.handle} in {os.environ['KAGGLEHUB_CACHE']}"
        raise ValueError(f"kagglehub stopped ({error}): delete {kept} and run this again, or {by_hand}") from error


def _login_advice(dataset: DataSet, by_hand: str) -> str:
    rules = f" accept the rules at {dataset.rules}," if dataset.rules else ""
    return (
        f"Kaggle needs an account here: create an API token at {KAGGLE_TOKENS}, put it into ~/.kaggle/access_token or "
        f"the variable KAGGLE_API_TOKEN,{rules} and run this again; or {by_hand}"
    )


def _refusal(status: int, dataset: DataSet, by_hand: str) -> OSError:
    if status == 401:
        return PermissionError(f"Kaggle refuses the token (401). {_login_advice(dataset, by_hand)}")
    if status == 403 and dataset.rules:
        return PermissionError(
            f"Kaggle refuses the download (403): accept the rules at {dataset.rules} with the account of your token "
            f"and run this again; if it still refuses, {by_hand}"
        )
    return ConnectionError(f"Kaggle answers {status}: try again later, or {by_hand}")


def bring_mapping(target: Path, source: Path | None) -> None:
    """Put the RSNA-to-NIH mapping into ``target`` from ``source``, or from RSNA's public address without one.

    Raises:
        ValueError: not the published file, by its size or sha256.
        ConnectionError: the address cannot be reached.
    """
    path = target / MAPPING_FILE
    if path.is_file() and sha256_of(path) == MAPPING_SHA256:
        return
    opener = partial(source.open, "rb") if source else partial(urlopen, MAPPING_URL, timeout=CONNECT_SECONDS)
    member = Member(str(source or MAPPING_URL), MAPPING_BYTES, None, opener)
    require_space(target, MAPPING_BYTES)
    try:
        with tqdm(total=MAPPING_BYTES, desc="mapping", unit="B", unit_scale=True, disable=None) as progress:
            write_whole(path, member, progress, MAPPING_SHA256)
    except (OSError, HTTPException) as error:
        if source:
            raise
        raise ConnectionError(
            f"the RSNA-to-NIH mapping did not come ({error}), the rest is in {target.resolve()}: "
            f"run this again later, or download {MAPPING_URL} by hand and add `--mapping FILE` to this command"
        ) from error


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


def bring(config: Config, dataset: DataSet, target: Path) -> None:
    """Fill ``target``, which a second run cannot enter meanwhile; a mapping given by hand is checked first."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target / ".lock", timeout=0):
            if config.mapping:
                bring_mapping(target, config.mapping)
            if config.zip:
                unpack_by_hand(config.zip, dataset, target)
            elif dataset.problems(target):
                folder = kaggle_folder(dataset, target)
                unpack(wanted(folder_entries(folder), dataset, folder), target)
            if config.dataset == "rsna":
                bring_mapping(target, None)
    except Timeout as error:
        raise OSError(f"{target}: another download_data.py is writing there; wait until it has finished") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Bring or verify one data set and print how it stands; the exit code says whether it is whole."""
    config = cli.parse(Config, argv)
    dataset = DATASETS[config.dataset]
    target = config.out_dir or ROOT / dataset.folder
    if config.verify and (config.zip or config.mapping):
        raise ValueError("--verify only looks at what is there: leave --zip and --mapping out")
    if config.mapping and config.dataset != "rsna":
        raise ValueError(f"--mapping belongs to --dataset rsna, not to {config.dataset}")
    if not config.verify:
        bring(config, dataset, target)
    elif not target.is_dir():
        raise FileNotFoundError(f"{target.resolve()}: no such folder; without --verify this script fills it")
    problems = dataset.problems(target)
    if config.dataset == "rsna":
        problems += file_problems(target / MAPPING_FILE, MAPPING_SHA256)
    if problems:
        advice = "; without --verify this script brings what is missing" if config.verify else ""
        print(f"{target}: not whole, {len(problems):,} found{advice}", *problems[:SHOWN_PROBLEMS], sep="\n  ")
        if len(problems) > SHOWN_PROBLEMS:
            print(f"  and {len(problems) - SHOWN_PROBLEMS:,} more")
        return EXIT_NOT_WHOLE
    if not config.verify:
        shutil.rmtree(target / KAGGLE_CACHE, ignore_errors=True)  # kept until now, so that nothing is fetched twice
    print(f"{target}: whole ({dataset.content})")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
