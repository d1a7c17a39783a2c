"""The few DICOM elements that decide a picture, found in the bytes of a file.

A walk of its own and not ``pydicom.dcmread``: that reports every oddity of a header, looked at or not, through the
``warnings`` module (which threads cannot silence without harm), descends into sequences by recursion and inflates
without a limit. Encoding: DICOM PS3.5 7.1 and 7.5; file: PS3.10 7.1.
"""

import math
import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

# A radiograph has hundreds. At about a microsecond each, this many take a fraction of a second.
MAX_ELEMENTS = 200_000
UNDEFINED_LENGTH = 0xFFFFFFFF
DEFLATED = "1.2.840.10008.1.2.1.99"


class Tag(IntEnum):
    """The elements that are kept, by the standard's keywords."""

    TransferSyntaxUID = 0x00020010
    Modality = 0x00080060
    BodyPartExamined = 0x00180015
    PatientSex = 0x00100040
    PatientAge = 0x00101010
    ViewPosition = 0x00185101
    SamplesPerPixel = 0x00280002
    PhotometricInterpretation = 0x00280004
    PlanarConfiguration = 0x00280006
    NumberOfFrames = 0x00280008
    Rows = 0x00280010
    Columns = 0x00280011
    BitsAllocated = 0x00280100
    BitsStored = 0x00280101
    HighBit = 0x00280102
    PixelRepresentation = 0x00280103
    PixelPaddingValue = 0x00280120
    PixelPaddingRangeLimit = 0x00280121
    WindowCenter = 0x00281050
    WindowWidth = 0x00281051
    RescaleIntercept = 0x00281052
    RescaleSlope = 0x00281053
    VOILUTFunction = 0x00281056
    RedPaletteColorLookupTableDescriptor = 0x00281101
    GreenPaletteColorLookupTableDescriptor = 0x00281102
    BluePaletteColorLookupTableDescriptor = 0x00281103
    RedPaletteColorLookupTableData = 0x00281201
    GreenPaletteColorLookupTableData = 0x00281202
    BluePaletteColorLookupTableData = 0x00281203
    ModalityLUTSequence = 0x00283000
    LUTDescriptor = 0x00283002
    LUTData = 0x00283006
    VOILUTSequence = 0x00283010
    PresentationLUTShape = 0x20500020
    FloatPixelData = 0x7FE00008
    DoubleFloatPixelData = 0x7FE00009
    PixelData = 0x7FE00010


_TAGS = frozenset(int(tag) for tag in Tag)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# Value representations (PS3.5 6.2); those of the second row have lengths of four bytes (7.1.2).
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _SHORT_VRS | _LONG_VRS


class Element(NamedTuple):
    """One element as it lies in the file.

    Fields:
        vr: its value representation, empty where that is implicit.
        length: as declared; ``UNDEFINED_LENGTH`` for a value that ends at a delimiter.
        value: what there is of it, shorter than ``length`` in a truncated file.
    """

    vr: bytes
    length: int
    value: memoryview


