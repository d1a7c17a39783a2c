"""Headers as devices and archives write them: each file is the picture of a plain twin, or of a worked number."""

import base64
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image, features
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from test_dicom import (
    DCMTK,
    HEIGHT,
    WIDTH,
    colours,
    compressed,
    dataset,
    dicom_bytes,
    jpeg,
    lut_sequence,
    ramp,
    root_curve,
    save,
)

from cxr.reading import UnreadableImage, read_grey, read_square
from cxr.reading.greyscale import GreyScale, Window, full_range

TWELVE = ramp(12)
WINDOW = {"WindowCenter": "1500", "WindowWidth": "2000"}
BY_WINDOW, BY_LUT = ["+Wi", "1"], ["+Wl", "1"]  # what makes dcmtk show the view that we take


def rewritten(ds, *pairs):
    """The file with some bytes in place of others."""
    content = dicom_bytes(ds)
    for before, after in pairs:
        assert content.count(before) == 1
        content = content.replace(before, after)
    return content


def with_elements(ds, *elements):
    for tag, vr, value in elements:
        ds.add_new(tag, vr, value)
    return ds


def without(ds, *names):
    for name in names:
        delattr(ds, name)
    return ds


def many_private(ds):
    """Blocks of a vendor on all sides of what counts, some with bytes that read as elements of an image."""
    for group in (0x0009, 0x0019, 0x0029, 0x2051, 0x7FDF):
        ds.add_new((group, 0x10), "LO", "ODD VENDOR 1.0")
        ds.add_new((group, 0x1001), "OB", b"\x28\0\x10\0US\2\0\1\0" * 50)
        ds.add_new((group, 0x1002), "UN", bytes(range(256)))
        inner = Dataset()
        inner.Rows, inner.BitsStored, inner.PhotometricInterpretation = 1, 3, "MONOCHROME1"
        ds.add_new((group, 0x1003), "SQ", Sequence([inner, Dataset()]))
    return ds


def unknown_sequence(ds):
    """An explicit file with a sequence that became UN on its way: what is inside is implicit (PS3.5 6.2.2, note 2)."""
    inside = b"\x28\0\x10\0\2\0\0\0\1\0" + b"\x28\0\x01\x01\2\0\0\0\3\0"
    item = b"\xfe\xff\0\xe0\xff\xff\xff\xff" + inside + b"\xfe\xff\x0d\xe0\0\0\0\0"
    element = b"\x29\0\x10\x10UN\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    pixel_data = b"\xe0\x7f\x10\0OW\0\0"
    return rewritten(ds, (pixel_data, element + pixel_data))


def odd_lengths(ds):
    """Texts of odd length, which the standard forbids (PS3.5 7.1.1) and some writers leave so."""
    return rewritten(
        ds, (b"PN\x0c\0Nobody^Here ", b"PN\x0b\0Nobody^Here"), (b"CS\x0c\0MONOCHROME2 ", b"CS\x0b\0MONOCHROME2")
    )


def overlay_in_bit_12(values):
    ds = dataset(values | np.where(values % 3 == 0, 0x1000, 0), 16, BitsStored=12, HighBit=11)
    group = ((0x10, "US", HEIGHT), (0x11, "US", WIDTH), (0x40, "CS", "G"), (0x50, "SS", [1, 1]))
    return with_elements(
        ds, *((0x60000000 | number, vr, value) for number, vr, value in (*group, (0x100, "US", 16), (0x102, "US", 12)))
    )


def lut(entries, count=None, bits=12, first=0):
    sequence = lut_sequence(entries, first, bits)
    if count is not None:
        sequence[0].LUTDescriptor = [count, first, bits]
    return sequence


def words_of_8_bits():
    item = with_elements(Dataset(), ("LUTDescriptor", "US", [256, 0, 8]))
    return Sequence([with_elements(item, ("LUTData", "OW", root_curve(256, 8).astype("<u2").tobytes()))])


def several_luts():
    both = lut(root_curve(4096, 12))
    both.append(lut(root_curve(4096, 10)[::-1], bits=10)[0])
    return both


def by_table(values, bits, **scale):
    return GreyScale(bits, **scale).table()[values & (2**bits - 1)]


def by_curve(values, count=4096, bits=12):
    return np.rint(root_curve(count, bits)[values] * 255 / (2**bits - 1))


