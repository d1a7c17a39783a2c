import dataclasses
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import types
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from filelock import FileLock
from tqdm import tqdm

import download_data
from cxr import published, unpacking
from cxr.published import RSNA_IMAGES, RSNA_LABELS
from download_data import MAPPING_FILE, main

ROOT = Path(download_data.__file__).parent
CLASS_INFO = "stage_2_detailed_class_info.csv"
JPEG = b"\xff\xd8\xff"
DICOM = bytes(128) + b"DICM"


@pytest.fixture
def small_chest_xray(monkeypatch):
    """The set with two images a class, as {place: content}."""
    counts = dict.fromkeys(published.CHEST_XRAY_IMAGES, 2)
    monkeypatch.setattr(published, "CHEST_XRAY_IMAGES", counts)
    with_size(monkeypatch, "chest_xray", 10_000)
    return {f"{s}/{c}/{c}-{n}.jpeg": JPEG + f"{s}{c}{n}".encode() for s, c in counts for n in range(2)}


@pytest.fixture
def small_rsna(monkeypatch):
    """The set with three exams of which one has two boxes, as {place: content}, mapping included."""
    files = {f"{RSNA_IMAGES}/{exam}.dcm": DICOM + exam.encode() for exam in "abc"}
    files[RSNA_LABELS] = b"patientId,x,y,width,height,Target\na,,,,,0\nb,1,2,3,4,1\nb,5,6,7,8,1\nc,,,,,0\n"
    files[CLASS_INFO] = b"patientId,class\na,Normal\nb,Lung Opacity\nb,Lung Opacity\nc,Normal\n"
    files[MAPPING_FILE] = b'[{"subset_img_id": "a", "img_id": "00000001_000.png"}]'
    tables = {name: hashlib.sha256(files[name]).hexdigest() for name in (RSNA_LABELS, CLASS_INFO)}
    monkeypatch.setattr(published, "RSNA_TABLES", tables)
    monkeypatch.setattr(published, "RSNA_EXAMS", 3)
    monkeypatch.setattr(published, "RSNA_ROWS", 4)
    monkeypatch.setattr(download_data, "MAPPING_BYTES", len(files[MAPPING_FILE]))
    monkeypatch.setattr(download_data, "MAPPING_SHA256", hashlib.sha256(files[MAPPING_FILE]).hexdigest())
    with_size(monkeypatch, "rsna", 10_000)
    return files


def with_size(monkeypatch, name, zip_bytes):
    dataset = dataclasses.replace(download_data.DATASETS[name], zip_bytes=zip_bytes)
    monkeypatch.setitem(download_data.DATASETS, name, dataset)


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def bring(dataset, target, *flags):
    return main(["--dataset", dataset, "--out-dir", str(target), *map(str, flags)])


# What the published zips look like


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("chest_xray/train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/IM-0115-0001.jpeg"),
        ("chest_xray/chest_xray/test/PNEUMONIA/person1_virus_6.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg"),
        ("val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg"),
        ("chest_xray/train/NORMAL/Thumbs.db", None),
        ("chest_xray/train/OTHER/a.jpeg", None),
        ("chest_xray/NORMAL/a.jpeg", None),
        ("a.jpeg", None),
    ],
)
def test_place_of_a_chest_xray_file(path, place):
    assert published.place_chest_xray(PurePosixPath(path)) == place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("stage_2_train_labels.csv", RSNA_LABELS),
        ("rsna/stage_2_train_images/0004cfab.dcm", f"{RSNA_IMAGES}/0004cfab.dcm"),
        ("stage_2_test_images/0000a175.dcm", None),
        ("stage_2_train_images/index.html", None),
        ("stage_2_sample_submission.csv", None),
        ("GCP Credits Request Link - RSNA.txt", None),
    ],
)
def test_place_of_an_rsna_file(path, place):
    assert published.place_rsna(PurePosixPath(path)) == place


