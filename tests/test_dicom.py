import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import HEIGHT, WIDTH, claiming, compressed, dataset, dicom_bytes, lut, picture, ramp, root_curve, save
from dicom_variants import LOSSLESS, VARIANTS
from PIL import Image
from pydicom import uid

from cxr.reading import Radiograph, UnreadableImage, read

DATA = Path(os.environ.get("CXR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DCMTK = shutil.which("dcmj2pnm")
without_dcmtk = pytest.mark.skipif(DCMTK is None, reason="dcmj2pnm of dcmtk is not installed (Debian: dcmtk)")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_its_picture(tmp_path, name):
    ds, expected, _ = VARIANTS[name]
    path = save(tmp_path / "a.dcm", ds)
    grey = read(path).whole()
    lossy = "in JPEG" in name and "2000" not in name
    assert grey.dtype == np.uint8 and grey.flags.writeable
    assert np.abs(grey.astype(int) - expected).max() <= (3 if lossy else 1 if name == "PALETTE COLOR" else 0)
    assert read(path).size == grey.shape
    assert bool(read(path).header.note) == (name == "MONOCHROME2 shape INVERSE")


@without_dcmtk
@pytest.mark.parametrize("name", [name for name, (_, _, options) in VARIANTS.items() if options is not None])
def test_every_variant_is_the_picture_that_dcmtk_shows(tmp_path, name):
    ds, _, options = VARIANTS[name]
    path = save(tmp_path / "a.dcm", ds)
    subprocess.run([DCMTK, "-q", "+op", *options, path, tmp_path / "a.pgm"], check=True)
    with Image.open(tmp_path / "a.pgm") as image:
        shown = np.array(image.convert("L")).astype(int)
    assert np.abs(read(path).whole() - shown).max() <= 1  # dcmtk cuts fractions off, we round


def test_8_bits_equal_a_png_and_16_bits_a_16_bit_png(tmp_path):
    for bits in (8, 16):
        values = ramp(bits).astype(f"u{bits // 8}")
        Image.fromarray(values).save(tmp_path / "a.png")
        path = save(tmp_path / "a.dcm", dataset(values, bits))
        assert np.array_equal(read(path).whole(), read(tmp_path / "a.png").whole())
        assert np.array_equal(read(path).square(20), read(tmp_path / "a.png").square(20))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_jpeg_baseline_equals_the_jpeg_inside_shrunk_or_whole(tmp_path, photometric):
    rows, columns = np.mgrid[0:300, 0:420]
    values = (rows / 2 + columns / 4).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(picture(values))
    ds = compressed(dataset(values, 8, photometric=photometric), uid.JPEGBaseline8Bit, picture(values))
    path = save(tmp_path / "a.dcm", ds)
    turned = photometric == "MONOCHROME1"
    for pixels in (Radiograph.whole, lambda radiograph: radiograph.square(32)):
        plain = pixels(read(tmp_path / "a.jpg"))
        assert np.abs(pixels(read(path)).astype(int) - (255 - plain.astype(int) if turned else plain)).max() <= turned
    assert read(path).size == (300, 420)


def test_a_window_sees_the_pixels_before_they_are_averaged(tmp_path):
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    ds = dataset(stripes, 8, WindowCenter="200", WindowWidth="2")
    path = save(tmp_path / "a.dcm", compressed(ds, uid.JPEGBaseline8Bit, picture(stripes, quality=100)))
    square = read(path).square(16).astype(int)
    assert np.abs(square - 127).max() <= 4  # averaged first, all would be under the window: black


@pytest.mark.parametrize("names", [b"\1\2\3", b"\0\1\2"])
def test_rgb_jpeg_that_does_not_say_so_is_read_as_the_header_says(tmp_path, names):
    # Neither names nor JFIF nor Adobe marks: taken for YCbCr, the first channel would be the luma.
    tint = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    content = picture(tint, keep_rgb=True, quality=100, subsampling=0)
    adobe = content.index(b"\xff\xee")
    content = bytearray(content[:adobe] + content[adobe + 16 :])
    frame, scan = content.index(b"\xff\xc0") + 10, content.index(b"\xff\xda") + 5
    content[frame : frame + 9 : 3] = content[scan : scan + 6 : 2] = names
    ds = compressed(dataset(tint, 8, photometric="RGB"), uid.JPEGBaseline8Bit, bytes(content))
    assert np.abs(read(save(tmp_path / "a.dcm", ds)).whole().astype(int) - 124).max() <= 1  # .299, .587, .114


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_frames_equal_native_or_are_refused_with_what_to_install(tmp_path, syntax):
    values = ramp(12, False, 16, 16)
    native = read(save(tmp_path / "a.dcm", dataset(values, 12))).whole()
    path = save(tmp_path / "b.dcm", compressed(dataset(values, 12), syntax, LOSSLESS[syntax]))
    if pydicom.pixels.get_decoder(syntax).is_available:
        assert np.array_equal(read(path).whole(), native)
    else:
        with pytest.raises(UnreadableImage, match=r"needs a decoder that is not installed: pip install py\S+$"):
            read(path).whole()


def changed(**values):
    ds = dataset(ramp(8), 8)
    for name, value in values.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def truncated(part):
    content = dicom_bytes(dataset(ramp(12)))
    return content[: round(len(content) * part)]


def index_of_a_disc():
    ds = changed(PixelData=None)
    ds.SOPClassUID = uid.MediaStorageDirectoryStorage
    return ds


JPEG = picture(ramp(8).astype(np.uint8))
REFUSED = {
    "frames": (lambda: changed(NumberOfFrames="12"), "a DICOM of 12 frames; expected one radiograph"),
    "no pixel data": (lambda: changed(PixelData=None), r"without pixel data \(Modality CR\)"),
    "an index": (index_of_a_disc, "a DICOMDIR, which is an index of other files"),
    "300 megapixels": (lambda: changed(Rows=15000, Columns=20000), "20000 x 15000 pixels is over the limit of 80"),
    "cut in the pixels": (lambda: truncated(0.9), r"\d+ bytes of pixel data; expected 3774"),
    "cut in the header": (lambda: truncated(0.1), "without pixel data"),
    "cut in the compressed pixels": (lambda: dicom_bytes(compressed(changed(), uid.JPEGBaseline8Bit, JPEG))[:-60], "ends in the middle of an element"),
    "more stored than allocated": (lambda: changed(BitsStored=12, HighBit=11), "8 bits allocated, 12 stored"),
    "photometric": (lambda: changed(PhotometricInterpretation="CMYK"), "Photometric Interpretation CMYK with 1 samples"),
    "rescale": (lambda: changed(RescaleSlope="1E308"), "leaves no range"),
    "function": (lambda: changed(WindowCenter="1", WindowWidth="5", VOILUTFunction="CUBIC"), "VOI LUT Function CUBIC"),
    "window": (lambda: dicom_bytes(changed(WindowCenter="12345", WindowWidth="5")).replace(b"12345 ", b"1e999 "), "WindowCenter is '1E999'; expected a number"),
    "short table": (lambda: changed(VOILUTSequence=lut(root_curve(2048, 12), 4096)), "LUTData of 4096 bytes; expected 4096 entries"),
    "palette": (lambda: changed(PhotometricInterpretation="PALETTE COLOR"), "No suitable Palette Color Lookup Table"),
    "encapsulated": (lambda: claiming(compressed(changed(), uid.JPEGBaseline8Bit, JPEG), "1.2.840.10008.1.2.1"), "pixel data are encapsulated"),
    "video": (lambda: compressed(changed(), uid.MPEG2MPML, JPEG), "compressed as MPEG2 .*, which cannot be read"),
    "jpeg of another size": (lambda: compressed(changed(Rows=64), uid.JPEGBaseline8Bit, JPEG), "compressed pixel data of 51 x 37 pixels; the header states 51 x 64"),
    "not jpeg": (lambda: compressed(changed(), uid.JPEGBaseline8Bit, b"nothing of the kind "), "cannot be decoded.*identify image"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_radiograph_is_refused_in_words(tmp_path, name):
    make, reason = REFUSED[name]
    path = save(tmp_path / "a.dcm", make())
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read(path).whole()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("syntax", "package"),
    [(uid.JPEGLSLossless, "pyjpegls"), (uid.JPEGExtended12Bit, "pylibjpeg pylibjpeg-libjpeg")],
)
def test_a_missing_decoder_is_named_with_what_to_install(tmp_path, monkeypatch, syntax, package):
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "available_plugins", ())
    frame = JPEG.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c")  # 12 bits, or the direct way would do
    path = save(tmp_path / "a.dcm", compressed(dataset(ramp(12)), syntax, frame))
    with pytest.raises(UnreadableImage, match=rf"{syntax.replace('.', '[.]')}\) needs .*: pip install {package}$"):
        read(path).whole()


@pytest.mark.data
@without_dcmtk
def test_real_files_are_the_pictures_that_dcmtk_shows(tmp_path):
    folder = DATA / "dicom_variants"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; CXR_DATA names the folder of the real images")
    for path in sorted(folder.glob("*.dcm")):
        subprocess.run([DCMTK, "-q", "+op", path, tmp_path / "a.pgm"], check=True)
        with Image.open(tmp_path / "a.pgm") as image:
            assert np.abs(read(path).whole().astype(int) - np.array(image)).max() <= 1, path.name
