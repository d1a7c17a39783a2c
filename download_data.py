"""Download a real data set to the folder where the training scripts expect it, and verify that it is complete.

    python download_data.py --dataset chest_xray             # public: no Kaggle account needed
    python download_data.py --dataset rsna                   # needs a Kaggle token and accepted rules
    python download_data.py --dataset rsna --zip FILE        # from a zip downloaded by hand
    python download_data.py --dataset rsna --verify          # only check the files that are there

Fills chest_xray/ or dataset_det/ at the repository root; a restart resumes. Exit code 0: the set is complete; 1: files
are missing or damaged, listed on stdout; 2: it failed, one line on stderr states why.
"""

import importlib
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Literal
from urllib.error import URLError
from urllib.request import urlopen

from tqdm import tqdm

from cxr import cli
from cxr.files import sha256_of, write_atomically
from cxr.messages import first_of

SPARE_BYTES = 100 << 20  # that stay free on the disk
KAGGLE_CACHE = ".kagglehub"  # inside the target, so on the same disk
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"  # RSNA exams to NIH patients
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{MAPPING}"


@dataclass(frozen=True)
class DataSet:
    """A published data set: ``images`` is the number of images by folder, ``tables`` the SHA-256 of each table."""

    target: Path
    page: str
    download: str  # kagglehub's function
    handle: str  # kagglehub's name of the set
    zip_bytes: int
    images: dict[str, int]
    suffix: str
    signature: tuple[bytes, int]  # of every image, and its offset
    tables: dict[str, str]  # the mapping does not come from Kaggle


DATASETS = {
    "chest_xray": DataSet(
        target=cli.ROOT / "chest_xray",
        page="https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
        download="dataset_download",
        handle="paultimothymooney/chest-xray-pneumonia",
        zip_bytes=2_460_000_000,  # about: 1.23 GB of images, twice
        images={
            "train/NORMAL": 1_341,
            "train/PNEUMONIA": 3_875,
            "val/NORMAL": 8,
            "val/PNEUMONIA": 8,
            "test/NORMAL": 234,
            "test/PNEUMONIA": 390,
        },
        suffix=".jpeg",
        signature=(b"\xff\xd8\xff", 0),
        tables={},
    ),
    "rsna": DataSet(
        target=cli.ROOT / "dataset_det",
        page="https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge",
        download="competition_download",
        handle="rsna-pneumonia-detection-challenge",
        zip_bytes=3_932_287_530,
        images={"stage_2_train_images": 26_684},
        suffix=".dcm",
        signature=(b"DICM", 128),  # DICOM PS3.10 7.1
        tables={
            "stage_2_train_labels.csv": "bb40b7e956e9922a6b275ed4a158197568cf9ab618017d53db6159b1b624bb65",
            "stage_2_detailed_class_info.csv": "c004c12dea2042cc23e3b848f65e8cb2e725799afaa90f13ee81f854bcc9614d",
            MAPPING: "803ce79e3bc9c66d3631738e91e62e1175730e98ad1415e8dc4d6292ba10bf27",
        },
    ),
}


@dataclass(frozen=True)
class Config:
    """What to download, from where, to where."""

    dataset: Literal["chest_xray", "rsna"] = cli.flag(help="chest_xray: images of two classes; rsna: DICOMs with boxes")
    zip: Path | None = cli.flag(None, help="zip downloaded by hand, or the folder with its content")
    output_dir: Path | None = cli.flag(None, help="folder to fill, else chest_xray/ or dataset_det/ in the repository")
    verify: bool = cli.flag(False, help="only check the files that are there; nothing is written")


def place(path: PurePosixPath, dataset: DataSet) -> str | None:
    """The path in the data set of a file of the zip, in which Kaggle has the images twice; None if not part of it."""
    if any(part == "__MACOSX" or part.startswith(".") for part in path.parts):
        return None
    folder = next((name for name in dataset.images if f"/{path.parent}".endswith(f"/{name}")), None)
    if folder and path.suffix == dataset.suffix:
        return f"{folder}/{path.name}"
    return path.name if path.name in dataset.tables else None


def problems_of(dataset: DataSet, folder: Path) -> list[str]:
    """Each missing or changed table, wrong number of images and file of another format in ``folder``."""
    problems: list[str] = []
    for name, sha256 in dataset.tables.items():
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif sha256_of(folder / name) != sha256:
            problems.append(f"{name} is not the published file, whose sha256 is {sha256}")
    signature, at = dataset.signature
    for name, expected in dataset.images.items():
        found = (folder / name).iterdir() if (folder / name).is_dir() else ()
        images = sorted(path for path in found if place(PurePosixPath(name, path.name), dataset))
        if len(images) != expected:
            problems.append(f"{name} has {len(images):,} images, expected {expected:,}")
        for path in images:
            with path.open("rb") as file:
                if file.read(at + len(signature))[at:] != signature:
                    problems.append(f"{name}/{path.name} is no {dataset.suffix} file")
    return problems


