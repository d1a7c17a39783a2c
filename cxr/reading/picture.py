"""JPEG, PNG, TIFF, WebP and BMP files -> one grey picture, by Pillow."""

import re
from collections.abc import Callable
from io import BytesIO
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageChops,
    ImageFile,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)
from PIL import WebPImagePlugin as WebPImagePlugin  # imported so that Pillow need not try all its formats

from cxr.reading.files import check_size
from cxr.reading.greyscale import GreyScale, look_up

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 258, 262, 339  # tags of TIFF 6.0
NOTE = "note"  # key in the ``info`` of a decoded picture: what only its pixels show
_LARGEST_NOTE = 2**26  # bytes beside the pixels of a PNG: a history, a colour profile
_note_limit = Lock()
# Patient IDs that stand for none, in upper case without spaces and punctuation.
_PLACEHOLDERS = re.compile(
    "0+|9+|X+|NA|NONE|NULL|NOID|ID|UNKNOWN|TEST|PATIENT(ID)?|ANON(YM(OUS|I[SZ]ED)?)?(PATIENT)?|(NOT|UN)KNOWN|DEID(ENTIFIED)?"
)

Made = TypeVar("Made")


def is_placeholder(patient: str) -> bool:
    """Whether a Patient ID identifies nobody: empty, or such as ANON, 0 or UNKNOWN."""
    return not patient or bool(_PLACEHOLDERS.fullmatch(re.sub(r"[\W_]+", "", patient.upper())))


class Header(NamedTuple):
    """What a DICOM header states; the defaults stand for files without a header.

    Fields:
        age_years, sex, view: completed years, ``M`` or ``F``, ``AP`` or ``PA``; None where absent or impossible.
        note: what contradicts a frontal chest radiograph, empty for an ordinary one.
        patient: a hash of the Patient ID, empty where there is none; a list of IDs is enough to identify the patient.
        sop_instance_uid: empty where absent or too long.
        acquired: ISO 8601 to the minute, or the day alone.
        is_study_date: whether ``acquired`` is the date of the study.
        view_text: View Position as written, in upper case.
        patient_text: name and Patient ID for a reader.
        patient_names: every text that identifies the patient: the parts of the name, and the Patient ID.
        is_patient_unreadable: whether name or Patient ID cannot be decoded by the file's character set.
        is_own_result: whether the file is a DICOM result of this program, which an archive may return.
    """

    age_years: int | None = None
    sex: str | None = None
    view: str | None = None
    note: str = ""
    patient: str = ""
    sop_instance_uid: str = ""
    acquired: str = ""
    is_study_date: bool = False
    view_text: str = ""
    patient_text: str = ""
    patient_names: tuple[str, ...] = ()
    is_patient_unreadable: bool = False
    is_own_result: bool = False


NO_HEADER = Header()


class Picture(NamedTuple):
    """The one picture in a file, before its pixels are decoded.

    Fields:
        size: (width, height) in pixels, upright.
        decode: gives the picture in mode L, upright. Its argument is 1, 2, 4 or 8: a JPEG is shrunk by it while it is
            decoded, so that its last row and column of blocks may reach beyond the picture; other formats ignore it.
    """

    size: tuple[int, int]
    decode: Callable[[int], Image.Image]
    header: Header = NO_HEADER


def open_picture(data: bytes) -> Picture:
    """The picture in ``data``, which is a whole file.

    Raises:
        ValueError: another format or size, several pages, an animation; when decoded, samples of CMYK, Lab, floating
            point or signed numbers. Pillow raises many other errors for damaged files.
    """
    image = _with_long_notes(lambda: _open(data))
    check_size(*image.size)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)
        turned = _with_long_notes(lambda: _grey(image))  # now: shrunk first, it would be cut at the wrong side

        def decoded(_shrink: int) -> Image.Image:
            return turned

        return Picture(turned.size, decoded)

    def decode(shrink: int) -> Image.Image:
        def grey() -> Image.Image:
            image = _open(data)  # anew, since Pillow decodes an opened file once
            if shrink > 1:
                image.draft(None, (image.width // shrink, image.height // shrink))
            return _grey(image)

        return _with_long_notes(grey)

    return Picture(image.size, decode)


def _open(data: bytes) -> ImageFile.ImageFile:
    """The picture that is not a thumbnail."""
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        # Pillow lacks, for example, 16 bits with the high byte first and white at zero.
        kinds = "TIFF of an unusual kind, or damaged; save it as PNG"
        if not data.startswith((b"II*\0", b"MM\0*")):
            kinds = f"neither {', '.join(_FORMATS)} nor DICOM, or damaged"
        raise ValueError(f"{kinds} (it begins with {data[:8]!r})") from None
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise ValueError("an animation; expected one still picture")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        pages: list[int] = []
        for page in range(image.n_frames):
            image.seek(page)
            if not image.tag_v2.get(_SUBFILE, 0) & 1:
                pages.append(page)
        if len(pages) != 1:
            raise ValueError(f"a TIFF of {len(pages) or 'no'} pages; expected one picture")
        image.seek(pages[0])
    return image


def _with_long_notes(make: Callable[[], Made]) -> Made:
    """``make()``, also for a PNG with notes beyond Pillow's usual limit of 1 MiB, which may come after the pixels."""
    try:
        return make()
    except ValueError as error:
        if "MAX_TEXT_CHUNK" not in str(error):
            raise
    with _note_limit:
        usual = PngImagePlugin.MAX_TEXT_CHUNK
        PngImagePlugin.MAX_TEXT_CHUNK = _LARGEST_NOTE
        try:
            return make()
        finally:
            PngImagePlugin.MAX_TEXT_CHUNK = usual


def _grey(image: ImageFile.ImageFile) -> Image.Image:
    """``image`` as mode L: luma of colour (ITU-R BT.601), transparent parts black, 16 bits by their full range."""
    sixteen_bit_png = image.mode == "I" and image.format == "PNG"  # Pillow before 11
    if image.mode.startswith("I;16") or sixteen_bit_png:
        fields = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        bits, values = 12 if fields.get(_BITS) == (12,) else 16, np.asarray(image)
        # Pillow inverts white at zero for 8 bits, but not for 16.
        scale = GreyScale(bits, inverted=fields.get(_PHOTOMETRIC) == 0).fitted(values)
        grey = Image.fromarray(look_up(scale.table(), values))
        grey.info[NOTE] = scale.note()
        return grey
    if image.mode in ("LA", "PA", "RGBA") or (image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        # Writers that leave the fourth byte alone make every pixel transparent.
        return ImageChops.multiply(rgba.convert("L"), alpha) if alpha.getbbox() else rgba.convert("RGB").convert("L")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and 2 in image.tag_v2.get(_SAMPLE_FORMAT, ()):
        raise ValueError("signed samples; expected unsigned ones: add an offset and save it as PNG")
    if image.mode not in ("1", "L", "P", "RGB", "YCbCr"):
        raise ValueError(f"samples of mode {image.mode}; expected grey or RGB of 8 or 16 bits")
    return image.convert("L")
