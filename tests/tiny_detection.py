"""An RSNA folder and settings with which the detection scripts run in seconds."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from pytorch_detection.rsna_dataset import CLASS_INFO, CLASSES, IMAGES, LABELS, MAPPING

HEIGHT, WIDTH = 120, 90  # not square: x and y are scaled by different factors
EXAMS = 48
LOSS_PARTS = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_image")


def chest(number: int) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Noise uint8 [HEIGHT, WIDTH], and in every second exam one or two bright ellipses: x, y, width, height."""
    random = np.random.default_rng(number)
    image = random.uniform(40, 90) + random.normal(0, 8, (HEIGHT, WIDTH))
    boxes = []
    if number % 2:
        for side in range(1 + number % 4 // 3):
            width, height = random.integers(22, 36), random.integers(32, 56)
            x, y = side * 46 + random.integers(0, 44 - width), random.integers(4, HEIGHT - height - 4)
            across, down = np.arange(WIDTH)[None, :] + 0.5, np.arange(HEIGHT)[:, None] + 0.5
            inside = ((across - x) / width * 2 - 1) ** 2 + ((down - y) / height * 2 - 1) ** 2 < 1
            image = np.where(inside, image + random.uniform(70, 110), image)
            boxes.append((int(x), int(y), int(width), int(height)))
    return image.clip(0, 255).astype(np.uint8), boxes


def write_dicom(path: Path, pixels: np.ndarray, **values: str) -> None:
    """Uncompressed 8-bit MONOCHROME2 with the header ``values``."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.StudyInstanceUID, dicom.SeriesInstanceUID = (generate_uid(entropy_srcs=[path.name, e]) for e in "ab")
    dicom.PatientID = path.stem
    dicom.Rows, dicom.Columns = pixels.shape
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation, dicom.PixelRepresentation = 1, "MONOCHROME2", 0
    dicom.BitsAllocated = dicom.BitsStored = 8
    dicom.HighBit = 7
    dicom.PixelData = pixels.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the data set's ages have no unit, and pydicom minds
        for name, value in values.items():
            setattr(dicom, name, value)
        dicom.save_as(path, enforce_file_format=True)


def exam_id(number: int) -> str:
    return f"exam{number:03}"


def write_rsna(root: Path, count: int = EXAMS) -> Path:
    """``root`` with the four parts of the challenge's folder; every patient has two exams."""
    (root / IMAGES).mkdir(parents=True)
    labels, classes, mapping = [], [], []
    for number in range(count):
        image, boxes = chest(number)
        name = exam_id(number)
        view, sex, age = ("AP", "PA")[number // 2 % 2], ("F", "M")[number % 3 == 0], str(10 + number)
        write_dicom(root / IMAGES / f"{name}.dcm", image, ViewPosition=view, PatientSex=sex, PatientAge=age)
        labels += [[name, *box, 1] for box in boxes] or [[name, "", "", "", "", 0]]
        classes += [[name, CLASSES[2] if boxes else CLASSES[number // 2 % 2]]] * max(1, len(boxes))
        mapping.append({"subset_img_id": name, "img_id": f"{number % (count // 2):08}_000.png"})
    for table, header, rows in (
        (LABELS, ["patientId", "x", "y", "width", "height", "Target"], labels),
        (CLASS_INFO, ["patientId", "class"], classes),
    ):
        with (root / table).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    (root / MAPPING).write_text(json.dumps(mapping))
    return root


def settings(data_dir: Path, folder: Path, **changes: object) -> Any:
    """A ``TrainConfig`` that writes under ``folder`` alone and trains for seconds."""
    from pytorch_detection.settings import TrainConfig

    chosen: dict[str, Any] = {
        "data_dir": data_dir,
        "output_dir": folder / "run",
        "model_file": folder / "model.pth",
        "weights": "none",
        "epochs": 2,
        "size": 64,
        "batch_size": 8,
        "lr": 2e-3,
        "ema_window": 0.1,
        "light_augmentation_epochs": 1,
        "flip_tta": False,
        "device": "cpu",
        "precision": "fp32",
    }
    return TrainConfig(**chosen | changes)


def few_samples() -> Any:
    """A context in which new networks sample few boxes for their losses: most of the time on tiny images."""
    from pytorch_detection import model

    return patch.dict(model.FEW_BOXES, box_batch_size_per_image=16, rpn_batch_size_per_image=64)


def train(config: Any) -> None:
    """The script after it has parsed its command line."""
    from cxr import runtime
    from cxr.training_run import lock_folder
    from pytorch_detection.train_detection import fit

    with (
        few_samples(),
        runtime.start(config.device, config.precision, config.seed) as run,
        lock_folder(config.output_dir, run),
    ):
        fit(config, run)


def anything_goes() -> Any:
    """Feature statistics of a ResNet-18 that flag no image as out of distribution."""
    import torch

    from cxr.out_of_distribution import FeatureDistance, Stage

    return FeatureDistance(tuple(Stage(torch.zeros(n), torch.eye(n), 1.0) for n in (128, 256, 512)), 1e9)


def write_classifier(path: Path) -> None:
    """A finished classifier with random weights."""
    import torch

    from pytorch_classification.classifier import Classifier
    from pytorch_classification.model import build

    torch.manual_seed(0)
    Classifier(build("none"), 32, 36, False, 1.0, 0.5, anything_goes()).save(path)
