"""What JPEG, PNG and TIFF files say of their picture, and the bare pixel stream: all else is left out.

The structure is walked before a decoder sees a byte. That gives the size while a bomb of 300 megapixels is still a few
hundred bytes, tells animations and multi-page files, and drops what is no picture: damaged EXIF, ICC profiles and text
make Pillow warn through the ``warnings`` module, which threads cannot silence without harm.
"""

import struct
from typing import NamedTuple

# A 43 x 43 cm detector at 100 um has 18 megapixels, a stitched long-leg picture about 50. Pillow warns from 89 on.
MAX_PIXELS = 80_000_000
MIN_SIDE = 16
# A progressive JPEG has about 10 scans. Each costs time by the picture's size, however few bytes it has.
MAX_SCAN_PIXELS = 20 * MAX_PIXELS
# Segments of a JPEG, chunks of a PNG, values of a TIFF field, fragments in a DICOM file. The largest PNG and TIFF have
# some 20,000; each costs a microsecond and 40 bytes, however few it takes in the file.
MAX_PARTS = 100_000

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class Header(NamedTuple):
    """What a file says of its picture, and the stream that holds nothing but the picture."""

    width: int
    height: int
    stream: bytes
    depth: int
    orientation: int = 1  # EXIF 2.3, tag 274
    white_is_zero: bool = False
    components: bytes = b""  # the identifiers of a JPEG's channels
    lossless: bool = False


def check_size(width: int, height: int) -> None:
    """Refuse what no radiograph measures, before memory is taken for it.

    Raises:
        ValueError: a side under ``MIN_SIDE`` pixels, or more than ``MAX_PIXELS`` pixels.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ValueError(f"{width} x {height} pixels is too small for a radiograph (at least {MIN_SIDE} a side)")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels is over the limit of {MAX_PIXELS // 10**6} megapixels")


def jpeg_header(data: bytes) -> Header:
    """The frame header of a JPEG (also lossless and JPEG-LS), and the stream less its comments and APPn segments.

    Raises:
        ValueError: no JPEG, no frame header, no scan, more segments than ``MAX_PARTS`` or scans than
            ``MAX_SCAN_PIXELS`` allow, or too few bytes for its size.
    """
    if data[:2] != JPEG_MAGIC[:2]:
        raise ValueError(f"compressed data that begin with {data[:4]!r} are not JPEG")
    kept, position, orientation, components = [data[:2]], 2, 1, b""
    height = width = depth = 0
    huffman_dct = lossless = False
    for _ in range(MAX_PARTS):
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
            huffman_dct, lossless = marker <= 0xC2, marker == 0xC3
            check_size(width, height)
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            orientation = _exif_orientation(segment[10:])
        # APP0 and APP14 stay: JFIF and Adobe say there whether the colours are RGB or YCbCr.
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            kept.append(segment)
        position = max(end, position + 2)
    else:
        raise ValueError(f"a JPEG of more than {MAX_PARTS} segments")
    if not components:
        raise ValueError("a JPEG without a frame header")
    if (scans := data.count(b"\xff\xda", position)) * width * height > MAX_SCAN_PIXELS:
        raise ValueError(f"a JPEG of {scans} scans over {width} x {height} pixels")
    if huffman_dct and (len(data) - position) * 8 < -(-width // 8) * -(-height // 8):
        # Each block of 8 x 8 takes one bit at least.
        raise ValueError(f"a JPEG of {len(data)} bytes; {width} x {height} pixels need more")
    stream = b"".join([*kept, data[position:]])
    return Header(width, height, stream, depth, orientation, components=components, lossless=lossless)


def png_header(data: bytes) -> Header:
    """The header of a PNG, and the stream of those chunks that hold the picture.

    Raises:
        ValueError: no header chunk, an animation, or more chunks than ``MAX_PARTS``.
    """
    kept, position, orientation, ihdr = [PNG_MAGIC], 8, 1, b""
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
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
        if kind == b"IEND":
            break
        position = end
    else:
        raise ValueError(f"a PNG of more than {MAX_PARTS} chunks")
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


def tiff_header(data: bytes) -> Header:
    """The header of a TIFF, and the stream with a directory of those fields that decide the pixels.

    Raises:
        ValueError: several pages, fields beyond the end of the file or of the wrong type, or no picture of a good size.
    """
    order, entries, following = _directory(data)
    if 8 <= following <= len(data) - 2:
        raise ValueError("a TIFF of several pages; expected one picture")
    numbers = {tag: _tiff_number(order, entry) for tag, entry in entries.items()}
    for tag in _TIFF_FIELDS & entries.keys():
        kind, count, value = struct.unpack(order + "HI4s", entries[tag][2:])
        size = _TIFF_TYPE_BYTES.get(kind, 1) * count
        if size > 4 and struct.unpack(order + "I", value)[0] + size > len(data):
            raise ValueError(f"a TIFF whose field {tag} lies beyond the end of the file")
        if count > MAX_PARTS:
            raise ValueError(f"a TIFF whose field {tag} has {count} values")
        if tag in _TIFF_SINGLE and (count != 1 or kind not in (3, 4)):
            raise ValueError(f"a TIFF whose field {tag} has {count} values of type {kind}; expected one integer")
    check_size(numbers.get(_WIDTH, 0), numbers.get(_HEIGHT, 0))
    if numbers.get(_TILE_WIDTH, 0) * numbers.get(_TILE_HEIGHT, 0) > MAX_PIXELS:
        raise ValueError(f"a TIFF with tiles of {numbers[_TILE_WIDTH]} x {numbers[_TILE_HEIGHT]} pixels")
    depth = numbers.get(_DEPTH, 1)  # several depths are an offset here; only single-channel pictures ask
    white_is_zero = numbers.get(_PHOTOMETRIC) == 0
    if white_is_zero and depth == 16:  # Pillow turns this round for 8 bits, but not for 16
        entries[_PHOTOMETRIC] = struct.pack(order + "HHIHH", _PHOTOMETRIC, 3, 1, 1, 0)
    kept = [entries[tag] for tag in sorted(_TIFF_FIELDS & entries.keys())]
    # The same strips behind a new directory at the end: offsets are absolute, so the data stay where they are.
    padding = len(data) % 2
    start = struct.pack(order + "I", len(data) + padding)
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    stream = b"".join([data[:4], start, data[8:], bytes(padding), directory])
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
