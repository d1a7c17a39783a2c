"""JPEG, PNG and TIFF files -> one grey picture: the header is checked first, then Pillow decodes the bare pixel stream.

Each format's structure is walked here before a decoder sees a byte. That gives the size while a 300-megapixel bomb is
still a few hundred bytes, it tells animations and multi-page files, and it leaves metadata out: damaged EXIF, ICC
profiles and text make Pillow warn through the ``warnings`` module, which threads cannot silence without harm.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from cxr.greyscale import full_range, look_up

# A 43 x 43 cm detector at 100 um has 18 megapixels, a stitched long-leg picture about 50. Pillow warns from 89 on.
MAX_PIXELS = 80_000_000
MIN_SIDE = 16
# A progressive JPEG has about 10 scans. Each costs time by the picture's size, however few bytes it has.
MAX_SCAN_PIXELS = 20 * MAX_PIXELS

JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

# EXIF orientation -> what turns the stored picture upright (EXIF 2.3, tag 274; as in PIL.ImageOps.exif_transpose).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UPRIGHT_SIDEWAYS = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))


@dataclass(frozen=True)
class Picture:
    """A decoded file, not yet turned upright.

    Attributes:
        image: mode L; smaller than ``size`` where the decoder could shrink on the way.
        size: (width, height) of the picture as stored, in pixels.
        transpose: the turn that makes it upright, None where it is.
    """

    image: Image.Image
    size: tuple[int, int]
    transpose: Image.Transpose | None = None

    def upright(self, image: Image.Image) -> Image.Image:
        """``image``, which is this one or what was made of it, turned as the file asks for."""
        return image if self.transpose is None else image.transpose(self.transpose)

    @property
    def upright_height_width(self) -> tuple[int, int]:
        """Of the whole picture, in pixels."""
        width, height = self.size
        return (width, height) if self.transpose in _UPRIGHT_SIDEWAYS else (height, width)


class Header(NamedTuple):
    """What a file says of its picture, and the stream that holds nothing but the picture."""

    width: int
    height: int
    stream: bytes
    depth: int
    orientation: int = 1  # EXIF 2.3, tag 274
    white_is_zero: bool = False
    components: bytes = b""  # the identifiers of a JPEG's channels


def check_size(width: int, height: int) -> None:
    """Refuse what no radiograph measures, before memory is taken for it.

    Raises:
        ValueError: a side under ``MIN_SIDE`` pixels, or more than ``MAX_PIXELS`` pixels.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ValueError(f"{width} x {height} pixels is too small for a radiograph (at least {MIN_SIDE} a side)")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels is over the limit of {MAX_PIXELS // 10**6} megapixels")


def decode(data: bytes, at_least: int | None) -> Picture | None:
    """The picture in ``data``, None if it is neither JPEG, PNG nor TIFF.

    Args:
        data: a whole file.
        at_least: neither side needs more pixels than this, so a JPEG may be shrunk while it is decoded; None for all.

    Raises:
        ValueError: a picture that is no radiograph, in words. A decoder met with damage raises whatever it likes.
    """
    for magic, read_header, plugin in _FORMATS:
        if data.startswith(magic):
            header = read_header(data)
            check_size(header.width, header.height)
            image = _grey(plugin(BytesIO(header.stream)), header, at_least)
            return Picture(image, (header.width, header.height), _UPRIGHT.get(header.orientation))
    return None


def decode_jpeg(header: Header, at_least: int | None, *, rgb: bool) -> Image.Image:
    """The stream of a ``jpeg_header`` as a mode L image, see ``decode``.

    With ``rgb``, three channels of which the stream says nothing are RGB; Pillow would take them for YCbCr.
    """
    image = JpegImagePlugin.JpegImageFile(BytesIO(header.stream))
    if rgb and image.mode == "RGB" and header.components == b"\1\2\3" and not image.info.keys() & {"jfif", "adobe"}:
        image.draft("YCbCr", None)  # which is to convert nothing
        return Image.merge("RGB", image.split()).convert("L")
    return _grey(image, header, at_least)


def _grey(image: ImageFile.ImageFile, header: Header, at_least: int | None) -> Image.Image:
    """``image`` as mode L: luma of colour (ITU-R BT.601), transparent parts black, 16 bits by their full range.

    Raises:
        ValueError: CMYK, Lab, floating point or signed samples.
    """
    if image.size != (header.width, header.height):
        raise ValueError(f"the header says {header.width} x {header.height} pixels, the decoder {image.size}")
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        # Luma comes straight from the stream; colour is never computed.
        image.draft("L", (at_least, at_least) if at_least else None)
        image.load()
        return image
    sixteen_bit_png = isinstance(image, PngImagePlugin.PngImageFile) and image.mode == "I"  # Pillow before 11
    if image.mode.startswith("I;16") or sixteen_bit_png:
        table = full_range(12 if header.depth == 12 else 16)
        return Image.fromarray(look_up(table[::-1] if header.white_is_zero else table, np.asarray(image)))
    if image.mode in ("LA", "PA", "RGBA") or (image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        rgba = image.convert("RGBA")
        return ImageChops.multiply(rgba.convert("L"), rgba.getchannel("A"))
    if image.mode in ("1", "L", "P", "RGB", "YCbCr"):
        return image.convert("L")
    raise ValueError(f"samples of mode {image.mode}; expected grey or RGB of 8 or 16 bits")


def jpeg_header(data: bytes) -> Header:
    """The frame header of a JPEG (also lossless and JPEG-LS), and the stream less its comments and APPn segments.

    Raises:
        ValueError: no frame header, no scan, more scans than ``MAX_SCAN_PIXELS`` allow, or too few bytes for its size.
    """
    kept, position, orientation, components = [data[:2]], 2, 1, b""
    height = width = depth = 0
    huffman_dct = False
    while True:
        position = data.find(b"\xff", position)
        marker = data[position + 1] if 0 <= position < len(data) - 3 else 0xD9
        if marker == 0xD9:
            raise ValueError("a JPEG that ends before its picture begins")
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # filling, and markers that carry nothing
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            depth, height, width, channels = struct.unpack(">BHHB", segment[4:10])
            components = segment[10 : 10 + 3 * channels : 3]
            huffman_dct = marker <= 0xC2
            check_size(width, height)
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            orientation = _exif_orientation(segment[10:])
        # APP0 and APP14 stay: JFIF and Adobe say there whether the colours are RGB or YCbCr.
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            kept.append(segment)
        position = max(end, position + 2)
    if not components:
        raise ValueError("a JPEG without a frame header")
    if (scans := data.count(b"\xff\xda", position)) * width * height > MAX_SCAN_PIXELS:
        raise ValueError(f"a JPEG of {scans} scans over {width} x {height} pixels")
    if huffman_dct and (len(data) - position) * 8 < -(-width // 8) * -(-height // 8):
        raise ValueError(f"a JPEG of {len(data)} bytes cannot hold {width} x {height} pixels")  # a bit per block at least
    stream = b"".join([*kept, data[position:]])
    return Header(width, height, stream, depth, orientation, components=components)


def _png_header(data: bytes) -> Header:
    kept, position, orientation, ihdr = [_PNG_MAGIC], 8, 1, b""
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"acTL":
            raise ValueError("an animated PNG; expected one still picture")
        if kind == b"IHDR" and not ihdr:
            ihdr = data[position + 8 : end - 4]
            kept.append(data[position:end])
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : end - 4])
        elif kind in (b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[position:end])
        position = end
    if len(ihdr) != 13:
        raise ValueError("a PNG without a header chunk")
    width, height, depth = struct.unpack(">IIB", ihdr[:9])
    return Header(width, height, b"".join(kept), depth, orientation)


_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_WIDTH, _HEIGHT, _DEPTH, _PHOTOMETRIC, _ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 262, 274, 322, 323
# Fields of one number; the rest of _TIFF_FIELDS may hold several.
_TIFF_SINGLE = {_WIDTH, _HEIGHT, 259, _PHOTOMETRIC, 266, 277, 278, 284, 292, 293, 317, _TILE_WIDTH, _TILE_HEIGHT}
# All that decides the pixels (TIFF 6.0): sizes, compression, strips, tiles, palette, samples, JPEG tables, YCbCr.
_TIFF_FIELDS = _TIFF_SINGLE | {_DEPTH, 273, 279, 320, 324, 325, 338, 339, 347, 530, 531, 532}


def _tiff_header(data: bytes) -> Header:
    order, entries, following = _directory(data)
    if 8 <= following <= len(data) - 2:
        raise ValueError("a TIFF of several pages; expected one picture")
    numbers = {tag: _tiff_number(order, entry) for tag, entry in entries.items()}
    for tag in _TIFF_FIELDS & entries.keys():
        kind, count, value = struct.unpack(order + "HI4s", entries[tag][2:])
        size = _TIFF_TYPE_BYTES.get(kind, 1) * count
        if size > 4 and struct.unpack(order + "I", value)[0] + size > len(data):
            raise ValueError(f"a TIFF whose field {tag} lies beyond the end of the file")
        if tag in _TIFF_SINGLE and (count != 1 or kind not in (3, 4)):
            raise ValueError(f"a TIFF whose field {tag} has {count} values of type {kind}; expected one integer")
    check_size(numbers.get(_WIDTH, 0), numbers.get(_HEIGHT, 0))
    if numbers.get(_TILE_WIDTH, 0) * numbers.get(_TILE_HEIGHT, 0) > MAX_PIXELS:
        raise ValueError(f"a TIFF with tiles of {numbers[_TILE_WIDTH]} x {numbers[_TILE_HEIGHT]} pixels")
    kept = [entries[tag] for tag in sorted(_TIFF_FIELDS & entries.keys())]
    # The same strips behind a new directory at the end: offsets are absolute, so the data stay where they are.
    padding = len(data) % 2
    start = struct.pack(order + "I", len(data) + padding)
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    stream = b"".join([data[:4], start, data[8:], bytes(padding), directory])
    depth = numbers.get(_DEPTH, 1)  # several depths are an offset here; only single-channel pictures ask
    white_is_zero = numbers.get(_PHOTOMETRIC) == 0
    return Header(numbers[_WIDTH], numbers[_HEIGHT], stream, depth, numbers.get(_ORIENTATION, 1), white_is_zero)


def _directory(data: bytes) -> tuple[str, dict[int, bytes], int]:
    """Byte order, the first directory's 12-byte entries by tag, and where the second one begins (0: there is none)."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[start : start + 2])
    end = start + 2 + 12 * count
    if end > len(data):
        raise ValueError("a TIFF whose directory lies beyond the end of the file")
    rows = [data[position : position + 12] for position in range(start + 2, end, 12)]
    following = int.from_bytes(data[end : end + 4], "little" if order == "<" else "big")
    return order, {struct.unpack(order + "H", row[:2])[0]: row for row in rows}, following


def _tiff_number(order: str, entry: bytes) -> int:
    kind = struct.unpack(order + "H", entry[2:4])[0]
    return struct.unpack(order + "H", entry[8:10])[0] if kind == 3 else struct.unpack(order + "I", entry[8:12])[0]


def _exif_orientation(exif: bytes) -> int:
    try:
        order, entries, _ = _directory(exif)
    except (struct.error, ValueError):
        return 1  # damage in the notes is none in the picture
    return _tiff_number(order, entries[_ORIENTATION]) if _ORIENTATION in entries else 1


_FORMATS: list[tuple[bytes, Callable[[bytes], Header], type[ImageFile.ImageFile]]] = [
    (JPEG_MAGIC, jpeg_header, JpegImagePlugin.JpegImageFile),
    (_PNG_MAGIC, _png_header, PngImagePlugin.PngImageFile),
    (b"II*\0", _tiff_header, TiffImagePlugin.TiffImageFile),
    (b"MM\0*", _tiff_header, TiffImagePlugin.TiffImageFile),
]
