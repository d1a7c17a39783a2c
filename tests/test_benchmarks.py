"""Every benchmark at its smallest: it runs, and what it prints are finite positive numbers. Nothing here is timed."""

import json
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
    classification_predict,
    decode,
    detection_predict,
    detection_recipe,
    detection_step,
    generated,
    own_process,
    prediction,
    processes,
    rsna_sized,
    run_all,
    scale,
)
from cxr import reading
from pytorch_classification import predict_classification
from pytorch_detection import predict_detection, rsna_dataset


def ratios(ended):
    """What a benchmark that ended well has found, by title."""
    assert ended.code == 0, ended.err
    found = {ratio.pop("what"): ratio for ratio in run_all.ratios_in(ended.out.splitlines())}
    for title, ratio in found.items():
        assert all(math.isfinite(value) and value > 0 for value in ratio.values()), title
        assert ratio["low"] <= ratio["median"] <= ratio["high"], title
    return found


@pytest.fixture
def here(monkeypatch):
    """What a benchmark would start as processes of its own runs in this one; fails where such a process would."""
    scripts = {Path(script.__file__).name: script for script in (predict_classification, predict_detection)}

    def process(words, **_):
        if words[1] != "-c":
            monkeypatch.setattr(sys, "argv", list(words[1:]))
            assert scripts[Path(words[1]).name].main() == 0

    monkeypatch.setattr(prediction.subprocess, "run", process)
    for benchmark in (classification_predict, scale):
        monkeypatch.setattr(benchmark, "run_alone", lambda function, *arguments: function(*arguments))


def test_actions_take_turns_and_the_first_round_does_not_count():
    calls = []
    taken = alternating.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3 and {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}


def test_twice_the_speed_is_half_the_time():
    taken = {"fast": [1.0, 2.0, 4.0], "slow": [2.0, 6.0, 4.0]}
    assert alternating.speedups(taken, "fast", "slow") == [2, 3, 1]
    assert alternating.rates(taken, {"fast": 10, "slow": 12}) == "fast 5, slow 3"


def test_the_line_of_a_ratio_is_read_as_it_was_written():
    line = alternating.spread("speed of a / b: all", [2.0, 3.0, 1.0])
    assert run_all.ratios_in(["images/s: 3", line]) == [
        {"what": "speed of a / b: all", "median": 2, "low": 1, "high": 3}
    ]


def test_generated_files_are_of_the_sizes_of_the_real_ones(tmp_path):
    generated.write_dicoms([tmp_path / "1.dcm"])
    assert reading.read_grey(tmp_path / "1.dcm").shape == (1024, 1024)
    folder = generated.write_chest_xray(tmp_path / "data", 4)
    files = sorted((folder / "train").rglob("*.jpeg"))
    assert len({path.read_bytes() for path in files}) == 4
    for path in files:
        height, width = reading.read_grey(path).shape
        assert 700 <= height < 1500 and 1000 <= width < 2000


def test_decode(command):
    ended = command(decode.main, "--rounds", 1, "--files", 2)
    found = ratios(ended)
    for kind, plain in (("JPEG", "Pillow"), ("DICOM", "pydicom")):
        for mine in ("read_square", "store"):
            assert {f"{kind}: speed of {mine} / {plain}", f"{kind}: speed of {mine} / {plain} on one core"} <= set(
                found
            )
        apart = found[f"{kind}: grey levels between read_square and {plain}, mean of a picture"]
        assert apart["high"] < 1


def test_decode_reads_the_folders_it_is_given(command, chest_xray, tmp_path):
    exams = tiny_detection.write_rsna(tmp_path / "rsna", 4)
    words = ("--rounds", 1, "--files", 3, "--size", 16, "--images", chest_xray, "--dicoms", exams)
    ended = command(decode.main, *words)
    assert ended.code == 0 and "JPEG, 3 files" in ended.out and "DICOM, 3 files" in ended.out


def test_classification_epoch(command):
    found = ratios(command(classification_epoch.main, "--rounds", 1, "--steps", 1, "--size", 32, "--batch-size", 4))
    assert list(found) == ["epoch / bare"]


def test_classification_loaders(command, monkeypatch):
    monkeypatch.setattr(classification_loaders, "find_spec", lambda name: None)
    words = ("--rounds", 1, "--files", 16, "--size", 32, "--batch-size", 4, "--workers", 0, "--device", "cpu")
    ended = command(classification_loaders.main, *words)
    assert list(ratios(ended)) == ["speed of our first epoch / usual script", "speed of our later epoch / usual script"]
    assert "timm is not installed and left out" in ended.out
    assert re.search(r"first \S+, later \S+, usual \S+$", ended.out, re.MULTILINE)


def test_classification_predict(command, here):
    words = ("--rounds", 1, "--files", 2, "--size", 32, "--memory-files", 1)
    assert list(ratios(command(classification_predict.main, *words))) == [
        "one image: time of the process / time of the imports",
        "folder: speed of the prediction / speed of its slower part",
        "memory of ten times as many files / memory",
    ]


def test_detection_predict(command, here):
    assert list(ratios(command(detection_predict.main, "--rounds", 1, "--files", 2, "--size", 64))) == [
        "one image: time of the process / time of the imports",
        "folder: speed of the prediction / speed of its slower part",
    ]


