"""Any radiograph file -> one grey image, white bone on black air: JPEG, PNG, TIFF and DICOM, told by their content."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr.messages import one_line, shortened
from cxr.reading import picture
from cxr.reading.dicom_header import Header
from cxr.reading.files import HEAD_BYTES, MAX_PIXELS, looks_like_dicom
from cxr.reading.picture import Picture

# An uncompressed picture of MAX_PIXELS in 16-bit RGB, which is the most that any format here can need.
MAX_FILE_BYTES = 6 * MAX_PIXELS + 2**20

_LONGEST_REASON = 300


class UnreadableImage(ValueError):
    """A file that is not one radiograph; one line that begins with its path and says what was met."""


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The whole radiograph as uint8 [H, W], upright, bone white on black air.

    Colour becomes luma and transparency black. EXIF orientation is obeyed. 16-bit PNG and TIFF are scaled by the full
    range of the format, 0..65535 to 0..255: what one file's pixels happen to span must not change its exposure. DICOM
    goes through modality LUT, VOI (LUT, else first window) and polarity; without VOI the range that the stored bits can
    hold is spread over 0..255, so that 8 bits stay as they are. Pixel aspect ratio is left aside.

    Raises:
        FileNotFoundError: no file at ``path``.
        UnreadableImage: whatever else is wrong with it: damage, another format, several frames or pages, a size that no
            radiograph has (``limits.check_size``), a DICOM codec that is not installed.
    """
    return np.array(read_picture(path, None)[0].image)


class Square(NamedTuple):
    """A whole radiograph squashed to a square.

    Fields:
        image: uint8 [S, S], bone white.
        size: (height, width) of the original in pixels.
        header: what a DICOM file says of it.
    """

    image: NDArray[np.uint8]
    size: tuple[int, int]
    header: Header


def read_square(path: Path, size: int) -> Square:
    """``read_grey`` squashed to ``size`` x ``size`` pixels with antialiasing, aspect ratio not kept.

    JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves twice ``size`` on both sides. At 224 pixels this takes a fifth
    off the time and moves pixels by 0.08 grey levels in the mean; down to once ``size`` it would take two fifths, but
    also 2 % off the sharpness of large pictures only. Decoding and resizing run without the interpreter lock.

    Raises:
        FileNotFoundError, UnreadableImage: as ``read_grey``.
    """
    picture, _ = read_picture(path, 2 * size)
    return Square(picture.square(size), picture.height_width, picture.header)


def read_picture(path: Path, at_least: int | None) -> tuple[Picture, bytes]:
    """A radiograph, and the file's content, where more than one thing is made of it.

    Args:
        path: the file.
        at_least: pixels that both sides are to keep where the decoder can shrink, twice the largest square wanted; None
            for all.

    Raises:
        FileNotFoundError, UnreadableImage: as ``read_grey``.
    """
    data = _content(path)
    try:
        if looks_like_dicom(data[:HEAD_BYTES]):
            from cxr.reading import dicom  # pydicom takes its time, and other files do without

            return dicom.decode(data, at_least), data
        return picture.decode(data, at_least), data
    except Exception as error:  # decoders meet damage with whatever they like: struct.error, SyntaxError, MemoryError
        raise UnreadableImage(f"{path}: {_reason(error)}") from error


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.absolute()}: no such file") from None
    if path.is_dir():
        raise UnreadableImage(f"{path}: is a folder; expected a file")
    if size == 0:
        raise UnreadableImage(f"{path}: is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise UnreadableImage(f"{path}: has {size >> 20} MiB; no radiograph needs more than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes()


def _reason(error: Exception) -> str:
    text = shortened(one_line(error), _LONGEST_REASON)
    if isinstance(error, ValueError) and text:
        return text
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"cannot be decoded ({name}{': ' * bool(text)}{text})"
