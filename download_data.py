"""Bring a real data set to where the training scripts look for it, and check that it is whole.

    python download_data.py --dataset chest_xray             # public: no Kaggle account needed
    python download_data.py --dataset rsna                   # needs a Kaggle token and accepted rules
    python download_data.py --dataset rsna --zip FILE        # from a zip downloaded by hand
    python download_data.py --dataset rsna --verify          # only look at what is there

Fills chest_xray/ or dataset_det/ at the repository root; started again, it goes on where it stopped. Exit code 0: the
set is whole; 1: files are missing or damaged, listed on stdout; 2: it could not be done, one line on stderr says why.
"""

import importlib
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from cxr import cli
from cxr.files import sha256_of
from cxr.published import DATASETS, DataSet, file_problems, wanted
from cxr.unpacking import Member, folder_entries, require_space, unpack, write_whole, zip_entries

ROOT = Path(__file__).resolve().parent
SHOWN_PROBLEMS = 5
EXIT_NOT_WHOLE = 1
KAGGLE_CACHE = ".kagglehub"  # inside the target: the same disk, and gone with the set
KAGGLE_TOKENS = "https://www.kaggle.com/settings/api"

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
