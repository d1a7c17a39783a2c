"""Files in the forms and sizes of the real data sets, to measure on where those are not at hand."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr import reading
from make_sample_data import write_dicom
from pytorch_classification.data_load import CLASSES

_DIFFERENT = 40  # pictures; beyond that files repeat, which no reader can tell
_HEADER = {
    "PatientSex": "F",
    "PatientAge": "051Y",
    "ViewPosition": "PA",
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": [0.143, 0.143],
    "LossyImageCompression": "01",  # JPEG Baseline, as all of RSNA's
}


def smooth(height: int, width: int, cell: int, seed: int) -> NDArray[np.uint8]:
    """A picture without edges; with cells of 16 to 24 pixels it takes as many bytes of JPEG as a radiograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // cell, width // cell), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_jpegs(paths: Sequence[Path], seed: int = 0) -> None:
    """Grey JPEG files of 1,000 to 2,000 by 700 to 1,500 pixels, as most of Kaggle's are."""
    contents: list[bytes] = []
    for number in range(min(len(paths), _DIFFERENT)):
        height, width = np.random.default_rng([seed, number]).integers((700, 1000), (1500, 2000)).tolist()
        stream = io.BytesIO()
        Image.fromarray(smooth(height, width, 16, seed + number)).save(stream, "JPEG")
        contents.append(stream.getvalue())
    _write_in_turn(paths, contents)


def write_dicoms(paths: Sequence[Path]) -> None:
    """DICOM files of 1,024 by 1,024 pixels in JPEG Baseline, as RSNA's are."""
    contents: list[bytes] = []
    for number, path in enumerate(paths[:_DIFFERENT]):
        write_dicom(path, str(number), smooth(1024, 1024, 24, number), _HEADER)
        contents.append(path.read_bytes())
    _write_in_turn(paths, contents)


def files(
    folder: Path | None, place: Path, suffix: str, write: Callable[[Sequence[Path]], None], count: int
) -> list[Path]:
    """The pictures in ``folder``; without one, ``count`` that ``write`` makes in ``place``."""
    if folder is not None:
        return reading.find_images([str(folder)])
    paths = [place / f"{number}{suffix}" for number in range(count)]
    write(paths)
    return paths


def write_chest_xray(folder: Path, count: int) -> Path:
    """``folder`` in the layout of chest-xray-pneumonia: ``count`` training images, half of each class, none to test."""
    (folder / "test").mkdir(parents=True)
    for label, form in enumerate(("IM-{0:04}-0001.jpeg", "person{0}_virus_{0}.jpeg")):
        place = folder / "train" / CLASSES[label]
        place.mkdir(parents=True)
        write_jpegs([place / form.format(number) for number in range(count // 2)], seed=label * _DIFFERENT)
    return folder


def _write_in_turn(paths: Sequence[Path], contents: Sequence[bytes]) -> None:
    for number, path in enumerate(paths):
        path.write_bytes(contents[number % len(contents)])