def test_the_numbers_of_the_published_sets():
    counts = published.CHEST_XRAY_IMAGES
    of_split = {split: sum(n for (s, _), n in counts.items() if s == split) for split in ("train", "val", "test")}
    assert of_split == {"train": 5216, "val": 16, "test": 624}
    assert (counts["train", "NORMAL"], counts["test", "NORMAL"]) == (1341, 234)
    assert (published.RSNA_EXAMS, published.RSNA_ROWS) == (26684, 30227)


@pytest.mark.data
def test_the_published_tables_have_the_recorded_checksums_and_numbers():
    tables = Path(os.environ.get("CXR_DATA", ROOT.parent / "shared" / "data")) / "rsna_tables"
    if not tables.is_dir():
        pytest.skip(f"{tables} is not there; CXR_DATA names the folder of the real data")
    for name, sha256 in published.RSNA_TABLES.items():
        assert published.file_problems(tables / name, sha256) == []
        assert (tables / name).read_bytes().count(b"\n") == published.RSNA_ROWS + 1
    exams = {line.split(",")[0] for line in (tables / RSNA_LABELS).read_text().splitlines()[1:]}
    assert len(exams) == published.RSNA_EXAMS


def test_a_zip_as_kaggle_packs_it_gives_each_image_once_and_nothing_else(tmp_path, monkeypatch, capsys):
    counts = {split_and_class: -(-count // 20) for split_and_class, count in published.CHEST_XRAY_IMAGES.items()}
    monkeypatch.setattr(published, "CHEST_XRAY_IMAGES", counts)
    images = {
        f"{split}/{label}/{label}-{n}.jpeg": JPEG + f"{split}{label}{n}".encode()
        for (split, label), count in counts.items()
        for n in range(count)
    }
    clutter = {"chest_xray/train/.DS_Store": b"x", "chest_xray/__MACOSX/train/NORMAL/._NORMAL-0.jpeg": b"x"}
    twice = {
        prefix + name: data for prefix in ("chest_xray/", "chest_xray/chest_xray/") for name, data in images.items()
    }
    archive = write_zip(tmp_path / "archive.zip", twice | clutter)
    assert bring("chest_xray", tmp_path / "set", "--zip", archive) == 0
    assert files_below(tmp_path / "set") == images
    assert "296 files written, 0 were there" in capsys.readouterr().out
    assert bring("chest_xray", tmp_path / "set", "--verify") == 0


def test_rsna_from_a_zip_and_a_mapping_without_the_unlabelled_images(tmp_path, small_rsna, capsys):
    mapping = write_files(tmp_path, {"given.json": small_rsna[MAPPING_FILE]}) / "given.json"
    published = {name: data for name, data in small_rsna.items() if name != MAPPING_FILE}
    archive = write_zip(tmp_path / "rsna.zip", published | {"stage_2_test_images/t.dcm": DICOM})
    assert bring("rsna", tmp_path / "set", "--zip", archive, "--mapping", mapping) == 0
    assert files_below(tmp_path / "set") == small_rsna
    assert "whole (26,684 DICOM files, 30,227 rows" in capsys.readouterr().out


def test_the_folder_that_a_browser_unpacked_is_as_good_as_the_zip(tmp_path, small_chest_xray):
    unpacked = write_files(tmp_path / "chest_xray" / "chest_xray", small_chest_xray)
    assert bring("chest_xray", tmp_path / "set", "--zip", unpacked.parent) == 0
    assert files_below(tmp_path / "set") == small_chest_xray


@pytest.mark.parametrize("name", ["__MACOSX/train/NORMAL/x.jpeg", "train/NORMAL/._x.jpeg", "train/.DS_Store"])
def test_the_clutter_of_macos_stays_outside(tmp_path, small_chest_xray, name):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray | {name: JPEG})
    assert bring("chest_xray", tmp_path / "set", "--zip", archive) == 0
    assert files_below(tmp_path / "set") == small_chest_xray


# Going on


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_what_is_there_stays_and_what_is_missing_cut_or_changed_is_written(tmp_path, small_chest_xray, capsys, kind):
    source = {
        "zip": lambda: write_zip(tmp_path / "a.zip", small_chest_xray),
        "folder": lambda: write_files(tmp_path / "a", small_chest_xray),
    }[kind]()
    target = tmp_path / "set"
    assert bring("chest_xray", target, "--zip", source) == 0
    (target / "train/NORMAL/NORMAL-0.jpeg").unlink()
    (target / "val/NORMAL/NORMAL-0.jpeg").write_bytes(JPEG)
    changed = target / "test/NORMAL/NORMAL-0.jpeg"
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")  # same size: only the checksum can tell
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.jpeg") if path != changed}
    capsys.readouterr()
    assert bring("chest_xray", target, "--zip", source) == 0
    assert "3 files written, 9 were there" in capsys.readouterr().out
    assert files_below(target) == small_chest_xray
    kept = [path for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == 9


def test_an_interrupted_write_leaves_the_old_file_and_no_partial_one(tmp_path):
    class Interrupted(io.BytesIO):
        def read(self, _size=-1):
            if self.tell() == 0:
                return super().read(3)
            raise KeyboardInterrupt

    member = unpacking.Member("a", 6, None, lambda: Interrupted(b"abcdef"))
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), tqdm(disable=True) as progress:
        unpacking.write_whole(tmp_path / "a", member, progress)
    assert files_below(tmp_path) == {"a": b"old"}


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, small_chest_xray):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray)
    (tmp_path / "set").mkdir()
    with (
        FileLock(tmp_path / "set" / ".lock"),
        pytest.raises(OSError, match=r"another download_data\.py is writing there"),
    ):
        bring("chest_xray", tmp_path / "set", "--zip", archive)
    assert bring("chest_xray", tmp_path / "set", "--zip", archive) == 0


