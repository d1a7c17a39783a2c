"""Write MODEL_CARD.md, all that is known of a finished classifier, from its file and its reports.

    python model_card.py --model pneumonia_resnet18.pth
    python model_card.py --report evaluation/classification/report.json audit/shortcut_audit.json

The card lies beside the model, unless --output names another file. Training leaves in the model file what it knows:
images and patients, settings, software, validation and test scores. --report adds what evaluate_classification.py and
shortcut_audit.py found later. Every figure comes from there; what neither holds is "not stated", and so is what only a
person can know.
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
    report: tuple[Path, ...] = cli.flag(
        (), help="reports of evaluate_classification.py and shortcut_audit.py on this model"
    )
    output: Path | None = cli.flag(None, help="the card; by default MODEL_CARD.md beside the model")


if __name__ == "__main__":
    cli.parse(CardConfig, summary=__doc__)  # --help and mistakes are answered before torch is imported: seconds


import json
from collections.abc import Mapping
from typing import Any

from cxr import checkpoints
from cxr.files import write_atomically
from cxr.text import one_line
from pytorch_classification.card import NOT_STATED, audit, card, evaluation, said
from pytorch_classification.model import TASK


def read_report(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """A report on the model ``state``.

    Raises:
        FileNotFoundError, ValueError: no file, no report of this project, or of another model or operating point.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path.resolve()}")
    try:
        report = json.loads(path.read_bytes())
        points = [
            report["model"] if "contradicting" in report else report["scores"],
            report.get("operating_point") or {},
        ]
        thresholds = [point["threshold"] for point in points if "threshold" in point]
        audit(report) if "contradicting" in report else evaluation("", report)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a report on a model by evaluate_classification.py or shortcut_audit.py "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    if state["prediction"]["threshold"] not in thresholds:  # the last is one that the report came to itself
        raise ValueError(
            f"{path}: of another model or operating point, {said(thresholds[-1])}; this one has "
            f"{said(state['prediction']['threshold'])}"
        )
    return report


def main() -> None:
    """Parse, read, write."""
    config = cli.parse(CardConfig, summary=__doc__)
    state = checkpoints.load(config.model, task=TASK)
    if "prediction" not in state:
        raise ValueError(f"{config.model}: a checkpoint of training; the card is of the finished model")
    reports = [read_report(path, state) for path in config.report]
    try:
        text = card(state, config.model, reports)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{config.model}: holds what no training writes ({one_line(error)})") from error
    output = config.output or config.model.parent / "MODEL_CARD.md"
    write_atomically(output, lambda file: file.write(text.encode()))
    print(f"{output}: {text.count(NOT_STATED)} times {NOT_STATED!r}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
