"""Small files that ask for much memory or time: pictures that are to be refused, and the largest that are not."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from dicom_files import compressed, dataset, dicom_bytes
from dicom_files import picture as jpeg
from pydicom import uid

WIDTH, HEIGHT = 8000, 10000  # the largest picture there may be


def deflated(count: int) -> bytes:
    """Zeros in the zlib format."""
    deflater, block = zlib.compressobj(), bytes(2**20)
    pieces = [deflater.compress(block[: min(2**20, count - done)]) for done in range(0, count, 2**20)]
    return b"".join(pieces) + deflater.flush()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, content: bytes, *, before: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def blank(photometric: str = "MONOCHROME2", samples: int = 1, **elements: object) -> bytes:
    """A deflated DICOM of zeros."""
    few = np.zeros((4, 4) if samples == 1 else (4, 4, 3), np.uint8)
    ds = dataset(few, 8, photometric=photometric, syntax=uid.DeflatedExplicitVRLittleEndian)
    ds.Rows, ds.Columns = HEIGHT, WIDTH
    ds.PixelData = bytes(2 * WIDTH * HEIGHT)
    for name, value in elements.items():
        setattr(ds, name, value)
    return dicom_bytes(ds)


def _rows_without_end() -> bytes:
    """A deflated DICOM whose Rows have 70 million values."""
    content = blank(PixelData=bytes(16), Rows=64, Columns=64)
    start = 144 + struct.unpack("<I", content[140:144])[0]
    inner = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    rows = b"\x28\0\x10\0US\2\0\x40\0"
    assert rows in inner
    inner = inner.replace(rows, b"\x28\0\x10\0UN\0\0" + struct.pack("<I", 140_000_000) + b"\x01\x02" * 70_000_000)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return content[:start] + deflater.compress(inner) + deflater.flush()


def _jpeg_2000_of_many_tiles() -> bytes:
    frame = bytearray(jpeg(np.zeros((64, 64), np.uint8), format="JPEG2000", no_jp2=True))
    size = frame.find(b"\xff\x51")
    struct.pack_into(">II", frame, size + 6, WIDTH, HEIGHT)
    struct.pack_into(">II", frame, size + 22, 1, 1)
    ds = dataset(np.zeros((4, 4), np.uint8), 8)
    ds.Rows, ds.Columns = HEIGHT, WIDTH
    return dicom_bytes(compressed(ds, uid.JPEG2000Lossless, bytes(frame)))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png of 300 megapixels": (lambda: png(20000, 15000, 8, 0, deflated(10**6)), r"300000000 pixels.* exceeds limit"),
    "dicom that inflates to 170 MB": (lambda: blank(PixelData=bytes(170_000_000)), "inflates to more than 1.. MiB"),
    "dicom with 150 MB too many": (
        lambda: blank(Rows=64, Columns=64, PixelData=bytes(150_000_000) + b"\1\0"),
        "150000002 bytes of pixel data; expected 4096",
    ),
    "dicom whose rows have 70 million values": (_rows_without_end, "bytes of pixel data"),
    "jpeg 2000 of 80 million tiles": (_jpeg_2000_of_many_tiles, "cannot be decoded"),
}
