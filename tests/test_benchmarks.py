"""Every benchmark at its smallest: it runs, and what it prints are finite positive numbers. Nothing here is timed."""

import math
import re
import sys
from pathlib import Path

import pytest
import tiny_detection

from benchmarks import (
    alternating,
    classification_epoch,
    classification_loaders,
    decode,
    detection_epoch,
    detection_step,
    generated,
    prediction,
    run_all,
    worklist_page,
)
from cxr import reading, runtime

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


def test_twice_the_speed_is_half_the_time():
    taken = {"fast": [1.0, 2.0, 4.0], "slow": [2.0, 6.0, 4.0]}
    assert alternating.speedups(taken, "fast", "slow") == [2, 3, 1]
    assert alternating.rates(taken, {"fast": 10, "slow": 12}) == "fast 5, slow 3"


def test_generated_files_are_of_the_sizes_of_the_real_ones(tmp_path):
    generated.write_dicoms([tmp_path / "1.dcm"])
    assert reading.read(tmp_path / "1.dcm").whole().shape == (1024, 1024)
    folder = generated.write_chest_xray(tmp_path / "data", 2)
    for path in (folder / "train").rglob("*.jpeg"):
        height, width = reading.read(path).whole().shape
        assert 700 <= height < 1500 and 1000 <= width < 2000


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


def test_classification_loaders(command, monkeypatch):
    monkeypatch.setattr(classification_loaders, "find_spec", lambda name: None)
    words = ("--rounds", 1, "--files", 16, "--size", 32, "--batch-size", 4, "--workers", 0, "--device", "cpu")
    ended = command(classification_loaders.main, *words)
    assert list(ratios(ended)) == ["speed of our first epoch / usual script", "speed of our later epoch / usual script"]
    assert "timm is not installed and left out" in ended.out


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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells it")
def test_the_most_memory_of_a_script_is_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)  # which is set for the script, in a process of its own
    assert 1 < prediction.peak_mib(int, []) < 10**6


def test_detection_step(command):
    words = ("--size", 64, "--rounds", 1, "--steps", 1, "--batch-size", 2, "--device", "cpu")
    with tiny_detection.few_samples():
        found = ratios(command(detection_step.main, *words))
    assert {"speed of the whole step / bare step", "speed of the whole step / torchvision's"} <= set(found)


def test_detection_epoch(command, folder, without_pictures):
    data = tiny_detection.write_rsna(folder / "dataset_det", 24)
    with tiny_detection.few_samples():
        ended = command(detection_epoch.main, "--data-dir", data, "--rounds", 1, "--size", 64, "--device", "cpu")
    assert list(ratios(ended)) == ["epoch / bare"]


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
    module = sys.modules[f"benchmarks.{Path(script).stem}"]
    module.cli.parse(module.BenchConfig, arguments)
