import io
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, features
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from cxr.reading import UnreadableImage, dicom, dicom_elements, read_grey, read_square
from cxr.reading.greyscale import GreyScale, Lut, Window, full_range, look_up

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CXR_DATA", ROOT.parent / "shared" / "data"))
DCMTK = shutil.which("dcmj2pnm")

HEIGHT, WIDTH = 37, 51  # odd, so that rows and lengths need padding


def ramp(bits, signed=False):
    """int64 [H, W]: from the lowest to the highest value of ``bits``, row by row."""
    low = -(2 ** (bits - 1)) if signed else 0
    return np.linspace(low, low + 2**bits - 1, HEIGHT * WIDTH).round().astype(np.int64).reshape(HEIGHT, WIDTH)


def colours():
    """uint8 [H, W, 3]: patches of 5 x 5 pixels, each of one colour."""
    patches = np.random.default_rng(3).integers(0, 256, (8, 11, 3), dtype=np.uint8)
    return np.ascontiguousarray(patches.repeat(5, 0).repeat(5, 1)[:HEIGHT, :WIDTH])


def dataset(
    pixels,
    bits=12,
    *,
    allocated=None,
    signed=False,
    photometric="MONOCHROME2",
    syntax=uid.ExplicitVRLittleEndian,
    **elements,
):
    """A computed radiograph of these stored values, with the ``elements`` on top."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.ComputedRadiographyImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3.4.5"
    ds.Modality, ds.PatientName = "CR", "Nobody^Here"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = allocated or (8 if bits <= 8 else 16)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    data = pixels.astype(f"{order}{'i' if signed else 'u'}{ds.BitsAllocated // 8}").tobytes()
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


def compressed(ds, syntax, frame):
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(frame if isinstance(frame, list) else [frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def dicom_bytes(ds):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def save(path, ds):
    path.write_bytes(ds if isinstance(ds, bytes) else dicom_bytes(ds))
    return path


def without_preamble(ds, *, keep_meta=False):
    content = dicom_bytes(ds)
    meta_bytes = struct.unpack("<I", content[140:144])[0]
    return content[132:] if keep_meta else content[144 + meta_bytes :]


def jpeg(values, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, options.pop("format", "JPEG"), **options)
    return buffer.getvalue()


def lut_sequence(entries, first, bits, *, vr="US", packed=False):
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 2**16, first, bits])
    entries = np.asarray(entries)
    if packed:
        item.add_new("LUTData", "OW", entries.astype("u1").tobytes())
    elif len(entries) * 2 < 2**16:
        item.add_new("LUTData", "US", entries.tolist())
    else:
        item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def root_curve(count, bits):
    """[count] integers that rise fast and then slowly over the range of ``bits``."""
    return (np.sqrt(np.arange(count) / (count - 1)) * (2**bits - 1)).astype(int)


# --- worked numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "stored", "grey"),
    [
        # DICOM PS3.3 C.11.2.1.2.1: c 2048, w 4096 is x <= 0, x > 4095, else (x - 2047.5) / 4095 + 0.5
        (Window(2048, 4096), [0, 1, 2047, 2048, 4094, 4095], [0, 0, 127, 128, 255, 255]),
        # c 100, w 51: from 74.5 (black) to 124.5 (white), 50 wide; at 87 a quarter of 255
        (Window(100, 51), [74, 75, 87, 99, 100, 124, 125, 4095], [0, 3, 64, 125, 130, 252, 255, 255]),
        # c 2048, w 1: a threshold at 2047.5
        (Window(2048, 1), [2047, 2048], [0, 255]),
        # c 2048.5, w 1: the threshold itself, 2048, is black still
        (Window(2048.5, 1), [2048, 2049], [0, 255]),
        # C.11.2.1.3.2: c 100, w 50 is x <= 75, x > 125, else (x - 100) / 50 + 0.5
        (Window(100, 50, "LINEAR_EXACT"), [75, 76, 90, 100, 110, 125, 126], [0, 5, 76, 128, 178, 255, 255]),
        # C.11.2.1.3.1: c 100, w 50 is 1 / (1 + exp(-4 (x - 100) / 50)); e^-2 is 0.1353, e^-4 is 0.0183
        (Window(100, 50, "SIGMOID"), [50, 75, 100, 125, 150, 4095], [5, 30, 128, 225, 250, 255]),
    ],
)
def test_windows_follow_the_formulas_of_the_standard(window, stored, grey):
    table = GreyScale(12, voi=window).table()
    assert table[stored].tolist() == grey


def test_a_lut_holds_its_ends_and_reads_signed_values_from_its_first():
    entries = np.array([0, 15, 60, 255], np.uint16)
    table = GreyScale(8, signed=True, voi=Lut(-2, entries, 8)).table()
    values = {-128: 0, -3: 0, -2: 0, -1: 15, 0: 60, 1: 255, 2: 255, 127: 255}
    assert {value: int(table[value % 256]) for value in values} == values


def test_modality_comes_before_voi():
    # stored 1000 is 1000 * 2 - 500 = 1500, the centre of a window from 1000.5 to 1999.5
    table = GreyScale(12, modality=(2.0, -500.0), voi=Window(1500.5, 1000)).table()
    assert table[[750, 875, 1000, 1125, 1250]].tolist() == [0, 64, 128, 191, 255]
    doubled = Lut(0, np.arange(0, 512, 2, dtype=np.uint16), 9)
    table = GreyScale(8, modality=doubled, voi=Window(100, 51)).table()
    assert table[[37, 38, 50, 62, 63]].tolist() == [0, 8, 130, 252, 255]


def test_without_voi_the_range_of_the_bits_is_spread():
    assert full_range(8).tolist() == list(range(256))
    assert full_range(12)[[0, 8, 9, 2047, 2048, 4095]].tolist() == [0, 0, 1, 127, 128, 255]
    signed = GreyScale(16, signed=True).table()
    assert signed[[0x8000, 0xFFFF, 0x0000, 0x7FFF]].tolist() == [0, 127, 128, 255]


def test_rescaling_alone_changes_nothing_unless_it_turns_the_scale():
    assert np.array_equal(GreyScale(8, modality=(0.5, -1000.0)).table(), np.arange(256))
    assert np.array_equal(GreyScale(8, modality=(-1.0, 255.0)).table(), np.arange(256)[::-1])
    with pytest.raises(ValueError, match="leaves no range"):
        GreyScale(8, modality=(0.0, 7.0)).table()


def test_padding_is_black_whatever_the_polarity():
    assert GreyScale(12, inverted=True, padding=(0, 0)).table()[[0, 1]].tolist() == [0, 255]
    assert GreyScale(12, padding=(4000, 4095)).table()[[3999, 4000, 4095]].tolist() == [249, 0, 0]
    assert GreyScale(8, signed=True, inverted=True, padding=(-128, -120)).table()[[0x80, 0x88, 0x89]].tolist() == [
        0,
        0,
        246,
    ]


def test_a_narrow_window_overflows_to_black_and_white_in_silence():
    table = GreyScale(8, voi=Window(128.0, 1e-308, "LINEAR_EXACT")).table()
    assert table[[0, 127, 129, 255]].tolist() == [0, 0, 255, 255]


def test_look_up_equals_indexing():
    table = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)
    values = np.random.default_rng(1).integers(0, 4096, (1000, 7)).astype(np.uint16)
    assert np.array_equal(look_up(table, values), table[values])


# --- the matrix: what vendors write ---------------------------------------------------------------------------------


def _variants():
    """{name: (data set or bytes, options that make dcmtk show the same view)}."""
    found = {}
    for bits in (8, 10, 12, 14, 15, 16):
        for signed in (False, True):
            name = f"{bits} bits {'signed' if signed else 'unsigned'}"
            found[name] = dataset(ramp(bits, signed), bits, signed=signed), []
    twelve = ramp(12)
    found["8 bits in 16"] = dataset(ramp(8), 8, allocated=16), []
    found["8 bits in 16 beside other data"] = dataset(ramp(8) | 0x3100, 16, BitsStored=8, HighBit=7), []
    found["high bit 15 of 12 stored"] = dataset(twelve << 4, 16, BitsStored=12, HighBit=15), []
    found["other data in unused bits"] = dataset(twelve | 0xF000, 16, BitsStored=12, HighBit=11), []
    found["12 bits signed, not extended"] = dataset(ramp(12, True) & 0xFFF, 16, BitsStored=12, HighBit=11, PixelRepresentation=1), []  # fmt: skip
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        found[f"{photometric} 8 bits"] = dataset(ramp(8), 8, photometric=photometric), []
        found[f"{photometric} window"] = dataset(twelve, photometric=photometric, WindowCenter=1500, WindowWidth=2000), ["+Wi", "1"]  # fmt: skip
        for shape in ("IDENTITY", "INVERSE"):
            found[f"{photometric} shape {shape}"] = dataset(twelve, photometric=photometric, PresentationLUTShape=shape), []  # fmt: skip
    found["rescale"] = dataset(twelve, RescaleSlope="2.5", RescaleIntercept="-1024"), []
    found["rescale, negative slope"] = dataset(twelve, RescaleSlope="-1", RescaleIntercept="4095"), []
    found["rescale and window"] = dataset(twelve, RescaleSlope="2", RescaleIntercept="-1024", WindowCenter="1000", WindowWidth="3000"), ["+Wi", "1"]  # fmt: skip
    found["window without a function"] = dataset(twelve, WindowCenter="2048", WindowWidth="1024"), ["+Wi", "1"]
    found["window LINEAR"] = (
        dataset(twelve, WindowCenter="900", WindowWidth="500", VOILUTFunction="LINEAR"),
        ["+Wi", "1"],
    )
    found["window SIGMOID"] = (
        dataset(twelve, WindowCenter="2000", WindowWidth="900", VOILUTFunction="SIGMOID"),
        ["+Wi", "1"],
    )
    found["window LINEAR_EXACT"] = dataset(twelve, WindowCenter="2048", WindowWidth="4096", VOILUTFunction="LINEAR_EXACT"), None  # fmt: skip
    found["window of signed values"] = dataset(ramp(12, True), signed=True, WindowCenter="-200", WindowWidth="1000"), ["+Wi", "1"]  # fmt: skip
    found["several windows"] = dataset(twelve, WindowCenter=["1000", "3000"], WindowWidth=["800", "90"]), ["+Wi", "1"]
    found["window of no width"] = dataset(twelve, WindowCenter="0", WindowWidth="0"), []
    found["empty window"] = dataset(twelve, WindowCenter="", WindowWidth=""), []
    for bits in (8, 10, 12, 16):
        found[f"VOI LUT of {bits} bits"] = dataset(twelve, VOILUTSequence=lut_sequence(root_curve(4096, bits), 0, bits)), ["+Wl", "1"]  # fmt: skip
    found["VOI LUT from 1000"] = (
        dataset(twelve, VOILUTSequence=lut_sequence(root_curve(2000, 12), 1000, 12)),
        ["+Wl", "1"],
    )
    found["VOI LUT from below zero"] = (
        dataset(twelve, VOILUTSequence=lut_sequence(root_curve(4096, 12), -900, 12, vr="SS")),
        None,
    )  # fmt: skip  (dcmtk takes -900 for 64636)
    found["VOI LUT packed in bytes"] = dataset(ramp(8), 8, VOILUTSequence=lut_sequence(root_curve(256, 8), 0, 8, packed=True)), ["+Wl", "1"]  # fmt: skip
    found["VOI LUT of signed values"] = dataset(ramp(12, True), signed=True, VOILUTSequence=lut_sequence(root_curve(2000, 12), -1000, 12, vr="SS")), ["+Wl", "1"]  # fmt: skip
    found["VOI LUT after rescale"] = dataset(twelve, RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=lut_sequence(root_curve(3000, 10), -500, 10, vr="SS")), ["+Wl", "1"]  # fmt: skip
    found["VOI LUT before window"] = dataset(twelve, WindowCenter="9", WindowWidth="9", VOILUTSequence=lut_sequence(root_curve(4096, 12), 0, 12)), ["+Wl", "1"]  # fmt: skip
    found["VOI LUT in a delimited sequence"] = dataset(twelve, VOILUTSequence=lut_sequence(root_curve(4096, 12), 0, 12)), ["+Wl", "1"]  # fmt: skip
    delimited = found["VOI LUT in a delimited sequence"][0]
    delimited["VOILUTSequence"].is_undefined_length = True
    delimited.VOILUTSequence[0].is_undefined_length_sequence_item = True
    for bits in (8, 12, 16):
        found[f"modality LUT of {bits} bits"] = dataset(twelve, ModalityLUTSequence=lut_sequence(root_curve(4096, bits), 0, bits)), []  # fmt: skip
    found["modality LUT and window"] = dataset(twelve, WindowCenter="2000", WindowWidth="1500", ModalityLUTSequence=lut_sequence(root_curve(4096, 12), 0, 12)), ["+Wi", "1"]  # fmt: skip
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian):
        found[f"{syntax.name}"] = dataset(twelve, syntax=syntax, WindowCenter="1500", WindowWidth="2000"), ["+Wi", "1"]
    found["Implicit VR with a VOI LUT"] = dataset(twelve, syntax=uid.ImplicitVRLittleEndian, VOILUTSequence=lut_sequence(root_curve(4096, 12), 0, 12)), ["+Wl", "1"]  # fmt: skip
    found["Big Endian with a VOI LUT"] = dataset(twelve, syntax=uid.ExplicitVRBigEndian, VOILUTSequence=lut_sequence(root_curve(4096, 12), 0, 12)), ["+Wl", "1"]  # fmt: skip
    found["Big Endian 8 bits in bytes"] = dataset(ramp(8), 8, syntax=uid.ExplicitVRBigEndian), []
    swapped = dataset(ramp(8), 8, syntax=uid.ExplicitVRBigEndian)
    swapped.PixelData = np.frombuffer(swapped.PixelData, "u2").byteswap().tobytes()
    swapped["PixelData"].VR = "OW"
    found["Big Endian 8 bits in words"] = swapped, []
    found["no preamble, explicit"] = without_preamble(dataset(twelve)), []
    found["no preamble, implicit"] = without_preamble(dataset(twelve, syntax=uid.ImplicitVRLittleEndian)), []
    found["no preamble, big endian"] = without_preamble(dataset(twelve, syntax=uid.ExplicitVRBigEndian)), None
    found["no preamble, but meta information"] = without_preamble(dataset(twelve), keep_meta=True), []
    found["transfer syntax says implicit, data are explicit"] = _claiming(dataset(twelve), "1.2.840.10008.1.2"), None
    found["padding below the picture"] = dataset(np.where(twelve < 600, -2000, twelve), 16, signed=True, PixelPaddingValue=-2000, WindowCenter="2300", WindowWidth="3400"), ["+Wi", "1"]  # fmt: skip
    found["age as a bare number"] = dataset(ramp(8), 8), []
    found["age as a bare number"][0].add_new("PatientAge", "LO", "45")
    for bits, signed in ((8, False), (12, False), (16, True)):
        rle = dataset(ramp(bits, signed), bits, signed=signed)
        rle.compress(uid.RLELossless, encoding_plugin="pydicom")
        found[f"RLE {bits} bits"] = rle, []
    smooth = ramp(8).astype(np.uint8)
    found["JPEG Baseline"] = compressed(dataset(smooth, 8), uid.JPEGBaseline8Bit, jpeg(smooth, quality=95)), []
    found["JPEG Baseline MONOCHROME1"] = compressed(dataset(smooth, 8, photometric="MONOCHROME1"), uid.JPEGBaseline8Bit, jpeg(smooth, quality=95)), []  # fmt: skip
    found["JPEG Baseline with a window"] = compressed(dataset(smooth, 8, WindowCenter="120", WindowWidth="150"), uid.JPEGBaseline8Bit, jpeg(smooth, quality=95)), ["+Wi", "1"]  # fmt: skip
    found["JPEG Extended of 8 bits"] = (
        compressed(dataset(smooth, 8), uid.JPEGExtended12Bit, jpeg(smooth, quality=95)),
        [],
    )
    found["JPEG Baseline in three fragments"] = (
        compressed(dataset(smooth, 8), uid.JPEGBaseline8Bit, jpeg(smooth, quality=95)),
        [],
    )
    found["JPEG Baseline in three fragments"][0].PixelData = encapsulate(
        [jpeg(smooth, quality=95)], fragments_per_frame=3
    )
    j2k = jpeg(smooth, format="JPEG2000", no_jp2=True)
    found["JPEG 2000 8 bits"] = compressed(dataset(smooth, 8), uid.JPEG2000Lossless, j2k), None
    j2k = jpeg((twelve << 4).astype(np.uint16), format="JPEG2000", no_jp2=True)
    found["JPEG 2000 16 bits"] = compressed(dataset(twelve << 4, 16), uid.JPEG2000Lossless, j2k), None
    found["RGB"] = dataset(colours(), 8, photometric="RGB"), ["+G"]
    planar = dataset(colours(), 8, photometric="RGB", PlanarConfiguration=1)
    planar.PixelData = np.moveaxis(colours(), -1, 0).tobytes() + b"\0"
    found["RGB in planes"] = planar, ["+G"]
    found["RGB in RLE"] = dataset(colours(), 8, photometric="RGB"), ["+G"]
    found["RGB in RLE"][0].compress(uid.RLELossless, encoding_plugin="pydicom")
    ybr = pydicom.pixels.convert_color_space(colours(), "RGB", "YBR_FULL")
    found["YBR_FULL"] = dataset(ybr, 8, photometric="YBR_FULL"), ["+G"]
    found["YBR_FULL of any values"] = dataset(colours(), 8, photometric="YBR_FULL"), ["+G"]
    halved = np.ascontiguousarray(colours()[:, : WIDTH // 2 * 2])
    pairs = halved.reshape(-1, 2, 3)
    ybr_422 = dataset(halved, 8, photometric="YBR_FULL_422")
    ybr_422.PixelData = np.concatenate([pairs[:, :, 0], pairs[:, 0, 1:]], axis=1).tobytes()
    found["YBR_FULL_422"] = ybr_422, None  # dcmtk 3.6 cuts fractions off twice here
    found["YBR_FULL_422 in JPEG"] = compressed(dataset(colours(), 8, photometric="YBR_FULL_422"), uid.JPEGBaseline8Bit, jpeg(colours(), quality=100, subsampling=0)), ["+G"]  # fmt: skip
    found["PALETTE COLOR"] = dataset(ramp(8), 8, photometric="PALETTE COLOR", **_palette(16)), ["+G"]
    return found


def _claiming(ds, syntax):
    """The file with another transfer syntax written in its meta information."""
    told = str(ds.file_meta.TransferSyntaxUID).encode()
    told += bytes(len(told) % 2)
    assert len(syntax) <= len(told)
    return dicom_bytes(ds).replace(told, syntax.encode().ljust(len(told), b"\0"))


def _palette(bits):
    elements = {}
    for number, name in enumerate(("Red", "Green", "Blue")):
        entries = np.roll(np.arange(256), 60 * number) * (257 if bits == 16 else 1)
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = entries.astype("<u2" if bits == 16 else "u1").tobytes()
    return elements


VARIANTS = _variants()


@pytest.mark.skipif(DCMTK is None, reason="dcmj2pnm of dcmtk is not installed (Debian: apt-get install dcmtk)")
@pytest.mark.parametrize("name", [name for name, (_, options) in VARIANTS.items() if options is not None])
def test_every_variant_is_the_picture_that_dcmtk_shows(tmp_path, name):
    ds, options = VARIANTS[name]
    path = save(tmp_path / "a.dcm", ds)
    grey = read_grey(path)
    assert grey.shape[0] == HEIGHT
    assert grey.dtype == np.uint8
    subprocess.run([DCMTK, "-q", "+op", *options, path, tmp_path / "a.pgm"], check=True)
    with Image.open(tmp_path / "a.pgm") as image:
        shown = np.array(image.convert("L")).astype(int)
    assert np.abs(grey - shown).max() <= 1  # dcmtk cuts fractions off, we round
    assert grey.max() - grey.min() > 50


MONOCHROME = [name for name, (ds, _) in VARIANTS.items() if isinstance(ds, Dataset) and "MONOCHROME" in ds.PhotometricInterpretation]  # fmt: skip
# pydicom 3.0 wraps the index of an 8-bit VOI LUT at 256, reads no packed one and no modality LUT of 12 bits, ignores
# HighBit, and refuses windows of no width.
NOT_BY_PYDICOM = {"modality LUT of 12 bits", "modality LUT and window", "VOI LUT of 8 bits", "VOI LUT packed in bytes", "high bit 15 of 12 stored", "VOI LUT after rescale", "window of no width", "empty window", "padding below the picture"}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in MONOCHROME if name not in NOT_BY_PYDICOM])
def test_every_grey_variant_is_what_pydicom_computes(tmp_path, name):
    path = save(tmp_path / "a.dcm", VARIANTS[name][0])
    ds = pydicom.dcmread(path)
    stored = ds.pixel_array
    bits = ds.BitsStored
    domain = np.arange(2**bits) - (2 ** (bits - 1) if ds.PixelRepresentation else 0)
    lut = ds.get("VOILUTSequence") or ds.get("ModalityLUTSequence")
    windowed = "WindowWidth" in ds and not ds.get("VOILUTSequence")
    if lut and not windowed:
        low, high = 0, 2 ** lut[0].LUTDescriptor[2] - 1
    else:
        modality = apply_modality_lut(domain.astype(np.int32), ds).astype(float)
        low, high = modality.min(), modality.max()
    values = apply_voi_lut(apply_modality_lut(stored.astype(np.int32), ds), ds).astype(float)
    expected = np.rint((values - low) / (high - low) * 255)
    inverse = {"INVERSE": True, "IDENTITY": False}.get(
        ds.get("PresentationLUTShape"), ds.PhotometricInterpretation == "MONOCHROME1"
    )
    assert np.abs(read_grey(path) - (255 - expected if inverse else expected)).max() <= (0 if not windowed else 1)


# --- what must hold exactly -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": "1200", "WindowWidth": "900"}, {"VOILUTSequence": lut_sequence(root_curve(4096, 12), 0, 12)}])  # fmt: skip
def test_monochrome1_is_monochrome2_turned_round_to_the_last_bit(tmp_path, elements):
    two = read_grey(save(tmp_path / "2.dcm", dataset(ramp(12), **elements)))
    one = read_grey(save(tmp_path / "1.dcm", dataset(ramp(12), photometric="MONOCHROME1", **elements)))
    assert np.array_equal(one, 255 - two)


def test_8_bits_without_voi_come_out_as_they_are_and_equal_a_png(tmp_path):
    values = ramp(8).astype(np.uint8)
    path = save(tmp_path / "a.dcm", dataset(values, 8))
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_grey(path), values)
    assert np.array_equal(read_grey(tmp_path / "a.png"), values)
    assert np.array_equal(read_square(path, 20)[0], read_square(tmp_path / "a.png", 20)[0])
    assert read_square(path, 20)[1] == (HEIGHT, WIDTH)


def test_16_bits_equal_a_16_bit_png(tmp_path):
    values = ramp(16).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_grey(save(tmp_path / "a.dcm", dataset(values, 16))), read_grey(tmp_path / "a.png"))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_jpeg_baseline_equals_the_jpeg_inside(tmp_path, photometric):
    rows, columns = np.mgrid[0:300, 0:420]
    values = (rows / 2 + columns / 4).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(jpeg(values))
    path = save(
        tmp_path / "a.dcm", compressed(dataset(values, 8, photometric=photometric), uid.JPEGBaseline8Bit, jpeg(values))
    )
    turned = photometric == "MONOCHROME1"
    for read in (read_grey, lambda path: read_square(path, 32)[0]):
        plain = read(tmp_path / "a.jpg")
        assert np.abs(read(path).astype(int) - (255 - plain.astype(int) if turned else plain)).max() <= int(turned)
    assert read_square(path, 32)[1] == (300, 420)


def test_a_window_sees_the_pixels_before_they_are_averaged(tmp_path):
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    ds = compressed(
        dataset(stripes, 8, WindowCenter="200", WindowWidth="2"), uid.JPEGBaseline8Bit, jpeg(stripes, quality=100)
    )
    square = read_square(save(tmp_path / "a.dcm", ds), 16).image
    assert np.abs(square.astype(int) - 127).max() <= 4  # averaged first, all would be under the window: black


@pytest.mark.parametrize("names", [b"\1\2\3", b"\0\1\2"])
def test_rgb_jpeg_that_does_not_say_so_is_read_as_the_header_says(tmp_path, names):
    # Neither names nor JFIF nor Adobe marks: taken for YCbCr, the first channel would be the luma.
    tint = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    content = jpeg(tint, keep_rgb=True, quality=100, subsampling=0)
    adobe = content.index(b"\xff\xee")
    content = bytearray(content[:adobe] + content[adobe + 16 :])
    frame, scan = content.index(b"\xff\xc0") + 10, content.index(b"\xff\xda") + 5
    assert content[frame : frame + 9 : 3] == content[scan : scan + 6 : 2] == b"RGB"
    content[frame : frame + 9 : 3] = content[scan : scan + 6 : 2] = names
    ds = compressed(dataset(tint, 8, photometric="RGB"), uid.JPEGBaseline8Bit, bytes(content))
    assert np.abs(read_grey(save(tmp_path / "a.dcm", ds)).astype(int) - 124).max() <= 1  # .299, .587, .114


def test_compressed_without_loss_equals_native(tmp_path):
    smooth = ramp(8).astype(np.uint8)
    native = read_grey(save(tmp_path / "a.dcm", dataset(smooth, 8)))
    for name in ("RLE 8 bits", "JPEG 2000 8 bits"):
        assert np.array_equal(read_grey(save(tmp_path / "b.dcm", VARIANTS[name][0])), native), name
    deep = read_grey(save(tmp_path / "c.dcm", dataset(ramp(12) << 4, 16)))
    assert np.array_equal(read_grey(save(tmp_path / "d.dcm", VARIANTS["JPEG 2000 16 bits"][0])), deep)


def test_halved_chroma_is_what_pydicom_computes(tmp_path):
    path = save(tmp_path / "a.dcm", VARIANTS["YBR_FULL_422"][0])
    expected = np.array(Image.fromarray(pydicom.dcmread(path).pixel_array).convert("L")).astype(int)
    assert np.abs(read_grey(path) - expected).max() <= 1


@pytest.mark.parametrize("name", ["no preamble, big endian", "transfer syntax says implicit, data are explicit"])
def test_the_encoding_is_told_by_the_data(tmp_path, name):
    expected = read_grey(save(tmp_path / "a.dcm", dataset(ramp(12))))
    assert np.array_equal(read_grey(save(tmp_path / "b", VARIANTS[name][0])), expected)


def test_padding_is_black_in_the_picture(tmp_path):
    values = ramp(12)
    values[:5] = 0
    ds = dataset(values, photometric="MONOCHROME1", PixelPaddingValue=0)
    grey = read_grey(save(tmp_path / "a.dcm", ds))
    assert not grey[:5].any()
    assert grey[5, 0] == 255 - full_range(12)[values[5, 0]]


def test_private_and_nested_elements_are_stepped_over(tmp_path):
    ds = dataset(ramp(8), 8)
    icon = compressed(dataset(ramp(8), 8), uid.JPEGBaseline8Bit, b"\xfe\xff\xdd\xe0\0\0\0\0" * 4)  # as of a delimiter
    icon.Rows, icon.BitsStored = 1, 3  # neither these nor its pixels are those of the radiograph
    del icon.file_meta
    inner = Dataset()
    inner.IconImageSequence = Sequence([icon])
    ds.ReferencedImageSequence = ds.ReferencedPatientPhotoSequence = Sequence([inner])
    for sequence in (ds["ReferencedImageSequence"], inner["IconImageSequence"]):
        sequence.is_undefined_length = True
        sequence.value[0].is_undefined_length_sequence_item = True
    for tag in (0x00281102, 0x00290012):  # behind the Rows of the image, and behind its bits
        ds.add_new(tag, "SQ", Sequence([icon]))
        ds[tag].is_undefined_length = True
        ds[tag].value[0].is_undefined_length_sequence_item = True
    ds.add_new(0x00290010, "LO", "ODD VENDOR")
    ds.add_new(0x00291010, "UN", b"\xfe\xff\xdd\xe0" * 8)
    assert np.array_equal(read_grey(save(tmp_path / "a.dcm", ds)), ramp(8))


# --- what is refused ------------------------------------------------------------------------------------------------


def _changed(**elements):
    ds = dataset(ramp(8), 8)
    for name, value in elements.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def _truncated(part):
    content = dicom_bytes(dataset(ramp(12)))
    return content[: round(len(content) * part)]


def _float_pixels():
    ds = _changed(PixelData=None)
    ds.add_new("FloatPixelData", "OF", np.zeros((HEIGHT, WIDTH), "f4").tobytes())
    return ds


def _no_frame():
    ds = compressed(dataset(ramp(8), 8), uid.JPEGBaseline8Bit, b"xx")
    ds.PixelData = b"\xfe\xff\x00\xe0" + bytes(4)  # an offset table, and nothing behind it
    return ds


def _deep_nest():
    opening = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return bytes(128) + b"DICM" + opening * 20000


_JPEG = jpeg(ramp(8).astype(np.uint8))
REFUSED = {
    "frames": (lambda: _changed(NumberOfFrames="12"), "a DICOM of 12 frames; expected one radiograph"),
    "no pixel data": (lambda: _changed(PixelData=None), r"without pixel data \(Modality CR\)"),
    "empty pixel data": (lambda: _changed(PixelData=b""), "without pixel data"),
    "floating point": (_float_pixels, "floating point; expected integers"),
    "no height": (lambda: _changed(Rows=0), "51 x 0 pixels is too small for a radiograph"),
    "no rows": (lambda: _changed(Rows=None), "51 x 0 pixels is too small"),
    "short": (lambda: _changed(Rows=HEIGHT + 1), "1888 bytes of pixel data; expected 1938 for 51 x 38 pixels"),
    "long": (lambda: _changed(Rows=HEIGHT - 1), "1888 bytes of pixel data; expected 1836 for 51 x 36 pixels"),
    "300 megapixels": (lambda: _changed(Rows=15000, Columns=20000), "20000 x 15000 pixels is over the limit of 80"),
    "cut in the pixels": (lambda: _truncated(0.9), r"\d+ bytes of pixel data; expected 3774"),
    "cut in the header": (lambda: _truncated(0.1), "without pixel data"),
    "32 bits": (lambda: _changed(BitsAllocated=32, BitsStored=32, HighBit=31), "32 bits allocated, 32 stored"),
    "1 bit": (lambda: _changed(BitsAllocated=1, BitsStored=1, HighBit=0), "1 bits allocated"),
    "more stored than allocated": (lambda: _changed(BitsStored=12, HighBit=11), "8 bits allocated, 12 stored"),
    "photometric": (lambda: _changed(PhotometricInterpretation="CMYK"), "Photometric Interpretation CMYK with 1 samples"),
    "samples": (lambda: _changed(SamplesPerPixel=3), "MONOCHROME2 with 3 samples per pixel"),
    "no photometric": (lambda: _changed(PhotometricInterpretation=None), r"Photometric Interpretation \(none\)"),
    "rescale": (lambda: _changed(RescaleSlope="1E308"), "leaves no range"),
    "function": (lambda: _changed(WindowCenter="1", WindowWidth="5", VOILUTFunction="CUBIC"), "VOI LUT Function CUBIC"),
    "shape": (lambda: _changed(PresentationLUTShape="LIN OD"), "Presentation LUT Shape LIN OD"),
    "palette": (lambda: _changed(PhotometricInterpretation="PALETTE COLOR"), "without its three plain lookup tables"),
    "not encapsulated": (lambda: _claiming(dataset(ramp(8), 8), "1.2.840.10008.1.2.5"), "pixel data are not encapsulated"),
    "encapsulated": (lambda: _claiming(compressed(dataset(ramp(8), 8), uid.JPEGBaseline8Bit, _JPEG), "1.2.840.10008.1.2.1"), "pixel data are encapsulated"),
    "video": (lambda: compressed(dataset(ramp(8), 8), uid.MPEG2MPML, _JPEG), "MPEG2 .*is not one of a still picture"),
    "jpeg of another size": (lambda: compressed(_changed(Rows=64), uid.JPEGBaseline8Bit, _JPEG), "compressed pixel data of 51 x 37 pixels; the header says 51 x 64"),
    "jpeg cut short": (lambda: compressed(dataset(ramp(8), 8), uid.JPEGBaseline8Bit, _JPEG[:-40]), "cannot be decoded"),
    "cut in the compressed pixels": (lambda: dicom_bytes(compressed(dataset(ramp(8), 8), uid.JPEGBaseline8Bit, _JPEG))[:-60], "compressed pixel data end after"),
    "no frame": (_no_frame, "compressed pixel data without a frame"),
    "not jpeg": (lambda: compressed(dataset(ramp(8), 8), uid.JPEGBaseline8Bit, b"nothing of the kind "), "are not JPEG"),
    "not jpeg 2000": (lambda: compressed(dataset(ramp(8), 8), uid.JPEG2000Lossless, _JPEG), "are not JPEG 2000"),
    "rle segments": (lambda: compressed(dataset(ramp(8), 8), uid.RLELossless, struct.pack("<16I", 2, 64, 70, *[0] * 13) + bytes(20)), "2 RLE segments; expected 1"),
    "rle cut short": (lambda: compressed(dataset(ramp(8), 8), uid.RLELossless, struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 9), "not enough image data"),
    "a deep nest": (_deep_nest, "without pixel data"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_radiograph_is_refused_in_words(tmp_path, name):
    make, reason = REFUSED[name]
    path = save(tmp_path / "a.dcm", make())
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_grey(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableImage):
        read_square(path, 24)


@pytest.mark.parametrize(("value", "shown"), [("abc", "ABC"), ("1e999", "1E999"), ("nan", "NAN")])
def test_a_window_that_is_no_number_is_named(tmp_path, value, shown):
    content = dicom_bytes(dataset(ramp(12), WindowCenter="12345", WindowWidth="5"))
    content = content.replace(b"12345 ", value.encode().ljust(6))
    with pytest.raises(UnreadableImage, match=f"WindowCenter is '{shown}'; expected a number"):
        read_grey(save(tmp_path / "a.dcm", content))


@pytest.mark.parametrize(
    ("syntax", "package"),
    [
        (uid.JPEGLosslessSV1, "python-gdcm"),
        (uid.JPEGLossless, "python-gdcm"),
        (uid.JPEGLSLossless, "pyjpegls"),
        (uid.JPEGLSNearLossless, "pyjpegls"),
        (uid.HTJ2KLossless, "pylibjpeg pylibjpeg-openjpeg"),
        (uid.JPEGExtended12Bit, "pylibjpeg pylibjpeg-libjpeg"),
    ],
)
def test_a_missing_decoder_is_named_with_what_to_install(tmp_path, monkeypatch, syntax, package):
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "available_plugins", ())
    frame = _JPEG.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c")  # 12 bits, or the direct way would do
    path = save(tmp_path / "a.dcm", compressed(dataset(ramp(12)), syntax, frame))
    with pytest.raises(UnreadableImage, match=rf"{syntax.replace('.', '[.]')}\) needs .*: pip install {package}$"):
        read_grey(path)


def test_a_deflated_bomb_is_not_blown_up(tmp_path, monkeypatch):
    content = dicom_bytes(dataset(np.zeros((2000, 2000)), 8, syntax=uid.DeflatedExplicitVRLittleEndian))
    path = save(tmp_path / "a.dcm", content)
    assert not read_grey(path).any()
    monkeypatch.setattr(dicom, "MAX_INFLATED_BYTES", 2**20)
    with pytest.raises(UnreadableImage, match="inflates to more than 1 MiB"):
        read_grey(path)


def test_a_damaged_deflated_stream_is_refused(tmp_path):
    content = bytearray(dicom_bytes(dataset(ramp(12), syntax=uid.DeflatedExplicitVRLittleEndian)))
    start = 144 + struct.unpack("<I", content[140:144])[0]
    content[start : start + 8] = b"\xff" * 8
    with pytest.raises(UnreadableImage, match=r"zlib.error|without pixel data"):
        read_grey(save(tmp_path / "a.dcm", bytes(content)))


def test_a_file_of_nothing_but_elements_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_elements, "MAX_ELEMENTS", 500)
    content = dicom_bytes(dataset(ramp(8), 8))[:132] + b"\x08\0\x05\0CS\0\0" * 501
    with pytest.raises(UnreadableImage, match="more than 500 elements"):
        read_grey(save(tmp_path / "a.dcm", content))


def test_reading_a_jpeg_dicom_imports_no_pydicom(tmp_path):
    path = save(tmp_path / "a.dcm", VARIANTS["JPEG Baseline"][0])
    code = f"import sys; from pathlib import Path; from cxr.reading import read_grey; read_grey(Path({str(path)!r}))"
    command = [sys.executable, "-c", code + "; print('pydicom' in sys.modules)"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


# --- codecs that are not everywhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("encoder", "option", "syntax"),
    [
        ("dcmcjpeg", "+e1", uid.JPEGLosslessSV1),
        ("dcmcjpeg", "+el", uid.JPEGLossless),
        ("dcmcjpls", "+el", uid.JPEGLSLossless),
    ],
)
def test_lossless_jpeg_equals_native(tmp_path, encoder, option, syntax, bits, signed):
    if shutil.which(encoder) is None:
        pytest.skip(f"{encoder} of dcmtk is not installed")
    turbo = features.version("libjpeg_turbo") or "0"
    by_pillow = bits == 8 and encoder == "dcmcjpeg" and int(turbo.split(".")[0]) >= 3
    if not by_pillow and not pydicom.pixels.get_decoder(syntax).is_available:
        pytest.skip(f"no decoder for {syntax.name} of {bits} bits is installed")
    native = save(tmp_path / "a.dcm", dataset(ramp(bits, signed), bits, signed=signed))
    subprocess.run([encoder, "-q", option, native, tmp_path / "b.dcm"], check=True)
    assert np.array_equal(read_grey(tmp_path / "b.dcm"), read_grey(native))


# --- real radiographs -----------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.skipif(DCMTK is None, reason="dcmj2pnm of dcmtk is not installed (Debian: apt-get install dcmtk)")
def test_real_files_are_the_pictures_that_dcmtk_shows(tmp_path):
    folder = DATA / "dicom_variants"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; CXR_DATA names the folder of the real images")
    for path in sorted(folder.glob("*.dcm")):
        subprocess.run([DCMTK, "-q", "+op", path, tmp_path / "a.pgm"], check=True)
        with Image.open(tmp_path / "a.pgm") as image:
            assert np.abs(read_grey(path).astype(int) - np.array(image)).max() <= 1, path.name


@pytest.mark.data
def test_a_real_monochrome1_is_its_monochrome2_twin_turned_round():
    folder = DATA / "dicom_variants"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; CXR_DATA names the folder of the real images")
    one = read_grey(folder / "Fake_MONOHR1.dcm")
    two = read_grey(folder / "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm")
    assert np.array_equal(one, 255 - two)