# Hostile and broken archives


@pytest.mark.parametrize(
    "name",
    [
        "../train/NORMAL/a.jpeg",
        "x/../../train/NORMAL/a.jpeg",
        "/train/NORMAL/a.jpeg",
        "C:/train/NORMAL/a.jpeg",
        "train\\..\\..\\a.jpeg",
        "train/NORMAL/a.jpeg:stream.jpeg",
        "train/NORMAL/a\nb.jpeg",
    ],
)
def test_a_path_that_leads_outside_condemns_the_archive(tmp_path, small_chest_xray, name):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray | {name: JPEG})
    with pytest.raises(ValueError, match=r"not safe to unpack: .* is not a plain relative path"):
        bring("chest_xray", tmp_path / "deep" / "set", "--zip", archive)
    assert files_below(tmp_path / "deep") == {}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_link_or_device_condemns_the_archive(tmp_path, small_chest_xray, kind):
    entry = zipfile.ZipInfo("train/NORMAL/link.jpeg")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    archive = write_zip(tmp_path / "a.zip", small_chest_xray)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(entry, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link or a device"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)
    assert files_below(tmp_path / "set") == {}


def test_an_encrypted_entry_is_refused(tmp_path, small_chest_xray):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in small_chest_xray.items():
            opened.writestr(name, content)
        opened.filelist[0].flag_bits |= 1
    with pytest.raises(ValueError, match="is encrypted"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)


def test_an_archive_that_declares_more_than_the_set_can_have_is_not_unpacked(tmp_path, small_chest_xray):
    bomb = {"train/NORMAL/zeros.jpeg": bytes(20_001)}
    archive = write_zip(tmp_path / "a.zip", small_chest_xray | bomb, zipfile.ZIP_DEFLATED)
    assert archive.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"declares 20,\d+ bytes; the published zip has only 10,000"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)
    assert files_below(tmp_path / "set") == {}


def test_an_entry_that_holds_more_than_it_declares_writes_no_byte_more(tmp_path, small_chest_xray, monkeypatch):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("train/NORMAL/bomb.jpeg", bytes(50_000_000))
        opened.filelist[0].file_size = 100
    sizes = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (sizes.append(path.stat().st_size), unlink(path, **how)))
    with pytest.raises(ValueError, match=r"cannot be unpacked .*download it again"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)
    assert sizes[0] <= 100
    assert files_below(tmp_path / "set") == {}