def unpack(source: Path, dataset: DataSet, target: Path) -> None:
    """Copy the files of ``dataset`` from a zip, or from a folder with its content, to ``target``.

    Files that are there in the same size are kept.

    Raises:
        ValueError: a damaged zip, or one of something else.
        OSError: too little disk space.
    """
    if source.is_dir():
        files = {PurePosixPath(path.relative_to(source)): path for path in sorted(source.rglob("*")) if path.is_file()}
        entries = {name: (path.stat().st_size, partial(path.open, mode="rb")) for name, path in files.items()}
        _copy(entries, source, dataset, target)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
            # Some writers on Windows separate folders by backslashes, which zipfile keeps on other systems.
            members = {PurePosixPath(info.filename.replace("\\", "/")): info for info in listed}
            entries = {name: (info.file_size, partial(archive.open, info)) for name, info in members.items()}
            _copy(entries, source, dataset, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{source} cannot be unpacked ({error}); download it again") from error


def _copy(
    entries: Mapping[PurePosixPath, tuple[int, Callable[[], IO[bytes]]]], source: Path, dataset: DataSet, target: Path
) -> None:
    """As ``unpack``, from the size in bytes and the opener of each file in ``source``."""
    placed = {target / where: entry for path, entry in entries.items() if (where := place(path, dataset))}
    if not placed:
        zips = [path.name for path in entries if path.suffix.lower() == ".zip"]
        what = f"holds zips, unpack these first: {first_of(zips)}" if zips else "no file of the data set"
        raise ValueError(f"{source}: {what}; expected the content of {dataset.page}")
    lacking = {path: entry for path, entry in placed.items() if not path.is_file() or path.stat().st_size != entry[0]}
    require_space(target, sum(size for size, _ in lacking.values()))
    for path, (_, opened) in tqdm(lacking.items(), "unpacking", unit=" files", disable=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        side = path.with_name(path.name + ".partial")
        with opened() as content, side.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        side.replace(path)
    print(f"{target}: {len(lacking):,} files written, {len(placed) - len(lacking):,} were there")


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of ``folder``, which need not exist yet, has ``needed`` + ``SPARE_BYTES`` free."""
    free = shutil.disk_usage(next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())).free
    if needed and free < needed + SPARE_BYTES:
        raise OSError(
            f"{folder}: {(needed + SPARE_BYTES) / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; "
            "make room or choose another disk with --output-dir"
        )


def download(dataset: DataSet, target: Path) -> Path:
    """The folder to which kagglehub has downloaded and unpacked ``dataset``; kagglehub resumes a broken download.

    kagglehub's ``output_dir`` is not used: it refuses a folder that is not empty, so nothing could be resumed there.

    Raises:
        ValueError: kagglehub is not installed.
        PermissionError: no token, a wrong one, or rules not accepted.
        ConnectionError: Kaggle cannot be reached, returned another error, or sent a damaged file.
    """
    by_hand = f"download the zip at {dataset.page} in a browser and add `--zip FILE` to this command"
    log_in = (
        "create a token at https://www.kaggle.com/settings/api, put it into ~/.kaggle/access_token or the variable "
        f"KAGGLE_API_TOKEN, accept the rules at {dataset.page} if there are any, and run this again; or {by_hand}"
    )
    try:
        kagglehub = importlib.import_module("kagglehub")
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: `pip install kagglehub`, or {by_hand}") from error
    cache = Path(os.environ.setdefault("KAGGLEHUB_CACHE", str(target.resolve() / KAGGLE_CACHE)))
    there = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    require_space(target, max(0, 2 * dataset.zip_bytes - there))  # the archive and its content
    try:
        return Path(getattr(kagglehub, dataset.download)(dataset.handle))
    except Exception as error:  # kagglehub's own, those of requests, zipfile and the disk
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or type(error).__name__ in ("UnauthenticatedError", "CredentialError"):
            raise PermissionError(f"Kaggle refuses the download ({status or 'no account'}): {log_in}") from error
        if isinstance(error, OSError) and not hasattr(error, "response"):
            raise  # of the disk
        failed = (
            f"returned {status}" if status else f"cannot be reached or sent a damaged file ({type(error).__name__})"
        )
        again = f"run this again to resume, or delete {cache} and start over"
        raise ConnectionError(f"Kaggle {failed}: {again}, or {by_hand}") from error


def download_mapping(target: Path) -> None:
    """Download RSNA's mapping of its exams to NIH patients into ``target``."""
    try:
        with urlopen(MAPPING_URL, timeout=30) as content:
            write_atomically(target / MAPPING, partial(shutil.copyfileobj, content))
    except (URLError, HTTPException, TimeoutError) as error:
        by_hand = f"download {MAPPING_URL} by hand into {target.resolve()}"
        raise ConnectionError(
            f"the mapping cannot be downloaded ({error}): run this again later, or {by_hand}"
        ) from error


def main(config: Config) -> int:
    """Download or verify one data set and print its state; the exit code is 0 if it is complete."""
    dataset = DATASETS[config.dataset]
    target = config.output_dir or dataset.target
    if config.verify and config.zip:
        raise ValueError("--verify writes nothing: omit --zip")
    problems = problems_of(dataset, target)
    if not config.verify:
        if config.zip:
            unpack(config.zip, dataset, target)
        elif any(MAPPING not in problem for problem in problems):
            unpack(download(dataset, target), dataset, target)
        if any(MAPPING in problem for problem in problems):
            download_mapping(target)
        problems = problems_of(dataset, target)
    if problems:
        print(f"{target}: incomplete: {first_of(problems)}")
        return 1
    if not config.verify:
        shutil.rmtree(target / KAGGLE_CACHE, ignore_errors=True)  # kept until now, so that nothing is downloaded twice
    print(f"{target}: complete")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(Config, __doc__)))
