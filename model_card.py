"""Write MODEL_CARD.md, all that is known of a finished classifier, from its file and its reports.

    python model_card.py --model pneumonia_resnet18.pth
    python model_card.py --external-report evaluation/classification/report.json

The card lies beside the model, unless --output names another file. Training leaves in the model file what it knows:
images and patients, settings, software, validation and test scores. Reports add what evaluate_classification.py and
shortcut_audit.py found later with the same weights; whether on images of training's source or of another, only you can
say. Every figure comes from there; what neither holds is "not stated", and so is what only a person can know.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from cxr import cli
from cxr.cli import ROOT


@dataclass(frozen=True)
class CardConfig:
    """Which model, and what was measured of it since."""

    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
    internal_report: tuple[Path, ...] = cli.flag(
        (),
        help="reports of evaluate_classification.py and shortcut_audit.py with this model on further images of the "
        "source that it learnt from",
    )
    external_report: tuple[Path, ...] = cli.flag((), help="the same on images of another source")
    output: Path | None = cli.flag(None, help="the card; by default MODEL_CARD.md beside the model")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(CardConfig, __doc__) if __name__ == "__main__" else None


import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from cxr import checkpoints
from cxr.files import write_atomically
from cxr.messages import one_line
from cxr.runtime import Runtime
from pytorch_classification.card import NOT_STATED, audit, card, measured, said
from pytorch_classification.classifier import Classifier, weights_sha256
from pytorch_classification.model import TASK


def read_report(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """A report on the model ``state``.

    Raises:
        FileNotFoundError, ValueError: no file, no report of this project, or of other weights or another operating
            point.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path.resolve()}")
    try:
        report = json.loads(path.read_bytes())
        is_audit = "contradicting" in report
        audit(report) if is_audit else measured("", report)
        points = [report["model" if is_audit else "scores"], report.get("operating_point")]
        thresholds = [point["threshold"] for point in points if point]
        weights = report["model"].get("weights_sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a report on a model by evaluate_classification.py or shortcut_audit.py "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    if weights is None:
        raise ValueError(f"{path}: does not say which weights it is of, as older reports do not; evaluate anew")
    if weights != weights_sha256(state["model"]):
        raise ValueError(f"{path}: of another model; the SHA-256 of its weights is {said(weights)}")
    if state["prediction"]["threshold"] not in thresholds:  # the last is one that the report came to itself
        raise ValueError(
            f"{path}: of these weights at another operating point, {said(thresholds[-1])}; this model has "
            f"{said(state['prediction']['threshold'])}"
        )
    return report


def left_behind(output: Path, text: str) -> list[str]:
    """The results that a card at ``output`` has and ``text``, which replaces it, has not."""
    before = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    return [line.removeprefix("### ") for line in before if line.startswith("### ") and line not in text.splitlines()]


def main(config: CardConfig) -> None:
    """Parse, read, write."""
    output = config.output or config.model.parent / "MODEL_CARD.md"
    inputs = (config.model, *config.internal_report, *config.external_report)
    if output.resolve() in (path.resolve() for path in inputs):
        raise ValueError(f"--output {output}: would replace what the card is made from; give another file")
    state = checkpoints.load(config.model, task=TASK)
    if "prediction" not in state:
        raise ValueError(f"{config.model}: a checkpoint of training; the card is of the finished model")
    Classifier.load(config.model, Runtime(torch.device("cpu"), bf16=False))  # a file that predicts nothing gets no card
    internal, external = (
        [read_report(path, state) for path in paths] for paths in (config.internal_report, config.external_report)
    )
    text = card(state, config.model, internal, external)
    if lost := left_behind(output, text):
        warnings.warn(
            f"{output}: what stood there before had results that are not in the reports now given: {', '.join(lost)}",
            stacklevel=2,
        )
    write_atomically(output, lambda file: file.write(text.encode()))
    print(f"{output}: {text.count(NOT_STATED)} times {NOT_STATED!r}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
