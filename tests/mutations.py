"""Files damaged at random, the same for the same seed: bits, lengths, ends, and pieces of other files."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from dicom_files import dicom_bytes
from dicom_variants import VARIANTS
from PIL import Image
from pydicom import uid

# What ends a count in programs: nothing, all, and the numbers around the sign bit of each width.
LENGTHS = (0, 1, 2, 7, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
HEAD = 512  # bytes at either end in which most damage is done: there lie headers and directories


@dataclass(frozen=True)
class Sample:
    """A good file.

    Attributes:
        inner: what is damaged; the whole file, or what lies under its compression or checksums.
        close: makes a file of the damaged ``inner``.
    """

    inner: bytes
    close: Callable[[bytes], bytes] = bytes


def damaged(samples: Sequence[Sample], count: int, seed: str) -> Iterator[bytes]:
    """``count`` files; number n hangs on ``seed`` and n alone."""
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        sample = chance.choice(samples)
        content = bytearray(sample.inner)
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            chance.choice(_DAMAGES)(content, sample, chance.choice(samples), chance)
        yield sample.close(bytes(content))


def _place(content: bytearray, chance: random.Random) -> int:
    """A position in ``content``, or its end."""
    size = len(content)
    if size > 2 * HEAD and chance.random() < 0.7:
        return chance.choice((chance.randrange(HEAD), size - chance.randrange(HEAD)))
    return chance.randint(0, size)


def _flip(content: bytearray, _sample: Sample, _other: Sample, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 4, 30))):
        place = _place(content, chance)
        if place < len(content):
            content[place] ^= 1 << chance.randrange(8)


def _overwrite(content: bytearray, _sample: Sample, _other: Sample, chance: random.Random) -> None:
    place = _place(content, chance)
    content[place : place + chance.choice((1, 2, 4, 64))] = chance.randbytes(chance.choice((1, 2, 4, 64)))


def _truncate(content: bytearray, _sample: Sample, _other: Sample, chance: random.Random) -> None:
    del content[_place(content, chance) :]


def _cut(content: bytearray, _sample: Sample, _other: Sample, chance: random.Random) -> None:
    place = _place(content, chance)
    del content[place : place + chance.choice((1, 2, 4, 12, 500))]


def _repeat(content: bytearray, _sample: Sample, _other: Sample, chance: random.Random) -> None:
    place = _place(content, chance)
    content[place:place] = content[place : place + chance.choice((2, 12, 300))] * chance.choice((1, 2, 50))


def _splice(content: bytearray, _sample: Sample, other: Sample, chance: random.Random) -> None:
    content[_place(content, chance) :] = other.inner[_place(bytearray(other.inner), chance) :]


def _lie(content: bytearray, _sample: Sample, _other: Sample, chance: random.Random) -> None:
    """A number where a length may be."""
    width, order = chance.choice((1, 2, 4, 4, 8)), chance.choice(("little", "big"))
    value = chance.choice((*LENGTHS, len(content), chance.randrange(2**32))) % 2 ** (8 * width)
    place = _place(content, chance)
    content[place : place + width] = value.to_bytes(width, order)


_DAMAGES = (_flip, _flip, _overwrite, _truncate, _cut, _repeat, _splice, _lie, _lie)


# ------------------------------------------------------------------------------------------------------------ pictures


def _grey() -> np.ndarray:
    rows, columns = np.mgrid[0:50, 0:70]
    return ((rows * 3 + columns * 2 + np.random.default_rng(0).integers(0, 9, rows.shape)) % 256).astype(np.uint8)


def _saved(mode: str, kind: str, **options: object) -> bytes:
    image = Image.fromarray(_grey().astype(np.uint16) * 250) if mode == "I;16" else Image.fromarray(_grey())
    file = io.BytesIO()
    (image if mode == "I;16" else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def jpegs() -> list[Sample]:
    exif = Image.Exif()
    exif[274] = 6
    found = [
        _saved("L", "JPEG", quality=90),
        _saved("RGB", "JPEG", quality=90),
        _saved("L", "JPEG", progressive=True),
        _saved("RGB", "JPEG", progressive=True, exif=exif),
        _saved("L", "JPEG", optimize=True, comment=b"a note", restart_marker_blocks=2),
        _saved("CMYK", "JPEG"),
    ]
    return [Sample(content) for content in found]


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, as far as they can be told apart."""
    repaired, place = bytearray(content), 8
    while place + 12 <= len(content):
        end = place + 8 + struct.unpack_from(">I", content, place)[0]
        if end + 4 > len(content):
            break
        struct.pack_into(">I", repaired, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(repaired)


def pngs() -> list[Sample]:
    found = [_saved(mode, "PNG") for mode in ("L", "I;16", "RGB", "RGBA", "LA", "P", "1")]
    found.append(_saved("P", "PNG", transparency=3))
    return [Sample(content, close) for content in found for close in (bytes, with_checksums)]


def tiffs() -> list[Sample]:
    compressed = [_saved("L", "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]  # fmt: skip
    plain = [_saved(mode, "TIFF") for mode in ("L", "I;16", "RGB", "RGBA", "P", "1", "CMYK", "F")]
    found = [*plain, *compressed, _saved("1", "TIFF", compression="group4"), _saved("RGB", "TIFF", compression="jpeg")]
    return [Sample(content) for content in found]


def _deflating(content: bytes) -> Sample:
    """The data set of a deflated file, without its deflation."""
    start = 144 + struct.unpack("<I", content[140:144])[0]

    def close(inner: bytes) -> bytes:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return content[:start] + deflater.compress(inner) + deflater.flush()

    return Sample(zlib.decompress(content[start:], -zlib.MAX_WBITS), close)


def dicoms() -> list[Sample]:
    """One of each transfer syntax, depth, colour and table that the tests of DICOM know."""
    found = []
    for variant, *_ in VARIANTS.values():
        content = variant if isinstance(variant, bytes) else dicom_bytes(variant)
        found.append(Sample(content))
        if not isinstance(variant, bytes) and variant.file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian:
            found.append(_deflating(content))
    return found
