"""Any radiograph file -> one grey image, white bone on black air: JPEG, PNG, TIFF, WebP, BMP and DICOM, by content."""

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.messages import one_line, shortened
from cxr.reading import picture
from cxr.reading.files import looks_like_dicom, missing
from cxr.reading.picture import NOTE, Header, Picture

_LONGEST_REASON = 300
_SHRINKS = (8, 4, 2, 1)  # of JPEG decoders

Made = TypeVar("Made")


class UnreadableImage(ValueError):
    """A file that is not one radiograph; one line that begins with its path and states what was found."""


class Radiograph:
    """One radiograph file, read once and decoded when its pixels are first needed.

    It keeps the file's content and the decoded pixels as long as it lives. For one thread at a time. All but ``path``
    and ``sha256`` may raise UnreadableImage: damage, another format, several frames or pages, a size that no radiograph
    has (``files.check_size``), a DICOM codec that is not installed.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self._data = data
        self._images: dict[int, Image.Image] = {}

    @cached_property
    def sha256(self) -> str:
        """Of the file's content, in hexadecimal digits."""
        return hashlib.sha256(self._data).hexdigest()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original in pixels, upright."""
        width, height = self._picture.size
        return height, width

    @property
    def header(self) -> Header:
        """What a DICOM header states; its note includes what the pixels show once they are decoded."""
        header = self._picture.header
        shown = {image.info.get(NOTE, "") for image in self._images.values()}
        return header._replace(note="; ".join(filter(None, [header.note, *sorted(shown)])))

    def whole(self) -> NDArray[np.uint8]:
        """All pixels as uint8 [H, W], upright, bone white on black air.

        Colour becomes luma and transparency black. EXIF orientation is obeyed. DICOM goes through modality LUT, VOI
        (LUT, else first valid window), polarity and display shutter. Without VOI, and in 16-bit PNG and TIFF, the range
        of the bits that the pixels use, at least 8, is spread over 0..255: many writers declare 16 bits for 12. Pixel
        aspect ratio and Patient Orientation are left aside.
        """
        return np.array(self._decoded(None))

    def square(self, side: int) -> NDArray[np.uint8]:
        """The whole image squashed to uint8 [side, side] with antialiasing; aspect ratio not kept.

        JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves twice ``side`` on both sides. At 224 pixels this takes a
        fifth off the time and moves pixels by 0.08 grey levels in the mean; down to once ``side`` it would take two
        fifths, but also 2 % off the sharpness of large images only. Decoding and resizing run without the interpreter
        lock.
        """
        return np.array(self._resized(self._decoded(2 * side), (side, side)))

    def within(self, side: int) -> Image.Image:
        """The whole image in mode L with its proportions and no side longer than ``side``; never enlarged."""
        image, size = self._decoded(side), self._picture.size
        longest = min(side, max(image.size))
        width, height = (max(1, round(longest * length / max(size))) for length in size)
        return self._resized(image, (width, height))

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """``image``, which may be shrunk, without what its last row and column of blocks have beyond the picture."""
        width, height = self._picture.size
        shrink = round(width / image.width)
        return image.resize(size, Image.Resampling.BILINEAR, (0, 0, width / shrink, height / shrink))

    def _decoded(self, at_least: int | None) -> Image.Image:
        """The picture, shrunk if its decoder can do that and both sides keep ``at_least`` pixels; None: not shrunk."""
        size = self._picture.size
        shrink = next(by for by in _SHRINKS if by == 1 or (at_least and min(size) // at_least >= by))
        if shrink not in self._images:
            image = self._or_unreadable(lambda: self._picture.decode(shrink))
            unable = shrink > 1 and image.size == size
            self._images |= dict.fromkeys(_SHRINKS, image) if unable else {shrink: image}
        return self._images[shrink]

    @cached_property
    def _picture(self) -> Picture:
        if looks_like_dicom(self._data):
            from cxr.reading import dicom  # importing pydicom takes time that other files need not spend

            return self._or_unreadable(lambda: dicom.open_dicom(self._data))
        return self._or_unreadable(lambda: picture.open_picture(self._data))

    def _or_unreadable(self, make: Callable[[], Made]) -> Made:
        try:
            return make()
        except Exception as error:  # decoders raise many types for damage: struct.error, SyntaxError, MemoryError
            text = shortened(one_line(error), _LONGEST_REASON)
            if not isinstance(error, ValueError) or not text:
                name = f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")
                text = f"cannot be decoded ({name}{': ' * bool(text)}{text})"
            raise UnreadableImage(f"{self.path}: {text}") from error


def read(path: Path) -> Radiograph:
    """The content of the file ``path``.

    Raises:
        FileNotFoundError: no file at ``path``.
        UnreadableImage: a folder, or an empty file.
    """
    if path.is_dir():
        raise UnreadableImage(f"{path}: is a folder; expected a file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.absolute()}: {missing(path)}") from None
    if not data:
        raise UnreadableImage(f"{path}: is empty (0 bytes)")
    return Radiograph(path, data)
