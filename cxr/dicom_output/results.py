"""What a classifier and a detector say of a radiograph, as the documents for a PACS take it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.files import sha256_of


@dataclass(frozen=True)
class Model:
    """A model that has looked at an image.

    Attributes:
        name: the kind of network and its task, at most 64 characters.
        sha256: of the file with its weights, in hexadecimal digits.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, name: str, weights: Path) -> "Model":
        """The network ``name`` with the weights in this file."""
        return cls(name, sha256_of(weights))


@dataclass(frozen=True)
class Classification:
    """What a classifier says of an image.

    Attributes:
        probability: of pneumonia, in 0..1.
        operating_point: pneumonia is called present from this probability on.
        undecided: the probability is so near the operating point that neither is called.
    """

    model: Model
    probability: float
    operating_point: float
    undecided: bool = False

    @property
    def found(self) -> bool | None:
        """Whether there is pneumonia; None where that is undecided."""
        return None if self.undecided else self.probability >= self.operating_point


@dataclass(frozen=True)
class Detection:
    """What a detector says of an image.

    Attributes:
        boxes: x, y, width, height and score of each opacity that is given out. In pixels of the source image as it is
            stored, x to the right and y down from the outer corner of its upper left pixel; scores in 0..1.
        operating_point: boxes are given out from this score on.
        highest_score: among all boxes that were looked at, given out or not.
        undecided: that score is so near the operating point that without a box no opacity is not certain.
    """

    model: Model
    boxes: Sequence[tuple[float, float, float, float, float]]
    operating_point: float
    highest_score: float
    undecided: bool = False

    @property
    def found(self) -> bool | None:
        """Whether there are opacities; None where that is undecided."""
        return True if self.boxes else None if self.undecided else False


@dataclass(frozen=True)
class Results:
    """What there is to say of one radiograph.

    Attributes:
        picture: a file with the radiograph and what was found drawn on it; without one there is a report alone.
        remarks: sentences that no reader of the report should miss.
    """

    classification: Classification | None = None
    detection: Detection | None = None
    picture: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def said(self) -> list[Classification | Detection]:
        """By each model that looked at the image."""
        return [said for said in (self.classification, self.detection) if said is not None]

    @property
    def model_name(self) -> str:
        """The names of all models, cut to the 64 characters of a DICOM value."""
        return " + ".join(said.model.name for said in self.said)[:64].strip()
