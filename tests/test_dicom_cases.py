"""Odd files that were reported to other projects: each gives the picture of a plain twin, or is refused in true words."""

import shutil
import struct
import subprocess

import numpy as np
import pydicom
import pytest
from dicom_files import claiming, compressed, dataset, dicom_bytes, lut, picture, ramp, root_curve, save, with_elements
from dicom_variants import PLAIN, SEEN, TWELVE, WINDOW, twelve
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence

from cxr.reading import UnreadableImage, dicom_pixels, read
from cxr.reading.greyscale import GreyScale

EIGHT = ramp(8).astype(np.uint8)
JPEG = picture(EIGHT, quality=95)


def baseline(frame=JPEG):
    return compressed(dataset(EIGHT, 8), uid.JPEGBaseline8Bit, frame)


def jpeg_xl():
    return claiming(compressed(dataset(EIGHT, 8), uid.HTJ2KLosslessRPCL, JPEG), "1.2.840.10008.1.2.4.110")


def apart(tmp_path, ds, expected):
    """The largest difference in grey levels."""
    return np.abs(read(save(tmp_path / "a.dcm", ds)).whole().astype(int) - expected).max()


def test_high_bit_counts_on_the_path_of_every_codec(tmp_path):
    shifted = (TWELVE << 4).astype(np.uint16)
    j2k = picture(shifted, format="JPEG2000", no_jp2=True)
    rle = dataset(shifted, 16, BitsStored=12, HighBit=15)
    rle.compress(uid.RLELossless, encoding_plugin="pydicom")
    packed = compressed(dataset(shifted, 16, BitsStored=12, HighBit=15), uid.JPEG2000Lossless, j2k)
    assert apart(tmp_path, packed, PLAIN) == apart(tmp_path, rle, PLAIN) == 0


def test_what_lossy_compression_overshoots_is_white_and_not_black(tmp_path):
    disc = np.where(np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 18, 1023, 0).astype(np.uint16)
    j2k = picture(disc, format="JPEG2000", no_jp2=True, irreversible=True, quality_mode="rates", quality_layers=[40])
    decoded = pydicom.pixels.pixel_array(save(tmp_path / "b.dcm", compressed(dataset(disc, 16), uid.JPEG2000, j2k)))
    assert decoded.max() > 1023  # so that there is something to clip
    ds = compressed(dataset(disc, 10), uid.JPEG2000, j2k)
    expected = GreyScale(10).table()[np.minimum(decoded, 1023)].astype(int)
    assert apart(tmp_path, ds, expected) == 0


def test_a_contradiction_of_polarity_goes_by_the_photometric_interpretation_and_is_said(tmp_path):
    ds = twelve(photometric="MONOCHROME1", PresentationLUTShape="IDENTITY", **WINDOW)
    assert apart(tmp_path, ds, 255 - SEEN.astype(int)) == 0
    note = read(tmp_path / "a.dcm").header.note
    assert "MONOCHROME1 with Presentation LUT Shape IDENTITY" in note


