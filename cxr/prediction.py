"""What must be said beside an answer: that it could as well be the other one, or that it means little."""

import math
import warnings
from pathlib import Path

BORDERLINE = "borderline, near the operating point: treat as undecided"
UNLIKE = "unlike the images this model was trained on: the answer means little"
REFUSED = "unlike the images this model was trained on"
_NEAR = math.log(2)


def is_borderline(probability: float, operating_point: float) -> bool:
    """Whether the odds lie within a factor of two of those at the operating point."""
    return abs(_log_odds(probability) - _log_odds(operating_point)) < _NEAR


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-12), 1 - 1e-12)
    return math.log(clipped / (1 - clipped))


def remarks(unlike: bool | None, *others: str) -> tuple[str, ...]:
    """The remarks of a report; an empty one is left out."""
    return tuple(filter(None, (UNLIKE if unlike else "", *others)))


def in_words(flag: bool | None) -> str:
    """For a table: yes, no, or empty where it is not known."""
    return "" if flag is None else ("no", "yes")[flag]


def warn_without_likeness(model: Path) -> None:
    """Warn that this model cannot tell whether an image is unlike its training images."""
    warnings.warn(
        f"{model}: from before model files knew what their training images look like; no image will be flagged as "
        "unlike them until the model is trained anew",
        stacklevel=2,
    )
