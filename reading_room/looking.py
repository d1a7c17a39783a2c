"""A file -> all that the worklist needs of it, from one reading: squares for both networks, a film, the header."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import reading
from cxr.messages import one_line, printable
from cxr.reading.dicom_header import read_header
from reading_room import pictures
from reading_room.answers import Exam
from reading_room.header import Naming
from reading_room.inbox import place_of, state_of


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

    def exam(header: reading.Header, error: str = "") -> Exam:
        return Exam(
            key=place,
            content=place,
            place=place,
            state=state,
            file=naming.file(path, header),
            error=naming.reason(error, path, header),
            acquired=header.acquired,
            study_date=header.is_study_date,
            view=printable(header.view_text),
            patient=naming.patient(header),
        )

    try:
        radiograph = reading.read(path)
        squares, film = tuple(map(radiograph.square, sizes)), pictures.film(radiograph)
    except (reading.UnreadableImage, OSError) as error:
        header = read_header(path)  # so that the name of an unreadable file does not identify the patient
        return Look(path, exam(header, one_line(error)), header.is_own_result)
    header = radiograph.header
    if state_of(path) != state:
        return Look(path, exam(header, "changed while it was read"), header.is_own_result)
    height, width = radiograph.size
    known = replace(
        exam(header),
        key=header.sop_instance_uid or radiograph.sha256,
        content=radiograph.sha256,
        width=width,
        height=height,
        note=header.note,
    )
    return Look(path, known, header.is_own_result, squares, film)
