"""What a finished model file states of itself: provenance, training images, and the environment of the run."""

import math
import os
import platform
import re
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
AT_OPERATING_POINT = ("sensitivity", "specificity")  # of a classifier; void once the threshold changes
_AT_THRESHOLD = (*AT_OPERATING_POINT, "rsna score")
_SAMPLE_RECORD = "sample_data.json"  # in folders written by make_sample_data.py
# The validation scores in a sentence; JSON and the model card have all.
_MAIN = {"roc auc": "ROC AUC", "rsna score": "RSNA score", "sensitivity": "sensitivity", "specificity": "specificity"}
_KEY_BYTES = 8  # of a SHA-256


def trained_on(data_dir: Path, images: int, patients: int) -> dict[str, Any]:
    """Plain values for the model file: the training set, whether it is synthetic, date and commit."""
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
    """Where a model comes from; empty where its file does not state it.

    Attributes:
        file: name of the model file.
        trained: training set, date and commit, in words.
        validation: validation scores by name.
        adapted: how the threshold was set after training; empty if it was not.
        networks: ensemble size.
        model_id: file name and the first 12 digits of the file's SHA-256, for rows of tables.
    """

    file: str
    trained: str
    validation: dict[str, float]
    adapted: str = ""
    networks: int = 1
    model_id: str = ""

    @classmethod
    def of(cls, state: Mapping[str, Any], path: Path) -> "ModelProvenance":
        """From the model file at ``path``, loaded as ``state``."""
        name = one_line(path.name)
        found, adapted = state.get("trained_on"), state.get("adapted") or {}
        trained = _described(found) if found else "images that the model file does not state"
        return cls(
            file=name,
            trained=trained,
            validation=dict(_numbers(state.get("validation") or {})),
            adapted=one_line(adapted.get("text", "")),
            networks=1 + len(state.get("members") or ()),
            model_id=f"{name} {sha256_of(path)[:12]}" if path.is_file() else name,
        )

    def with_manual_threshold(self) -> "ModelProvenance":
        """With another threshold than the file's, for which there are no validation scores."""
        scores = {name: value for name, value in self.validation.items() if not name.endswith(_AT_THRESHOLD)}
        return replace(self, validation=scores, adapted="operating point set by --threshold")

    def sentence(self, operating_point: float) -> str:
        """Training set, changes since, main validation scores and threshold, for a terminal and a picture."""
        several = f"{self.networks} networks " if self.networks > 1 else ""
        parts = [f"{self.file}, {several}trained on {self.trained}", self.adapted, self._scores()]
        return "; ".join([*filter(None, parts), f"operating point {operating_point:.3f}", RESEARCH_ONLY])

    def record(self) -> dict[str, Any]:
        """For JSON; the names of the scores in snake case."""
        scores = {re.sub(r"\W+", "_", name): value for name, value in self.validation.items()}
        return {**asdict(self), "validation": scores, "use": RESEARCH_ONLY}

    def _scores(self) -> str:
        """The main scores on the first set in the file, and its size; empty without scores."""
        ends = ("images", *_MAIN)
        first = next((name.removesuffix(end) for name in self.validation for end in ends if name.endswith(end)), "")
        scores = {name: self.validation.get(first + key) for key, name in _MAIN.items()}
        text = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if value is not None)
        images = self.validation.get(f"{first}images")
        count = "" if images is None else f" ({images:g} images)"
        return text and f"{'validation' if first.strip() in ('', 'val') else first.strip()}{count}: {text}"


UNSAVED = ModelProvenance("a model without a file", "unknown images", {})


def _described(found: Mapping[str, Any]) -> str:
    images, patients, folder, date, code = (
        one_line(found.get(name) or "not stated") for name in ("images", "patients", "folder", "date", "commit")
    )
    synthetic = "synthetic " if found.get("synthetic") else ""
    return f"{images} {synthetic}images of {patients} patients ({folder}), {date}, commit {code}"


def _numbers(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers in nested dictionaries, each with its path of keys as its name."""
    for name, value in found.items():
        words = prefix + name.replace("_", " ")
        if isinstance(value, dict):
            yield from _numbers(cast(dict[str, Any], value), f"{words} ")
        elif type(value) in (int, float) and math.isfinite(value):
            yield words, value


def image_key(sha256: str) -> str:
    """The part of a file's SHA-256 by which a model file identifies a training image."""
    return sha256[: 2 * _KEY_BYTES]


def image_keys(hashes: Sequence[str], *parts: NDArray[np.int64]) -> frozenset[str]:
    """The keys of the images at the indices of all ``parts``."""
    return frozenset(image_key(hashes[int(index)]) for index in np.concatenate(parts))


def pack_keys(keys: frozenset[str] | None) -> Tensor | None:
    """The keys as uint8 [N, 8], sorted, for the model file."""
    if keys is None:
        return None
    rows = [list(bytes.fromhex(key)) for key in sorted(keys)]
    return torch.tensor(rows, dtype=torch.uint8).reshape(-1, _KEY_BYTES)


def unpack_keys(found: Tensor | None) -> frozenset[str] | None:
    """The keys in a model file; None where it has none."""
    return None if found is None else frozenset(bytes(row).hex() for row in found.tolist())


def run_environment(run: Runtime) -> dict[str, Any]:
    """Versions, device, precision and commit as plain values."""
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
    """The commit of the code, with ``-dirty`` if a Python file differs from it; None outside a git checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head and head + ("-dirty" if _git("diff", "--name-only", "HEAD", "--", "*.py") else "")


def _git(*arguments: str) -> str | None:
    try:
        shown = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            # A copy of this project inside another repository does not get that one's commit.
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)},
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.stdout.strip() or None