def test_a_source_that_grows_or_shrinks_is_an_error(tmp_path):
    for content, message in ((b"abcd", "more than the expected 3 bytes"), (b"ab", "2 bytes, expected 3")):
        member = unpacking.Member("source", 3, None, lambda content=content: io.BytesIO(content))
        with pytest.raises(ValueError, match=message), tqdm(disable=True) as progress:
            unpacking.write_whole(tmp_path / "a", member, progress)
    assert files_below(tmp_path) == {}


def test_a_changed_byte_is_found_and_not_left_behind(tmp_path, small_chest_xray):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(JPEG + b"trainNORMAL1", JPEG + b"trainNORMAL?"))
    with pytest.raises(ValueError, match=r"Bad CRC-32 for file 'train/NORMAL/NORMAL-1\.jpeg'.*download it again"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)
    assert list(files_below(tmp_path / "set")) == ["train/NORMAL/NORMAL-0.jpeg"]


def test_half_a_zip_is_named(tmp_path, small_chest_xray):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"a\.zip cannot be unpacked \(File is not a zip file\); download it again"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)


@pytest.mark.parametrize("content", [JPEG, JPEG + b"trainNORMAL?"])
def test_two_different_files_for_one_place_are_an_error(tmp_path, small_chest_xray, content):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray | {"copy/train/NORMAL/NORMAL-0.jpeg": content})
    with pytest.raises(ValueError, match=r"differ but are both train/NORMAL/NORMAL-0\.jpeg"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)


def test_the_zip_of_something_else_is_named(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"holiday.jpeg": JPEG})
    with pytest.raises(
        ValueError, match=r"a\.zip: nothing in it belongs to the set; expected what https://www\.kaggle"
    ):
        bring("chest_xray", tmp_path / "set", "--zip", archive)


def test_a_full_disk_is_noticed_before_a_byte_is_written(tmp_path, small_chest_xray, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", small_chest_xray)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: types.SimpleNamespace(free=unpacking.SPARE_BYTES))
    with pytest.raises(OSError, match=r"set: 0\.10 GB are needed, 0\.10 GB are free; make room or .*--out-dir"):
        bring("chest_xray", tmp_path / "set", "--zip", archive)
    assert files_below(tmp_path / "set") == {}


# Verifying


def test_verify_tells_what_is_wrong_and_changes_nothing(tmp_path, small_chest_xray, capsys):
    target = write_files(tmp_path / "set", small_chest_xray)
    (target / "train/NORMAL/NORMAL-0.jpeg").unlink()
    write_files(
        target, {"test/PNEUMONIA/extra.jpeg": JPEG, "val/NORMAL/NORMAL-0.jpeg": b"<html>", "val/NORMAL/._x.jpeg": b""}
    )
    before = files_below(target)
    assert bring("chest_xray", target, "--verify") == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{target}: not whole, 3 found; without --verify this script brings what is missing",
        "  train/NORMAL: 1 images, expected 2",
        "  val/NORMAL/NORMAL-0.jpeg: not a JPEG file",
        "  test/PNEUMONIA: 3 images, expected 2",
    ]
    assert files_below(target) == before
    assert not (target / ".lock").exists()


def test_verify_lists_the_first_few_and_counts_the_rest(tmp_path, small_chest_xray, capsys):
    target = write_files(tmp_path / "set", dict.fromkeys(small_chest_xray, b""))
    assert bring("chest_xray", target, "--verify") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert "12 found" in lines[0]
    assert lines[-1] == "  and 7 more"


