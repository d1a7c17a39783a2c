"""DICOM files as devices and archives write them, made of computed values."""

import io
import struct

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

HEIGHT, WIDTH = 37, 51  # odd, so that rows and lengths need padding


def ramp(bits, signed=False, height=HEIGHT, width=WIDTH):
    """int64 [H, W]: from the lowest to the highest value of ``bits``, row by row."""
    low = -(2 ** (bits - 1)) if signed else 0
    return np.linspace(low, low + 2**bits - 1, height * width).round().astype(np.int64).reshape(height, width)


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


def compressed(ds, syntax, frame, **layout):
    """``ds`` with ``frame`` in place of its pixels."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame], **layout)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def dicom_bytes(ds):
    if isinstance(ds, bytes):
        return ds
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def save(path, ds):
    path.write_bytes(dicom_bytes(ds))
    return path


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


def without_preamble(ds):
    """The data set alone, also without file meta information."""
    content = dicom_bytes(ds)
    return content[144 + struct.unpack("<I", content[140:144])[0] :]


def claiming(ds, syntax):
    """The file with another transfer syntax written in its meta information."""
    told = str(ds.file_meta.TransferSyntaxUID).encode()
    told += bytes(len(told) % 2)
    assert len(syntax) <= len(told)
    return dicom_bytes(ds).replace(told, syntax.encode().ljust(len(told), b"\0"))


def picture(values, **options):
    """``values`` as JPEG, or as ``format``."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, options.pop("format", "JPEG"), **options)
    return buffer.getvalue()


def lut(entries, count=None, bits=12, first=0, vr="US"):
    """A sequence of one lookup table."""
    entries = np.asarray(entries)
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [(len(entries) if count is None else count) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.astype("u1" if entries.dtype == np.uint8 else "<u2").tobytes())
    return Sequence([item])


def root_curve(count, bits):
    """[count] integers that rise fast and then slowly over the range of ``bits``."""
    return (np.sqrt(np.arange(count) / (count - 1)) * (2**bits - 1)).astype(int)


def palette(bits):
    """The elements of a palette that turns grey levels into colours."""
    elements = {}
    for number, name in enumerate(("Red", "Green", "Blue")):
        entries = np.roll(np.arange(256), 60 * number) * (257 if bits == 16 else 1)
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = entries.astype("<u2" if bits == 16 else "u1").tobytes()
    return elements
