"""DICOM headers: the elements of the image, and what they state of patient, exam and view; parsed by pydicom."""

import hashlib
import math
import re
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
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

from cxr.messages import composed, one_line
from cxr.reading.files import looks_like_dicom
from cxr.reading.picture import NO_HEADER, Header, is_placeholder

MANUFACTURER = "Pneumonia on chest radiographs (open research project)"  # of this program's own DICOM results

_LONGEST_UID = 64  # DICOM PS3.5, 9.1
_OLDEST_YEARS = 120  # RSNA's files hold ages of 148 to 155 years, which nobody has reached
_AGE = re.compile(r"(\d{1,4})([DWMY]?)")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}
_PROJECTION = ("", "CR", "DX", "DR", "RG", "RF", "XA", "SC", "OT")  # modalities of one projection, or of anything
_FRONTAL = re.compile(r"\b(A ?P|P ?A)\b|ANTERO|POSTERO|FRONT|정면")
_NOT_FRONTAL = re.compile(r"\b(LAT|LATERAL|LAO|RAO|LPO|RPO|OBL|OBLIQUE)\b|측면")
_CHEST = re.compile("CHEST|THORA|TORA[XC]|LUNG|PULM|PECHO|흉부|가슴|폐")
_TRANSFER_SYNTAX = re.compile(rb"\x02\0\x10\0UI..([0-9.]{1,64})", re.DOTALL)
_PIXEL_DATA = Tag("PixelData")
_KEYWORDS = """
    SOPClassUID SOPInstanceUID Manufacturer PatientName AcquisitionDateTime
    AcquisitionDate AcquisitionTime ContentDate ContentTime StudyDate StudyTime
    Modality PatientID PatientAge PatientSex ViewPosition BodyPartExamined PresentationIntentType
    ViewCodeSequence AnatomicRegionSequence CodeMeaning PatientOrientation SpecificCharacterSet
    ShutterShape ShutterLeftVerticalEdge ShutterRightVerticalEdge ShutterUpperHorizontalEdge
    ShutterLowerHorizontalEdge CenterOfCircularShutter RadiusOfCircularShutter VerticesOfThePolygonalShutter
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence FrameVOILUTSequence
    PixelValueTransformationSequence
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns
    BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
    WindowCenter WindowWidth RescaleIntercept RescaleSlope VOILUTFunction ModalityLUTSequence VOILUTSequence
    LUTDescriptor LUTData PresentationLUTShape RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData BluePaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData PixelData
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
        element = self._found.get(Tag(keyword))
        return element if isinstance(element, RawDataElement) and element.value else None

    def content(self, keyword: str) -> bytes:
        """Its value as it lies in the file; empty if it is absent."""
        element = self.raw(keyword)
        return element.value or b"" if element else b""

    def texts(self, keyword: str) -> list[str]:
        """All its values, upper case and trimmed."""
        return [value.strip(b" \0").decode("latin-1").upper() for value in self.content(keyword).split(b"\\")]

    def text(self, keyword: str) -> str:
        """The first of its values, upper case and trimmed; empty if there is none."""
        return self.texts(keyword)[0]

    def words(self, keyword: str) -> str:
        """The first of its values in any language, for a comparison: upper case, without accents and punctuation."""
        text = (self.decoded(keyword) or self.text(keyword)).split("\\")[0]
        plain = "".join(mark for mark in unicodedata.normalize("NFKD", text) if not unicodedata.combining(mark))
        return re.sub(r"[\W_]+", " ", composed(plain)).strip().upper()

    def decoded(self, keyword: str) -> str | None:
        """Its value in the character set of the file, composed and on one line; None if that set cannot hold it.

        Without Specific Character Set only ASCII is allowed (DICOM PS3.5 6.1.1), where pydicom takes Latin-1.
        """
        declared: Any = self.dataset.original_character_set
        encodings = [
            "ascii" if name == "iso8859" else name for name in ([declared] if isinstance(declared, str) else declared)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pydicom, about what it replaces by U+FFFD
            text = str(PersonName(self.content(keyword), encodings, validation_mode=IGNORE))
        return None if "\ufffd" in text else composed(" ".join(text.replace("\0", " ").split()))

    def number(self, keyword: str) -> float | None:
        """The first of ``numbers``; later ones may be malformed."""
        return next(self.numbers(keyword))

    def numbers(self, keyword: str) -> Iterator[float | None]:
        """The decimal strings (VR DS or IS), None for an empty one, read when asked for; a comma counts as a point.

        Raises:
            ValueError: one is not a finite number.
        """
        return (self._number(keyword, text) for text in self.texts(keyword))

    def _number(self, keyword: str, text: str) -> float | None:
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

    def first_item(self, *path: str) -> "Elements | None":
        """The first item of a sequence, and of the next one in it; None if there is no item."""
        items = self.dataset.get(path[0])
        item = Elements(items[0]) if items else None
        return item.first_item(*path[1:]) if item and path[1:] else item


def read_elements(data: bytes, *, with_pixels: bool = True) -> Elements:
    """The elements of the file ``data``; pydicom raises errors of many types for damage."""

    def is_end(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag > _PIXEL_DATA or (tag == _PIXEL_DATA and not with_pixels)

    tags: list[Any] = list(_TAGS.values())
    try:
        return Elements(read_partial(BytesIO(data), is_end, force=True, specific_tags=tags), _syntax(data))
    except zlib.error as error:
        stated = f"transfer syntax {_syntax(data)} is deflated, but the data set is no bare deflate stream"
        raise ValueError(f"{stated} (DICOM PS3.5 A.5)") from error


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

    A text that the file's character set cannot hold is U+FFFD.

    Raises:
        OSError: the file cannot be read. pydicom raises many other errors for damage.
    """
    data = path.read_bytes()
    if not looks_like_dicom(data):
        return None
    tags: list[Any] = [Tag(keyword) for keyword in keywords]
    dataset = dcmread(BytesIO(data), stop_before_pixels=True, force=True, specific_tags=tags)
    elements = Elements(dataset)
    unreadable = [keyword for keyword in keywords if elements.decoded(keyword) is None]
    dataset.decode()
    for keyword in unreadable:
        setattr(dataset, keyword, "\ufffd")
    return dataset