def test_verify_of_rsna_names_each_kind_of_fault(tmp_path, small_rsna, capsys):
    target = write_files(tmp_path / "set", small_rsna)
    assert bring("rsna", target, "--verify") == 0
    (target / RSNA_IMAGES / "b.dcm").rename(target / RSNA_IMAGES / "z.dcm")
    (target / RSNA_IMAGES / "a.dcm").write_bytes(b"no preamble")
    (target / CLASS_INFO).write_bytes(b"patientId,class\na,Normal\n")
    (target / MAPPING_FILE).unlink()
    capsys.readouterr()
    assert bring("rsna", target, "--verify") == 1
    found, expected = hashlib.sha256(b"patientId,class\na,Normal\n").hexdigest(), published.RSNA_TABLES[CLASS_INFO]
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"  {CLASS_INFO}: 1 rows with sha256 {found}, expected {expected} of 4 rows",
        f"  {RSNA_IMAGES}: 1 exams have no DICOM file, the first is b.dcm",
        f"  {RSNA_IMAGES}: 1 files are in no table, the first is z.dcm",
        f"  {RSNA_IMAGES}/a.dcm: not a DICOM file",
        f"  {MAPPING_FILE}: missing",
    ]


def test_verify_of_rsna_without_labels_still_counts_the_images(tmp_path, small_rsna, capsys):
    target = write_files(tmp_path / "set", small_rsna)
    (target / RSNA_LABELS).unlink()
    (target / RSNA_IMAGES / "b.dcm").unlink()
    assert bring("rsna", target, "--verify") == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"  {RSNA_LABELS}: missing",
        f"  {RSNA_IMAGES}: 2 DICOM files, expected 3",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "rsna", "--verify", "--zip", "a.zip"], "--verify only looks"),
        (["--dataset", "rsna", "--verify", "--mapping", "a.json"], "--verify only looks"),
        (["--dataset", "chest_xray", "--mapping", "a.json"], "--mapping belongs to --dataset rsna, not to chest_xray"),
    ],
)
def test_flags_that_contradict_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        main(flags)


# The mapping


