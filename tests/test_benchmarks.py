"""Every benchmark at its smallest: it runs, and what it prints are finite positive numbers. Nothing here is timed."""

import importlib
import math
import re
from pathlib import Path

import pytest
import tiny_detection

from benchmarks import (
    alternating,
    classification_epoch,
    decode,
    detection_step,
    prediction,
    run_all,
    worklist_page,
)
from cxr import runtime

# Models that the benchmarks make are without statistics of their training images.
pytestmark = pytest.mark.filterwarnings("ignore:.*older model file")


@pytest.fixture(autouse=True)
def fp32(monkeypatch):
    """Without a trial of bfloat16, which takes a second."""
    monkeypatch.setattr(runtime, "_bf16_speedup", lambda step: 1.0)


def ratios(ended):
    """The medians that a benchmark which ended well has found, by title without the precision."""
    assert ended.code == 0, ended.err
    found = {}
    for title, *numbers in re.findall(r"^(.+): median (\S+), range (\S+) to (\S+)$", ended.out, re.MULTILINE):
        median, low, high = map(float, numbers)
        assert 0 < low <= median <= high < math.inf, title
        found[re.sub(r"(,| in) (bf16|fp32)", "", title)] = median
    return found


def test_actions_take_turns_and_the_first_round_does_not_count():
    calls = []
    taken = alternating.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3 and {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}


def test_decode(command):
    found = ratios(command(decode.main, "--rounds", 1, "--files", 2))
    for kind, plain in (("JPEG", "Pillow"), ("DICOM", "pydicom")):
        for mine in ("Radiograph.square", "store"):
            assert {f"{kind}: speed of {mine} / {plain}", f"{kind}: speed of {mine} / {plain} on one core"} <= {*found}
    assert found["DICOM: grey levels between Radiograph.square and pydicom, mean of a picture"] < 1


def test_classification_epoch(command):
    ended = command(classification_epoch.main, "--rounds", 1, "--steps", 1, "--size", 32, "--batch-size", 4)
    assert list(ratios(ended)) == ["epoch / bare"]
    assert re.search(r"^epoch / bare, (bf16|fp32): ", ended.out, re.MULTILINE)  # in which precision


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_prediction(command, monkeypatch, task):
    processes = []
    monkeypatch.setattr(prediction.subprocess, "run", lambda words, **_: processes.append(words))
    words = ("--task", task, "--rounds", 1, "--files", 2, "--size", 64, "--memory-files", 0)
    ended = command(prediction.main, *words)
    assert list(ratios(ended)) == [
        "one image: time of the process / time of the imports",
        "folder: speed of the prediction / speed of decoding, then computing",
    ]
    assert [Path(words[1]).stem for words in processes[1::2]] == [f"predict_{task}"] * 2


def test_worklist_page(command):
    words = ("--rounds", 1, "--files", 2, "--memory-files", 0, "--classifier-size", 64, "--detector-size", 64)
    found = ratios(command(worklist_page.main, *words))
    assert list(found) == ["worklist: speed / speed of decoding once, then computing"]


def test_detection_step(command):
    words = ("--size", 64, "--rounds", 1, "--steps", 1, "--batch-size", 2, "--device", "cpu")
    with tiny_detection.few_samples():
        found = ratios(command(detection_step.main, *words))
    assert {"speed of the whole step / bare step", "speed of the whole step / torchvision's"} <= set(found)


def test_run_all_collects_the_ratios_and_tells_what_failed(command, monkeypatch, tmp_path):
    line = alternating.spread("a / b", [1.0, 2.0, 3.0])
    (tmp_path / "good.py").write_text(f"import sys; print('images/s: 3', {line!r}, sys.argv[1], sep='\\n')")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    monkeypatch.setattr(run_all, "SHORT", ("good.py --short", "bad.py --rounds 3"))
    ended = command(run_all.main)
    assert ended.code == 1 and ended.out.endswith("failed: bad.py --rounds 3")
    assert re.search(r"^good\.py +a / b +2\.000  \(1\.000 to 3\.000\)$", ended.out, re.MULTILINE)


@pytest.mark.parametrize("words", run_all.SHORT)
def test_run_all_names_benchmarks_and_flags_that_exist(words, monkeypatch):
    script, *arguments = words.split()
    module = importlib.import_module(f"benchmarks.{Path(script).stem}")
    module.cli.parse(module.BenchConfig, arguments)
