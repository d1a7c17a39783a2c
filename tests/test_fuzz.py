"""Damaged and hostile files through everything that a prediction reads: answered or refused in one line, and soon.

Each case hangs on its kind and number alone, which are in its file's name.
"""

import time
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import mutations
import numpy as np
import pytest
import tiny_detection
from bombs import BOMBS

from cxr import reading
from cxr.messages import one_line
from pytorch_detection.rsna_dataset import CLASS_INFO, LABELS, MAPPING, list_exams, read_exams

SECONDS = 10
MEBIBYTES = 1536  # what reading may take

# The long form has so many times as many cases.
cases = pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
quick_cases = pytest.mark.parametrize("times", [1, pytest.param(100, marks=pytest.mark.slow)])


def memory(process: object = "self", field: str = "VmRSS") -> int:
    """MiB; ``VmHWM`` is the most there has been. 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) // 1024
    return 0


@contextmanager
def within_bounds():
    """Fails if memory grew beyond what a prediction may take; gives a function to call after each case."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest mark
    before, last = memory(), time.monotonic()

    def check(name: object) -> None:
        nonlocal last
        now = time.monotonic()
        assert now - last < SECONDS, name
        last = now

    yield check
    assert memory(field="VmHWM") - before < MEBIBYTES


def is_one_line(text: str) -> bool:
    return bool(text) and text.isprintable() and len(text) < 1000


# ------------------------------------------------------------------------------------------------------------ pictures

PICTURES = {"jpeg": (mutations.jpegs, 50), "png": (mutations.pngs, 50), "tiff": (mutations.tiffs, 50), "dicom": (mutations.dicoms, 90)}  # fmt: skip


@quick_cases
@pytest.mark.parametrize("kind", PICTURES)
def test_damaged_pictures_are_read_or_refused_in_one_line(tmp_path, kind, times):
    make, count = PICTURES[kind]
    paths = []
    for number, content in enumerate(mutations.damaged(make(), count * times, kind)):
        paths.append(tmp_path / f"{kind}-{number}")
        paths[-1].write_bytes(content)

    def pixels(path):
        try:
            radiograph = reading.read(path)
            return radiograph.square(36), radiograph.whole().shape == radiograph.size
        except reading.UnreadableImage as error:
            return str(error)

    refused = 0
    with within_bounds() as check:
        for path, found in zip(paths, chain.from_iterable(reading.in_batches(pixels, paths, 8)), strict=True):
            check(path)
            if isinstance(found, str):
                refused += 1
                assert is_one_line(found) and found.startswith(str(path))
                continue
            square, same_size = found
            assert square.shape == (36, 36) and square.dtype == np.uint8 and same_size, path
    assert 0.2 * len(paths) < refused < len(paths)  # damage that is always seen, or never, tries nothing


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(tmp_path, name):
    make, reason = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    assert path.stat().st_size < 30 * 2**20
    with within_bounds() as check:
        with pytest.raises(reading.UnreadableImage, match=reason):
            reading.read(path).square(36)
        check(name)


# -------------------------------------------------------------------------------------------------------------- tables


@cases
@pytest.mark.parametrize("name", [LABELS, CLASS_INFO, MAPPING])
def test_a_damaged_part_of_the_challenge_is_read_or_refused_in_one_line(tmp_path, name, times):
    folder = tiny_detection.write_rsna(tmp_path / "dataset_det", 6)
    path, refused, paths = folder / name, 0, list_exams(folder).paths
    store = reading.decode_once(paths, 16, tmp_path, name="exams", progress=False)
    with within_bounds() as check:
        for number, content in enumerate(mutations.damaged([mutations.Sample(path.read_bytes())], 20 * times, name)):
            path.write_bytes(content)
            try:
                assert len(read_exams(list_exams(folder), store)) == 6
            except (ValueError, OSError) as error:
                line = one_line(error)
                assert str(folder) in line and is_one_line(line), line
                refused += 1
            check(number)
    assert refused > 5 * times
