"""A DICOM file -> one grey picture: what the header says of the image and of its greys, put together.

Pixel spacing and aspect ratio are left aside, as they are for the other formats.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.reading import containers, raster
from cxr.reading.dicom_elements import DEFLATED, Element, Elements, Tag, read_elements, read_head
from cxr.reading.dicom_frame import Layout, read_frame
from cxr.reading.greyscale import GreyScale, Lut, Window, look_up
from cxr.reading.header import read_header
from cxr.reading.room import ROOM

# Room for the largest picture of 16 bits and its header; a deflated bomb swells no further.
MAX_INFLATED_BYTES = 2 * containers.MAX_PIXELS + 2**20

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = (
    (Tag.RedPaletteColorLookupTableDescriptor, Tag.RedPaletteColorLookupTableData),
    (Tag.GreenPaletteColorLookupTableDescriptor, Tag.GreenPaletteColorLookupTableData),
    (Tag.BluePaletteColorLookupTableDescriptor, Tag.BluePaletteColorLookupTableData),
)
_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green, blue (ITU-R BT.601), as Pillow weighs them
_IDENTITY = np.arange(256, dtype=np.uint8)


def decode(data: bytes, at_least: int | None) -> raster.Picture:
    """The one frame in a DICOM file, bone white on black air.

    Args:
        data: the whole file.
        at_least: neither side needs more pixels than this, see ``raster.decode``; of use for JPEG Baseline alone.

    Raises:
        ValueError: not one radiograph, or one that needs a codec to be installed, in words.
    """
    syntax, start = read_head(data)
    inflates = syntax == DEFLATED  # to what size nobody knows before
    with ROOM.take(containers.MAX_PIXELS if inflates else 0):
        elements = read_elements(data, syntax, start, MAX_INFLATED_BYTES)
        pixel_data = _require_one_frame(elements)
        layout = _layout(elements)
        size = (layout.width, layout.height)
        containers.check_size(*size)
        with ROOM.take(0 if inflates else layout.width * layout.height):
            grey = _grey(elements, pixel_data, layout, syntax, at_least)
            header = read_header(lambda keyword: elements.text(Tag[keyword]))
            return raster.Picture(grey, size, header=header)


def _grey(elements: Elements, pixel_data: Element, layout: Layout, syntax: str, at_least: int | None) -> Image.Image:
    if layout.samples == 3:
        return _luma(read_frame(pixel_data, layout, syntax, elements.order, at_least))
    palette = layout.photometric == "PALETTE COLOR"
    table = _palette(elements, layout) if palette else _grey_scale(elements, layout).table()
    # A table that bends must see the pixels before they are averaged; one that is straight may come after.
    unchanged = np.array_equal(table, _IDENTITY)
    straight = unchanged or np.array_equal(table[::-1], _IDENTITY)
    values = read_frame(pixel_data, layout, syntax, elements.order, at_least if straight else None)
    if not unchanged or values.dtype != np.uint8:
        values = look_up(table, values & (len(table) - 1))
    return Image.fromarray(values)


def _require_one_frame(elements: Elements) -> Element:
    if elements.raw(Tag.FloatPixelData) or elements.raw(Tag.DoubleFloatPixelData):
        raise ValueError("pixel data of floating point; expected integers of 8 to 16 bits")
    pixel_data = elements.raw(Tag.PixelData)
    if pixel_data is None or not len(pixel_data.value):
        raise ValueError(f"DICOM without pixel data (Modality {elements.text(Tag.Modality) or 'not given'})")
    if (frames := elements.number(Tag.NumberOfFrames) or 1) > 1:
        raise ValueError(f"a DICOM of {frames:g} frames; expected one radiograph")
    return pixel_data


def _layout(elements: Elements) -> Layout:
    photometric = elements.text(Tag.PhotometricInterpretation)
    samples = elements.integer(Tag.SamplesPerPixel, 1)
    if (photometric, samples) not in {*((name, 1) for name in _GREY), *((name, 3) for name in _COLOUR)}:
        raise ValueError(
            f"Photometric Interpretation {photometric or '(none)'} with {samples} samples per pixel; expected "
            f"{', '.join(_GREY)} with 1 or {', '.join(_COLOUR)} with 3"
        )
    allocated = elements.integer(Tag.BitsAllocated, 0)
    stored = elements.integer(Tag.BitsStored, allocated)
    high = elements.integer(Tag.HighBit, stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= high + 1 <= allocated or (samples == 3 and stored != 8):
        raise ValueError(
            f"{allocated} bits allocated, {stored} stored, high bit {high}; expected up to 16 stored in 8 or 16, "
            "and 8 for colour"
        )
    return Layout(
        width=elements.integer(Tag.Columns, 0),
        height=elements.integer(Tag.Rows, 0),
        samples=samples,
        photometric=photometric,
        planar=elements.integer(Tag.PlanarConfiguration, 0) == 1,
        allocated=allocated,
        stored=stored,
        shift=high + 1 - stored,
        signed=elements.integer(Tag.PixelRepresentation, 0) == 1,
    )


def _grey_scale(elements: Elements, layout: Layout) -> GreyScale:
    slope, intercept = elements.number(Tag.RescaleSlope), elements.number(Tag.RescaleIntercept) or 0.0
    if slope == 0:  # stands for no rescaling, as a window of no width for no window; dcmtk reads it so too
        slope, intercept = 1.0, 0.0
    modality = _lut(elements.first_item(Tag.ModalityLUTSequence), layout.signed)
    voi = _lut(elements.first_item(Tag.VOILUTSequence), modality is None and (layout.signed or intercept < 0))
    return GreyScale(
        layout.stored,
        layout.signed,
        modality or (1.0 if slope is None else slope, intercept),
        voi or _window(elements),
        _inverted(elements, layout),
        _padding(elements, layout),
    )


def _lut(item: Elements | None, signed_input: bool) -> Lut | None:
    """The table in an item of a Modality or VOI LUT Sequence (DICOM PS3.3 C.11.1.1.1, C.11.2.1.1)."""
    if item is None:
        return None
    return _table(item, Tag.LUTDescriptor, Tag.LUTData, signed_input)


def _table(item: Elements, descriptor_tag: Tag, data_tag: Tag, signed_input: bool) -> Lut | None:
    descriptor, data = item.raw(descriptor_tag), item.raw(data_tag)
    if descriptor is None or data is None:
        return None
    count, first, bits = (*item.integers(descriptor_tag), 0, 0, 0)[:3]
    count = count or 2**16
    if first >= 2**15 and (signed_input or descriptor.vr == b"SS"):
        first -= 2**16
    if len(data.value) in (count, count + 1) and bits <= 8:  # bytes, filled up to an even length
        entries = np.frombuffer(data.value, np.uint8, count).astype(np.uint16)
    elif len(data.value) > count + 1:  # some writers miscount; a table holds its last entry
        count = min(count, len(data.value) // 2)
        entries = np.frombuffer(data.value, item.order + "u2", count).astype(np.uint16)
    else:
        raise ValueError(f"{data_tag.name} of {len(data.value)} bytes; expected {count} entries")
    return Lut(first, entries, bits)


def _window(elements: Elements) -> Window | None:
    """The first window; a width that the standard forbids is what writers leave who mean none (often 0)."""
    center, width = elements.number(Tag.WindowCenter), elements.number(Tag.WindowWidth)
    if center is None or width is None:
        return None
    function = elements.text(Tag.VOILUTFunction) or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"VOI LUT Function {function}; expected LINEAR, LINEAR_EXACT or SIGMOID")
    window = Window(center, width, function)
    return window if window.valid else None


def _inverted(elements: Elements, layout: Layout) -> bool:
    """Whether low is white. The shape, if given, has the last word (DICOM PS3.3 C.11.6), as in dcmtk and dcm4che."""
    shape = elements.text(Tag.PresentationLUTShape)
    if shape not in ("", "IDENTITY", "INVERSE"):
        raise ValueError(f"Presentation LUT Shape {shape}; expected IDENTITY or INVERSE")
    return shape == "INVERSE" if shape else layout.photometric == "MONOCHROME1"


def _padding(elements: Elements, layout: Layout) -> tuple[int, int] | None:
    """Stored values from..to that are no part of the picture (DICOM PS3.3 C.7.5.1.1.2)."""
    values = [*elements.integers(Tag.PixelPaddingValue)[:1], *elements.integers(Tag.PixelPaddingRangeLimit)[:1]]
    if not elements.integers(Tag.PixelPaddingValue):
        return None
    if layout.signed:
        values = [value - 2**16 if value >= 2**15 else value for value in values]
    return min(values), max(values)


def _palette(elements: Elements, layout: Layout) -> NDArray[np.uint8]:
    """uint8 [2 ** stored]: the luma of each palette colour (DICOM PS3.3 C.7.6.3.1.5)."""
    planes: list[NDArray[np.float64]] = []
    for descriptor, data in _PALETTE:
        lut = _table(elements, descriptor, data, layout.signed)
        if lut is None:
            raise ValueError("PALETTE COLOR without its three plain lookup tables")
        planes.append(lut(np.arange(2**layout.stored, dtype=np.float64)) * 255 / lut.top)
    return np.rint(np.tensordot(_LUMA, np.stack(planes), axes=1)).astype(np.uint8)


def _luma(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(values)).convert("L")