def test_processes(command, monkeypatch):
    taken = {1: 4.0, 2: 5.0}
    monkeypatch.setattr(processes, "measure", lambda number, arguments: taken[number])
    found = ratios(command(processes.main, "--rounds", 1))
    assert found == {"speed of 2 processes / one process, on the same cores": {"median": 0.8, "low": 0.8, "high": 0.8}}


def test_the_processes_that_are_measured_tell_the_seconds_of_an_epoch(command, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    ended = command(processes.main, "--steps", 1, "--size", 32, "--batch-size", 4)
    assert ended.code == 0 and 0 < float(ended.out) < 60, ended.err


def test_detection_step(command):
    words = ("--size", 64, "--rounds", 1, "--steps", 1, "--batch-size", 2, "--device", "cpu")
    with tiny_detection.few_samples():
        found = ratios(command(detection_step.main, *words))
    assert {"speed of the whole step / bare step", "speed of the whole step / torchvision's"} <= set(found)


def test_detection_recipe(command, folder):
    data = tiny_detection.write_rsna(folder / "dataset_det")
    words = ("--data-dir", data, "--out-dir", folder / "out", "--epochs", 1, "--size", 64, "--device", "cpu")
    with tiny_detection.few_samples():
        ended = command(detection_recipe.main, *words)
    assert ended.code == 0, ended.err
    scores = json.loads(ended.out)
    assert {"rsna_score", "ap50", "rsna_score_at_0.5"} <= set(scores)
    assert all(0 <= scores[name] <= 1 for name in ("rsna_score", "ap50"))


@pytest.mark.parametrize("given", [False, True], ids=["generated", "read"])
def test_scale(command, here, tmp_path, given):
    words = ["--exams", 90, "--growth", 2, "--size", 16, "--resamples", 3, "--work-dir", tmp_path]
    if given:
        words += ["--tables", tiny_detection.write_rsna(tmp_path / "tables", 90)]
    ended = command(scale.main, *words)
    assert ended.code == 0, ended.err
    rows = [line.split() for line in ended.out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["90"] * 5 + ["180"] * 5
    assert all(float(row[-1]) > 0 and float(row[-2]) >= 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["tables"] * given


def test_a_grown_data_set_holds_each_exam_as_often_with_patients_of_its_own(tmp_path):
    base = rsna_sized.Tables.generate(18)
    paths = base.write(tmp_path / "rsna", 3)
    rsna_sized.write_store(paths, 16, tmp_path / "decoded")
    store = reading.decode_once(paths, 16, tmp_path / "decoded", name="exams", progress=False)
    assert store.readable.all() and store.sizes.tolist() == [[1024, 1024]] * 54 and not store.images.any()
    listing = rsna_dataset.list_exams(tmp_path / "rsna")
    exams = rsna_dataset.read_exams(listing, store)
    assert [exam.path for exam in exams] == paths and len(exams) == 54
    assert sum(bool(exam.boxes_xyxy) for exam in exams) == 3 * 4 and len({exam.patient for exam in exams}) == 3 * 9
    assert {exam.view for exam in exams} == {"AP", "PA"} and {exam.age_years for exam in exams} == {2, 30, 51, 77}


def test_scale_refuses_a_disk_that_is_too_small(command, tmp_path, monkeypatch):
    monkeypatch.setattr(scale.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    ended = command(scale.main, "--exams", 36, "--growth", 100, "--work-dir", tmp_path)
    assert ended.code == 2 and "give another --work-dir or a lower --growth" in ended.err
    assert not list(tmp_path.iterdir())


def test_a_process_of_its_own_tells_its_memory():
    assert 1 < own_process.run_alone(own_process.peak_mib) < own_process.peak_mib()


def test_run_all_collects_the_ratios_and_tells_what_failed(command, monkeypatch, tmp_path):
    (tmp_path / "good.py").write_text(
        "import sys; print('a / b', *sys.argv[1:], end=': '); print('median 2.000, range 1.000 to 3.000')"
    )
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    monkeypatch.setattr(run_all, "SHORT", {"good.py": "--short", "bad.py": ""})
    ended = command(run_all.main, "--out", tmp_path / "new" / "out.json")
    assert ended.code == 1 and ended.out.endswith("; failed: bad.py\n")
    assert re.search(r"good\.py +a / b --short +2\.000  \(1\.000 to 3\.000\)", ended.out)
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert written["machine"]["cores"] == reading.cores()
    assert written["results"][0]["ratios"] == [{"what": "a / b --short", "median": 2, "low": 1, "high": 3}]


def test_run_all_names_every_benchmark_and_flags_that_exist(monkeypatch):
    scripts = (
        classification_epoch,
        classification_loaders,
        classification_predict,
        decode,
        detection_predict,
        detection_step,
        processes,
        scale,
    )
    modules = {Path(module.__file__).name: module for module in scripts}
    assert set(run_all.SHORT) == set(modules)
    for name, arguments in run_all.SHORT.items():
        modules[name].cli.parse(modules[name].BenchConfig, arguments.split())
