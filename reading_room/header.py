"""How the worklist names files and patients: by default without what identifies the patient."""

import re
from dataclasses import dataclass
from pathlib import Path

from cxr.messages import one_line, printable
from cxr.reading import Header

HIDDEN = "…"  # stands for what identifies the patient
_SHORT = 4  # bytes; shorter texts are hidden only where they stand alone, or every file 11 would lose its name to a 1


def without_names(text: str, header: Header) -> str:
    """``text``, which may be a path or an error that holds one, with a mark for all that identifies the patient."""
    for name in sorted(header.patient_names, key=len, reverse=True):
        alone = rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"
        text = re.sub(alone if len(name.encode()) < _SHORT else re.escape(name), HIDDEN, text, flags=re.IGNORECASE)
    return text


@dataclass(frozen=True)
class Naming:
    """How files and patients are called in the answers.

    Attributes:
        folders: that were asked for; a file is called by its path within.
        identifiers: whether patients may be told, and files by their whole path.
    """

    folders: tuple[Path, ...]
    identifiers: bool

    def file(self, path: Path, header: Header) -> str:
        """A path for a reader."""
        if self.identifiers:
            return printable(str(path))
        within = next((path.relative_to(folder) for folder in self.folders if path.is_relative_to(folder)), None)
        return without_names(printable(path.name if within is None else within.as_posix()), header)

    def reason(self, error: str, path: Path, header: Header) -> str:
        """Why a file has no answer, without the path that stands before it in most errors."""
        for whole in (f"{path}: ", f"{path.absolute()}: "):
            error = error.removeprefix(one_line(whole) + " ")
        return error if self.identifiers else without_names(error, header)

    def patient(self, header: Header) -> str:
        """Name and id, where they may be told."""
        return printable(header.patient_text) if self.identifiers else ""
