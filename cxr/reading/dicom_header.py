"""What a DICOM header says of the image, the patient and the view, read by pydicom within bounds."""

import hashlib
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial, read_sequence_item
from pydicom.tag import BaseTag, Tag

from cxr.messages import one_line
from cxr.reading.files import MAX_PIXELS

# Headers are odd often enough, and what is looked at here is looked at below.
config.settings.reading_validation_mode = config.IGNORE
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")

MANUFACTURER = "Pneumonia on chest radiographs (open research project)"  # of our own DICOM results
# Room for the largest picture of 16 bits and its header; a deflated bomb swells no further.
MAX_INFLATED_BYTES = 2 * MAX_PIXELS + 2**20
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED_LENGTH = 0xFFFFFFFF

_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_TRANSFER_SYNTAX = re.compile(rb"\x02\0\x10\0UI..([0-9.]{1,64})", re.DOTALL)
_PIXEL_DATA = Tag("PixelData")
_KEYWORDS = """
    SOPClassUID Modality PatientID PatientAge PatientSex ViewPosition BodyPartExamined
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns
    BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
    WindowCenter WindowWidth RescaleIntercept RescaleSlope VOILUTFunction ModalityLUTSequence VOILUTSequence
    LUTDescriptor LUTData PresentationLUTShape RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData BluePaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableData FloatPixelData DoubleFloatPixelData PixelData
"""
_TAGS = {keyword: Tag(keyword) for keyword in _KEYWORDS.split()}


class Elements:
    """One data set, or one item of a sequence, as the numbers and words it stands for.

    Attributes:
        dataset: as pydicom read it, of which only ``_KEYWORDS`` count.
        syntax: the transfer syntax UID, empty where the file does not say.
    """

    def __init__(self, dataset: Dataset, syntax: str = "") -> None:
        self.dataset = dataset
        self._found = {element.tag: element for element in dataset.elements()}
        self.syntax = syntax
        self.order = "<" if dataset.original_encoding[1] is not False else ">"  # of bytes

    def raw(self, keyword: str) -> RawDataElement | None:
        """The element as it lies in the file; None if it is absent or empty.

        Its ``length`` is ``UNDEFINED_LENGTH`` where a delimiter ends it.
        """
        element = self._found.get(_TAGS[keyword])
        return element if isinstance(element, RawDataElement) and element.value else None

    def content(self, keyword: str, longest: int | None = None) -> bytes:
        """The first ``longest`` bytes of its value; none if it is absent."""
        element = self.raw(keyword)
        return (element.value or b"")[:longest] if element else b""

    def text(self, keyword: str) -> str:
        """The first of its values, upper case and trimmed; empty if there is none."""
        return self.content(keyword, 128).split(b"\\")[0].strip(b" \0").decode("latin-1").upper()

    def number(self, keyword: str) -> float | None:
        """The first of the decimal strings (VR DS or IS), None if it is absent or empty; a comma counts as a point.

        Raises:
            ValueError: it is not a finite number.
        """
        text = self.text(keyword)
        if not text:
            return None
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{keyword} is {text!r}; expected a number")
        return value

    def integers(self, keyword: str) -> tuple[int, ...]:
        """Its first values (VR US or SS), at most three, as unsigned 16-bit numbers; empty if it is absent."""
        content = self.content(keyword, 6)
        return struct.unpack_from(f"{self.order}{len(content) // 2}H", content)

    def integer(self, keyword: str, default: int) -> int:
        """The first of ``integers``, or ``default``."""
        return next(iter(self.integers(keyword)), default)

    def first_item(self, keyword: str) -> "Elements | None":
        """The first item of a sequence, None if there is no item."""
        element = self._found.get(_TAGS[keyword])
        if element is None or not element.value:
            return None
        if not isinstance(element, RawDataElement):
            return Elements(element.value[0])
        little = self.order == "<"
        item = read_sequence_item(BytesIO(element.value), element.is_implicit_VR, little, "iso8859")
        return None if item is None else Elements(item)


def read_elements(data: bytes) -> Elements:
    """The elements of the file ``data``.

    Raises:
        ValueError: a deflated data set of more than ``MAX_INFLATED_BYTES``. pydicom met with damage raises whatever it
            likes, RecursionError at sequences in sequences without end.
    """
    syntax = _syntax(data)
    dataset = read_partial(BytesIO(inflated(data)), _behind_pixels, force=True, specific_tags=list(_TAGS.values()))
    return Elements(dataset, syntax)


def _behind_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag > _PIXEL_DATA


def _syntax(data: bytes) -> str:
    """The first Transfer Syntax UID, should the file meta information be there twice."""
    found = _TRANSFER_SYNTAX.search(data, 0, 2**12)
    return found[1].decode() if found else ""


def inflated(data: bytes) -> bytes:
    """The file ``data``, or its beginning; a deflated one in Explicit VR Little Endian.

    Raises:
        ValueError: it inflates to more than ``MAX_INFLATED_BYTES``.
    """
    if _syntax(data) != DEFLATED:
        return data
    start = 144 + int.from_bytes(data[140:144], "little")  # preamble, magic, group length, the rest of the group
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(data[start:], MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"inflates to more than {MAX_INFLATED_BYTES >> 20} MiB")
    head = data[:start].replace(DEFLATED.encode(), _EXPLICIT_LITTLE.ljust(len(DEFLATED), "\0").encode())
    return head + content


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
