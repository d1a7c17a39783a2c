"""A DICOM file -> one grey picture: its header's layout, grey scale and polarity applied to its pixels.

Pixel spacing and aspect ratio are ignored, as they are for the other formats.
"""

from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw
from pydicom.dataelem import RawDataElement
from pydicom.pixels.processing import apply_color_lut

from cxr.reading.dicom_header import Elements, header_of, read_elements
from cxr.reading.dicom_pixels import Layout, read_frame
from cxr.reading.files import check_size
from cxr.reading.greyscale import GreyScale, Lut, Window, look_up, note_on_bits
from cxr.reading.picture import NOTE, Picture

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_INDEX = "1.2.840.10008.1.3.10"  # Media Storage Directory, the class of a DICOMDIR
# X-Ray Angiographic and Radiofluoroscopic images: their Modality LUT is not for display (PS3.3 C.8.7.1.1.2).
_WITHOUT_MODALITY = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")
_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green, blue (ITU-R BT.601), as Pillow weighs them
_IDENTITY = np.arange(256, dtype=np.uint8)
_EDGES = ("LeftVertical", "UpperHorizontal", "RightVertical", "LowerHorizontal")  # of a rectangular shutter
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def open_dicom(data: bytes) -> Picture:
    """The one frame in a DICOM file, bone white on black air.

    Raises:
        ValueError: not one radiograph, or, when it is decoded, one that needs a codec to be installed.
    """
    elements = read_elements(data)
    pixel_data = _require_one_frame(elements)
    layout = _layout(elements)
    check_size(layout.width, layout.height)
    return Picture((layout.width, layout.height), partial(_decode, elements, pixel_data, layout), header_of(elements))


def _decode(elements: Elements, pixel_data: RawDataElement, layout: Layout, shrink: int) -> Image.Image:
    grey, note = _grey(elements, pixel_data, layout, shrink)
    image = _shuttered(Image.fromarray(grey), elements, layout)
    image.info[NOTE] = note
    return image


def _grey(elements: Elements, pixel_data: RawDataElement, layout: Layout, shrink: int) -> tuple[NDArray[np.uint8], str]:
    """Grey levels [H, W], and a note on the bits used."""
    if layout.samples == 3:
        return read_frame(pixel_data, layout, elements, shrink), ""
    if layout.photometric == "PALETTE COLOR":
        table, note = _palette(elements, layout)
    elif layout.stored > 8:
        values = read_frame(pixel_data, layout, elements, 1)
        scale = _grey_scale(elements, layout).fitted(values)
        return look_up(scale.table(), values), scale.note()
    else:
        table, note = _grey_scale(elements, layout).table(), ""
    # A table that is not a straight line must be applied to the pixels before they are averaged.
    unchanged = np.array_equal(table, _IDENTITY)
    straight = unchanged or np.array_equal(table[::-1], _IDENTITY)
    values = read_frame(pixel_data, layout, elements, shrink if straight else 1)
    return (values if unchanged and values.dtype == np.uint8 else look_up(table, values)), note