PLAIN = dataset(TWELVE)
WINDOWED = dataset(TWELVE, **WINDOW)
# What is written; a plain twin or the grey levels to be seen; options of dcmtk (None: it reads such files otherwise).
ODD = {
    # words and lengths
    "photometric interpretation in lower case": (rewritten(PLAIN, (b"MONOCHROME2 ", b"monochrome2 ")), PLAIN, []),
    "photometric interpretation ended by NUL": (rewritten(dataset(TWELVE, photometric="MONOCHROME1"), (b"MONOCHROME1 ", b"MONOCHROME1\0")), dataset(TWELVE, photometric="MONOCHROME1"), []),
    "VOI LUT function in lower case": (rewritten(dataset(TWELVE, **WINDOW, VOILUTFunction="SIGMOID"), (b"SIGMOID ", b"sigmoid ")), dataset(TWELVE, **WINDOW, VOILUTFunction="SIGMOID"), None),
    "values of odd length": (odd_lengths(dataset(TWELVE)), PLAIN, []),
    "group lengths, all wrong": (with_elements(dataset(TWELVE, **WINDOW), (0x00080000, "UL", 9999), (0x00280000, "UL", 1), (0x7FE00000, "UL", 0)), WINDOWED, BY_WINDOW),
    "blocks of a vendor": (many_private(dataset(TWELVE)), PLAIN, []),
    "blocks of a vendor, implicit": (many_private(dataset(TWELVE, syntax=uid.ImplicitVRLittleEndian)), PLAIN, []),
    "a sequence of unknown kind": (unknown_sequence(dataset(TWELVE)), PLAIN, []),
    "padding behind the data set": (with_elements(dataset(TWELVE), (0xFFFCFFFC, "OB", bytes(300))), PLAIN, []),
    "digital signature behind the pixels": (dicom_bytes(PLAIN) + b"\xfa\xff\xfa\xffSQ\0\0\0\0\0\0", PLAIN, []),
    # what is not said
    "empty window": (dataset(TWELVE, WindowCenter="", WindowWidth="", VOILUTFunction=""), PLAIN, []),
    "empty rescale": (dataset(TWELVE, RescaleSlope="", RescaleIntercept=""), PLAIN, []),
    "empty shape and number of frames": (dataset(TWELVE, PresentationLUTShape="", NumberOfFrames=""), PLAIN, []),
    "empty padding value": (with_elements(dataset(TWELVE), (0x00280120, "US", None), (0x00280121, "US", None)), PLAIN, []),
    "empty sequences": (dataset(TWELVE, VOILUTSequence=Sequence([]), ModalityLUTSequence=Sequence([])), PLAIN, []),
    "a VOI LUT without content": (dataset(TWELVE, VOILUTSequence=Sequence([Dataset()]), **WINDOW), WINDOWED, BY_WINDOW),
    "a width alone": (dataset(TWELVE, WindowWidth="500"), PLAIN, []),
    "no high bit": (without(dataset(ramp(16), 16), "HighBit"), dataset(ramp(16), 16), []),
    "no bits stored": (without(dataset(ramp(16), 16), "BitsStored", "HighBit"), dataset(ramp(16), 16), None),
    "no samples per pixel": (without(dataset(TWELVE), "SamplesPerPixel"), PLAIN, []),
    "no pixel representation": (without(dataset(TWELVE), "PixelRepresentation"), PLAIN, None),
    "number of frames 1": (dataset(TWELVE, NumberOfFrames="1"), PLAIN, []),
    "number of frames 0": (dataset(TWELVE, NumberOfFrames="0"), PLAIN, []),
    # bits
    "an overlay in an unused bit": (overlay_in_bit_12(TWELVE), PLAIN, ["-O"]),
    "values beyond the bits stored": (dataset(ramp(14), 16, BitsStored=12, HighBit=11), full_range(12)[ramp(14) & 0xFFF], []),
    "12 bits that are said to be 16": (dataset(TWELVE, 16), full_range(16)[TWELVE], []),
    "10 bits above 2 others": (dataset(TWELVE, 16, BitsStored=10, HighBit=11), full_range(10)[TWELVE >> 2], []),
    "Rows and bits as other kinds of number": (with_elements(without(dataset(TWELVE), "Rows", "BitsStored"), ("Rows", "UL", HEIGHT), ("BitsStored", "SS", 12)), PLAIN, None),
    "a last byte that is not 0": (rewritten(dataset(ramp(8), 8), (ramp(8).astype("u1").tobytes()[-9:] + b"\0", ramp(8).astype("u1").tobytes()[-9:] + b"\x20")), dataset(ramp(8), 8), []),
    # windows
    "width 1": (dataset(TWELVE, WindowCenter="2000", WindowWidth="1"), (TWELVE > 1999.5) * 255, BY_WINDOW),
    "width below 1": (dataset(TWELVE, WindowCenter="2000", WindowWidth="0.5"), PLAIN, []),
    "negative width": (dataset(TWELVE, WindowCenter="2000", WindowWidth="-400"), PLAIN, []),
    "a window far above the pixels": (dataset(TWELVE, WindowCenter="40000", WindowWidth="65535"), by_table(TWELVE, 12, voi=Window(40000, 65535)), BY_WINDOW),
    "a window of 12 bits over 8": (dataset(ramp(8), 8, WindowCenter="2048", WindowWidth="4096"), by_table(ramp(8), 8, voi=Window(2048, 4096)), BY_WINDOW),
    "a window that begins below 0": (dataset(TWELVE, WindowCenter="-100", WindowWidth="3000"), by_table(TWELVE, 12, voi=Window(-100, 3000)), BY_WINDOW),
    "numbers with signs and exponents": (dataset(TWELVE, WindowCenter="+1.5E+03", WindowWidth=" 2000. "), WINDOWED, BY_WINDOW),
    "a window as IS": (with_elements(dataset(TWELVE), ("WindowCenter", "IS", "1500"), ("WindowWidth", "IS", "2000")), WINDOWED, None),
    "a window as text": (with_elements(dataset(TWELVE), ("WindowCenter", "LO", "1500"), ("WindowWidth", "SH", "2000")), WINDOWED, None),
    # rescale
    "signed, slope below 0": (dataset(ramp(14, True), 14, signed=True, RescaleSlope="-1", RescaleIntercept="100"), full_range(14)[::-1][ramp(14)], []),
    "signed, slope below 0, window": (dataset(ramp(14, True), 14, signed=True, RescaleSlope="-1", RescaleIntercept="100", WindowCenter="100", WindowWidth="5000"), by_table(ramp(14, True), 14, signed=True, modality=(-1.0, 100.0), voi=Window(100, 5000)), BY_WINDOW),
    "slope 0": (dataset(TWELVE, RescaleSlope="0", RescaleIntercept="7", **WINDOW), WINDOWED, BY_WINDOW),
    "slope 16 to the range of 16 bits": (dataset(TWELVE, RescaleSlope="16", RescaleIntercept="0", WindowCenter="32768", WindowWidth="65536"), np.clip(np.rint(TWELVE * 16 / 65535 * 255), 0, 255), BY_WINDOW),
    "a modality LUT beside a rescale": (dataset(TWELVE, RescaleSlope="3", RescaleIntercept="7", ModalityLUTSequence=lut(root_curve(4096, 12))), by_curve(TWELVE), []),
    "a modality LUT of signed values": (dataset(ramp(12, True), signed=True, ModalityLUTSequence=lut_sequence(root_curve(4096, 12), -2048, 12, vr="SS")), by_curve(TWELVE), []),
    "both kinds of LUT": (dataset(TWELVE, ModalityLUTSequence=lut(np.arange(4096) // 2, bits=11), VOILUTSequence=lut(root_curve(2048, 12))), by_curve(TWELVE // 2, 2048), BY_LUT),
    # VOI LUTs
    "several VOI LUTs": (dataset(TWELVE, VOILUTSequence=several_luts()), by_curve(TWELVE), BY_LUT),
    "a VOI LUT of 65,536 entries": (dataset(ramp(16), 16, VOILUTSequence=lut(root_curve(65536, 12))), by_curve(ramp(16), 65536), BY_LUT),
    "a VOI LUT longer than the pixels": (dataset(TWELVE, VOILUTSequence=lut(root_curve(65536, 12))), by_curve(TWELVE, 65536), BY_LUT),
    "a VOI LUT of 8 bits in words": (dataset(ramp(8), 8, VOILUTSequence=words_of_8_bits()), by_curve(ramp(8), 256, 8), BY_LUT),
    "a VOI LUT of 12 bits over 8": (dataset(ramp(8), 8, VOILUTSequence=lut(root_curve(256, 12))), by_curve(ramp(8), 256), BY_LUT),
    "a VOI LUT said to be of 16 bits": (dataset(TWELVE, VOILUTSequence=lut(root_curve(4096, 12), bits=16)), np.rint(root_curve(4096, 12)[TWELVE] * 255 / 65535), BY_LUT),
    "a VOI LUT said to be of 10 bits": (dataset(TWELVE, VOILUTSequence=lut(root_curve(4096, 12), bits=10)), by_curve(TWELVE), None),
    "a VOI LUT one entry short": (dataset(TWELVE, VOILUTSequence=lut(root_curve(4096, 12)[:4095], 4096)), by_curve(np.minimum(TWELVE, 4094)), BY_LUT),
    "a VOI LUT one entry long": (dataset(TWELVE, VOILUTSequence=lut([*root_curve(4096, 12), 4095], 4096)), by_curve(TWELVE), BY_LUT),
    "a falling VOI LUT": (dataset(TWELVE, VOILUTSequence=lut(root_curve(4096, 12)[::-1])), np.rint(root_curve(4096, 12)[::-1][TWELVE] * 255 / 4095), BY_LUT),
    # polarity
    "MONOCHROME1, shape INVERSE, VOI LUT": (dataset(TWELVE, photometric="MONOCHROME1", PresentationLUTShape="INVERSE", VOILUTSequence=lut(root_curve(4096, 12))), 255 - by_curve(TWELVE), BY_LUT),
    "MONOCHROME1, shape INVERSE, window, rescale of nothing": (dataset(TWELVE, photometric="MONOCHROME1", PresentationLUTShape="INVERSE", RescaleSlope="1", RescaleIntercept="0", RescaleType="US", **WINDOW), 255 - by_table(TWELVE, 12, voi=Window(1500, 2000)).astype(int), BY_WINDOW),
    "MONOCHROME1, sigmoid": (dataset(TWELVE, photometric="MONOCHROME1", VOILUTFunction="SIGMOID", **WINDOW), 255 - by_table(TWELVE, 12, voi=Window(1500, 2000, "SIGMOID")).astype(int), BY_WINDOW),
    # padding
    "a range of padding": (dataset(np.where(TWELVE < 300, TWELVE % 5, TWELVE), PixelPaddingValue=0, PixelPaddingRangeLimit=4), np.where(TWELVE < 300, 0, full_range(12)[TWELVE]), []),
    "padding above the picture, MONOCHROME1": (dataset(np.where(TWELVE > 4000, 4095, TWELVE), photometric="MONOCHROME1", PixelPaddingValue=4095), np.where(TWELVE > 4000, 0, 255 - full_range(12)[TWELVE].astype(int)), []),
    "padding below 0, implicit": (dataset(np.where(TWELVE < 300, -2000, TWELVE), 16, signed=True, syntax=uid.ImplicitVRLittleEndian, PixelPaddingValue=-2000, **WINDOW), np.where(TWELVE < 300, 0, by_table(TWELVE, 12, voi=Window(1500, 2000))), BY_WINDOW),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_header_leaves_the_picture_as_it_is(tmp_path, name):
    odd, twin, _ = ODD[name]
    expected = read_grey(save(tmp_path / "twin.dcm", twin)) if isinstance(twin, Dataset) else twin
    path = save(tmp_path / "odd.dcm", odd)
    assert np.array_equal(read_grey(path), expected)
    assert read_square(path, 24)[1] == (HEIGHT, WIDTH)


@pytest.mark.skipif(DCMTK is None, reason="dcmj2pnm of dcmtk is not installed (Debian: apt-get install dcmtk)")
@pytest.mark.parametrize("name", [name for name, (*_, options) in ODD.items() if options is not None])
def test_an_odd_header_gives_the_picture_that_dcmtk_shows(tmp_path, name):
    odd, _, options = ODD[name]
    path = save(tmp_path / "odd.dcm", odd)
    subprocess.run([DCMTK, "-q", "+op", *options, path, tmp_path / "a.pgm"], check=True)
    with Image.open(tmp_path / "a.pgm") as image:
        assert np.abs(read_grey(path).astype(int) - np.array(image)).max() <= 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: dataset(TWELVE, VOILUTSequence=lut(root_curve(2048, 12), 4096)), "LUTData of 4096 bytes; expected 4096 entries"),
        (lambda: with_elements(dataset(TWELVE), ("WindowCenter", "FD", 1500.0), ("WindowWidth", "FD", 9.0)), "WindowCenter is .*; expected a number"),
        (lambda: dataset(TWELVE, NumberOfFrames="2"), "a DICOM of 2 frames"),
        (lambda: dataset(TWELVE, 16, BitsStored=12, HighBit=10), "12 stored, high bit 10"),
        (lambda: with_elements(without(dataset(TWELVE), "Rows"), ("Rows", "IS", "37")), "3774 bytes of pixel data; expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_out_is_refused_in_words(tmp_path, make, reason):
    with pytest.raises(UnreadableImage, match=reason):
        read_grey(save(tmp_path / "a.dcm", make()))


# --- JPEG 2000 ------------------------------------------------------------------------------------------------------

# Ramps over the whole range, 16 x 16, by OpenJPEG's opj_compress; Pillow writes neither signed nor 12 bits.
FRAMES = {
    (12, False): base64.b85decode(
    b'|4;u>04V?f0000G0000G00000000000000G0000G0000000000009dD0sm3}3;+NC0RRC61ONg5TmT0^U}$J?|BwI*000000E7Sm'
    b'|C8V0KoTrMr<awnLk`v`K%H^CZ7uptdy*pscd(>A#b^q^ps=@Eb?g<m)eU;LTE1g-J645v>SKE#DkI}wwrz3y2JG#&&>%~!HrXIm'
    b'=wsrtBfuXxct0@M01|*Up_#^f>RUagG+@CsumCL=V#&WZQ8Ukf|Je'
    ),
    (14, True): base64.b85decode(
    b'|4;u>04V?f0000G0000G00000000000000G0000G000000000000E5w0sm3}3;+NC0RRC61ONg5TmT0^aCmrt|BwI*000000G9v('
    b'|C8VNGXN4SLZ_FNu|p2lC_tTYylpM|OnZ_P@PucOdx=u}U1Hc%tvd~3N3B&>t=6xi{FJi@=qC_^k+$ttTT-pDOtQMSih=;B0ssJg'
    b'Eu)-&kIP5MU|M&z=0$|9rPaOGyjj2>XmlUQTmS+fHldl(xMl;jst>#73$Hz<G+@CsumGP3`x#&V*#'
    ),
}  # fmt: skip


def ramp_of(side, bits, signed):
    low = -(2 ** (bits - 1)) if signed else 0
    return np.linspace(low, low + 2**bits - 1, side * side).round().astype(np.int64).reshape(side, side)


@pytest.mark.parametrize(("bits", "signed"), FRAMES)
@pytest.mark.parametrize("elements", [{}, {"WindowCenter": "-300", "WindowWidth": "2500", "RescaleSlope": "1", "RescaleIntercept": "-1024"}])  # fmt: skip
def test_jpeg_2000_of_any_depth_and_sign_equals_native(tmp_path, bits, signed, elements):
    values = ramp_of(16, bits, signed)
    native = read_grey(save(tmp_path / "a.dcm", dataset(values, bits, signed=signed, **elements)))
    packed = compressed(dataset(values, bits, signed=signed, **elements), uid.JPEG2000Lossless, FRAMES[bits, signed])
    assert np.array_equal(read_grey(save(tmp_path / "b.dcm", packed)), native)


def test_unsigned_jpeg_2000_under_a_signed_header_is_taken_for_its_bits(tmp_path):
    """Encoders that know no sign get signed pixels as bits; pydicom reads them so too."""
    values = ramp_of(16, 12, False)
    signed = np.where(values < 2048, values, values - 4096)
    packed = compressed(dataset(signed, signed=True), uid.JPEG2000Lossless, FRAMES[12, False])
    native = read_grey(save(tmp_path / "a.dcm", dataset(signed, signed=True)))
    assert np.array_equal(read_grey(save(tmp_path / "b.dcm", packed)), native)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000_by_openjpeg_equals_native(tmp_path, bits, signed):
    if shutil.which("opj_compress") is None:
        pytest.skip("opj_compress is not installed (Debian: apt-get install libopenjp2-tools)")
    values = ramp_of(48, bits, signed)
    depth = 1 if bits == 8 else 2
    (tmp_path / "a.raw").write_bytes(values.astype(f">{'i' if signed else 'u'}{depth}").tobytes())
    form = f"48,48,1,{bits},{'s' if signed else 'u'}"
    command = ["opj_compress", "-i", tmp_path / "a.raw", "-o", tmp_path / "a.j2k", "-F", form]
    subprocess.run(command, check=True, capture_output=True)
    frame = (tmp_path / "a.j2k").read_bytes()
    packed = compressed(dataset(values, bits, signed=signed), uid.JPEG2000Lossless, frame)
    native = read_grey(save(tmp_path / "a.dcm", dataset(values, bits, signed=signed)))
    assert np.array_equal(read_grey(save(tmp_path / "b.dcm", packed)), native)


@pytest.mark.parametrize(("mct", "photometric"), [(1, "YBR_RCT"), (0, "RGB")])
def test_jpeg_2000_of_a_film_is_its_luma(tmp_path, mct, photometric):
    frame = jpeg(colours(), format="JPEG2000", no_jp2=True, mct=mct)
    packed = compressed(dataset(colours(), 8, photometric=photometric), uid.JPEG2000Lossless, frame)
    luma = np.array(Image.fromarray(colours()).convert("L"))
    assert np.array_equal(read_grey(save(tmp_path / "a.dcm", packed)), luma)


def test_jpeg_2000_that_loses_a_little_stays_near(tmp_path):
    values = ramp(8).astype(np.uint8)
    frame = jpeg(values, format="JPEG2000", no_jp2=True, irreversible=True, quality_mode="dB", quality_layers=[45])
    packed = compressed(dataset(values, 8), uid.JPEG2000, frame)
    assert np.abs(read_grey(save(tmp_path / "a.dcm", packed)).astype(int) - values).max() <= 6


# --- other compression without loss ---------------------------------------------------------------------------------

# The same ramp of some bits by dcmtk's dcmcjpeg and dcmcjpls.
LOSSLESS = {
    (uid.JPEGLosslessSV1, 8): base64.b85decode(
        b'|JeWF01!$>Nk#wx0RR9200961|HA+a2mlZO5CH)Z0RO}Q761VO0RR910000000000000362>;pu2mt{A0RRBc>Z+=$&{b7cR)VUk'
        b's<ahVRaKy>s;aF8RaI4JDypihK~+^%S_-PFs?b$cRaSzks;aaVRaI4>s;a831yxm5Xez3zt3g#&RbT(v'
    ),
    (uid.JPEGLosslessSV1, 12): base64.b85decode(
        b'|JeWF01!$>Nk#wx0RR9200961|HA+a5C9MW5CH)Z0RO}Q761VO0RR910000000000000FE5dYc$2mt{A0RRBVAc6=Wf(W332q1+4'
        b'K?D#%1Q0<K5J3be3J4&A2q1z8B7z7ZKu|#h5J3bGK?G1i3Ic)%Ac6=Wf(Rgr2v8IdK?D#%1Q0<45ki2Vf(Rgj2q1z8Ac8an1Q0<4'
        b'5J3bGK?D$>C?J9eAc6=Wf(Rgm07V24K?D#%1Q0<4C<+Lmf(Rgj2q1z8AwW<;6c9lK5J3bGK?(wb2qJ<AAc6=Wf(TF)5J3b`K?D#%'
        b'1Q0@ipn?b>iU=Tr2q1zK1q2X51Q9_55J3bG|Je'
    ),
    (uid.JPEGLSLossless, 12): base64.b85decode(
        b'|JeWc01FTR5C9MX0TBTI_y7$7|Nj6I07C&306_oR00;pA00000p!^?$@OB%6@OB%9;_+CVMm{$ILI^z$Ls5vdQY9fF85I>32rv{x'
        b'L_{=b(W6F*8YD=NdjLd<5+q2GAwq=|kwp$)=%R`!qKYV@iYX$7zsRDBD58oeqKXJ2jDJu<5QHHJLJ))_AH*RDLJ))@2tpB0+7N^x'
        b'5fKp)5iiQ3A|fIpA|gZbiin7ai6oKVgqletl1Ul&Ni>p4B%?mcrBzi$eN|Gbs*3t5=lnqb|Je'
    ),
}  # fmt: skip


@pytest.mark.parametrize(("syntax", "bits"), LOSSLESS)
def test_lossless_frames_equal_native_or_are_refused_with_what_to_install(tmp_path, syntax, bits):
    values = ramp_of(16, bits, False)
    native = read_grey(save(tmp_path / "a.dcm", dataset(values, bits)))
    path = save(tmp_path / "b.dcm", compressed(dataset(values, bits), syntax, LOSSLESS[syntax, bits]))
    by_pillow = bits == 8 and int((features.version("libjpeg_turbo") or "0").split(".")[0]) >= 3
    if by_pillow or get_decoder(syntax).is_available:
        assert np.array_equal(read_grey(path), native)
    else:
        with pytest.raises(UnreadableImage, match=r"needs a decoder that is not installed: pip install py\S+$"):
            read_grey(path)
