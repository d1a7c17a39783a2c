import hashlib
import io
import os
import shutil
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

import download_data
from cxr import cli
from download_data import DATASETS, MAPPING, main

ROOT = Path(download_data.__file__).parent
LABELS, CLASS_INFO = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
JPEG, DICOM = b"\xff\xd8\xff", bytes(128) + b"DICM"


@pytest.fixture
def chest_xray(monkeypatch):
    """The set with two images a class, as {place: content}."""
    counts = dict.fromkeys(DATASETS["chest_xray"].images, 2)
    monkeypatch.setitem(DATASETS, "chest_xray", replace(DATASETS["chest_xray"], images=counts, zip_bytes=10_000))
    return {f"{folder}/{folder[-6:]}-{n}.jpeg": JPEG + f"{folder}{n}".encode() for folder in counts for n in range(2)}


@pytest.fixture
def rsna(monkeypatch):
    """The set with three exams, as {place: content}, mapping included."""
    files = {LABELS: b"labels", CLASS_INFO: b"classes", MAPPING: b"mapping"}
    tables = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    small = replace(DATASETS["rsna"], images={"stage_2_train_images": 3}, zip_bytes=10_000, tables=tables)
    monkeypatch.setitem(DATASETS, "rsna", small)
    monkeypatch.setattr(download_data, "urlopen", lambda _url, timeout: io.BytesIO(files[MAPPING]))
    return files | {f"stage_2_train_images/{exam}.dcm": DICOM + exam.encode() for exam in "abc"}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bring(monkeypatch, tmp_path):
    """Runs the script for ``dataset`` and the folder ``set``; gives its exit code."""

    def run(dataset, *flags):
        arguments = ["--dataset", dataset, "--output-dir", tmp_path / "set", *flags]
        monkeypatch.setattr(sys, "argv", ["download_data.py", *map(str, arguments)])
        return main(cli.parse(download_data.Config))

    return run


