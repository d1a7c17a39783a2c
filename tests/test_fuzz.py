"""Damaged and hostile files through everything that a prediction reads: answered or refused in one line, and soon.

Each case hangs on its kind and number alone, which are in its file's name.
"""

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import mutations
import numpy as np
import pytest
import tiny_detection
import torch
from bombs import BOMBS, LARGE

from cxr import reading
from cxr.reading import cores
from cxr.text import one_line
from pytorch_classification.pointing_game import read_boxes
from pytorch_detection.box_rule import Rule
from pytorch_detection.detector import Detector
from pytorch_detection.model import Architecture, construct
from pytorch_detection.rsna_dataset import CLASS_INFO, LABELS, MAPPING, list_exams, read_exams

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 10
MEBIBYTES = 2048
OF_TORCH = 512  # MiB that a prediction has taken before it reads a file

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
    assert memory(field="VmHWM") - before < MEBIBYTES - OF_TORCH


def refusal(error: Exception, path: Path) -> str:
    """What the command line would show, which names the file."""
    line = one_line(error)
    assert str(path) in line and is_one_line(line), line
    return line


def is_one_line(text: str) -> bool:
    return bool(text) and text.isprintable() and len(text) < 1000


# ------------------------------------------------------------------------------------------------------------ pictures

PICTURES = {"jpeg": (mutations.jpegs, 50), "png": (mutations.pngs, 50), "tiff": (mutations.tiffs, 50), "dicom": (mutations.dicoms, 90)}  # fmt: skip


@quick_cases
@pytest.mark.parametrize("kind", PICTURES)
def test_damaged_pictures_are_read_or_refused_in_one_line(tmp_path, kind, times, monkeypatch, capfd):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # what is logged is printed, as in a process of its own
    make, count = PICTURES[kind]
    paths = []
    for number, content in enumerate(mutations.damaged(make(), count * times, kind)):
        paths.append(tmp_path / f"{kind}-{number}")
        paths[-1].write_bytes(content)
    refused = 0
    with within_bounds() as check:
        for batch in reading.read_ahead(paths, 36, 8):
            check(batch[0].path)
            for read in batch:
                if read.image is None:
                    refused += 1
                    assert is_one_line(read.error) and read.error.startswith(str(read.path)), read
                    continue
                assert read.image.shape == (36, 36) and read.image.dtype == np.uint8
                # What a picture of the answer is drawn from; it would take the other answers with it.
                assert reading.read_grey(read.path).shape == (read.height, read.width), read.path
    assert capfd.readouterr().err == ""
    assert 0.2 * len(paths) < refused < len(paths)  # damage that is always seen, or never, tries nothing


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(tmp_path, name):
    make, reason = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    assert path.stat().st_size < 30 * 2**20
    with within_bounds() as check:
        with pytest.raises(reading.UnreadableImage, match=reason):
            reading.read_square(path, 36)
        check(name)


@pytest.mark.slow
def test_a_folder_of_pictures_as_large_as_they_may_be_leaves_memory_free(tmp_path, monkeypatch):
    for number in range(2):
        for name, make in LARGE.items():
            (tmp_path / f"{name} {number}").write_bytes(make())
    monkeypatch.setattr(reading, "cores", lambda: 16)
    with within_bounds():
        (batch,) = reading.read_ahead(sorted(tmp_path.iterdir()), 36, 32)
    assert [read.error for read in batch] == [""] * 2 * len(LARGE)


# -------------------------------------------------------------------------------------------------------------- tables


@cases
@pytest.mark.parametrize("name", [LABELS, CLASS_INFO, MAPPING])
def test_a_damaged_part_of_the_challenge_is_read_or_refused_in_one_line(tmp_path, name, times):
    folder = tiny_detection.write_rsna(tmp_path / "dataset_det", 6)
    path, refused, paths = folder / name, 0, list_exams(folder).paths
    store = reading.decode_once(paths, 16, tmp_path, name="exams", progress=False)
    with within_bounds() as check:
        for number, content in enumerate(mutations.damaged(mutations.tables(path.read_bytes()), 20 * times, name)):
            path.write_bytes(content)
            try:
                assert len(read_exams(list_exams(folder), store)) == 6
            except (ValueError, OSError) as error:
                refusal(error, folder)
                refused += 1
            check(number)
    assert refused > 5 * times


