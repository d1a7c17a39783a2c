"""One prediction per image: the record that both tasks, the worklist, tables and DICOM results share."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cxr.files import sha256_of

BORDERLINE = "borderline, near the operating point: treat as undecided"
UNLIKE = "unlike the images this model was trained on: the answer means little"
REFUSED = "unlike the images this model was trained on"
_NEAR = math.log(2)


class Box(NamedTuple):
    """A predicted opacity in pixels of the original image; ``x`` and ``y`` are its upper left corner, score in 0..1."""

    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """What the models predict for one file.

    Attributes:
        error: why there is no prediction; empty where there is one.
        note: what the DICOM header states against a frontal chest radiograph; empty if nothing.
        height, width: of the original image in pixels; 0 where it could not be read.
        probability: of PNEUMONIA, calibrated, in 0..1; None without a classifier, with an error, or where an
            out-of-distribution image was refused.
        boxes: at or above the detector's threshold, highest score first.
        highest_score: of any box, also below the threshold, 0 without a box; None like ``probability``.
        out_of_distribution: None where no model can state it.
        picture: the plot that was drawn of it.
    """

    path: Path
    error: str = ""
    note: str = ""
    height: int = 0
    width: int = 0
    probability: float | None = None
    boxes: tuple[Box, ...] = ()
    highest_score: float | None = None
    out_of_distribution: bool | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class Model:
    """The model of a prediction, for pages and documents.

    Attributes:
        name: the kind of network and its task, at most 64 characters.
        file: name of the model file. sha256: of its content, in hexadecimal digits.
        threshold: the operating point: from this probability or score on, a finding is positive.
        adapted: how the threshold was set after training; empty if it was not.
    """

    name: str
    file: str
    sha256: str
    threshold: float
    adapted: str = ""

    @classmethod
    def of(cls, name: str, path: Path, threshold: float, adapted: str) -> "Model":
        """The model in the file ``path``."""
        return cls(name, path.name, sha256_of(path), threshold, adapted)


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
