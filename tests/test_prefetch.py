import threading
import time

import numpy as np
import pytest
from PIL import Image

from cxr import reading
from cxr.reading import prefetch, radiograph


def write_images(folder, count):
    """Radiographs of different content and size, named against their order."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{count - number:03}.png"
        Image.fromarray(random.integers(0, 256, (20 + number % 5, 24), np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17])
def test_batches_hold_every_file_once_in_order(tmp_path, count):
    paths = write_images(tmp_path, count)
    batches = list(reading.read_ahead(paths, 16, batch_size=4))
    assert [read.path for batch in batches for read in batch] == paths
    assert [len(batch) for batch in batches] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    for read in (read for batch in batches for read in batch):
        image, (height, width), _ = reading.read_square(read.path, 16)
        assert np.array_equal(read.image, image)
        assert (read.height, read.width, read.error) == (height, width, "")


def test_order_is_kept_when_later_files_are_read_sooner(tmp_path, monkeypatch):
    paths = write_images(tmp_path, 12)
    read_square = radiograph.read_square

    def late_first(path, size):
        time.sleep(0.01 if paths.index(path) % 4 == 0 else 0)
        return read_square(path, size)

    monkeypatch.setattr(radiograph, "read_square", late_first)
    assert [read.path for batch in reading.read_ahead(paths, 16, 4) for read in batch] == paths


def test_a_bad_file_is_an_answer_and_not_the_end(tmp_path):
    paths = write_images(tmp_path, 4)
    paths[1].write_bytes(b"no picture")
    paths[2].unlink()
    first, broken, missing, last = next(reading.read_ahead(paths, 16, 4))
    assert first.image is not None
    assert last.image is not None
    assert (broken.image, broken.height, broken.width) == (None, 0, 0)
    assert broken.error.startswith(f"{paths[1]}: neither JPEG, PNG")
    assert missing.error == f"{paths[2]}: no such file"


def test_the_error_of_a_file_is_one_line_whatever_its_name(tmp_path):
    try:
        (tmp_path / "line\nend\x1b[31m.png").write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes no such name")
    ((read,),) = reading.read_ahead([tmp_path / "line\nend\x1b[31m.png"], 16, 4)
    assert "line end\\x1b[31m.png: neither" in read.error


def test_a_fault_of_the_program_is_not_taken_for_a_bad_file(tmp_path, monkeypatch):
    def faulty(path, size):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(radiograph, "read_square", faulty)
    with pytest.raises(KeyError, match="a fault of ours"):
        list(reading.read_ahead(write_images(tmp_path, 2), 16, 4))


def test_reading_is_ahead_of_the_caller_but_by_no_more_than_three_batches(tmp_path, monkeypatch):
    paths, read_square = write_images(tmp_path, 40), radiograph.read_square
    started, taken, furthest, lock = 0, 0, 0, threading.Lock()

    def counted(path, size):
        nonlocal started, furthest
        with lock:
            started += 1
            furthest = max(furthest, started - taken)
        return read_square(path, size)

    monkeypatch.setattr(radiograph, "read_square", counted)
    for batch in reading.read_ahead(paths, 16, batch_size=4):
        deadline = time.monotonic() + 10
        while started < min(taken + 12, len(paths)) and time.monotonic() < deadline:
            time.sleep(0.001)  # the caller computes
        assert started == min(taken + 12, len(paths))
        with lock:
            taken += len(batch)
    assert furthest == 12


def test_leaving_early_does_not_wait_for_what_was_queued(tmp_path, monkeypatch):
    paths, read = write_images(tmp_path, 40), []

    def slow(path, size):
        read.append(path)
        time.sleep(0.005)
        raise OSError("too slow to matter")

    monkeypatch.setattr(radiograph, "read_square", slow)
    monkeypatch.setattr(prefetch, "cores", lambda: 2)
    batches = reading.read_ahead(paths, 16, batch_size=12)
    next(batches)
    batches.close()
    assert len(read) < 30  # 36 were queued