@cases
@pytest.mark.parametrize("key", ["path", "patientId"])
def test_a_damaged_table_of_boxes_is_read_or_refused_in_one_line(tmp_path, key, times):
    path, refused = tmp_path / "boxes.csv", 0
    good = f"{key},x,y,width,height\n" + "".join(f"test/흉부 {n}.jpeg,{n},2.5,30,4e1\n" for n in range(9))
    samples = mutations.tables(good.encode())
    with within_bounds() as check:
        for number, content in enumerate(mutations.damaged(samples, 20 * times, key)):
            path.write_bytes(content)
            try:
                boxes = read_boxes(path)
                assert all(found.shape[1:] == (4,) and np.isfinite(found).all() for found in boxes.values())
            except (ValueError, OSError) as error:
                refusal(error, path)
                refused += 1
            check(number)
    assert refused > 5 * times


# ----------------------------------------------------------------------------------------------------- whole processes

SCRIPTS = {
    "classification": "pytorch_classification/predict_classification.py",
    "detection": "pytorch_detection/predict_detection.py",
}


def watched(command: list, limit: float) -> tuple[int | None, str, str, int]:
    """Exit code (None: it took longer than ``limit`` seconds), stdout, stderr, and the most memory in MiB."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXR_TRACEBACK")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    highest, end = 0, time.monotonic() + limit
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(process.communicate)
        while not told.done() and time.monotonic() < end:
            highest = max(highest, memory(process.pid, "VmHWM"))
            time.sleep(0.02)
        late = not told.done()
        process.kill()
        out, err = told.result()
    return None if late else process.returncode, out, err, highest


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of a classifier and of a detector that have learnt nothing."""
    folder = tmp_path_factory.mktemp("models")
    tiny_detection.write_classifier(folder / "classification.pth")
    torch.manual_seed(0)
    network = construct(Architecture("resnet18", 64, False, True))
    Detector(network, False, Rule(0.5, 0.9, 0.2)).save(folder / "detection.pth")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Arguments of predictions, some forty for each task."""
    folder = tmp_path_factory.mktemp("hostile")
    found = []
    for task in SCRIPTS:
        files = []
        for kind, (make, _) in PICTURES.items():
            for number, content in enumerate(mutations.damaged(make(), 8, f"{task} {kind}")):
                files.append(folder / f"{task}-{kind}-{number}")
                files[-1].write_bytes(content)
        for number, make in enumerate([*(make for make, _ in list(BOMBS.values())[:3]), *list(LARGE.values())[:3]]):
            files.append(folder / f"{task}-bomb-{number}")
            files[-1].write_bytes(make())
        found += [(task, ["--image", file]) for file in files]
        for number in range(4):
            many = folder / f"{task}-folder-{number}"
            many.mkdir()
            for kind, (make, _) in PICTURES.items():
                for index, content in enumerate(mutations.damaged(make(), 8, f"{task} {number} {kind}")):
                    (many / f"{kind}-{index}.png").write_bytes(content)
            found.append((task, ["--image", many, *["--json"] * (number % 2)]))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_whole_processes_answer_or_refuse_hostile_files(hostile, models, tmp_path):
    good = tmp_path / "good.png"
    good.write_bytes(mutations.pngs()[0].inner)

    def run(number, task, arguments, limit=600.0):
        out_dir = tmp_path / f"out-{number}"
        command = [
            sys.executable,
            ROOT / SCRIPTS[task],
            *arguments,
            "--model",
            models / f"{task}.pth",
            "--output-dir",
            out_dir,
            "--device",
            "cpu",
        ]
        return (out_dir, *watched(command, limit))

    started = time.monotonic()
    for task in SCRIPTS:
        assert run("good", task, ["--image", good])[1] == 0
    usual = time.monotonic() - started  # of two that run one after the other
    with ThreadPoolExecutor(cores()) as pool:
        waiting = [pool.submit(run, number, *case, limit=SECONDS + 2 * usual) for number, case in enumerate(hostile)]
    codes = []
    for (task, arguments), ended in zip(hostile, waiting, strict=True):
        out_dir, code, out, err, highest = ended.result()
        told = f"{task} {arguments}: {code}\n{out}\n{err}\n{highest} MiB"
        codes.append(code)
        lines = [line for line in err.replace("\r", "\n").splitlines() if line.strip() and "image/s" not in line]
        assert code in (0, 1, 2) and "Traceback" not in err + out and 0 < highest <= MEBIBYTES, told
        assert code != 1 or arguments[1].is_dir(), told
        if code == 2:
            assert out == "" and len(lines) == 1 and lines[0].startswith("error: "), told
            assert is_one_line(lines[0]), told
        else:
            assert lines == [] and out, told
        if code == 1:
            assert len((out_dir / "predictions.csv").read_text(encoding="utf-8").splitlines()) > 32, told
            if "--json" in arguments:
                assert len(json.loads(out)["images"]) == 32, told
    assert codes.count(2) > 20 and codes.count(0) > 5 and codes.count(1) >= 4, codes