def header_of(elements: Elements) -> Header:
    """The header in ``elements``; malformed values count as absent.

    An age is ``051Y``, in days, weeks or months, or the bare number of years that RSNA's files have (DICOM PS3.5 6.2
    requires a unit). View and body part only make a note: they are wrong too often to refuse an image.
    """
    text_of = elements.text
    sex, view, modality = map(text_of, ("PatientSex", "ViewPosition", "Modality"))
    stated = [] if modality in _PROJECTION else [f"modality {modality}"]
    for name, keyword, sequence, is_expected in (
        ("body part", "BodyPartExamined", "AnatomicRegionSequence", _CHEST.search),
        ("view", "ViewPosition", "ViewCodeSequence", _is_frontal),
    ):
        code = elements.first_item(sequence)
        values = [elements.words(keyword), code.words("CodeMeaning") if code else ""]
        stated += [f"{name} {value}" for value in dict.fromkeys(values) if value and not is_expected(value)]
    along, down = (*elements.texts("PatientOrientation"), "")[:2]
    if along[:1] in ("A", "P"):
        stated.append(f"view lateral (Patient Orientation {along}\\{down})")
    notes = [f"not a frontal chest radiograph according to its header: {', '.join(stated)}"] if stated else []
    if along[:1] in ("L", "R", "H", "F") and down and (along[0], down[0]) != ("L", "F"):
        notes.append(f"turned or mirrored according to its header: Patient Orientation {along}\\{down}, expected L\\F")
    if text_of("PresentationIntentType") == "FOR PROCESSING":
        notes.append("raw detector data, not for display (Presentation Intent Type FOR PROCESSING)")
    photometric, shape = text_of("PhotometricInterpretation"), text_of("PresentationLUTShape")
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):  # DICOM PS3.3 C.11.6
        both = f"{photometric} with Presentation LUT Shape {shape}"
        notes.append(f"contradiction in the header: {both}; taken as low is white")
    identity, instance = text_of("PatientID"), text_of("SOPInstanceUID")
    texts = elements.decoded("PatientName"), elements.decoded("PatientID")
    name, number = (texts[0] or "").replace("^", " "), texts[1] or ""
    # Alphabetic, ideographic and phonetic, each in parts and as one word.
    names = [part for group in name.split("=") for part in (*group.split(), "".join(group.split()))]
    acquired, is_study_date = _acquired(text_of)
    return Header(
        age_years=_years(text_of("PatientAge")),
        sex=sex if sex in ("M", "F") else None,
        view=view if view in ("AP", "PA") else None,
        note=one_line("; ".join(notes)),
        patient="" if is_placeholder(identity) else hashlib.sha256(identity.encode()).hexdigest()[:16],
        sop_instance_uid=instance if len(instance) <= _LONGEST_UID else "",
        acquired=acquired,
        is_study_date=is_study_date,
        view_text=view,
        patient_text=" · ".join(filter(None, (" ".join(name.replace("=", " / ").split()), number))),
        patient_names=tuple(dict.fromkeys(filter(None, (*names, number)))),
        is_patient_unreadable=None in texts,
        is_own_result=text_of("Manufacturer") == MANUFACTURER.upper(),
    )


def _is_frontal(view: str) -> bool:
    return bool(_FRONTAL.search(view)) and not _NOT_FRONTAL.search(view)


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
