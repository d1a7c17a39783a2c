"""What a finished model says of itself beside each answer: what it was trained on, how well it did, what it is for."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cxr.provenance import commit
from cxr.text import one_line, shortened

RESEARCH_ONLY = "research only, not a medical device"
_SAMPLE_RECORD = "sample_data.json"  # what make_sample_data.py leaves in its folders
AT_OPERATING_POINT = ("sensitivity", "specificity")  # scores that are no longer true when it moves
_LONGEST = 120  # characters of a text from a model file, which may come from anywhere
_LONGEST_ADAPTED = 300


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


@dataclass(frozen=True)
class Origin:
    """Where a model comes from; what its file does not say is empty.

    Attributes:
        file: name of the model file.
        trained: on what, when, and with which code, in words.
        validation: scores on validation by name.
        adapted: how the operating point was set after training; empty if it was not.
    """

    file: str
    trained: str
    validation: dict[str, float]
    adapted: str = ""

    @classmethod
    def of(cls, state: Mapping[str, Any], path: Path) -> "Origin":
        """What the model file ``state`` read from ``path`` says."""
        found = state.get("trained_on")
        trained = _described(found) if isinstance(found, dict) else "images that its file does not name"
        adapted = state.get("adapted")
        text = one_line(adapted.get("text", "")) if isinstance(adapted, dict) else ""
        return cls(
            one_line(path.name), trained, dict(_numbers(state.get("validation"))), shortened(text, _LONGEST_ADAPTED)
        )

    def adapted_by_hand(self) -> "Origin":
        """As it is with another operating point than the file's, at which nothing was measured."""
        measured = {name: value for name, value in self.validation.items() if not name.endswith(AT_OPERATING_POINT)}
        return replace(self, validation=measured, adapted="operating point set by --threshold")

    def sentence(self, operating_point: float) -> str:
        """For a person and a picture."""
        scores = ", ".join(f"{name} {_shown(value)}" for name, value in self.validation.items())
        validation = f"; validation: {scores}" if scores else ""
        return f"{self.short()}{validation}; operating point {operating_point:.3f}; {RESEARCH_ONLY}"

    def short(self) -> str:
        """For each row of a table."""
        return f"{self.file}, trained on {self.trained}" + (f"; {self.adapted}" if self.adapted else "")

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "use": RESEARCH_ONLY}


UNSAVED = Origin("a model without a file", "images that nothing is known of", {})


def _described(found: dict[str, Any]) -> str:
    def text(name: str) -> str:
        return shortened(one_line(found.get(name) or "not stated"), _LONGEST)

    synthetic = "synthetic " if found.get("synthetic") is True else ""
    return (
        f"{text('images')} {synthetic}images of {text('patients')} patients ({text('folder')}), {text('date')}, "
        f"commit {text('commit')}"
    )


def _numbers(found: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dictionaries, by names that tell where they stand."""
    for name, value in found.items() if isinstance(found, dict) else ():
        words = f"{prefix}{shortened(one_line(name), _LONGEST).replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _numbers(value, f"{words} ")
        elif type(value) in (int, float):
            yield words, value


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
