import threading
import time

import numpy as np
import pytest
from PIL import Image

from cxr import reading
from cxr.reading import prefetch


def write_images(folder, count):
    """Radiographs of different content, named against their order."""
    random = np.random.default_rng(0)
    paths = [folder / f"{count - number:03}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (20, 24), np.uint8)).save(path)
    return paths


def squares(path):
    return reading.read(path).square(16)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17])
def test_batches_hold_every_file_once_in_order(tmp_path, count):
    paths = write_images(tmp_path, count)

    def late_first(path):
        time.sleep(0.01 if paths.index(path) % 4 == 0 else 0)
        return squares(path)

    batches = list(reading.in_batches(late_first, paths, batch_size=4))
    assert [len(batch) for batch in batches] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    found = [square for batch in batches for square in batch]
    assert all(np.array_equal(square, squares(path)) for square, path in zip(found, paths, strict=True))


def test_reading_is_ahead_of_the_caller_but_by_no_more_than_three_batches():
    started, taken, furthest, lock = 0, 0, 0, threading.Lock()

    def counted(number):
        nonlocal started, furthest
        with lock:
            started += 1
            furthest = max(furthest, started - taken)
        return number

    for batch in reading.in_batches(counted, range(40), batch_size=4):
        deadline = time.monotonic() + 10
        while started < min(taken + 12, 40) and time.monotonic() < deadline:
            time.sleep(0.001)  # the caller computes
        assert started == min(taken + 12, 40)
        with lock:
            taken += len(batch)
    assert furthest == 12


def test_leaving_early_does_not_wait_for_what_was_queued(monkeypatch):
    read = []

    def slow(number):
        read.append(number)
        time.sleep(0.005)

    monkeypatch.setattr(prefetch, "cores", lambda: 2)
    batches = reading.in_batches(slow, range(40), batch_size=12)
    next(batches)
    batches.close()
    assert len(read) < 30  # 36 were queued
