"""The command lines of both tasks."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from cxr import cli
from pytorch_classification import settings as classification
from pytorch_classification.evaluate_classification import EvaluateConfig as EvaluateClassification
from pytorch_detection import settings as detection
from pytorch_detection.evaluate_detection import EvaluateConfig as EvaluateDetection

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "pytorch_classification/train_classification.py": classification.TrainConfig,
    "pytorch_classification/predict_classification.py": classification.PredictConfig,
    "pytorch_classification/evaluate_classification.py": EvaluateClassification,
    "pytorch_detection/train_detection.py": detection.TrainConfig,
    "pytorch_detection/predict_detection.py": detection.PredictConfig,
    "pytorch_detection/evaluate_detection.py": EvaluateDetection,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_a_mistake_are_answered_before_the_heavy_imports(script):
    summary = (ROOT / script).read_text(encoding="utf-8").split('"""')[1].splitlines()[0]
    for word, code, shown in (("--help", 0, summary), ("--device=abacus", 2, "error: argument --device")):
        program = [sys.executable, "-X", "importtime", ROOT / script, word]
        ended = subprocess.run(program, capture_output=True, text=True, encoding="utf-8", timeout=60)
        imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert "cxr.cli" in imported and not imported & {"torch", "numpy", "pandas", "matplotlib"}
        assert ended.returncode == code and shown in " ".join((ended.stdout + ended.stderr).split())


REFUSED = {
    classification.TrainConfig: {
        "--epochs 0": "at least 1",
        "--size 31": "at least 32 and at most 1024",
        "--batch-size 1": "at least 2",
        "--seed -1": "at least 0 and at most 9223372036854775807",
        "--lr 0.0": "more than 0",
    },
    EvaluateClassification: {
        "--prevalence 0.0": "more than 0 and less than 1",
    },
    classification.PredictConfig: {"--threshold 1.0": "more than 0 and less than 1"},
    detection.TrainConfig: {
        "--epochs 0": "at least 1",
        "--size 63": "at least 64 and at most 1024",
        "--batch-size 0": "at least 1",
        "--seed -1": "at least 0 and at most 9223372036854775807",
        "--lr 0.0": "more than 0",
        "--negatives-per-positive -1.0": "at least 0",
        "--light-augmentation-epochs -1": "at least 0",
    },
    detection.PredictConfig: {"--threshold 50.0": "at least 0 and at most 1"},
}


@pytest.mark.parametrize(
    ("config", "words", "expected"),
    [(config, words, expected) for config, cases in REFUSED.items() for words, expected in cases.items()],
)
def test_settings_that_could_only_fail_later_are_refused_in_one_line(config, words, expected, capsys):
    required = ["--image", "x"] if "image" in config.__dataclass_fields__ else []
    with pytest.raises(SystemExit, match="2"):
        cli.parse(config, [*required, *words.split()])
    assert capsys.readouterr().err == f"error: {words}: expected {expected}; --help shows every flag\n"


@pytest.mark.parametrize(("script", "config"), SCRIPTS.items())
def test_every_setting_is_read_somewhere(script, config):
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / script).parent.glob("*.py"))
    own = inspect.getsource(config)
    unread = [
        name for name in config.__dataclass_fields__ if f"config.{name}" not in code and f"self.{name}" not in own
    ]
    assert unread == []


@pytest.mark.parametrize(
    ("settings", "name"), [(classification, "pneumonia_resnet18.pth"), (detection, "pneumonia_fasterrcnn.pth")]
)
def test_the_finished_model_is_at_the_root_where_prediction_looks_for_it(settings, name):
    assert settings.TrainConfig().model_file == settings.PredictConfig(image=("x",)).model == ROOT / name
