"""The scripts as processes of their own: each way to start them, several processes, and how they end."""

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from killing import ROOT, SCRIPTS, flags, train_in_two
from tiny_classification import settings, train

from cxr import checkpoints, training_run
from pytorch_classification import report
from pytorch_classification.model import TASK

TRAIN = "pytorch_classification/train_classification.py"
PREDICT = "pytorch_classification/predict_classification.py"
STARTED = (TRAIN, PREDICT)
WAYS = ("from its folder", "from the root", "as a module", "from elsewhere")
TRIED_BELOW = (PREDICT, "from elsewhere")  # by a real run


def call(script, way, *arguments, elsewhere, program=(sys.executable,)):
    """The finished process; its standard output and error are text."""
    path = ROOT / script
    started = {
        "from its folder": (path.parent, [path.name]),
        "from the root": (ROOT, [script]),
        "as a module": (ROOT, ["-m", script.removesuffix(".py").replace("/", ".")]),
        "from elsewhere": (elsewhere, [str(path)]),
    }
    place, words = started[way]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXR_TRACEBACK")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [*program, *words, *map(str, arguments)]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=600
    )


@pytest.mark.parametrize(
    ("script", "way"), [(script, way) for script in STARTED for way in WAYS if (script, way) != TRIED_BELOW]
)
def test_each_script_starts_in_each_way(script, way, tmp_path):
    ended = call(script, way, "--help", elsewhere=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = " ".join(ended.stdout.split())
    summary = (ROOT / script).read_text(encoding="utf-8").split('"""')[1].splitlines()[0]
    assert summary in shown and ("--data-dir" if script == TRAIN else "--image") in shown
    assert not list(tmp_path.iterdir())


def test_a_prediction_from_elsewhere_gives_a_sentence_its_model_and_exit_code_0(trained, tmp_path):
    """Paths on the command line are relative to where the user is."""
    image = sorted((trained.config.data_dir / "test" / "NORMAL").iterdir())[0]
    (tmp_path / "film.jpeg").symlink_to(image)
    words = ("--image", "film.jpeg", "--model", trained.config.model_file, "--no-grad-cam")
    ended = call(PREDICT, "from elsewhere", *words, elsewhere=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    answer, model = ended.stdout.splitlines()
    assert answer.startswith("film.jpeg: NORMAL")
    assert model.endswith("research only, not a medical device")


def test_several_processes_train_one_model_and_score_it_as_one_does(chest_xray, folder, monkeypatch):
    config = settings(chest_xray, folder, epochs=1)
    printed, nothing = train_in_two(SCRIPTS["classification"], config)
    assert_trained_by_two(config, printed)
    assert not nothing
    several, chosen = results(config)
    assert several["scores"]["images"] == 24

    monkeypatch.setattr(report, "draw", lambda *_args: None)
    (config.output_dir / "test_report.json").unlink()
    train(replace(config, resume=True))  # has only the evaluation left to do, now alone
    alone, chosen_alone = results(config)
    assert alone["provenance"]["processes"] == 1
    assert chosen_alone == pytest.approx(chosen, rel=1e-4)
    assert alone["scores"]["confusion_matrix"] == several["scores"]["confusion_matrix"]
    for name, score in several["scores"]["scores"].items():
        assert alone["scores"]["scores"][name]["value"] == pytest.approx(score["value"], abs=1e-4), name


@pytest.mark.slow
def test_torchrun_started_elsewhere_trains_one_model(chest_xray, folder):
    (folder / "data").symlink_to(chest_xray, target_is_directory=True)
    relative, config = (settings(place / "data", place, epochs=1) for place in (Path(), folder))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    ended = call(TRAIN, "from elsewhere", *flags(relative), elsewhere=folder, program=torchrun)
    assert ended.returncode == 0, ended.stderr
    assert_trained_by_two(config, ended.stdout)


def assert_trained_by_two(config, printed):
    """All files are there, and one of two processes spoke and wrote."""
    assert {path.name for path in config.output_dir.parent.iterdir()} >= {"model.pth", "run"}
    names = {path.name for path in config.output_dir.iterdir()}
    assert names >= {"best.pth", "last.pth", "metrics.jsonl", "test_report.json", "decoded"}
    assert "on cpu, fp32, 2 processes" in printed
    for line in ("epoch   1/1", "training is finished", "test images, evaluated once", "pictures:"):
        assert printed.count(line) == 1, line
    assert [record["epoch"] for record in training_run.read_records(config.output_dir / "metrics.jsonl")] == [1]
    assert len(list(config.images_dir.iterdir())) >= 7 and not list(config.output_dir.rglob("*.partial"))
    assert results(config)[0]["provenance"]["processes"] == 2


def results(config):
    written = json.loads((config.output_dir / "test_report.json").read_text())
    return written, checkpoints.load(config.model_file, task=TASK)["prediction"]


@pytest.mark.parametrize("script", STARTED)
def test_a_child_that_imports_the_script_does_not_run_it(script, capsys):
    """Spawned and forkserver children import the script that started them under this name."""
    names = runpy.run_path(str(ROOT / script), run_name="__mp_main__")
    assert callable(names["main"]) and capsys.readouterr().out == ""
