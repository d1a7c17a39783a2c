import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_detection import write_dicom

from cxr import reading
from cxr.reading import cache, radiograph

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def paths(tmp_path):
    """Six radiographs of six sizes, not in the order of their names."""
    folder = tmp_path / "흉부 images"
    folder.mkdir()
    random = np.random.default_rng(0)
    found = []
    for number in (3, 1, 5, 0, 4, 2):
        grey = random.integers(0, 256, (20 + number, 30 - number), np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
        found.append(folder / f"{number}.png")
    return found


@pytest.fixture
def reads(monkeypatch):
    """The names of the files decoded so far."""
    names, read = [], radiograph.read

    def counted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(radiograph, "read", counted)
    return names


def decode(paths, size=16, **options):
    return reading.decode_once(paths, size, paths[0].parents[1] / "store", name="train", progress=False, **options)


def stored(paths):
    return sorted(path.name for path in (paths[0].parents[1] / "store").iterdir())


def test_cached_squares_equal_those_of_reading_in_the_order_of_the_paths(paths):
    found = decode(paths)
    assert found.images.shape == (6, 16, 16)
    assert (found.images.dtype, found.sizes.dtype, found.readable.dtype) == (np.uint8, np.int32, bool)
    for index, path in enumerate(paths):
        radiograph = reading.read(path)
        assert np.array_equal(found.images[index], radiograph.square(16))
        assert found.headers[index] == radiograph.header
        assert tuple(found.sizes[index]) == radiograph.size
        assert found.hashes[index] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.sizes.tolist()[0] == [23, 27]
    assert found.readable.all()


def test_the_cache_is_a_plain_array_beside_json(paths):
    spoil(paths[1])
    found = decode(paths, skip_bad=True)
    (squares,) = paths[0].parents[1].glob("store/train-16px-*.npy")
    assert np.array_equal(np.load(squares), found.images)
    facts = json.loads(squares.with_suffix(".json").read_text())
    content = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert facts[0] == {"file": "3.png", "size": [23, 27], "sha256": content, "header": {}}
    assert facts[1].keys() == {"file", "error"} and facts[1]["error"].startswith(f"{paths[1]}: ")


def test_headers_are_kept_and_notes_are_counted(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, np.zeros((20, 30), np.uint8), PatientAge="051Y", PatientSex="F", ViewPosition="LL")
    for _ in range(2):
        with pytest.warns(UserWarning, match="^1 train images have a note, most often: .*view LL"):
            (header,) = reading.decode_once([path], 16, tmp_path / "store", name="train", progress=False).headers
        assert header[:3] == (51, "F", None)


def test_nothing_is_decoded_twice(paths, reads):
    first = decode(paths)
    decode(paths, size=20)  # has a cache of its own
    second = decode(paths)
    assert sorted(reads) == sorted(2 * [path.name for path in paths])
    assert np.array_equal(first.images, second.images)
    assert first.hashes == second.hashes


def change_content(paths):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(paths[2])


def change_time(paths):
    status = paths[2].stat()
    os.utime(paths[2], ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def change_name(paths):
    paths[2] = paths[2].rename(paths[2].with_name("other.png"))


@pytest.mark.parametrize("change", [change_content, change_time, list.reverse, list.pop, change_name])
def test_a_changed_file_or_list_is_decoded_anew_and_the_old_store_goes(paths, reads, change):
    decode(paths)
    before = stored(paths)
    change(paths)
    reads.clear()
    found = decode(paths)
    assert sorted(reads) == sorted(path.name for path in paths)
    assert np.array_equal(found.images[2], reading.read(paths[2]).square(16))
    assert len(stored(paths)) == len(before) == 3  # the squares, what is known of them, and a lock
    assert stored(paths) != before


def test_changed_code_of_the_reading_folder_decodes_anew(paths, reads, monkeypatch):
    code = paths[0].parents[1] / "code"
    shutil.copytree(ROOT / "cxr" / "reading", code)
    monkeypatch.setattr(cache, "__file__", str(code / "cache.py"))
    decode(paths)
    for change in ("picture.py", "new.py"):
        reads.clear()
        with (code / change).open("a") as file:
            file.write("# changed\n")
        decode(paths)
        assert len(reads) == len(paths), change


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"no picture")


def test_all_unreadable_files_are_named_and_skipped_on_demand_without_decoding_again(paths, reads):
    spoil(paths[1])
    paths[4].write_bytes(b"")
    with pytest.raises(ValueError, match=r"^2 of 6 images cannot be read: ") as caught:
        decode(paths)
    message = str(caught.value)
    assert f"{paths[1]}: neither JPEG, PNG" in message and f"{paths[4]}: is empty (0 bytes)" in message
    assert message.endswith(". Repair or remove them, or skip them with --skip-bad")
    reads.clear()
    found = decode(paths, skip_bad=True)
    assert reads == []
    assert found.readable.tolist() == [True, False, True, True, False, True]
    assert not found.images[1].any() and found.sizes[1].tolist() == [0, 0] and found.hashes[1] == ""
    assert np.array_equal(found.images[2], reading.read(paths[2]).square(16))


def test_a_file_gone_since_it_was_listed_is_named(paths):
    paths[2].unlink()
    with pytest.raises(ValueError, match=f"1 of 6 images cannot be read: {re.escape(str(paths[2]))}: no such file"):
        decode(paths)


def test_a_file_that_changes_while_it_is_read_is_named_and_no_store_is_left(paths, monkeypatch):
    read = radiograph.read

    def change(path):
        found = read(path)
        if path == paths[2]:
            path.write_bytes(paths[1].read_bytes())
        return found

    monkeypatch.setattr(radiograph, "read", change)
    with pytest.raises(ValueError, match=r"5\.png: changed while it was read; run again when it is complete"):
        decode(paths)
    assert stored(paths) == ["train-16px.lock"]


CHILD = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from cxr import reading
from cxr.reading import radiograph
folder, log, kill_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
read, count = radiograph.read, 0
def logged(path):
    global count
    count += 1
    if count == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
    with log.open("a") as file:
        file.write(path.name + chr(10))
    return read(path)
radiograph.read = logged
input()
found = reading.decode_once(sorted(folder.glob("*.png")), 16, folder.parent / "store", name="train", progress=False)
print(found.images.sum())
"""


def child(paths, log, kill_after=0):
    """Another process that decodes once it gets a line, and writes to ``log`` what it read."""
    words = [sys.executable, "-c", CHILD.format(root=str(ROOT)), paths[0].parent, log, str(kill_after)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_that_start_together_one_builds(paths, tmp_path):
    processes = [child(paths, tmp_path / "log") for _ in range(2)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    sums = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == sorted(path.name for path in paths)
    assert sums == [f"{decode(sorted(paths)).images.sum()}\n"] * 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_build_that_is_killed_leaves_no_store_and_the_next_run_builds_one(paths, tmp_path, reads):
    killed = child(paths, tmp_path / "log", kill_after=4)
    killed.communicate("\n")
    assert killed.returncode == -9
    assert not list((tmp_path / "store").glob("*.npy"))
    assert list((tmp_path / "store").glob("*.partial"))
    change_time(paths)  # the next build has another name and takes the rest away all the same
    assert decode(paths).readable.all()
    assert len(reads) == len(paths)
    assert len(stored(paths)) == 3
