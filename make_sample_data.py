"""Write synthetic chest radiographs in the layouts of both real data sets, to run everything without those.

    python make_sample_data.py

Writes sample/chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg and opacity_boxes.csv beside them, and
sample/dataset_det/ with stage_2_train_images/*.dcm, stage_2_train_labels.csv, stage_2_detailed_class_info.csv and
pneumonia-challenge-dataset-mappings_2018.json. No image shows a person: phantom/ computes each.

The same seed gives the same pixels, whatever else is written, since each image has its own seed. Two limits: NumPy may
change a distribution between versions (NEP 19), and mathematical libraries may differ in the last bit, which by our
estimate changes one pixel in a billion by one grey level. JPEG files can differ between encoder versions.
"""

import csv
import io
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr import cli
from phantom import cohort
from phantom.chance import Condition

ROOT = Path(__file__).resolve().parent
RECORD = "sample_data.json"  # the settings of a folder; one without it is not sample data
FEWEST_IMAGES = 4 * cohort.VAL_IMAGES_A_CLASS  # for all splits
SMALLEST, LARGEST = 128, 2048  # in pixels
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"

CLASS_NAMES: dict[Condition, str] = {
    "normal": "Normal",
    "abnormal": "No Lung Opacity / Not Normal",
    "pneumonia": "Lung Opacity",
}


@dataclass(frozen=True)
class SampleConfig:
    """Size and seed of the data sets, and where they go."""

    output_dir: Path = cli.flag(ROOT / "sample", help="parent folder of chest_xray/ and dataset_det/")
    only: Literal["both", "classification", "detection"] = cli.flag("both", help="which of the two data sets")
    seed: int = cli.flag(0, at_least=0, help="random seed")
    images: int = cli.flag(800, at_least=FEWEST_IMAGES, help="classification images (JPEG)")
    widest: int = cli.flag(
        320,
        at_least=SMALLEST,
        at_most=LARGEST,
        help="width of the widest classification image in pixels; the narrowest has 70 % of it",
    )
    exams: int = cli.flag(400, at_least=1, help="detection exams (DICOM)")
    exam_size: int = cli.flag(512, at_least=SMALLEST, at_most=LARGEST, help="side of a detection exam in pixels")
    workers: int = cli.flag(0, at_least=0, help="processes, 0 for one per core; the images are the same")


def write_classification(config: SampleConfig, folder: Path) -> None:
    """Fill ``folder`` with the layout of Kaggle's chest-xray-pneumonia."""
    rows: list[tuple[str | int, ...]] = []
    films = cohort.plan_images(config.seed, config.images)
    take = partial(cohort.render_image, seed=config.seed, widest=config.widest)
    for film, (picture, quality) in zip(films, cohort.draw(take, films, config.workers, "chest_xray"), strict=True):
        path = folder / film.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.pixels).save(path, quality=quality)
        rows += [(film.path, *box) for box in picture.boxes]
    _write_table(folder / "opacity_boxes.csv", ("path", "x", "y", "width", "height"), rows)


