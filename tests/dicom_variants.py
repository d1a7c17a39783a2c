"""What vendors write: files, the picture to be seen, and what makes dcmtk show the same view."""

import base64
import io

import numpy as np
from dicom_files import (
    HEIGHT,
    WIDTH,
    claiming,
    colours,
    compressed,
    dataset,
    lut,
    palette,
    picture,
    ramp,
    rewritten,
    root_curve,
    with_elements,
    without,
    without_preamble,
)
from PIL import Image
from pydicom import uid

from cxr.reading.greyscale import GreyScale, Window

TWELVE, EIGHT = ramp(12), ramp(8).astype(np.uint8)
WINDOW = {"WindowCenter": "1500", "WindowWidth": "2000"}
SEEN = GreyScale(12, voi=Window(1500, 2000)).table()[TWELVE]
BY_WINDOW, BY_LUT, COLOUR = ["+Wi", "1"], ["+Wl", "1"], ["+G"]
PLAIN, CURVE = GreyScale(12).table()[TWELVE], root_curve(4096, 12)

# A 16 x 16 ramp over the whole range by OpenJPEG's opj_compress; Pillow writes neither signed nor 12 bits.
J2K_SIGNED_14 = base64.b85decode(
    b"|4;u>04V?f0000G0000G00000000000000G0000G000000000000E5w0sm3}3;+NC0RRC61ONg5TmT0^aCmrt|BwI*000000G9v("
    b"|C8VNGXN4SLZ_FNu|p2lC_tTYylpM|OnZ_P@PucOdx=u}U1Hc%tvd~3N3B&>t=6xi{FJi@=qC_^k+$ttTT-pDOtQMSih=;B0ssJg"
    b"Eu)-&kIP5MU|M&z=0$|9rPaOGyjj2>XmlUQTmS+fHldl(xMl;jst>#73$Hz<G+@CsumGP3`x#&V*#"
)
# A 16 x 16 ramp of 12 bits by dcmtk's dcmcjpeg and dcmcjpls.
LOSSLESS = {
    uid.JPEGLosslessSV1: base64.b85decode(
        b'|JeWF01!$>Nk#wx0RR9200961|HA+a5C9MW5CH)Z0RO}Q761VO0RR910000000000000FE5dYc$2mt{A0RRBVAc6=Wf(W332q1+4'
        b'K?D#%1Q0<K5J3be3J4&A2q1z8B7z7ZKu|#h5J3bGK?G1i3Ic)%Ac6=Wf(Rgr2v8IdK?D#%1Q0<45ki2Vf(Rgj2q1z8Ac8an1Q0<4'
        b'5J3bGK?D$>C?J9eAc6=Wf(Rgm07V24K?D#%1Q0<4C<+Lmf(Rgj2q1z8AwW<;6c9lK5J3bGK?(wb2qJ<AAc6=Wf(TF)5J3b`K?D#%'
        b'1Q0@ipn?b>iU=Tr2q1zK1q2X51Q9_55J3bG|Je'
    ),
    uid.JPEGLSLossless: base64.b85decode(
        b'|JeWc01FTR5C9MX0TBTI_y7$7|Nj6I07C&306_oR00;pA00000p!^?$@OB%6@OB%9;_+CVMm{$ILI^z$Ls5vdQY9fF85I>32rv{x'
        b'L_{=b(W6F*8YD=NdjLd<5+q2GAwq=|kwp$)=%R`!qKYV@iYX$7zsRDBD58oeqKXJ2jDJu<5QHHJLJ))_AH*RDLJ))@2tpB0+7N^x'
        b'5fKp)5iiQ3A|fIpA|gZbiin7ai6oKVgqletl1Ul&Ni>p4B%?mcrBzi$eN|Gbs*3t5=lnqb|Je'
    ),
}  # fmt: skip


def rle(ds):
    ds.compress(uid.RLELossless, encoding_plugin="pydicom")
    return ds


def swapped_words():
    ds = dataset(EIGHT, 8, syntax=uid.ExplicitVRBigEndian)
    ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def in_planes():
    ds = dataset(colours(), 8, photometric="RGB", PlanarConfiguration=1)
    ds.PixelData = np.moveaxis(colours(), -1, 0).tobytes() + b"\0"
    return ds


