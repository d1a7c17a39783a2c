"""DICOM headers: the elements of the image, and what they state of patient, exam and view; parsed by pydicom."""

import hashlib
import math
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DA, TM, PersonName

from cxr.messages import one_line
from cxr.reading.files import looks_like_dicom
from cxr.reading.picture import NO_HEADER, Header

MANUFACTURER = "Pneumonia on chest radiographs (open research project)"  # of this program's own DICOM results

_LONGEST_UID = 64  # DICOM PS3.5, 9.1
_OLDEST_YEARS = 120  # RSNA's files hold ages of 148 to 155 years, which nobody has reached
_AGE = re.compile(r"(\d{1,4})([DWMY]?)")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}
_PROJECTION = ("", "CR", "DX", "DR", "RG", "RF", "XA", "SC", "OT")  # modalities of one projection, or of anything
_FRONTAL = re.compile(r"(.*\b)?(AP|PA)\b.*|(ANTERO|POSTERO).*")
_CHEST = re.compile(r".*(CHEST|THORAX|LUNG).*")
_TRANSFER_SYNTAX = re.compile(rb"\x02\0\x10\0UI..([0-9.]{1,64})", re.DOTALL)
_PIXEL_DATA = Tag("PixelData")
_KEYWORDS = """
    SOPClassUID SOPInstanceUID Manufacturer PatientName AcquisitionDateTime
    AcquisitionDate AcquisitionTime ContentDate ContentTime StudyDate StudyTime
    Modality PatientID PatientAge PatientSex ViewPosition BodyPartExamined
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns
    BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
    WindowCenter WindowWidth RescaleIntercept RescaleSlope VOILUTFunction ModalityLUTSequence VOILUTSequence
    LUTDescriptor LUTData PresentationLUTShape RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData BluePaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableData PixelData
"""
_TAGS = {keyword: Tag(keyword) for keyword in _KEYWORDS.split()}


class Elements:
    """One data set, or one item of a sequence, whose values are converted without pydicom's validation.

    Attributes:
        dataset: as pydicom read it, with ``_KEYWORDS`` alone.
        syntax: the transfer syntax UID, empty where there is none.
        order: of bytes, ``<`` or ``>``.
    """

    def __init__(self, dataset: Dataset, syntax: str = "") -> None:
        self.dataset = dataset
        self._found = {element.tag: element for element in dataset.elements()}
        self.syntax = syntax
        self.order = "<" if dataset.original_encoding[1] is not False else ">"

    def raw(self, keyword: str) -> RawDataElement | None:
        """The element as it lies in the file; None if it is absent or empty."""
        element = self._found.get(_TAGS[keyword])
        return element if isinstance(element, RawDataElement) and element.value else None

    def content(self, keyword: str) -> bytes:
        """Its value as it lies in the file; empty if it is absent."""
        element = self.raw(keyword)
        return element.value or b"" if element else b""

    def text(self, keyword: str) -> str:
        """The first of its values, upper case and trimmed; empty if there is none."""
        return self.content(keyword).split(b"\\")[0].strip(b" \0").decode("latin-1").upper()

    def decoded(self, keyword: str) -> str:
        """Its value in the character set of the file, on one line."""
        encodings: Any = self.dataset.original_character_set
        value = PersonName(self.content(keyword), encodings, validation_mode=IGNORE)
        return " ".join(str(value).replace("\0", " ").split())

    def number(self, keyword: str) -> float | None:
        """The first of the decimal strings (VR DS or IS), None if it is absent or empty; a comma counts as a point.

        Raises:
            ValueError: it is not a finite number.
        """
        text = self.text(keyword)
        if not text:
            return None
        with suppress(ValueError):
            if math.isfinite(value := float(text.replace(",", "."))):
                return value
        raise ValueError(f"{keyword} is {text!r}; expected a number")

    def integers(self, keyword: str) -> tuple[int, ...]:
        """Its first values (VR US or SS), at most three, as unsigned 16-bit numbers; empty if it is absent."""
        content = self.content(keyword)[:6]
        return struct.unpack_from(f"{self.order}{len(content) // 2}H", content)

    def integer(self, keyword: str, default: int) -> int:
        """The first of ``integers``, or ``default``."""
        return next(iter(self.integers(keyword)), default)

    def first_item(self, keyword: str) -> "Elements | None":
        """The first item of a sequence, None if there is no item."""
        items = self.dataset.get(keyword)
        return Elements(items[0]) if items else None


