"""The pixel data of a DICOM file -> stored values: native, RLE, JPEG, and what pydicom finds a codec for."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from cxr.reading import containers, raster
from cxr.reading.dicom_elements import DEFLATED, UNDEFINED_LENGTH, Element

_NATIVE = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", DEFLATED)
_JPEG_BASELINE, _JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_RLE = "1.2.840.10008.1.2.5"
# The packages for what neither numpy nor Pillow reads. pydicom works with others too; of those for one syntax this is
# the most permissively licensed (pylibjpeg-libjpeg is GPL-3.0, and the only one for 12 bits of JPEG Extended).
_PACKAGES = {
    _JPEG_EXTENDED: "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    **dict.fromkeys(_JPEG_LOSSLESS, "python-gdcm"),
    **dict.fromkeys(_JPEG_2000, "pylibjpeg pylibjpeg-openjpeg"),
}
# pydicom's names for its codecs, the best first. gdcm comes last: its C++ may abort the process where others raise.
_CODECS = ("pillow", "pyjpegls", "pylibjpeg", "gdcm")
_ROWS_AT_ONCE = 256  # even, see _paired


class Layout(NamedTuple):
    """The image as the header describes it (DICOM PS3.3 C.7.6.3).

    Fields:
        samples: 1, or 3 for colour.
        shift: unused bits below the stored ones.
        planar: colour lies plane by plane, not pixel by pixel.
    """

    width: int
    height: int
    samples: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    shift: int
    signed: bool

    @property
    def native_bytes(self) -> int:
        """Length of the uncompressed frame; YBR_FULL_422 shares the chroma of two pixels."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.width * self.height * samples * self.allocated // 8


def read_frame(pixel_data: Element, layout: Layout, syntax: str, order: str, at_least: int | None) -> NDArray[Any]:
    """The one frame.

    Returns:
        The stored values, uint8 or uint16 [H, W], whose ``layout.stored`` low bits count; of colour the luma, uint8
        [H, W], or from some codecs RGB, uint8 [H, W, 3]. JPEG may come shrunk, see ``raster.decode`` for ``at_least``.

    Raises:
        ValueError: pixel data that do not fit the header, a transfer syntax that is no still picture's or whose codec
            is not installed (says what to install). A decoder met with damage raises whatever it likes.
    """
    encapsulated = pixel_data.length == UNDEFINED_LENGTH
    if encapsulated == (syntax in _NATIVE):
        form = "encapsulated" if encapsulated else "not encapsulated"
        raise ValueError(f"pixel data are {form}; transfer syntax {syntax or '(none given)'} does not allow that")
    if not encapsulated:
        return _native(pixel_data, layout, order)
    frame = _join_fragments(pixel_data.value)
    if syntax == _RLE:
        return _rle(frame, layout)
    if syntax in (_JPEG_BASELINE, _JPEG_EXTENDED, *_JPEG_LOSSLESS):
        header = containers.jpeg_header(frame)
        _require_size(layout, header.width, header.height)
        if header.depth == 8 and (not header.lossless or (layout.samples == 1 and _pillow_reads_lossless_jpeg())):
            return np.asarray(raster.decode_jpeg(header, at_least, rgb=layout.photometric == "RGB"))
    return _by_pydicom(frame, layout, syntax)


def _pillow_reads_lossless_jpeg() -> bool:
    version = features.version("libjpeg_turbo")
    return version is not None and int(version.split(".")[0]) >= 3


