"""What a DICOM header says of the patient and the view, and what in it speaks against a frontal chest radiograph."""

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple

from cxr.text import one_line

_OLDEST_YEARS = 120  # RSNA's files hold ages of 148 to 155 years, which nobody has reached
_AGE = re.compile(r"(\d{1,4})([DWMY]?)")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}
_PROJECTION = ("", "CR", "DX", "DR", "RG", "RF", "XA", "SC", "OT")  # modalities of one projection, or of anything
_FRONTAL = re.compile(r"(.*\b)?(AP|PA)\b.*|(ANTERO|POSTERO).*")
_CHEST = re.compile(r".*(CHEST|THORAX|LUNG).*")


class Header(NamedTuple):
    """What is said of one file.

    Fields:
        age_years, sex, view: completed years, ``M`` or ``F``, ``AP`` or ``PA``; None where the header does not say, or
            says something impossible, and for files without a header.
        note: what a reader of the answer is to know, empty for an ordinary chest radiograph.
        patient: stands for the Patient ID, which itself is not kept; empty where there is none. It is a hash: whoever
            has a list of ids can tell whose it is.
    """

    age_years: int | None = None
    sex: str | None = None
    view: str | None = None
    note: str = ""
    patient: str = ""


NO_HEADER = Header()


def read_header(text_of: Callable[[str], str]) -> Header:
    """The header whose elements, by the standard's keywords, ``text_of`` gives as upper-case text, empty if absent.

    An age is taken as ``051Y``, in days, weeks or months, or as the bare number of years that RSNA's files have
    (DICOM PS3.5 6.2 wants a unit). View and body part may only warn: they are wrong often enough.
    """
    sex, view = text_of("PatientSex"), text_of("ViewPosition")
    said = [
        f"{name} {value}"
        for name, value, expected in (
            ("modality", text_of("Modality"), text_of("Modality") in _PROJECTION),
            ("body part", text_of("BodyPartExamined"), _CHEST.fullmatch(text_of("BodyPartExamined"))),
            ("view", view, _FRONTAL.fullmatch(view)),
        )
        if value and not expected
    ]
    note = one_line(f"the header says {', '.join(said)}, but only frontal chest radiographs are judged") if said else ""
    identity = text_of("PatientID")
    return Header(
        _years(text_of("PatientAge")),
        sex if sex in ("M", "F") else None,
        view if view in ("AP", "PA") else None,
        note,
        hashlib.sha256(identity.encode()).hexdigest()[:16] if identity else "",
    )


def _years(text: str) -> int | None:
    found = _AGE.fullmatch(text)
    years = int(int(found[1]) / _PER_YEAR[found[2]]) if found else _OLDEST_YEARS + 1
    return years if years <= _OLDEST_YEARS else None