class Elements:
    """The elements of one data set, or of one item of a sequence, as the numbers and words they stand for."""

    def __init__(self, found: Mapping[int, Element], order: str) -> None:
        self._found = found
        self.order = order  # of bytes: "<" or ">"

    def raw(self, tag: Tag) -> Element | None:
        """The element itself; None if it is absent."""
        return self._found.get(tag)

    def text(self, tag: Tag) -> str:
        """The first of its values, upper case and trimmed; empty if there is none."""
        element = self._found.get(tag)
        if element is None:
            return ""
        return bytes(element.value[:128]).split(b"\\")[0].strip(b" \0").decode("latin-1").upper()

    def number(self, tag: Tag) -> float | None:
        """The first of the decimal strings (VR DS or IS), None if it is absent or empty.

        Raises:
            ValueError: it is not a finite number.
        """
        text = self.text(tag)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{tag.name} is {text!r}; expected a number")
        return value

    def integers(self, tag: Tag) -> tuple[int, ...]:
        """Its first values (VR US or SS), at most four, as unsigned 16-bit numbers; empty if it is absent."""
        element = self._found.get(tag)
        if element is None:
            return ()
        count = min(len(element.value) // 2, 4)  # no element that is asked for has more, but a hostile one may
        return struct.unpack(f"{self.order}{count}H", element.value[: 2 * count])

    def integer(self, tag: Tag, default: int) -> int:
        """The first of ``integers``, or ``default``."""
        return next(iter(self.integers(tag)), default)

    def first_item(self, tag: Tag) -> "Elements | None":
        """The first item of a sequence, None if there is no item."""
        element = self._found.get(tag)
        if element is None or len(element.value) < 16:
            return None
        group, number, length = struct.unpack(self.order + "HHI", element.value[:8])
        if group << 16 | number != _ITEM:
            return None
        content = element.value[8:] if length == UNDEFINED_LENGTH else element.value[8 : 8 + length]
        return Elements(_walk(content, 0, _explicit(content, 0), self.order, last=0xFFFFFFFF)[0], self.order)


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (512 bytes are plenty) is DICOM: by its magic, or by its first element.

    A data set without the preamble begins with group 0002 or 0008, and names a known value representation or gives a
    length at whose end another element of low group begins.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\2\0", b"\x08\0", b"\0\x08"):
        return False
    if _explicit(memoryview(head), 0):
        return True
    following = 8 + int.from_bytes(head[4:8], "little")
    return head[0] != 0 and head[following : following + 2] in (b"\2\0", b"\x08\0", b"\x10\0")


def read_head(data: bytes) -> tuple[str, int]:
    """The transfer syntax UID of a file (empty where the file meta information is missing), and where that ends."""
    meta, end = _walk(memoryview(data), 132 if data[128:132] == b"DICM" else 0, True, "<", last=0x0002FFFF)
    return Elements(meta, "<").text(Tag.TransferSyntaxUID), end


def read_elements(data: bytes, syntax: str, start: int, max_inflated_bytes: int) -> Elements:
    """The data set of the file ``data``; ``syntax`` and ``start`` as ``read_head`` gives them.

    Whether the value representations are explicit and which byte comes first is told by the first element: writers
    who get the transfer syntax wrong are common enough.

    Raises:
        ValueError: a deflated data set of more than ``max_inflated_bytes``, or more than ``MAX_ELEMENTS`` elements.
        zlib.error: a deflated data set that is damaged.
    """
    view = memoryview(data)
    if syntax == DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        view, start = memoryview(inflater.decompress(view[start:], max_inflated_bytes)), 0
        if inflater.unconsumed_tail:
            raise ValueError(f"inflates to more than {max_inflated_bytes / 2**20:.0f} MiB")
    order = ">" if bytes(view[start : start + 2]) in (b"\0\2", b"\0\x08") else "<"  # the first group's number
    found, _ = _walk(view, start, _explicit(view, start), order, last=Tag.PixelData)
    return Elements(found, order)


def _explicit(view: memoryview, position: int) -> bool:
    return bytes(view[position + 4 : position + 6]) in _VRS


def _walk(view: memoryview, position: int, explicit: bool, order: str, last: int) -> tuple[dict[int, Element], int]:
    """The elements of ``Tag`` from ``position`` on up to tag ``last``, and the position behind them.

    What lies inside a sequence is stepped over in the same loop, so that depth costs neither recursion nor memory.
    """
    found: dict[int, Element] = {}
    open_tags: list[tuple[int, bytes, int]] = []  # elements of undefined length that we are inside of
    for _ in range(MAX_ELEMENTS):
        if position + 8 > len(view):
            break
        group, number, length = struct.unpack_from(order + "HHI", view, position)
        tag = group << 16 | number
        if group == 0xFFFE:
            position += 8
            if tag == _SEQUENCE_END and open_tags:
                opened, vr, start = open_tags.pop()
                if not open_tags and opened in _TAGS:
                    found[opened] = Element(vr, UNDEFINED_LENGTH, view[start : position - 8])
            elif tag == _ITEM_END and not open_tags:
                break
            elif tag == _ITEM and length != UNDEFINED_LENGTH:
                position += length
            continue
        if tag > last and not open_tags:
            break
        vr, length, position = _element_header(view, position, explicit, order, length)
        if length == UNDEFINED_LENGTH:
            open_tags.append((tag, vr, position))
            continue
        if tag in _TAGS and not open_tags:
            found[tag] = Element(vr, length, view[position : position + length])
        position += length
    else:
        raise ValueError(f"more than {MAX_ELEMENTS} elements")
    if open_tags and open_tags[0][0] in _TAGS:  # the file ends without the delimiter
        found[open_tags[0][0]] = Element(open_tags[0][1], UNDEFINED_LENGTH, view[open_tags[0][2] :])
    return found, position


def _element_header(
    view: memoryview, position: int, explicit: bool, order: str, implicit_length: int
) -> tuple[bytes, int, int]:
    """VR, length and where the value begins; some writers switch to implicit in the middle of an explicit file."""
    vr = bytes(view[position + 4 : position + 6]) if explicit else b""
    if vr in _LONG_VRS and position + 12 <= len(view):
        return vr, struct.unpack_from(order + "I", view, position + 8)[0], position + 12
    if vr in _SHORT_VRS:
        return vr, struct.unpack_from(order + "H", view, position + 6)[0], position + 8
    return b"", implicit_length, position + 8