def write_detection(config: SampleConfig, folder: Path) -> None:
    """Fill ``folder`` with the layout of Kaggle's RSNA Pneumonia Detection Challenge."""
    images = folder / "stage_2_train_images"
    images.mkdir()
    labels: list[tuple[str | int, ...]] = []
    classes: list[tuple[str | int, ...]] = []
    exams = cohort.plan_exams(config.seed, config.exams)
    take = partial(cohort.render_exam, seed=config.seed, size=config.exam_size)
    for exam, (picture, header) in zip(exams, cohort.draw(take, exams, config.workers, "dataset_det"), strict=True):
        write_dicom(images / f"{exam.uid}.dcm", exam.uid, picture.pixels, header)
        found = [(exam.uid, *(f"{value:.1f}" for value in box), 1) for box in picture.boxes]
        labels += found or [(exam.uid, "", "", "", "", 0)]
        classes += [(exam.uid, CLASS_NAMES[exam.condition])] * max(1, len(found))
    _write_table(folder / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"), labels)
    _write_table(folder / "stage_2_detailed_class_info.csv", ("patientId", "class"), classes)
    mapping = [{"subset_img_id": exam.uid, "img_id": exam.nih_name} for exam in exams]
    (folder / MAPPING).write_text(json.dumps(mapping, indent=0) + "\n", encoding="utf-8")


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_dicom(path: Path, uid: str, pixels: NDArray[np.uint8], header: dict[str, Any]) -> None:
    """One exam with the header of the real files.

    Args:
        pixels: [H, W], bone white; stored inverted where the header says MONOCHROME1 (DICOM PS3.3 C.7.6.3.1.2).
        header: PatientSex, PatientAge, ViewPosition, PhotometricInterpretation, PixelSpacing and LossyImageCompression,
            "01" for JPEG Baseline and "00" for uncompressed.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

    if header["PhotometricInterpretation"] == "MONOCHROME1":
        pixels = 255 - pixels
    compressed = header["LossyImageCompression"] == "01"
    instance = generate_uid(entropy_srcs=[uid])
    exam = Dataset()
    exam.file_meta = FileMetaDataset()
    exam.file_meta.MediaStorageSOPClassUID = exam.SOPClassUID = SecondaryCaptureImageStorage
    exam.file_meta.MediaStorageSOPInstanceUID = exam.SOPInstanceUID = instance
    exam.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
    exam.SpecificCharacterSet = "ISO_IR 100"
    exam.StudyDate, exam.StudyTime, exam.AccessionNumber = "19010101", "000000.00", ""
    exam.Modality, exam.ConversionType, exam.BodyPartExamined = "CR", "WSD", "CHEST"
    exam.SeriesDescription = f"view: {header['ViewPosition']}"
    exam.ReferringPhysicianName = exam.PatientBirthDate = exam.StudyID = exam.PatientOrientation = ""
    exam.PatientName = exam.PatientID = uid
    exam.ImageComments = "SYNTHETIC: drawn by make_sample_data.py, shows no person"
    exam.StudyInstanceUID = generate_uid(entropy_srcs=[uid, "study"])
    exam.SeriesInstanceUID = generate_uid(entropy_srcs=[uid, "series"])
    exam.SeriesNumber = exam.InstanceNumber = 1
    exam.SamplesPerPixel, exam.PixelRepresentation = 1, 0
    exam.Rows, exam.Columns = pixels.shape
    exam.BitsAllocated, exam.BitsStored, exam.HighBit = 8, 8, 7
    for name, value in header.items():
        setattr(exam, name, value)
    if compressed:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        exam.LossyImageCompressionMethod = "ISO_10918_1"
        exam.PixelData = encapsulate([stream.getvalue()])
    else:
        exam.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    exam["PixelData"].VR = "OB"
    exam.save_as(path, enforce_file_format=True)


@contextmanager
def _whole_or_nothing(folder: Path, record: dict[str, Any]) -> Generator[Path | None, None, None]:
    """A temporary folder, renamed to ``folder`` at the end of the block; None if ``folder`` has this ``record``.

    Raises:
        ValueError: ``folder`` has other content, which is not changed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        try:
            made = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            made = None
        if made == record:
            yield None
            return
        what = "a sample made with other settings" if made else "something that is not sample data"
        raise ValueError(f"{folder} holds {what}; nothing was changed. Move it away, or give another --output-dir")
    side = folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex[:8]}")
    side.mkdir(parents=True)
    try:
        yield side
        (side / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        side.replace(folder)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def main(config: SampleConfig) -> None:
    """Write the data sets of ``config``, each completely or not at all.

    Raises:
        ValueError: a folder of that name has other content.
    """
    made = {
        "made_by": "make_sample_data.py",
        "note": "synthetic radiographs; no picture shows a person",
        "seed": config.seed,
    }
    jobs: list[tuple[str, str, dict[str, Any], Callable[[SampleConfig, Path], None]]] = [
        ("classification", "chest_xray", {"images": config.images, "widest": config.widest}, write_classification),
        ("detection", "dataset_det", {"exams": config.exams, "exam_size": config.exam_size}, write_detection),
    ]
    for name, folder_name, settings, write in jobs:
        if config.only in ("both", name):
            folder = config.output_dir / folder_name
            with _whole_or_nothing(folder, made | settings) as side:
                if side is None:
                    print(f"{folder}: already there, made with the same settings")
                else:
                    write(config, side)
                    print(f"wrote {folder}")


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(SampleConfig, __doc__)))
