"""A file -> all that the worklist needs of it, from one reading: squares for both networks, a film, the header."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import reading
from cxr.text import one_line
from reading_room import pictures
from reading_room.header import Facts
from reading_room.inbox import place_of, state_of

_HEADER_BYTES = 2**20  # more than any that is not hostile


@dataclass(frozen=True)
class Look:
    """One file, read.

    Attributes:
        key: SOP Instance UID, or the content's SHA-256 where there is none. content: that SHA-256.
        error: why there is nothing to judge; empty where there is.
        squares: uint8 [S, S] for each size that was asked for. film: JPEG.
        width, height: of the original in pixels.
        note: what the header says against a frontal chest radiograph.
    """

    path: Path
    place: str
    state: str
    key: str
    content: str
    error: str
    facts: Facts
    squares: tuple[NDArray[np.uint8], ...] = ()
    film: bytes = b""
    width: int = 0
    height: int = 0
    note: str = ""


def look(path: Path, state: str, sizes: Sequence[int]) -> Look:
    """Read one file; what is wrong with it is an answer, not an error.

    Args:
        path: the file.
        state: what ``state_of`` said of it before.
        sizes: sides of the squares to make, in pixels.
    """
    place = place_of(path)
    try:
        picture, data = reading.read_picture(path, max(2 * max(sizes), pictures.FILM_SIDE))
    except (reading.UnreadableImage, OSError) as error:
        return Look(path, place, state, place, place, one_line(error), _facts_of_unreadable(path))
    content, facts = hashlib.sha256(data).hexdigest(), Facts.read(data)
    if state_of(path) != state:
        return Look(path, place, state, place, place, "changed while it was read", facts)
    height, width = picture.height_width
    squares = tuple(picture.square(size) for size in sizes)
    film = pictures.film(picture)
    return Look(
        path,
        place,
        state,
        facts.instance or content,
        content,
        "",
        facts,
        squares,
        film,
        width,
        height,
        picture.header.note,
    )


def _facts_of_unreadable(path: Path) -> Facts:
    """What the header says of a file without a picture, so that its name does not tell the patient."""
    try:
        with path.open("rb") as file:
            return Facts.read(file.read(_HEADER_BYTES))
    except OSError:
        return Facts()
