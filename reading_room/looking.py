"""A file -> all that the worklist needs of it, from one reading: squares for both networks, a film, the header."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import reading
from cxr.messages import one_line, printable
from reading_room import pictures
from reading_room.answers import Exam
from reading_room.header import Facts, Naming
from reading_room.inbox import place_of, state_of

_HEADER_BYTES = 2**20  # more than any that is not hostile


@dataclass(frozen=True)
class Look:
    """One file, read.

    Attributes:
        exam: what is known of it before it is judged; its ``error`` says why there is nothing to judge.
        own: whether it is a document of our own.
        squares: uint8 [S, S] for each size that was asked for. film: JPEG.
    """

    path: Path
    exam: Exam
    own: bool
    squares: tuple[NDArray[np.uint8], ...] = ()
    film: bytes = b""


def look(path: Path, state: str, sizes: Sequence[int], naming: Naming) -> Look:
    """Read one file; what is wrong with it is an answer, not an error.

    Args:
        path: the file.
        state: what ``state_of`` said of it before.
        sizes: sides of the squares to make, in pixels.
        naming: how it is called in the answer.
    """
    place = place_of(path)

    def exam(facts: Facts, error: str = "") -> Exam:
        return Exam(
            key=place,
            content=place,
            place=place,
            state=state,
            file=naming.file(path, facts),
            error=naming.reason(error, path, facts),
            acquired=facts.acquired,
            study_date=facts.study_date,
            view=printable(facts.view),
            patient=naming.patient(facts),
        )

    try:
        picture, data = reading.read_picture(path, max(2 * max(sizes), pictures.FILM_SIDE))
    except (reading.UnreadableImage, OSError) as error:
        facts = _facts_of_unreadable(path)
        return Look(path, exam(facts, one_line(error)), facts.own)
    content, facts = hashlib.sha256(data).hexdigest(), Facts.read(data)
    if state_of(path) != state:
        return Look(path, exam(facts, "changed while it was read"), facts.own)
    height, width = picture.height_width
    known = replace(
        exam(facts),
        key=facts.instance or content,
        content=content,
        width=width,
        height=height,
        note=picture.header.note,
    )
    return Look(path, known, facts.own, tuple(map(picture.square, sizes)), pictures.film(picture))


def _facts_of_unreadable(path: Path) -> Facts:
    """What the header says of a file without a picture, so that its name does not tell the patient."""
    try:
        with path.open("rb") as file:
            return Facts.read(file.read(_HEADER_BYTES))
    except OSError:
        return Facts()