def _shuttered(image: Image.Image, elements: Elements, layout: Layout) -> Image.Image:
    """``image`` with what its Display Shutter hides in black (DICOM PS3.3 C.7.6.11).

    Rows and columns count from 1. A shutter that is malformed, or would hide everything, hides nothing.
    """
    shutters = [shape for shape in elements.texts("ShutterShape") if shape]
    if not shutters:
        return image
    seen = Image.new("L", image.size, 255)
    shrink = round(layout.width / image.width)
    for shape in shutters:
        with suppress(ValueError, TypeError):
            shown = Image.new("L", image.size)
            draw = ImageDraw.Draw(shown)
            if shape == "RECTANGULAR":
                left, upper, right, lower = (int(elements.number(f"Shutter{edge}Edge") or 0) for edge in _EDGES)
                corners = [left, upper, right - 2, lower - 2]  # the edges themselves are hidden
                draw.rectangle([corner // shrink for corner in corners], fill=255)
            elif shape == "CIRCULAR":
                row, column = elements.numbers("CenterOfCircularShutter")
                draw.circle(
                    _point(row, column, shrink), (elements.number("RadiusOfCircularShutter") or 0) / shrink, 255
                )
            elif shape == "POLYGONAL":
                numbers = list(elements.numbers("VerticesOfThePolygonalShutter"))
                points = zip(numbers[::2], numbers[1::2], strict=True)
                draw.polygon([_point(row, column, shrink) for row, column in points], fill=255)
            if shown.getbbox():
                seen = ImageChops.darker(seen, shown)
    return ImageChops.multiply(image, seen) if seen.getbbox() else image


def _point(row: float | None, column: float | None, shrink: int) -> tuple[float, float]:
    """Column and row, from 0."""
    return ((column or 0) - 1) / shrink, ((row or 0) - 1) / shrink


def _require_one_frame(elements: Elements) -> RawDataElement:
    if not len(elements.dataset):
        raise ValueError("DICOM that ends in the middle of an element")
    pixel_data = elements.raw("PixelData")
    if pixel_data is None:
        if elements.dataset.file_meta.get("MediaStorageSOPClassUID") == _INDEX:
            raise ValueError("a DICOMDIR, which is an index of other files; give those, or their folder")
        raise ValueError(f"DICOM without pixel data (Modality {elements.text('Modality') or 'not given'})")
    if (frames := elements.number("NumberOfFrames") or 1) > 1:
        raise ValueError(f"a DICOM of {frames:g} frames; expected one radiograph")
    return pixel_data


def _layout(elements: Elements) -> Layout:
    photometric = elements.text("PhotometricInterpretation")
    samples = elements.integer("SamplesPerPixel", 1)
    if (photometric, samples) not in {*((name, 1) for name in _GREY), *((name, 3) for name in _COLOUR)}:
        raise ValueError(
            f"Photometric Interpretation {photometric or '(none)'} with {samples} samples per pixel; expected "
            f"{', '.join(_GREY)} with 1 or {', '.join(_COLOUR)} with 3"
        )
    allocated = elements.integer("BitsAllocated", 0)
    stored = elements.integer("BitsStored", allocated)
    high = elements.integer("HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= high + 1 <= allocated or (samples == 3 and stored != 8):
        raise ValueError(
            f"{allocated} bits allocated, {stored} stored, high bit {high}; expected up to 16 stored in 8 or 16, "
            "and 8 for colour"
        )
    return Layout(
        width=elements.integer("Columns", 0),
        height=elements.integer("Rows", 0),
        samples=samples,
        photometric=photometric,
        planar=elements.integer("PlanarConfiguration", 0) == 1,
        allocated=allocated,
        stored=stored,
        shift=high + 1 - stored,
        signed=elements.integer("PixelRepresentation", 0) == 1,
    )


def _grey_scale(elements: Elements, layout: Layout) -> GreyScale:
    slope, intercept, modality = 1.0, 0.0, None
    if elements.text("SOPClassUID") not in _WITHOUT_MODALITY:
        modality = _lut(elements.first_item("ModalityLUTSequence"), layout.signed)
        sources = _with_groups(elements, "PixelValueTransformationSequence")
        found = next((item for item in sources if item.text("RescaleSlope") or item.text("RescaleIntercept")), elements)
        if (stated := found.number("RescaleSlope")) != 0:  # 0 stands for no rescaling; dcmtk reads it so too
            slope, intercept = stated or 1.0, found.number("RescaleIntercept") or 0.0
    voi = _lut(elements.first_item("VOILUTSequence"), modality is None and (layout.signed or intercept < 0))
    return GreyScale(
        layout.stored,
        layout.signed,
        modality or (slope, intercept),
        voi or _window(elements),
        _inverted(elements),
        _padding(elements, layout),
    )


def _with_groups(elements: Elements, sequence: str) -> list[Elements]:
    """``elements``, and the item of ``sequence`` in the functional groups of one frame (DICOM PS3.3 C.7.6.16)."""
    items = [elements.first_item(group, sequence) for group in _GROUPS]
    return [elements, *(item for item in items if item)]


def _lut(item: Elements | None, signed_input: bool) -> Lut | None:
    """The table in an item of a Modality or VOI LUT Sequence (DICOM PS3.3 C.11.1.1.1, C.11.2.1.1), if it holds one."""
    descriptor, data = (item.raw("LUTDescriptor"), item.content("LUTData")) if item else (None, b"")
    if item is None or descriptor is None or not data:
        return None
    count, first, bits = (*item.integers("LUTDescriptor"), 0, 0, 0)[:3]
    count = count or 2**16
    if first >= 2**15 and (signed_input or descriptor.VR == "SS"):
        first -= 2**16
    if len(data) in (count, count + 1) and bits <= 8:  # bytes, filled up to an even length
        entries = np.frombuffer(data, np.uint8, count).astype(np.uint16)
    elif len(data) > count + 1:  # some writers miscount; a table holds its last entry
        entries = np.frombuffer(data, item.order + "u2", min(count, len(data) // 2))
    else:
        raise ValueError(f"LUTData of {len(data)} bytes; expected {count} entries")
    return Lut(first, entries)


def _window(elements: Elements) -> Window | None:
    """The first valid window; a width that the standard forbids, such as 0, often stands for none."""
    for found in _with_groups(elements, "FrameVOILUTSequence"):
        pairs = zip(found.numbers("WindowCenter"), found.numbers("WindowWidth"), strict=False)
        function = found.text("VOILUTFunction") or "LINEAR"
        for center, width in pairs:
            if center is None or width is None:
                continue
            if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
                raise ValueError(f"VOI LUT Function {function}; expected LINEAR, LINEAR_EXACT or SIGMOID")
            if width >= 1 if function == "LINEAR" else width > 0:
                return Window(center, width, function)
    return None


def _inverted(elements: Elements) -> bool:
    """Whether low is white: by the photometric interpretation, or by a shape INVERSE (DICOM PS3.3 C.11.6)."""
    shape = elements.text("PresentationLUTShape")
    if shape not in ("", "IDENTITY", "INVERSE"):
        raise ValueError(f"Presentation LUT Shape {shape}; expected IDENTITY or INVERSE")
    return shape == "INVERSE" or elements.text("PhotometricInterpretation") == "MONOCHROME1"


def _padding(elements: Elements, layout: Layout) -> tuple[int, int] | None:
    """Stored values from..to that are no part of the picture (DICOM PS3.3 C.7.5.1.1.2)."""
    first = elements.integers("PixelPaddingValue")[:1]
    values = [*first, *elements.integers("PixelPaddingRangeLimit")[:1]]
    if not first:
        return None
    if layout.signed:
        values = [value - 2**16 if value >= 2**15 else value for value in values]
    return min(values), max(values)


def _palette(elements: Elements, layout: Layout) -> tuple[NDArray[np.uint8], str]:
    """uint8 [2 ** stored], the luma of each palette colour (DICOM PS3.3 C.7.6.3.1.5), and a note on the bits used."""
    colours = apply_color_lut(np.arange(2**layout.stored).reshape(1, -1), elements.dataset)[0]
    bits = max(8, int(colours.max()).bit_length())
    table = np.rint(colours @ _LUMA * 255 / (2**bits - 1)).astype(np.uint8)
    return table, note_on_bits(bits, 8 * colours.itemsize)