@pytest.mark.parametrize(
    ("dataset", "path", "place"),
    [
        ("chest_xray", "chest_xray/train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/IM-0115-0001.jpeg"),
        ("chest_xray", "chest_xray/chest_xray/test/PNEUMONIA/person1_virus_6.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg"),
        ("chest_xray", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg"),
        ("chest_xray", "chest_xray/__MACOSX/train/NORMAL/._IM-0115-0001.jpeg", None),
        ("chest_xray", "chest_xray/train/NORMAL/.DS_Store", None),
        ("chest_xray", "chest_xray/NORMAL/a.jpeg", None),
        ("chest_xray", "../train/NORMAL/../../a.jpeg", None),
        ("rsna", "stage_2_train_labels.csv", LABELS),
        ("rsna", "rsna/stage_2_train_images/0004cfab.dcm", "stage_2_train_images/0004cfab.dcm"),
        ("rsna", "stage_2_test_images/0000a175.dcm", None),
        ("rsna", "stage_2_sample_submission.csv", None),
    ],
)  # fmt: skip
def test_the_place_of_a_file_of_the_zip(dataset, path, place):
    assert download_data.place(PurePosixPath(path), DATASETS[dataset]) == place


@pytest.mark.data
def test_the_published_tables_have_the_recorded_checksums():
    tables = Path(os.environ.get("CXR_DATA", ROOT.parent / "shared" / "data")) / "rsna_tables"
    if not tables.is_dir():
        pytest.skip(f"{tables} is not there; CXR_DATA names the folder of the real data")
    problems = download_data.problems_of(DATASETS["rsna"], tables)
    assert not [problem for problem in problems if LABELS in problem or CLASS_INFO in problem]


def test_a_zip_as_kaggle_packs_it_gives_each_image_once_and_nothing_else(tmp_path, chest_xray, bring, capsys):
    clutter = {"chest_xray/train/.DS_Store": b"x", "chest_xray/__MACOSX/train/NORMAL/._NORMAL-0.jpeg": b"x"}
    twice = {
        prefix + name: data for prefix in ("chest_xray/", "chest_xray/chest_xray/") for name, data in chest_xray.items()
    }
    archive = write_zip(tmp_path / "archive.zip", twice | clutter)
    assert bring("chest_xray", "--zip", archive) == 0
    assert files_below(tmp_path / "set") == chest_xray
    assert "12 files written, 0 were there" in capsys.readouterr().out
    assert bring("chest_xray", "--verify") == 0
    shutil.rmtree(tmp_path / "set")
    unpacked = write_files(tmp_path / "chest_xray" / "chest_xray", chest_xray)
    assert bring("chest_xray", "--zip", unpacked.parent) == 0  # as some browsers leave it
    assert files_below(tmp_path / "set") == chest_xray


def test_rsna_from_a_zip_with_its_mapping_and_without_the_unlabelled_images(tmp_path, rsna, bring):
    published = {name: data for name, data in rsna.items() if name != MAPPING}
    archive = write_zip(tmp_path / "rsna.zip", published | {"stage_2_test_images/t.dcm": DICOM})
    assert bring("rsna", "--zip", archive) == 0
    assert files_below(tmp_path / "set") == rsna


def test_what_is_there_stays_and_what_is_missing_or_cut_is_written(tmp_path, chest_xray, bring, capsys):
    archive, target = write_zip(tmp_path / "a.zip", chest_xray), tmp_path / "set"
    assert bring("chest_xray", "--zip", archive) == 0
    (target / "train/NORMAL/NORMAL-0.jpeg").unlink()
    (target / "val/NORMAL/NORMAL-0.jpeg").write_bytes(JPEG)
    assert bring("chest_xray", "--zip", archive) == 0
    assert "2 files written, 10 were there" in capsys.readouterr().out
    assert files_below(target) == chest_xray


def test_a_damaged_zip_and_that_of_something_else_are_named_and_leave_nothing(tmp_path, chest_xray, bring):
    whole = write_zip(tmp_path / "a.zip", chest_xray).read_bytes()
    for content, reason in (
        (whole.replace(b"train/NORMAL1", b"train/NORMAL?"), "Bad CRC-32 for file .*"),
        (whole[: len(whole) // 2], "File is not a zip file"),
    ):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.zip cannot be unpacked \({reason}\); download it again"):
            bring("chest_xray", "--zip", tmp_path / "a.zip")
    assert not (tmp_path / "set/train/NORMAL/NORMAL-1.jpeg").exists()
    archive = write_zip(tmp_path / "b.zip", {"holiday.jpeg": JPEG})
    with pytest.raises(ValueError, match=r"b\.zip: no file of the data set; expected the content of https"):
        bring("chest_xray", "--zip", archive)


def test_verify_tells_what_is_wrong_and_changes_nothing(tmp_path, chest_xray, bring, capsys):
    target = write_files(tmp_path / "set", chest_xray)
    (target / "train/NORMAL/NORMAL-0.jpeg").unlink()
    write_files(target, {"test/PNEUMONIA/extra.jpeg": JPEG, "val/NORMAL/NORMAL-0.jpeg": b"<html>"})
    before = files_below(target)
    assert bring("chest_xray", "--verify") == 1
    assert capsys.readouterr().out == (
        f"{target}: incomplete: train/NORMAL has 1 images, expected 2, "
        "val/NORMAL/NORMAL-0.jpeg is no .jpeg file, test/PNEUMONIA has 3 images, expected 2\n"
    )
    assert files_below(target) == before


class RequestError(OSError):
    """As requests.exceptions.RequestException: an OSError that carries the answer, or None where there was none."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.response = None if status is None else types.SimpleNamespace(status_code=status)


class UnauthenticatedError(Exception):
    """As kagglehub's."""


@pytest.fixture
def kaggle(monkeypatch):
    """A stand-in for kagglehub: ``answer`` is the files it brings, or the error it raises; ``calls`` what it was asked."""
    state = types.SimpleNamespace(answer={}, calls=[])

    def download(handle):
        state.calls.append(handle)
        if isinstance(state.answer, Exception):
            raise state.answer
        return str(write_files(Path(os.environ["KAGGLEHUB_CACHE"]) / "versions" / "2", state.answer))

    module = types.ModuleType("kagglehub")
    module.dataset_download = module.competition_download = download
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    monkeypatch.setenv("KAGGLEHUB_CACHE", "")  # so that what the script sets is undone
    monkeypatch.delenv("KAGGLEHUB_CACHE")
    return state


def test_the_public_set_comes_through_kagglehub_and_leaves_no_second_copy(tmp_path, chest_xray, kaggle, bring):
    kaggle.answer = {f"chest_xray/chest_xray/{name}": data for name, data in chest_xray.items()}
    assert bring("chest_xray") == 0
    assert files_below(tmp_path / "set") == chest_xray
    assert bring("chest_xray") == 0
    assert kaggle.calls == ["paultimothymooney/chest-xray-pneumonia"]  # a whole set is not asked for again


@pytest.mark.parametrize(
    ("dataset", "answer", "kind", "parts"),
    [
        ("rsna", RequestError("no", 403), PermissionError, ["(403)", "accept the rules at https://www", "--zip FILE"]),
        ("rsna", RequestError("no", 401), PermissionError, ["(401)", "create a token at https://", "--zip FILE"]),
        ("rsna", UnauthenticatedError(), PermissionError, ["(no account)", "KAGGLE_API_TOKEN", "--zip FILE"]),
        ("rsna", RequestError("no", 500), ConnectionError, ["returned 500", "run this again", "--zip FILE"]),
        (
            "chest_xray",
            RequestError("no route"),
            ConnectionError,
            ["cannot be reached", "(RequestError)", "--zip FILE"],
        ),
        (
            "chest_xray",
            zipfile.BadZipFile("bad"),
            ConnectionError,
            ["sent a damaged file (BadZipFile)", "delete", ".kagglehub"],
        ),
        ("chest_xray", OSError(28, "No space left on device"), OSError, ["No space left on device"]),
    ],
)
def test_what_kaggle_answers_is_explained(chest_xray, rsna, kaggle, bring, dataset, answer, kind, parts):
    kaggle.answer = answer
    with pytest.raises(kind) as raised:
        bring(dataset)
    assert type(raised.value) is kind
    for part in parts:
        assert part in str(raised.value)


def test_a_zip_must_exist_and_is_not_verified(tmp_path, chest_xray, bring):
    with pytest.raises(FileNotFoundError, match=r"no\.zip"):
        bring("chest_xray", "--zip", tmp_path / "no.zip")
    with pytest.raises(ValueError, match="--verify writes nothing: omit --zip"):
        bring("chest_xray", "--zip", tmp_path / "no.zip", "--verify")
