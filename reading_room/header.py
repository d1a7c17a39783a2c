"""What a worklist says of an exam beyond the picture: when, which view, whose."""

import re
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.valuerep import DA, TM

from cxr.messages import one_line, printable
from cxr.reading.dicom_header import MANUFACTURER, inflated
from cxr.reading.files import HEAD_BYTES, looks_like_dicom

config.settings.reading_validation_mode = config.IGNORE  # odd values are looked at below
_KEYWORDS: list[Any] = [
    *("SpecificCharacterSet", "SOPInstanceUID", "ViewPosition", "PatientName", "PatientID", "AcquisitionDateTime"),
    "Manufacturer",
    *(f"{event}{part}" for event in ("Acquisition", "Content", "Study") for part in ("Date", "Time")),
]
_LONGEST_UID = 64  # DICOM PS3.5, 9.1
HIDDEN = "…"  # stands for what tells the patient
_SHORT = 4  # bytes; shorter ones are hidden only where they stand alone, or every file 11 would lose its name to a 1


@dataclass(frozen=True)
class Facts:
    """What the header of one file says; all empty for files without one.

    Attributes:
        instance: SOP Instance UID. acquired: ISO 8601 to the minute, or the day alone.
        study_date: whether ``acquired`` is the date of the study. names: every text that tells who the patient is.
        own: whether it is a document of our own, as an archive that sends whole studies on may return it.
    """

    instance: str = ""
    acquired: str = ""
    study_date: bool = False
    view: str = ""
    patient: str = ""
    names: tuple[str, ...] = ()
    own: bool = False

    @classmethod
    def read(cls, data: bytes) -> "Facts":
        """From a file or its beginning; empty where that is not DICOM or is damaged."""
        if not looks_like_dicom(data[:HEAD_BYTES]):
            return cls()
        with suppress(Exception):  # pydicom meets damage with many errors
            return cls.of(
                dcmread(BytesIO(inflated(data)), stop_before_pixels=True, force=True, specific_tags=_KEYWORDS)
            )
        return cls()

    @classmethod
    def of(cls, header: Any) -> "Facts":
        """From a pydicom Dataset; what is malformed there counts as not stated."""
        whole = _text(header, "AcquisitionDateTime")
        pairs = [(whole[:8], whole[8:14].partition("+")[0])]
        pairs += [(_text(header, f"{of}Date"), _text(header, f"{of}Time")) for of in ("Acquisition", "Content")]
        acquired = next(filter(None, (_moment(*pair) for pair in pairs)), "")
        study = "" if acquired else _moment(_text(header, "StudyDate"), _text(header, "StudyTime"))
        name, number = _text(header, "PatientName").replace("^", " ").strip(), _text(header, "PatientID")
        # Alphabetic, ideographic and phonetic, each in parts and as one word.
        parts = [part for group in name.split("=") for part in (*group.split(), "".join(group.split())) if part]
        instance = _text(header, "SOPInstanceUID")
        return cls(
            instance=instance if len(instance) <= _LONGEST_UID else "",
            acquired=acquired or study,
            study_date=bool(study),
            view=_text(header, "ViewPosition").upper(),
            patient=" · ".join(filter(None, (" ".join(name.replace("=", " / ").split()), number))),
            names=tuple(dict.fromkeys([*parts, *([number] if number else [])])),
            own=_text(header, "Manufacturer") == MANUFACTURER,
        )

    def without_names(self, text: str) -> str:
        """``text``, which may be a path or an error that holds one, with a mark for all that tells the patient."""
        for name in sorted(self.names, key=len, reverse=True):
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

    def file(self, path: Path, facts: Facts) -> str:
        """A path for a reader."""
        if self.identifiers:
            return printable(str(path))
        within = next((path.relative_to(folder) for folder in self.folders if path.is_relative_to(folder)), None)
        return facts.without_names(printable(path.name if within is None else within.as_posix()))

    def reason(self, error: str, path: Path, facts: Facts) -> str:
        """Why a file has no answer, without the path that stands before it in most errors."""
        for whole in (f"{path}: ", f"{path.absolute()}: "):
            error = error.removeprefix(one_line(whole) + " ")
        return error if self.identifiers else facts.without_names(error)

    def patient(self, facts: Facts) -> str:
        """Name and id, where they may be told."""
        return printable(facts.patient) if self.identifiers else ""


def _text(header: Any, keyword: str) -> str:
    """A value as one line; several values or a wrong type count as text too."""
    with suppress(Exception):  # pydicom converts values when they are asked for, and meets damage with many errors
        return " ".join(str(header.get(keyword) or "").split())
    return ""


def _moment(day: str, time: str) -> str:
    """ISO 8601 from DICOM's own forms; empty where the day is missing or is none."""
    with suppress(ValueError):
        date = DA(day)
        if date is None:
            return ""
        with suppress(ValueError):
            clock = TM(time)
            return f"{date:%Y-%m-%d}" if clock is None else f"{date:%Y-%m-%d}T{clock:%H:%M}"
        return f"{date:%Y-%m-%d}"
    return ""
