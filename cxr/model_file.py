"""What every finished model keeps and says of itself."""

import math
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr import checkpoints
from cxr.cli import ROOT
from cxr.files import sha256_of
from cxr.messages import one_line
from cxr.runtime import Runtime

RESEARCH_ONLY = "research only, not a medical device"
_SAMPLE_RECORD = "sample_data.json"  # what make_sample_data.py leaves in its folders
AT_OPERATING_POINT = ("sensitivity", "specificity")  # of a classifier, no longer true when it moves
_AT_THRESHOLD = (*AT_OPERATING_POINT, "rsna score")
# What is said of validation in a sentence, of everything in the file; the rest is in JSON and in the model card.
_MAIN = {"roc auc": "ROC AUC", "rsna score": "RSNA score", "sensitivity": "sensitivity", "specificity": "specificity"}
_IMAGES, _VALIDATION = "images", "val"  # names that trainings write: of a number, and of a set


def trained_on(data_dir: Path, images: int, patients: int) -> dict[str, Any]:
    """Plain values for the model file: how much was learnt from, whether it was drawn by make_sample_data.py, when."""
    return {
        "folder": data_dir.resolve().name,
        "synthetic": (data_dir / _SAMPLE_RECORD).is_file(),
        "images": images,
        "patients": patients,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
    }


def load(path: Path, task: str) -> dict[str, Any]:
    """The finished model at ``path``, as its task saved it; a warning where it cannot flag images.

    Raises:
        FileNotFoundError, ValueError: no file, or not a finished model of this task.
    """
    if not path.exists():
        script = f"pytorch_{task}/train_{task}.py"
        raise FileNotFoundError(
            f"no model at {path.resolve()}; train one with `python {script}` or give the path of another"
        )
    state = checkpoints.load(path, task=task)
    if "prediction" not in state:
        raise ValueError(f"{path}: a training checkpoint, not a finished model, which training writes to --model-file")
    if state.get("likeness") is None:
        warnings.warn(
            f"{path}: an older model file, which cannot flag out-of-distribution images; train the model anew",
            stacklevel=2,
        )
    return state


@dataclass(frozen=True)
class ModelProvenance:
    """Where a model comes from; what its file does not say is empty.

    Attributes:
        file: name of the model file.
        trained: on what, when, and with which code, in words.
        validation: scores on validation by name.
        adapted: how the operating point was set after training; empty if it was not.
        networks: ensemble size.
        model_id: file name and the first digits of the file's SHA-256; short enough for a row of a table.
    """

    file: str
    trained: str
    validation: dict[str, float]
    adapted: str = ""
    networks: int = 1
    model_id: str = ""

    @classmethod
    def of(cls, state: Mapping[str, Any], path: Path) -> "ModelProvenance":
        """What the model file ``state`` read from ``path`` says."""
        found, adapted = state.get("trained_on"), state.get("adapted") or {}
        trained = _described(found) if found else "images that its file does not name"
        scores = dict(_numbers(state.get("validation") or {}))
        networks = 1 + len(state.get("members") or ())
        name = one_line(path.name)
        model_id = f"{name} {sha256_of(path)[:12]}" if path.is_file() else name
        return cls(name, trained, scores, one_line(adapted.get("text", "")), networks, model_id)

    def with_manual_threshold(self) -> "ModelProvenance":
        """With another operating point than the file's, at which nothing was measured."""
        measured = {name: value for name, value in self.validation.items() if not name.endswith(_AT_THRESHOLD)}
        return replace(self, validation=measured, adapted="operating point set by --threshold")

    def sentence(self, operating_point: float) -> str:
        """For a person and a picture."""
        said = [self.short(), *self._measured(), f"operating point {operating_point:.3f}", RESEARCH_ONLY]
        return "; ".join(said)

    def _measured(self) -> Iterator[str]:
        """The main scores of the first set that the file tells of, and how many images it has."""
        ends = (_IMAGES, *_MAIN)
        first = next((name.removesuffix(end) for name in self.validation for end in ends if name.endswith(end)), "")
        found = {
            shown: self.validation[first + name] for name, shown in _MAIN.items() if first + name in self.validation
        }
        if found:
            of = first.strip() if first.strip() not in ("", _VALIDATION) else "validation"
            count = f" ({self.validation[first + _IMAGES]:g} images)" if first + _IMAGES in self.validation else ""
            yield f"{of}{count}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items())

    def short(self) -> str:
        """For each row of a table."""
        several = f"{self.networks} networks " if self.networks > 1 else ""
        return f"{self.file}, {several}trained on {self.trained}" + (f"; {self.adapted}" if self.adapted else "")

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "use": RESEARCH_ONLY}


UNSAVED = ModelProvenance("a model without a file", "images that nothing is known of", {})


def _described(found: Mapping[str, Any]) -> str:
    def text(name: str) -> str:
        return one_line(found.get(name) or "not stated")

    synthetic = "synthetic " if found.get("synthetic") else ""
    return (
        f"{text('images')} {synthetic}images of {text('patients')} patients ({text('folder')}), {text('date')}, "
        f"commit {text('commit')}"
    )


def _numbers(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dictionaries, by names that tell where they stand."""
    for name, value in found.items():
        words = prefix + name.replace("_", " ")
        if isinstance(value, dict):
            yield from _numbers(cast(dict[str, Any], value), f"{words} ")
        elif type(value) in (int, float) and math.isfinite(value):
            yield words, value


_KEY_BYTES = 8  # of a hash that the model file keeps


def image_key(sha256: str) -> str:
    """The part of a file's hash that a model file keeps."""
    return sha256[: 2 * _KEY_BYTES]


def image_keys(hashes: Sequence[str], *parts: NDArray[np.int64]) -> frozenset[str]:
    """The keys of the images at the indices of all ``parts``."""
    return frozenset(image_key(hashes[int(index)]) for index in np.concatenate(parts))


def pack_keys(keys: frozenset[str] | None) -> Tensor | None:
    """For the model file: uint8 [N, 8], sorted."""
    if keys is None:
        return None
    rows = [list(bytes.fromhex(key)) for key in sorted(keys)]
    return torch.tensor(rows, dtype=torch.uint8).reshape(-1, _KEY_BYTES)


def unpack_keys(found: Tensor | None) -> frozenset[str] | None:
    """The keys in a model file; None where it keeps none."""
    return None if found is None else frozenset(bytes(row).hex() for row in found.tolist())


def run_environment(run: Runtime) -> dict[str, Any]:
    """Plain values that a checkpoint and JSON can hold."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else platform.processor()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{run.device.type} {name}".strip(),
        "threads": torch.get_num_threads(),
        "bf16": run.bf16,
        "bf16_speedup": run.bf16_speedup,
        "processes": run.world_size,
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the code, marked when code differs from it; None outside a git checkout or without git.

    A copy without ``.git`` that lies in another repository has none: git does not look above the root. The pictures
    that a run draws over those in ``images/`` do not count.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    return head and head + ("-dirty" if _git("diff", "--name-only", "HEAD", "--", "*.py") else "")


def _git(*arguments: str) -> str | None:
    """What git says of this checkout; None where it says nothing."""
    try:
        shown = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)},
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.stdout.strip() or None