def _native(pixel_data: Element, layout: Layout, order: str) -> NDArray[Any]:
    expected, value = layout.native_bytes, pixel_data.value
    if order == ">" and layout.allocated == 8 and pixel_data.vr == b"OW":  # words of two pixels (PS3.5 Annex D)
        value = memoryview(np.frombuffer(value, "u2", len(value) // 2).byteswap().tobytes())
    padded = expected + expected % 2  # the byte that makes the length even is not always 0 (PS3.5 8.1.1)
    if len(value) < expected or np.frombuffer(value, np.uint8)[padded:].any():
        raise ValueError(
            f"{len(value)} bytes of pixel data; expected {expected} for {layout.width} x {layout.height} pixels of "
            f"{layout.samples} x {layout.allocated} bits"
        )
    height, width = layout.height, layout.width
    if layout.allocated == 16:
        return np.frombuffer(value, order + "u2", height * width).reshape(height, width) >> layout.shift
    values = np.frombuffer(value, np.uint8, expected)
    if layout.samples == 1:
        return values.reshape(height, width) >> layout.shift
    if layout.photometric == "YBR_FULL_422":
        shared = values.reshape(height, 2 * width)
        return _luma(lambda rows: _paired(shared[rows]), layout)
    if layout.planar:
        planes = values.reshape(3, height, width)
        return _luma(lambda rows: np.moveaxis(planes[:, rows], 0, -1), layout)
    colours = values.reshape(height, width, 3)
    return _luma(lambda rows: colours[rows], layout)


def _paired(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """YBR_FULL_422, whose every two pixels are Y Y Cb Cr (PS3.3 C.7.6.3.1.2), with three values for each pixel."""
    luma, chroma = np.split(rows.reshape(-1, 4), 2, axis=1)
    return np.stack([luma, *(chroma[:, [channel]].repeat(2, axis=1) for channel in (0, 1))], axis=-1)


def _luma(colours: Callable[[slice], NDArray[np.uint8]], layout: Layout) -> NDArray[np.uint8]:
    """Uint8 [H, W] of what ``colours`` gives for some rows, in strips: whole pictures would be copied five times.

    YBR_FULL is the YCbCr of JPEG (PS3.3 C.7.6.3.1.2); by way of RGB, as dcmtk and pydicom do.
    """
    luma = np.empty((layout.height, layout.width), np.uint8)
    mode = "RGB" if layout.photometric == "RGB" else "YCbCr"
    for row in range(0, layout.height, _ROWS_AT_ONCE):
        strip = luma[row : row + _ROWS_AT_ONCE]
        content = colours(slice(row, row + len(strip))).tobytes()
        strip[:] = np.asarray(Image.frombytes(mode, strip.shape[::-1], content).convert("RGB").convert("L"))
    return luma


def _join_fragments(value: memoryview) -> bytes:
    """The one frame out of its items, of which the first is the offset table (DICOM PS3.5 A.4)."""
    fragments: list[memoryview] = []
    position = 0
    while bytes(value[position : position + 4]) == b"\xfe\xff\x00\xe0":
        end = position + 8 + int.from_bytes(value[position + 4 : position + 8], "little")
        if end > len(value):
            raise ValueError(f"compressed pixel data end after {len(value)} bytes; expected {end}")
        if len(fragments) > containers.MAX_PARTS:
            raise ValueError(f"compressed pixel data in more than {containers.MAX_PARTS} fragments")
        fragments.append(value[position + 8 : end])
        position = end
    if len(fragments) < 2:
        raise ValueError("compressed pixel data without a frame")
    return b"".join(fragments[1:])


def _rle(frame: bytes, layout: Layout) -> NDArray[Any]:
    """RLE Lossless: one PackBits segment for each byte of a pixel, the high byte first (DICOM PS3.5 Annex G).

    By Pillow's PackBits decoder, which stops where the picture ends, however far a hostile segment would run on.
    """
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count != layout.samples * layout.allocated // 8:
        raise ValueError(f"{count} RLE segments; expected {layout.samples * layout.allocated // 8}")
    ends = [*offsets[1:count], len(frame)]
    size = (layout.width * layout.height, 1)  # one long line, for some writers' runs go on from row to row
    planes = [
        np.frombuffer(Image.frombytes("L", size, frame[start:end], "packbits", "L").tobytes(), np.uint8)
        for start, end in zip(offsets, ends, strict=False)
    ]
    shape = (layout.height, layout.width)
    if layout.samples == 3:
        colours = [plane.reshape(shape) for plane in planes]
        return _luma(lambda rows: np.stack([colour[rows] for colour in colours], axis=-1), layout)
    values = planes[0] if count == 1 else planes[0].astype(np.uint16) << 8 | planes[1]
    return values.reshape(shape) >> layout.shift


def _by_pydicom(frame: bytes, layout: Layout, syntax: str) -> NDArray[Any]:
    from pydicom.config import IGNORE
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    named = f"transfer syntax {UID(syntax, IGNORE).name} ({syntax})"
    if syntax not in _PACKAGES:
        raise ValueError(f"{named} is not one of a still picture")
    decoder = get_decoder(UID(syntax))
    codecs = [name for name in _CODECS if name in decoder.available_plugins]
    if syntax == _JPEG_EXTENDED:  # of more than 8 bits, or it would not come here
        codecs = [name for name in codecs if name == "pylibjpeg"]
    if not codecs:
        raise ValueError(f"{named} needs a decoder that is not installed: pip install {_PACKAGES[syntax]}")
    if syntax in _JPEG_2000:
        width, height, channels = _jpeg_2000_size(frame)
    else:
        header = containers.jpeg_header(frame)
        width, height, channels = header.width, header.height, len(header.components)
    _require_size(layout, width, height)
    if channels != layout.samples:
        raise ValueError(f"compressed pixel data of {channels} samples; the header says {layout.samples}")
    options: Any = {
        "rows": height,
        "columns": width,
        "samples_per_pixel": channels,
        "photometric_interpretation": layout.photometric if channels == 3 else "MONOCHROME2",
        "planar_configuration": int(layout.planar),
        "pixel_representation": int(layout.signed),
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    # Without its own checks: all of it was checked above, and what they would add are warnings.
    values, _ = decoder.as_array(
        encapsulate([frame], has_bot=False), index=0, validate=False, decoding_plugin=codecs[0], **options
    )
    return values.view(f"u{values.itemsize}")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Width, height and channels from the SIZ marker (ISO/IEC 15444-1 A.5.1), in a JP2 box or not."""
    position = frame.find(b"\xff\x4f\xff\x51")
    if position < 0:
        raise ValueError("compressed pixel data that are not JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">4I", frame, position + 8)
    return right - left, bottom - top, struct.unpack_from(">H", frame, position + 40)[0]


def _require_size(layout: Layout, width: int, height: int) -> None:
    if (width, height) != (layout.width, layout.height):
        raise ValueError(
            f"compressed pixel data of {width} x {height} pixels; the header says {layout.width} x {layout.height}"
        )