def test_a_table_is_as_bright_as_its_entries_reach(tmp_path):
    ds = twelve(VOILUTSequence=lut(root_curve(4096, 12), bits=16))
    assert apart(tmp_path, ds, np.rint(root_curve(4096, 12)[TWELVE] * 255 / 4095)) == 0


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"])
def test_xa_and_xrf_have_no_modality_lut(tmp_path, kind):
    ds = twelve(SOPClassUID=kind, Modality="RF", ModalityLUTSequence=lut(root_curve(4096, 12) // 7))
    assert apart(tmp_path, ds, PLAIN) == 0


def test_of_two_transfer_syntaxes_the_first_counts(tmp_path):
    content = dicom_bytes(baseline())
    end = 144 + struct.unpack("<I", content[140:144])[0]
    again = b"\2\0\x10\0UI\x14\0" + uid.ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    assert apart(tmp_path, content[:end] + again + content[end:], EIGHT) <= 3


@pytest.mark.parametrize("kind", ["ModalityLUTSequence", "VOILUTSequence"])
def test_an_empty_item_is_no_table(tmp_path, kind):
    item = with_elements(Dataset(), ("LUTDescriptor", "US", None), ("LUTData", "OW", None))
    assert apart(tmp_path, twelve(**{kind: Sequence([item])}, **WINDOW), SEEN) == 0


def test_a_decimal_comma_is_a_point(tmp_path):
    content = dicom_bytes(twelve(WindowCenter="1500.0", WindowWidth="2000.0"))
    content = content.replace(b"1500.0", b"1500,0").replace(b"2000.0", b"2000,0")
    assert apart(tmp_path, content, SEEN) == 0


def test_private_syntax_of_big_endian_pixels(tmp_path):
    ds = twelve(syntax=uid.ImplicitVRLittleEndian, **WINDOW)
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    content = dicom_bytes(ds)
    head = b"\2\0\x10\0UI"
    place = content.index(head)
    length = struct.unpack("<H", content[place + 6 : place + 8])[0]
    new = b"1.2.840.113619.5.2"
    content = content[:place] + head + struct.pack("<H", len(new)) + new + content[place + 8 + length :]
    grown = struct.unpack("<I", content[140:144])[0] + len(new) - length
    assert apart(tmp_path, content[:140] + struct.pack("<I", grown) + content[144:], SEEN) == 0


def test_bytes_behind_the_pixels_are_padding(tmp_path):
    ds = twelve(**WINDOW)
    ds.PixelData += b"\7" * 128
    assert apart(tmp_path, ds, SEEN) == 0


def test_progressive_jpeg_of_the_retired_syntax(tmp_path):
    ds = baseline(picture(EIGHT, quality=95, progressive=True))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.55"
    assert apart(tmp_path, ds, EIGHT) <= 3


def test_a_frame_without_an_offset_table(tmp_path):
    ds = baseline()
    ds.PixelData = encapsulate([JPEG], has_bot=False)[8:]
    assert apart(tmp_path, ds, EIGHT) <= 3


@pytest.mark.parametrize("end", [0, 63])
def test_a_sequential_scan_ends_at_the_last_coefficient(end):
    scan = b"\xff\xda\0\x08\1\1\0\0" + bytes([end]) + b"\0"
    mended = dicom_pixels._with_scan_end(b"\xff\xd8" + scan + b"data", uid.JPEGExtended12Bit)
    assert mended == b"\xff\xd8" + scan[:8] + b"\x3f\0" + b"data"
    assert dicom_pixels._with_scan_end(scan, uid.JPEGBaseline8Bit) == scan


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="dcmcjpeg of dcmtk is not installed (Debian: dcmtk)")
def test_jpeg_extended_of_12_bits_or_what_to_install(tmp_path):
    native = save(tmp_path / "a.dcm", twelve())
    subprocess.run(["dcmcjpeg", "-q", "+ee", "+q", "95", native, tmp_path / "b.dcm"], check=True)
    if "pylibjpeg" in get_decoder(uid.JPEGExtended12Bit).available_plugins:
        assert np.abs(read(tmp_path / "b.dcm").whole().astype(int) - PLAIN).max() <= 3
    else:
        with pytest.raises(UnreadableImage, match="pip install pylibjpeg pylibjpeg-libjpeg"):
            read(tmp_path / "b.dcm").whole()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (jpeg_xl, r"compressed as JPEG XL .*, which cannot be read"),
        (lambda: compressed(twelve(), uid.JPEGBaseline8Bit, JPEG), "compressed with 8 bits; the header states 12"),
    ],
)
def test_refused_in_true_words(tmp_path, make, reason):
    ds = make()
    with pytest.raises(UnreadableImage, match=reason):
        read(save(tmp_path / "a.dcm", ds)).whole()