def halved_chroma():
    halved = np.ascontiguousarray(colours()[:, : WIDTH // 2 * 2])
    pairs = halved.reshape(-1, 2, 3)
    ds = dataset(halved, 8, photometric="YBR_FULL_422")
    ds.PixelData = np.concatenate([pairs[:, :, 0], pairs[:, 0, 1:]], axis=1).tobytes()
    doubled = np.concatenate([pairs[:, :, :1], pairs[:, :1, 1:].repeat(2, axis=1)], axis=2).reshape(halved.shape)
    return ds, luma(doubled, "YCbCr")


def luma(pixels, mode="RGB"):
    height, width = pixels.shape[:2]
    return np.array(Image.frombytes(mode, (width, height), pixels.tobytes()).convert("RGB").convert("L"))


def overlay_in_bit_12():
    ds = dataset(TWELVE | np.where(TWELVE % 3 == 0, 0x1000, 0), 16, BitsStored=12, HighBit=11)
    group = ((0x10, "US", HEIGHT), (0x11, "US", WIDTH), (0x40, "CS", "G"), (0x50, "SS", [1, 1]), (0x100, "US", 16), (0x102, "US", 12))  # fmt: skip
    return with_elements(ds, *((0x60000000 | number, vr, value) for number, vr, value in group))


def table(values, bits, **scale):
    return GreyScale(bits, **scale).table()[values & (2**bits - 1)]


def curved(values, count=4096, bits=12):
    return np.rint(root_curve(count, bits)[values] * 255 / (2**bits - 1))


def twelve(**elements):
    return dataset(TWELVE, **elements)


jpeg = picture(EIGHT, quality=95)
with Image.open(io.BytesIO(jpeg)) as _image:
    DECODED = np.array(_image)
j2k = picture(EIGHT, format="JPEG2000", no_jp2=True)
signed14 = ramp(14, True)

VARIANTS = {
    # depths, signs and bits
    **{f"{bits} bits": (dataset(ramp(bits), bits), GreyScale(bits).table()[ramp(bits)], []) for bits in (8, 12, 15, 16)},
    **{f"{bits} bits signed": (dataset(ramp(bits, True), bits, signed=True), GreyScale(bits).table()[ramp(bits)], []) for bits in (8, 16)},
    "10 bits above 2 others": (dataset(TWELVE, 16, BitsStored=10, HighBit=11), GreyScale(10).table()[TWELVE >> 2], []),
    "12 bits signed, not extended": (dataset(ramp(12, True) & 0xFFF, 16, BitsStored=12, HighBit=11, PixelRepresentation=1), PLAIN, []),
    "an overlay in an unused bit": (overlay_in_bit_12(), PLAIN, ["-O"]),
    "Rows and bits as other kinds of number": (with_elements(without(twelve(), "Rows", "BitsStored"), ("Rows", "UL", HEIGHT), ("BitsStored", "SS", 12)), PLAIN, None),
    # polarity
    "MONOCHROME1": (dataset(EIGHT, 8, photometric="MONOCHROME1"), 255 - EIGHT, []),
    "MONOCHROME1 and a VOI LUT": (twelve(photometric="MONOCHROME1", PresentationLUTShape="INVERSE", VOILUTSequence=lut(CURVE)), 255 - curved(TWELVE), BY_LUT),
    "MONOCHROME2 shape INVERSE": (twelve(PresentationLUTShape="INVERSE"), 255 - PLAIN, []),
    # rescaling and windows
    "rescale, slope below 0": (dataset(signed14, 14, signed=True, RescaleSlope="-1", RescaleIntercept="100"), GreyScale(14).table()[::-1][ramp(14)], []),
    "rescale and window": (twelve(RescaleSlope="2", RescaleIntercept="-1024", WindowCenter="1000", WindowWidth="3000"), table(TWELVE, 12, modality=(2.0, -1024.0), voi=Window(1000, 3000)), BY_WINDOW),
    "slope 0": (twelve(RescaleSlope="0", RescaleIntercept="7", **WINDOW), SEEN, BY_WINDOW),
    "window LINEAR_EXACT": (twelve(VOILUTFunction="LINEAR_EXACT", **WINDOW), table(TWELVE, 12, voi=Window(1500, 2000, "LINEAR_EXACT")), None),
    "several windows": (twelve(WindowCenter=["1500", "3000"], WindowWidth=["2000", "90"]), SEEN, BY_WINDOW),
    "window of no width": (twelve(WindowCenter="0", WindowWidth="0"), PLAIN, []),
    "width 1": (twelve(WindowCenter="2000", WindowWidth="1"), (TWELVE > 1999.5) * 255, BY_WINDOW),
    "numbers with signs and exponents": (twelve(WindowCenter="+1.5E+03", WindowWidth=" 2000. "), SEEN, BY_WINDOW),
    # lookup tables
    **{f"VOI LUT of {bits} bits": (twelve(VOILUTSequence=lut(root_curve(4096, bits), bits=bits)), curved(TWELVE, 4096, bits), BY_LUT) for bits in (8, 12, 16)},
    "VOI LUT from 1000": (twelve(VOILUTSequence=lut(root_curve(2000, 12), first=1000)), curved(np.clip(TWELVE - 1000, 0, 1999), 2000), BY_LUT),
    "VOI LUT packed in bytes": (dataset(EIGHT, 8, VOILUTSequence=lut(root_curve(256, 8).astype(np.uint8), bits=8)), curved(EIGHT, 256, 8), BY_LUT),
    "VOI LUT of signed values": (dataset(ramp(12, True), signed=True, VOILUTSequence=lut(CURVE, first=-2048, vr="SS")), curved(TWELVE), BY_LUT),
    "VOI LUT one entry short": (twelve(VOILUTSequence=lut(CURVE[:4095], 4096)), curved(np.minimum(TWELVE, 4094)), BY_LUT),
    "modality LUT": (twelve(ModalityLUTSequence=lut(CURVE)), curved(TWELVE), []),
    "both kinds of LUT": (twelve(ModalityLUTSequence=lut(np.arange(4096) // 2, bits=11), VOILUTSequence=lut(root_curve(2048, 12))), curved(TWELVE // 2, 2048), BY_LUT),
    # padding
    "a range of padding": (dataset(np.where(TWELVE < 300, TWELVE % 5, TWELVE), PixelPaddingValue=0, PixelPaddingRangeLimit=4), np.where(TWELVE < 300, 0, PLAIN), []),
    "padding above the picture, MONOCHROME1": (dataset(np.where(TWELVE > 4000, 4095, TWELVE), photometric="MONOCHROME1", PixelPaddingValue=4095), np.where(TWELVE > 4000, 0, 255 - PLAIN), []),
    "padding below 0, implicit": (dataset(np.where(TWELVE < 300, -2000, TWELVE), 16, signed=True, syntax=uid.ImplicitVRLittleEndian, PixelPaddingValue=-2000, **WINDOW), np.where(TWELVE < 300, 0, SEEN), BY_WINDOW),
    # how it is written
    "Big Endian": (twelve(syntax=uid.ExplicitVRBigEndian, **WINDOW), SEEN, BY_WINDOW),
    "Big Endian 8 bits in words": (swapped_words(), EIGHT, []),
    "Deflated": (twelve(syntax=uid.DeflatedExplicitVRLittleEndian, **WINDOW), SEEN, BY_WINDOW),
    "no preamble, implicit": (without_preamble(twelve(syntax=uid.ImplicitVRLittleEndian)), PLAIN, []),
    "transfer syntax says implicit, data are explicit": (claiming(twelve(), "1.2.840.10008.1.2"), PLAIN, None),
    "photometric interpretation in lower case": (rewritten(twelve(), (b"MONOCHROME2 ", b"monochrome2 ")), PLAIN, []),
    "nothing stated that can be left out": (without(dataset(ramp(16), 16, NumberOfFrames=""), "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"), GreyScale(16).table()[ramp(16)], None),
    # compression
    "RLE of 16 bits signed": (rle(dataset(ramp(16, True), 16, signed=True)), GreyScale(16).table()[ramp(16)], []),
    "JPEG Baseline": (compressed(dataset(EIGHT, 8), uid.JPEGBaseline8Bit, jpeg), DECODED, []),
    "JPEG Baseline with a window": (compressed(dataset(EIGHT, 8, WindowCenter="120", WindowWidth="150"), uid.JPEGBaseline8Bit, jpeg), table(DECODED, 8, voi=Window(120, 150)), BY_WINDOW),
    "JPEG Baseline in three fragments": (compressed(dataset(EIGHT, 8), uid.JPEGBaseline8Bit, jpeg, fragments_per_frame=3), DECODED, []),
    "JPEG 2000 of 8 bits": (compressed(dataset(EIGHT, 8), uid.JPEG2000Lossless, j2k), EIGHT, None),
    "JPEG 2000 of 14 bits signed": (compressed(dataset(ramp(14, True, 16, 16), 14, signed=True), uid.JPEG2000Lossless, J2K_SIGNED_14), GreyScale(14).table()[ramp(14, False, 16, 16)], None),
    # colour
    "RGB in planes": (in_planes(), luma(colours()), COLOUR),
    "RGB in JPEG 2000": (compressed(dataset(colours(), 8, photometric="YBR_RCT"), uid.JPEG2000Lossless, picture(colours(), format="JPEG2000", no_jp2=True, mct=1)), luma(colours()), None),
    "YBR_FULL_422": (*halved_chroma(), None),
    "YBR_FULL_422 in JPEG": (compressed(dataset(colours(), 8, photometric="YBR_FULL_422"), uid.JPEGBaseline8Bit, picture(colours(), quality=100, subsampling=0)), luma(colours()), COLOUR),
    "PALETTE COLOR": (dataset(EIGHT, 8, photometric="PALETTE COLOR", **palette(16)), np.rint(np.stack([np.roll(np.arange(256), 60 * n) for n in range(3)], -1) @ [0.299, 0.587, 0.114])[EIGHT], COLOUR),
}  # fmt: skip
