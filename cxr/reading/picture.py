"""JPEG, PNG, TIFF, WebP and BMP files -> one grey picture, by Pillow."""

import logging
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from PIL import WebPImagePlugin as WebPImagePlugin  # imported so that Pillow need not look through all its formats

from cxr.reading.dicom_header import NO_HEADER, Header
from cxr.reading.files import check_size
from cxr.reading.greyscale import full_range, look_up

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
_SUBFILE, _BITS, _PHOTOMETRIC = 254, 258, 262  # fields of TIFF 6.0

# What Pillow says of damaged notes (EXIF, text) that are no part of the picture. Without a handler Python prints logs.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # it warns above where ``check_size`` ends
logging.getLogger("PIL").addHandler(logging.NullHandler())
# Pillow knows 16 bits with white at zero only if the low byte comes first; it leaves them as they are (see ``_grey``).
TiffImagePlugin.OPEN_INFO[(b"MM", 0, (1,), 1, (16,), ())] = ("I;16B", "I;16B")
# Pillow's own 16 MiB come from malloc, which keeps them for the thread: with many threads memory would only grow. What
# is larger than 32 MiB is mapped, and given back at once.
Image.core.set_block_size(2**26)


class Picture(NamedTuple):
    """A decoded file.

    Fields:
        image: mode L, upright; smaller than ``size`` where the decoder could shrink on the way.
        size: (width, height) of the whole picture in pixels, upright.
        header: what a DICOM file says of it.
    """

    image: Image.Image
    size: tuple[int, int]
    header: Header = NO_HEADER

    def square(self, size: int) -> NDArray[np.uint8]:
        """The whole picture squashed to uint8 [size, size]; aspect ratio not kept."""
        return np.array(self.image.resize((size, size), Image.Resampling.BILINEAR, self._inside))

    def within(self, side: int) -> Image.Image:
        """The whole picture with its proportions and no side longer than ``side``; never enlarged."""
        longest = max(self.image.size)
        width, height = (max(1, round(min(side, longest) * length / max(self.size))) for length in self.size)
        return self.image.resize((width, height), Image.Resampling.BILINEAR, self._inside)

    @property
    def height_width(self) -> tuple[int, int]:
        """Of the whole picture, in pixels."""
        return self.size[1], self.size[0]

    @property
    def _inside(self) -> tuple[float, float, float, float]:
        """The part of ``image`` that is the picture: the last row and column of blocks may reach beyond it."""
        width, height = self.size
        shrunk = round(width / self.image.width)
        return (0, 0, width / shrunk, height / shrunk)


def decode(data: bytes, at_least: int | None) -> Picture:
    """The picture in ``data``, which is a whole file.

    Args:
        at_least: neither side needs more pixels than this, so a JPEG may be shrunk while it is decoded; None for all.

    Raises:
        ValueError: no picture, or one that is no radiograph, in words. A decoder met with damage raises whatever it
            likes.
    """
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        kinds = f"neither {', '.join(_FORMATS)} nor DICOM, or damaged"
        raise ValueError(f"{kinds} (it begins with {data[:8]!r})") from None
    _choose_page(image)
    width, height = image.size
    check_size(width, height)
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if upright and at_least is not None:
        image.draft(None, (at_least, at_least))  # of JPEG alone; a turned one would be cut at the wrong side
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        load(image.load)
    ImageOps.exif_transpose(image, in_place=True)
    return Picture(_grey(image), (width, height) if upright else image.size)


def _choose_page(image: ImageFile.ImageFile) -> None:
    """Go to the one page that is no thumbnail.

    Raises:
        ValueError: several pages, or an animation.
    """
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise ValueError("an animation; expected one still picture")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    pages: list[int] = []
    for page in range(image.n_frames):
        image.seek(page)
        if not image.tag_v2.get(_SUBFILE, 0) & 1:
            pages.append(page)
    if len(pages) != 1:
        raise ValueError(f"a TIFF of {len(pages) or 'no'} pages; expected one picture")
    image.seek(pages[0])


def _grey(image: ImageFile.ImageFile) -> Image.Image:
    """``image`` as mode L: luma of colour (ITU-R BT.601), transparent parts black, 16 bits by their full range.

    Raises:
        ValueError: CMYK, Lab, floating point or signed samples.
    """
    sixteen_bit_png = image.mode == "I" and image.format == "PNG"  # Pillow before 11
    if image.mode.startswith("I;16") or sixteen_bit_png:
        fields = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        table = full_range(12 if fields.get(_BITS) == (12,) else 16)
        white_is_zero = fields.get(_PHOTOMETRIC) == 0  # Pillow turns this round for 8 bits, but not for 16
        return Image.fromarray(look_up(table[::-1] if white_is_zero else table, np.asarray(image)))
    if image.mode in ("LA", "PA", "RGBA") or (image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        rgba = image.convert("RGBA")
        return ImageChops.multiply(rgba.convert("L"), rgba.getchannel("A"))
    if image.mode in ("1", "L", "P", "RGB", "YCbCr"):
        return image if image.mode == "L" else image.convert("L")
    raise ValueError(f"samples of mode {image.mode}; expected grey or RGB of 8 or 16 bits")


_STDERR = 2  # libtiff writes to the file descriptor; Pillow offers no way to its handlers
_LINE = re.compile(rb"^(?:[A-Z_]\w*|tempfile\.tif): .*\.\n", re.MULTILINE)
_LOCK = threading.Lock()


def load(decode: Callable[[], object]) -> None:
    """``decode()``, which reads one TIFF, without a line on stderr.

    One at a time in a process. What other threads print meanwhile is printed when it ends.

    Raises:
        ValueError: ``decode`` raised an OSError that libtiff knew a reason for.
    """
    reasons: list[str] = []
    try:
        with _LOCK, _kept_from_stderr(reasons):
            decode()
    except OSError as error:
        if not reasons:
            raise
        raise ValueError(f"damaged TIFF ({reasons[0]})") from error


@contextmanager
def _kept_from_stderr(reasons: list[str]) -> Generator[None]:
    with tempfile.TemporaryFile() as caught:
        try:
            screen = os.dup(_STDERR)
        except OSError:  # closed, as for a service
            yield
            return
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(screen, _STDERR)
            os.close(screen)
            caught.seek(0)
            printed = caught.read()
            reasons += [line.decode(errors="replace").rstrip(".\n") for line in _LINE.findall(printed)]
            os.write(_STDERR, _LINE.sub(b"", printed))
