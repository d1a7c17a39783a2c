"""What DICOM results copy from the header of their image, without values that the standard does not allow."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from warnings import warn

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.multival import MultiValue
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DA, TM, validate_value

from cxr.messages import printable

_FORM = "1"  # part of every UID: documents of another form are other documents
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_IMAGE = ("Rows", "Columns", "PatientOrientation", "LossyImageCompression")
# What a document copies from its image, and its value representation (PS3.5 6.2); the last two may not be empty.
TAKEN_OVER = {
    "PatientName": "PN",
    "PatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "AccessionNumber": "SH",
    "ReferringPhysicianName": "PN",
    "IssuerOfPatientID": "LO",
    "StudyDescription": "LO",
}
NEVER_EMPTY = ("IssuerOfPatientID", "StudyDescription")
HEADER = (*_IDENTITY, *TAKEN_OVER, *_IMAGE)  # what is read of a source


def identity(header: Dataset, path: Path) -> tuple[Dataset, list[str]]:
    """The four UIDs of the image, its series and study, and which of them had to be made, from the file's content."""
    image, missing = Dataset(), list[str]()
    for keyword in _IDENTITY:
        value = str(header.get(keyword) or header.file_meta.get(f"MediaStorage{keyword}") or "")
        if not re.fullmatch(r"[0-9.]{1,64}", value):
            missing.append(keyword)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            value = SecondaryCaptureImageStorage if keyword == "SOPClassUID" else uid(keyword, content)
        setattr(image, keyword, value)
    return image, missing


def patient_and_study(header: Dataset) -> tuple[Dataset, list[str]]:
    """Patient and study in UTF-8, and which values were left empty because the standard does not allow them."""
    taken, refused = Dataset(), list[str]()
    taken.SpecificCharacterSet = "ISO_IR 192"
    for keyword, representation in TAKEN_OVER.items():
        value = header.get(keyword) or ""
        text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
        try:
            validate_value(representation, text, RAISE)
            {"DA": DA, "TM": TM}.get(representation, str)(text)  # the 31st of February has the form of a date
            valid = (
                text.isprintable()
                and "\ufffd" not in text
                and "\\" not in text
                and (keyword != "PatientSex" or text in ("", "M", "F", "O"))
            )
        except ValueError:
            valid = False
        if not valid:
            refused.append(keyword)
            text = ""
        if text or keyword not in NEVER_EMPTY:
            setattr(taken, keyword, text)
    return taken, refused


def warn_of(path: Path, missing: list[str], refused: list[str], patient_id: str) -> None:
    """Warn of what an archive will miss in the documents of this file."""
    problems: list[str] = []
    if missing:
        problems.append(f"no {', '.join(missing)} in the header: an archive will not show the results with the image")
    if refused:
        problems.append(f"not valid and left out of the results: {', '.join(refused)}")
    if not patient_id:
        problems.append("no PatientID: the patient of these results is unknown")
    if problems:
        warn(f"{printable(str(path))}: {'; '.join(problems)}", stacklevel=3)


def require_on_image(boxes: Sequence[tuple[float, float, float, float, float]], header: Dataset, path: Path) -> None:
    """Raise ValueError unless every box lies on the image."""
    for x, y, width, height, _ in boxes:
        right, bottom = x + width, y + height
        if not (0 <= x <= right <= header.Columns and 0 <= y <= bottom <= header.Rows):
            raise ValueError(
                f"{printable(str(path))}: expected boxes on an image of {header.Columns} x {header.Rows} pixels, found "
                f"one from x {x:g}, y {y:g} to x {right:g}, y {bottom:g}"
            )


def uid(*entropy: str) -> str:
    """A UID, the same for the same strings."""
    return generate_uid(entropy_srcs=["\0".join((_FORM, *entropy))])
