"""JPEG, PNG and TIFF files -> one grey picture, by Pillow, from the bare stream of ``containers``."""

import ctypes
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from cxr.reading.containers import JPEG_MAGIC, PNG_MAGIC, Header, check_size, jpeg_header, png_header, tiff_header
from cxr.reading.greyscale import full_range, look_up
from cxr.reading.header import NO_HEADER
from cxr.reading.header import Header as DicomHeader
from cxr.reading.room import ROOM

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
        header: what a DICOM file says of it.
    """

    image: Image.Image
    size: tuple[int, int]
    transpose: Image.Transpose | None = None
    header: DicomHeader = NO_HEADER

    def upright(self, image: Image.Image) -> Image.Image:
        """``image``, which is this one or what was made of it, turned as the file asks for."""
        return image if self.transpose is None else image.transpose(self.transpose)

    def square(self, size: int) -> NDArray[np.uint8]:
        """The whole picture squashed to uint8 [size, size], upright; aspect ratio not kept."""
        return np.array(self.upright(self.image.resize((size, size), Image.Resampling.BILINEAR, self._inside)))

    def within(self, side: int) -> Image.Image:
        """The whole picture, upright, with its proportions and no side longer than ``side``; never enlarged."""
        longest = max(self.image.size)
        width, height = (max(1, round(min(side, longest) * length / max(self.size))) for length in self.size)
        return self.upright(self.image.resize((width, height), Image.Resampling.BILINEAR, self._inside))

    @property
    def _inside(self) -> tuple[float, float, float, float]:
        """The part of ``image`` that is the picture: the last row and column of blocks may reach beyond it."""
        width, height = self.size
        shrunk = round(width / self.image.width)
        return (0, 0, width / shrunk, height / shrunk)

    @property
    def upright_height_width(self) -> tuple[int, int]:
        """Of the whole picture, in pixels."""
        width, height = self.size
        return (width, height) if self.transpose in _UPRIGHT_SIDEWAYS else (height, width)


def _silence_pillow() -> None:
    """What Pillow and its libtiff print of damage, line by line to stderr; here damage is one exception."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # without any, Python prints warnings and errors
    with suppress(OSError, AttributeError):  # a Pillow that keeps libtiff's functions to itself, as on Windows
        library = ctypes.CDLL(Image.core.__file__)
        for set_handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


_silence_pillow()
# Pillow's own 16 MiB come from malloc, which keeps them for the thread: with many threads memory would only grow. What
# is larger than 32 MiB is mapped, and given back at once.
Image.core.set_block_size(2**26)


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
            shrinks = magic == JPEG_MAGIC and at_least is not None
            with ROOM.take(header.width * header.height // (4 if shrinks else 1)):
                image = _grey(plugin(BytesIO(header.stream)), header, at_least)
            return Picture(image, (header.width, header.height), _UPRIGHT.get(header.orientation))
    return None


def decode_jpeg(header: Header, at_least: int | None, *, rgb: bool) -> Image.Image:
    """The stream of a ``jpeg_header`` as a mode L image, see ``decode``.

    With ``rgb``, three channels of which the stream does not say what they are count as RGB, not as Pillow's YCbCr.
    """
    image = JpegImagePlugin.JpegImageFile(BytesIO(header.stream))
    said = header.components == b"RGB" or image.info.keys() & {"jfif", "adobe_transform"}
    if rgb and image.mode == "RGB" and not said:
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
    if isinstance(image, JpegImagePlugin.JpegImageFile) and at_least and not header.lossless:
        image.draft(None, (at_least, at_least))
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


_FORMATS: list[tuple[bytes, Callable[[bytes], Header], type[ImageFile.ImageFile]]] = [
    (JPEG_MAGIC, jpeg_header, JpegImagePlugin.JpegImageFile),
    (PNG_MAGIC, png_header, PngImagePlugin.PngImageFile),
    (b"II*\0", tiff_header, TiffImagePlugin.TiffImageFile),
    (b"MM\0*", tiff_header, TiffImagePlugin.TiffImageFile),
]
