"""How large a radiograph may be, and how many pixels are decoded at once, all threads together."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO

from PIL.JpegImagePlugin import JpegImageFile

# A 43 x 43 cm detector at 100 um has 18 megapixels, a stitched long-leg picture about 50. Pillow warns from 89 on.
MAX_PIXELS = 80_000_000
MIN_SIDE = 16
# A progressive JPEG has about 10 scans. Each costs time by the picture's size, however few bytes it has.
_MAX_SCAN_PIXELS = 20 * MAX_PIXELS
_MAX_READS = 600_000


def check_size(width: int, height: int) -> None:
    """Refuse what no radiograph measures, before memory is taken for it.

    Raises:
        ValueError: a side under ``MIN_SIDE`` pixels, or more than ``MAX_PIXELS`` pixels.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ValueError(f"{width} x {height} pixels is too small for a radiograph (at least {MIN_SIDE} a side)")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels is over the limit of {MAX_PIXELS // 10**6} megapixels")


def check_scans(image: JpegImageFile, data: bytes) -> None:
    """Refuse a JPEG of so many scans over its picture that decoding would not end.

    Raises:
        ValueError: says how many.
    """
    if not image.info.get("progressive") and image.layers == 1:
        return  # its first scan is the whole picture
    if (scans := data.count(b"\xff\xda")) * image.width * image.height > _MAX_SCAN_PIXELS:
        raise ValueError(f"a JPEG of {scans} scans over {image.width} x {image.height} pixels")


class BoundedFile(BytesIO):
    """A file in memory that gives no more than ``_MAX_READS`` answers, ValueError at the next.

    Each segment of a JPEG, chunk of a PNG, field of a TIFF, element and item of a DICOM costs its reader some
    microseconds and bytes, however short it is. The largest files have some 20,000, with a few reads each.
    """

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise ValueError(f"has over {_MAX_READS // 3:,} parts, which no radiograph needs")
        return BytesIO.read(self, size)


class PixelBudget:
    """A number of pixels that threads share: small files of large pictures must not fill the memory."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._reserved = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Generator[None]:
        """Wait until ``pixels`` are free, and hold them; what is larger than the whole budget has it alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._reserved == 0 or self._reserved + pixels <= self._pixels)
            self._reserved += pixels
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= pixels
                self._changed.notify_all()


# Sixteen radiographs of 3,000 x 2,500 pixels. The most that a pixel takes on its way is 11 bytes (RGBA), 1.3 GB in all.
BUDGET = PixelBudget(120_000_000)
