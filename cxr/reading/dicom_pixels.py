"""The pixel data of a DICOM file -> stored values: JPEG of 8 bits by Pillow, all else by pydicom's decoders."""

import re
from contextlib import suppress
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL import Jpeg2KImagePlugin as Jpeg2KImagePlugin  # imported so that Pillow need not try all its formats
from PIL.JpegImagePlugin import JpegImageFile
from pydicom import uid
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.pixels.decoders.base import get_decoder

from cxr.reading.dicom_header import Elements

_GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"  # private: all but the pixels is Implicit VR Little Endian
_EXPLICIT = (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
_NATIVE = ("", uid.ImplicitVRLittleEndian, *_EXPLICIT, _GE_BIG_ENDIAN_PIXELS)
_JPEG = "1.2.840.10008.1.2.4."
_DCT = tuple(_JPEG + number for number in ("50", "51", "53", "55"))  # the last two retired, and progressive
_LOSSLESS = (_JPEG + "57", _JPEG + "70")
_LOSSY = (*_DCT, *(_JPEG + number for number in ("81", "91", "203")))
_UNKNOWN_TO_PYDICOM = {_JPEG + number: "JPEG XL" for number in ("110", "111", "112")}
# The most permissively licensed packages for what Pillow does not read (pylibjpeg-libjpeg is GPL-3.0, and the only one
# for 12 bits of JPEG Extended).
_PACKAGES = {
    **dict.fromkeys(_DCT, "pylibjpeg pylibjpeg-libjpeg"),
    **dict.fromkeys(_LOSSLESS, "python-gdcm"),
    **dict.fromkeys((_JPEG + "80", _JPEG + "81"), "pyjpegls"),
    **dict.fromkeys((_JPEG + number for number in ("90", "91", "201", "202", "203")), "pylibjpeg pylibjpeg-openjpeg"),
}
_CODECS = ("pillow", "pyjpegls", "pylibjpeg", "pydicom", "gdcm")  # gdcm last: it may abort where others raise
_ADDRESS = re.compile(r" ?<[^>]*>")  # of an object in memory, which Pillow puts into messages

_Pixels: TypeAlias = tuple[NDArray[Any], dict[str, Any]]  # [H, W] or [H, W, 3], and pydicom's description of them


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


def read_frame(element: RawDataElement, layout: Layout, elements: Elements, shrink: int) -> NDArray[Any]:
    """The one frame in the Pixel Data ``element``.

    Returns:
        Of grey, the stored values as unsigned numbers [H, W] below 2 ** ``layout.stored``; of colour the luma, uint8
        [H, W]. JPEG is shrunk as ``Picture.decode`` does it.

    Raises:
        ValueError: pixel data that do not fit the header, a transfer syntax that is not of a still picture or whose
            codec is not installed (names the package). Decoders raise many other errors for damage.
    """
    syntax, encapsulated = elements.syntax, element.length == 0xFFFFFFFF  # undefined
    if encapsulated == (syntax in _NATIVE):
        form = "encapsulated" if encapsulated else "not encapsulated"
        raise ValueError(f"pixel data are {form}, which transfer syntax {syntax or '(none)'} does not allow")
    content = element.value or b""
    if not encapsulated:
        big = elements.order == ">" or syntax == _GE_BIG_ENDIAN_PIXELS
        return _values(*_native(content, element.VR, layout, big), layout, lossy=False)
    frame = _join_fragments(content)
    image: ImageFile.ImageFile | None = None
    with suppress(UnidentifiedImageError):  # neither JPEG of 8 bits nor JPEG 2000
        image = Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000"))
    if image is not None:
        if image.size != (layout.width, layout.height):
            stated = f"the header states {layout.width} x {layout.height}"
            raise ValueError(f"compressed pixel data of {image.width} x {image.height} pixels; {stated}")
        if image.format != "JPEG2000" and layout.stored > 8:
            raise ValueError(f"pixel data compressed with 8 bits; the header states {layout.stored}")
        if syntax in _DCT and layout.photometric != "RGB" and isinstance(image, JpegImageFile):
            if shrink > 1:
                image.draft(None, (layout.width // shrink, layout.height // shrink))
            return np.asarray(image.convert("L"))
    return _values(*_by_codec(frame, image, layout, syntax), layout, lossy=syntax in _LOSSY)


def _native(content: bytes, vr: str | None, layout: Layout, big_endian: bool) -> _Pixels:
    samples = 2 if layout.photometric == "YBR_FULL_422" else layout.samples  # two pixels share their chroma
    expected = layout.width * layout.height * samples * layout.allocated // 8
    if not expected <= len(content) < max(2 * expected, expected + 2):  # what is less than a second frame is padding
        raise ValueError(
            f"{len(content)} bytes of pixel data; expected {expected} for {layout.width} x {layout.height} pixels of "
            f"{layout.samples} x {layout.allocated} bits"
        )
    decoder = get_decoder(uid.ExplicitVRBigEndian if big_endian else uid.ExplicitVRLittleEndian)
    options: Any = {"view_only": True, "pixel_vr": vr or "OW"}
    return decoder.as_array(content, index=0, raw=True, validate=False, **options, **_options(layout))


def _options(layout: Layout) -> dict[str, Any]:
    return {
        "rows": layout.height,
        "columns": layout.width,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": int(layout.planar),
        "pixel_representation": int(layout.signed),
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
    }


def _values(decoded: NDArray[Any], about: dict[str, Any], layout: Layout, *, lossy: bool) -> NDArray[Any]:
    """The stored values, or the luma, of a decoder's output.

    The header describes the pixels before compression (PS3.5 8.2), so the stored bits lie where it states. Lossy
    compression may overshoot their range and is clipped; else other bits are other data.
    """
    if layout.samples == 3:
        mode = "YCbCr" if about["photometric_interpretation"].startswith("YBR_FULL") else "RGB"  # PS3.3 C.7.6.3.1.2
        pixels = np.ascontiguousarray(decoded)
        colours = Image.frombuffer(mode, (layout.width, layout.height), pixels, "raw", mode, 0, 1)
        return np.asarray(colours.convert("RGB").convert("L"))
    values = decoded >> layout.shift if layout.shift else decoded
    if lossy and layout.stored < 8 * values.itemsize:
        lowest = -(2 ** (layout.stored - 1)) if layout.signed else 0
        values = values.clip(lowest, lowest + 2**layout.stored - 1)
    unsigned = values.view(values.dtype.str.replace("i", "u"))
    return unsigned if layout.stored == 8 * values.itemsize else unsigned & (2**layout.stored - 1)


def _join_fragments(content: bytes) -> bytes:
    """The one frame, joined; some writers leave out the offset table that should come first (DICOM PS3.5 A.4)."""
    items = BytesIO(content)
    if content[8:10] not in (b"\xff\xd8", b"\xff\x4f"):  # as JPEG and JPEG 2000 begin
        parse_basic_offsets(items)
    frame = b"".join(generate_fragments(items))
    if not frame:
        raise ValueError("compressed pixel data without a frame")
    return frame


def _by_codec(frame: bytes, image: ImageFile.ImageFile | None, layout: Layout, syntax: str) -> _Pixels:
    """``frame``, whose header is ``image``, by the first installed decoder that can read it."""
    known = uid.UID(syntax, IGNORE)
    kind = f"{_UNKNOWN_TO_PYDICOM.get(syntax, known.name)} (transfer syntax {syntax})"
    try:
        decoder = get_decoder(known)
    except NotImplementedError:
        raise ValueError(f"pixel data compressed as {kind}, which cannot be read") from None
    failed: list[str] = []
    if image is not None and syntax in _LOSSLESS and layout.samples == 1:
        try:  # with libjpeg-turbo 3 Pillow can, which pydicom does not know
            return np.asarray(image), {}
        except OSError as error:
            failed.append(f"pillow: {error}")
    content, options = encapsulate([_with_scan_end(frame, syntax)], has_bot=False), _options(layout)
    for codec in sorted(decoder.available_plugins, key=_CODECS.index):
        try:
            return decoder.as_array(content, index=0, raw=True, validate=False, decoding_plugin=codec, **options)
        except Exception as error:  # of many types
            reason = str(error).rpartition(f"{codec}: ")[2]  # without pydicom's list of all its plugins
            failed.append(f"{codec}: {_ADDRESS.sub('', reason)}")
    other = f"pip install {_PACKAGES[syntax]}" if syntax in _PACKAGES else ""
    if not failed:
        raise ValueError(f"{kind} needs a decoder that is not installed: {other}")
    # The advice first: the rest may be cut.
    raise ValueError(f"{kind} cannot be decoded{other and f'; another decoder: {other}'} ({'; '.join(failed)})")


def _with_scan_end(frame: bytes, syntax: str) -> bytes:
    """A sequential JPEG whose scan header ends at coefficient 0 has all 64 (ISO/IEC 10918-1 B.2.3)."""
    if syntax != _JPEG + "51":
        return frame
    scan = frame.find(b"\xff\xda")
    end = scan + 2 + int.from_bytes(frame[scan + 2 : scan + 4], "big")
    return frame[: end - 2] + b"\x3f" + frame[end - 1 :] if frame[end - 3 : end] == bytes(3) else frame
