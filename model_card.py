"""Write MODEL_CARD.md for a finished classifier, from its file and its evaluation reports.

    python model_card.py --model pneumonia_resnet18.pth
    python model_card.py --external-report docs/results/pneumonia_resnet18_on_rsna.json

The card is written beside the model, or to --output. The model file holds images and patients, settings, software,
validation and test scores of its training. Reports add what evaluate_classification.py and studies/shortcut_audit.py
found with the same weights; the user states whether their images are of the training source or of another. What
neither holds is "not stated". The text of the card is in model_card.md.jinja.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from cxr import cli
from cxr.cli import ROOT


@dataclass(frozen=True)
class CardConfig:
    """A model and its reports."""

    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model")
    internal_report: tuple[Path, ...] = cli.flag(
        (),
        help="reports of evaluate_classification.py and shortcut_audit.py on this model and further images of the "
        "training source",
    )
    external_report: tuple[Path, ...] = cli.flag((), help="the same, on images of another source")
    output: Path | None = cli.flag(None, help="the card; by default MODEL_CARD.md beside the model")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(CardConfig, __doc__) if __name__ == "__main__" else None


import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from cxr import checkpoints
from cxr.files import sha256_of, write_atomically
from cxr.messages import one_line, shortened
from cxr.metrics import interval_text
from cxr.runtime import Runtime
from pytorch_classification import report
from pytorch_classification.classifier import Classifier, weights_sha256
from pytorch_classification.image_metrics import SCORES
from pytorch_classification.model import TASK

NOT_STATED = "not stated"
_LONGEST = 300  # characters of a text from a file


def cell(value: Any) -> str:
    """A value of the template as text that is safe in a Markdown table; "not stated" where there is none."""
    if isinstance(value, Markup):
        return value
    if value is None or value == "" or isinstance(value, Undefined):
        return NOT_STATED
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = shortened(one_line(f"{value:.6g}" if isinstance(value, float) else value), _LONGEST)
    return Markup("".join(f"&#{ord(letter)};" if letter in "|<>&[]`*" else letter for letter in text))


def file_name(text: str) -> str:
    """The last part of a path."""
    return Path(text).name


def render(
    state: Mapping[str, Any],
    path: Path,
    internal: Sequence[Mapping[str, Any]] = (),
    external: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The card of the model file ``state`` read from ``path``, with reports on its source and on other sources."""
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=True,
        finalize=cell,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "interval": interval_text, "file_name": file_name}
    reports = [*internal, *external, state.get("test_report") or {}]
    groups = [name for found in reports for name in found.get("subgroups") or ()]
    validation: Mapping[str, Mapping[str, Any]] = state.get("validation") or {}
    scores = list(dict.fromkeys(name for found in validation.values() for name in found))
    return environment.get_template("model_card.md.jinja").render(
        state=state,
        path=path,
        sha256=sha256_of(path),
        parameters=sum(tensor.numel() for name, tensor in state["model"].items() if "running" not in name),
        validation_rows=[
            ["validation set", *(name.replace("_", " ") for name in scores)],
            *([name, *(found.get(score) for score in scores)] for name, found in validation.items()),
        ],
        internal=list(internal),
        external=list(external),
        demographic=any(name.startswith(("sex ", "age ")) for name in groups),
        score_names=SCORES,
        counts=report.counts,
        group_tables=report.group_tables,
    )


def read_report(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """A report on the model ``state``.

    Raises:
        FileNotFoundError, ValueError: no file, no report of this project, or of other weights or another operating
            point.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path.resolve()}")
    try:
        found = json.loads(path.read_bytes())
        thresholds = [(found["model"] if "contradicting" in found else found["scores"])["threshold"]]
        if point := found.get("operating_point"):
            thresholds.append(point["threshold"])
        weights = found["model"]["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a report on a model by evaluate_classification.py or shortcut_audit.py "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    if weights != weights_sha256(state["model"]):
        raise ValueError(f"{path}: of another model; the SHA-256 of its weights is {cell(weights)}")
    threshold = state["prediction"]["threshold"]
    if threshold not in thresholds:  # the last one was set by the report itself
        raise ValueError(
            f"{path}: of these weights at another operating point, {thresholds[-1]:.6g}; this model has {threshold:.6g}"
        )
    return found


def left_behind(output: Path, text: str) -> list[str]:
    """Headings of results in the present card at ``output`` that are not in the new ``text``."""
    before = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    return [line.removeprefix("### ") for line in before if line.startswith("### ") and line not in text.splitlines()]


def main(config: CardConfig) -> None:
    """Check, render, write."""
    output = config.output or config.model.parent / "MODEL_CARD.md"
    inputs = (config.model, *config.internal_report, *config.external_report)
    if output.resolve() in (path.resolve() for path in inputs):
        raise ValueError(f"--output {output}: would replace an input of the card; give another file")
    Classifier.load(config.model, Runtime(torch.device("cpu"), bf16=False))  # the card is of a model that can predict
    state = checkpoints.load(config.model, task=TASK)
    internal, external = (
        [read_report(path, state) for path in paths] for paths in (config.internal_report, config.external_report)
    )
    text = render(state, config.model, internal, external)
    if lost := left_behind(output, text):
        warnings.warn(f"{output}: the previous card had results without a report now: {', '.join(lost)}", stacklevel=2)
    write_atomically(output, lambda file: file.write(text.encode()))
    print(f"{output}: {text.count(NOT_STATED)} times {NOT_STATED!r}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