def read_elements(data: bytes, *, with_pixels: bool = True) -> Elements:
    """The elements of the file ``data``; pydicom raises errors of many types for damage."""

    def is_end(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag > _PIXEL_DATA or (tag == _PIXEL_DATA and not with_pixels)

    tags: list[Any] = list(_TAGS.values())
    return Elements(read_partial(BytesIO(data), is_end, force=True, specific_tags=tags), _syntax(data))


def _syntax(data: bytes) -> str:
    """The first Transfer Syntax UID, should the file meta information be there twice."""
    found = _TRANSFER_SYNTAX.search(data, 0, 2**12)
    return found[1].decode() if found else ""


def read_header(path: Path) -> Header:
    """The header of a file whose pixels may be unreadable; ``NO_HEADER`` where it is damaged or not DICOM."""
    with suppress(Exception):  # pydicom raises many types for damage
        data = path.read_bytes()
        if looks_like_dicom(data):
            return header_of(read_elements(data, with_pixels=False))
    return NO_HEADER


def read_dataset(path: Path, keywords: Sequence[str]) -> Dataset | None:
    """The elements ``keywords`` of a file, as pydicom converts them; None where it is not DICOM.

    Raises:
        OSError: the file cannot be read. pydicom raises many other errors for damage.
    """
    data = path.read_bytes()
    if not looks_like_dicom(data):
        return None
    tags: list[Any] = [Tag(keyword) for keyword in keywords]
    dataset = dcmread(BytesIO(data), stop_before_pixels=True, force=True, specific_tags=tags)
    dataset.decode()
    return dataset


def header_of(elements: Elements) -> Header:
    """The header in ``elements``; malformed values count as absent.

    An age is ``051Y``, in days, weeks or months, or the bare number of years that RSNA's files have (DICOM PS3.5 6.2
    requires a unit). View and body part only make a note: they are wrong too often to refuse an image.
    """
    text_of = elements.text
    sex, view, body_part, modality = map(text_of, ("PatientSex", "ViewPosition", "BodyPartExamined", "Modality"))
    stated = [
        f"{name} {value}"
        for name, value, expected in (
            ("modality", modality, modality in _PROJECTION),
            ("body part", body_part, _CHEST.fullmatch(body_part)),
            ("view", view, _FRONTAL.fullmatch(view)),
        )
        if value and not expected
    ]
    notes = [f"not a frontal chest radiograph according to its header: {', '.join(stated)}"] if stated else []
    photometric, shape = text_of("PhotometricInterpretation"), text_of("PresentationLUTShape")
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):  # DICOM PS3.3 C.11.6
        both = f"{photometric} with Presentation LUT Shape {shape}"
        notes.append(f"contradiction in the header: {both}; taken as low is white")
    identity, instance = text_of("PatientID"), text_of("SOPInstanceUID")
    name, number = elements.decoded("PatientName").replace("^", " "), elements.decoded("PatientID")
    # Alphabetic, ideographic and phonetic, each in parts and as one word.
    names = [part for group in name.split("=") for part in (*group.split(), "".join(group.split()))]
    acquired, is_study_date = _acquired(text_of)
    return Header(
        age_years=_years(text_of("PatientAge")),
        sex=sex if sex in ("M", "F") else None,
        view=view if view in ("AP", "PA") else None,
        note=one_line("; ".join(notes)),
        patient=hashlib.sha256(identity.encode()).hexdigest()[:16] if identity else "",
        sop_instance_uid=instance if len(instance) <= _LONGEST_UID else "",
        acquired=acquired,
        is_study_date=is_study_date,
        view_text=view,
        patient_text=" · ".join(filter(None, (" ".join(name.replace("=", " / ").split()), number))),
        patient_names=tuple(dict.fromkeys(filter(None, (*names, number)))),
        is_own_result=text_of("Manufacturer") == MANUFACTURER.upper(),
    )


def _acquired(text_of: Callable[[str], str]) -> tuple[str, bool]:
    """When the image was acquired, and whether only the date of the study is known."""
    whole = text_of("AcquisitionDateTime")
    pairs = [(whole[:8], whole[8:14].partition("+")[0])]
    pairs += [(text_of(f"{event}Date"), text_of(f"{event}Time")) for event in ("Acquisition", "Content", "Study")]
    *image, study = [_iso(*pair) for pair in pairs]
    acquired = next(filter(None, image), "")
    return acquired or study, bool(study and not acquired)


def _iso(day: str, time: str) -> str:
    """ISO 8601 to the minute, or the day alone; empty where the day is absent or malformed."""
    with suppress(ValueError, TypeError):  # DA and TM of an empty text are None
        date = f"{DA(day):%Y-%m-%d}"
        with suppress(ValueError, TypeError):
            return f"{date}T{TM(time):%H:%M}"
        return date
    return ""


def _years(text: str) -> int | None:
    found = _AGE.fullmatch(text)
    years = int(int(found[1]) / _PER_YEAR[found[2]]) if found else _OLDEST_YEARS + 1
    return years if years <= _OLDEST_YEARS else None