def test_a_mapping_that_is_not_the_published_one_is_refused_before_the_rest(tmp_path, small_rsna):
    archive = write_zip(tmp_path / "rsna.zip", small_rsna)
    published = small_rsna[MAPPING_FILE]
    for content, message in (
        (published[:-1] + b"?", r"given\.json: sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (published[:-1], r"given\.json: \d+ bytes, expected \d+"),
        (published + b" ", r"given\.json: more than the expected \d+ bytes"),
    ):
        given = write_files(tmp_path, {"given.json": content}) / "given.json"
        with pytest.raises(ValueError, match=message):
            bring("rsna", tmp_path / "set", "--zip", archive, "--mapping", given)
        assert files_below(tmp_path / "set") == {}


def test_a_mapping_that_is_not_there_is_not_taken_for_a_lost_connection(tmp_path, small_rsna):
    with pytest.raises(FileNotFoundError, match=r"given\.json"):
        bring("rsna", tmp_path / "set", "--mapping", tmp_path / "given.json")


def test_the_mapping_is_fetched_once_over_https(tmp_path, small_rsna, monkeypatch):
    asked = []

    def urlopen(url, timeout):
        asked.append((url, timeout > 0))
        return io.BytesIO(small_rsna[MAPPING_FILE])

    monkeypatch.setattr(download_data, "urlopen", urlopen)
    archive = write_zip(tmp_path / "rsna.zip", {k: v for k, v in small_rsna.items() if k != MAPPING_FILE})
    for _ in range(2):
        assert bring("rsna", tmp_path / "set", "--zip", archive) == 0
    address = "https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/pneumonia-challenge-dataset-mappings_2018.json"
    assert asked == [(address, True)]
    assert files_below(tmp_path / "set") == small_rsna


def test_an_unreachable_mapping_says_what_to_fetch_by_hand_and_keeps_the_rest(tmp_path, small_rsna, monkeypatch):
    monkeypatch.setattr(download_data, "MAPPING_URL", f"https://127.0.0.1:9/{MAPPING_FILE}")  # discard port: refused
    archive = write_zip(tmp_path / "rsna.zip", {k: v for k, v in small_rsna.items() if k != MAPPING_FILE})
    with pytest.raises(
        ConnectionError,
        match=r"did not come .*, the rest is in .* download https://.* by hand and add `--mapping FILE`",
    ):
        bring("rsna", tmp_path / "set", "--zip", archive)
    assert set(files_below(tmp_path / "set")) == set(small_rsna) - {MAPPING_FILE}


# Kaggle


class FakeRequestError(OSError):
    """As requests.exceptions.RequestException: an OSError that carries the answer, or None where there was none."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.response = None if status is None else types.SimpleNamespace(status_code=status)


@pytest.fixture
def kaggle(monkeypatch):
    """A stand-in for kagglehub: ``answer`` is the files it brings, or the error it raises; ``calls`` what it was asked."""
    module = types.ModuleType("kagglehub")
    module.exceptions = types.SimpleNamespace(
        **{
            name: type(name, (Exception,), {})
            for name in ("UnauthenticatedError", "CredentialError", "DataCorruptionError")
        }
    )
    state = types.SimpleNamespace(answer={}, calls=[], exceptions=module.exceptions)

    def download(handle):
        folder = Path(os.environ["KAGGLEHUB_CACHE"]) / "versions" / "2"
        state.calls.append((handle, folder))
        if isinstance(state.answer, Exception):
            raise state.answer
        return str(write_files(folder, state.answer))

    module.dataset_download = module.competition_download = download
    requests = types.ModuleType("requests")
    requests.exceptions = types.SimpleNamespace(RequestException=FakeRequestError)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    monkeypatch.setitem(sys.modules, "requests", requests)
    monkeypatch.setenv("KAGGLEHUB_CACHE", "")  # so that what the script sets is undone
    monkeypatch.delenv("KAGGLEHUB_CACHE")
    return state


def test_the_public_set_comes_through_kagglehub_and_leaves_no_second_copy(tmp_path, small_chest_xray, kaggle):
    kaggle.answer = {f"chest_xray/chest_xray/{name}": data for name, data in small_chest_xray.items()}
    kaggle.answer |= {f"chest_xray/{name}": data for name, data in small_chest_xray.items()}
    target = tmp_path / "set"
    assert bring("chest_xray", target) == 0
    assert kaggle.calls == [("paultimothymooney/chest-xray-pneumonia", target / ".kagglehub" / "versions" / "2")]
    assert files_below(target) == small_chest_xray
    assert bring("chest_xray", target) == 0
    assert len(kaggle.calls) == 1  # a whole set is not asked for again


def test_rsna_comes_through_kagglehub(tmp_path, small_rsna, kaggle, monkeypatch):
    monkeypatch.setattr(download_data, "urlopen", lambda _url, timeout: io.BytesIO(small_rsna[MAPPING_FILE]))
    kaggle.answer = {name: data for name, data in small_rsna.items() if name != MAPPING_FILE}
    assert bring("rsna", tmp_path / "set") == 0
    assert kaggle.calls[0][0] == "rsna-pneumonia-detection-challenge"
    assert files_below(tmp_path / "set") == small_rsna


def test_a_download_that_is_not_whole_is_kept_for_the_next_run(tmp_path, small_chest_xray, kaggle, capsys):
    kaggle.answer = dict(list(small_chest_xray.items())[1:])
    assert bring("chest_xray", tmp_path / "set") == 1
    assert "train/NORMAL: 1 images, expected 2" in capsys.readouterr().out
    assert (tmp_path / "set" / ".kagglehub").is_dir()


def test_a_cache_that_the_user_chose_is_used_and_left(tmp_path, small_chest_xray, kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    kaggle.answer = small_chest_xray
    assert bring("chest_xray", tmp_path / "set") == 0
    assert len(list((tmp_path / "cache").rglob("*.jpeg"))) == 12
    assert not (tmp_path / "set" / ".kagglehub").exists()


def test_room_for_archive_and_files_is_needed_before_the_download(tmp_path, small_chest_xray, kaggle, monkeypatch):
    free = unpacking.SPARE_BYTES + 2 * 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: types.SimpleNamespace(free=free - 1))
    with pytest.raises(OSError, match="GB are needed"):
        bring("chest_xray", tmp_path / "set")
    assert kaggle.calls == []
    begun = {".kagglehub/2.archive": bytes(1)}  # an archive of which one byte has come
    write_files(tmp_path / "set", begun)
    monkeypatch.delenv("KAGGLEHUB_CACHE")
    kaggle.answer = small_chest_xray
    assert bring("chest_xray", tmp_path / "set") == 0


RULES = "https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge/rules"


@pytest.mark.parametrize(
    ("dataset", "answer", "kind", "parts"),
    [
        ("rsna", FakeRequestError("no", 403), PermissionError, ["(403)", f"accept the rules at {RULES}", "--zip FILE"]),
        ("rsna", FakeRequestError("no", 401), PermissionError, ["(401)", "API token", RULES, "--zip FILE"]),
        ("rsna", FakeRequestError("no", 500), ConnectionError, ["answers 500", "try again later"]),
        ("chest_xray", FakeRequestError("no", 403), ConnectionError, ["answers 403", "chest-xray-pneumonia"]),
        (
            "chest_xray",
            FakeRequestError("no route"),
            ConnectionError,
            [
                "connection to Kaggle failed (FakeRequestError)",
                "download the zip at https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia in a browser",
                "add `--zip FILE` to this command, which unpacks it to",
            ],
        ),
        (
            "chest_xray",
            ValueError("Unsupported archive type."),
            ValueError,
            ["Unsupported archive type", "delete", ".kagglehub"],
        ),
        ("chest_xray", zipfile.BadZipFile("bad"), ValueError, ["kagglehub stopped (bad)"]),
    ],
)
def test_what_kaggle_answers_is_explained(tmp_path, kaggle, dataset, answer, kind, parts, monkeypatch):
    with_size(monkeypatch, dataset, 0)
    kaggle.answer = answer
    with pytest.raises(kind) as raised:
        bring(dataset, tmp_path / "set")
    assert type(raised.value) is kind
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("UnauthenticatedError", PermissionError, "create an API token at https://www.kaggle.com/settings/api"),
        ("CredentialError", PermissionError, "KAGGLE_API_TOKEN"),
        ("DataCorruptionError", ValueError, "kagglehub stopped"),
    ],
)
def test_errors_of_kagglehub_itself_are_explained(tmp_path, kaggle, monkeypatch, name, kind, message):
    with_size(monkeypatch, "rsna", 0)
    kaggle.answer = getattr(kaggle.exceptions, name)("x")
    with pytest.raises(kind, match=message):
        bring("rsna", tmp_path / "set")


def test_an_error_of_the_disk_is_not_taken_for_one_of_the_connection(tmp_path, kaggle, monkeypatch):
    with_size(monkeypatch, "rsna", 0)
    kaggle.answer = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left on device"):
        bring("rsna", tmp_path / "set")


def test_kagglehub_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ValueError, match="kagglehub is not installed: `pip install kagglehub`, or download the zip at"):
        bring("chest_xray", tmp_path / "set")


# The command


def run(*arguments, cwd):
    command = [sys.executable, str(ROOT / "download_data.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--zip", "no.zip"], "no.zip: no such file; expected the zip of https://www.kaggle.com/"),
        (["--out-dir", "no_folder", "--verify"], "no_folder: no such folder; without --verify this script fills it"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    arguments = arguments if "--out-dir" in arguments else [*arguments, "--out-dir", tmp_path / "set"]
    done = run("--dataset", "chest_xray", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path}")
    assert message in done.stderr


def test_a_set_that_is_not_whole_is_exit_code_1(tmp_path):
    done = run("--dataset", "chest_xray", "--out-dir", tmp_path, "--verify", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "train/PNEUMONIA: 0 images, expected 3,875" in done.stdout
