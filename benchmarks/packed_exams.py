"""The exams of one image size in one file, for a machine that has neither the DICOM files nor pydicom."""

import io
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxr.files import write_atomically
from cxr.squares import Squares
from pytorch_detection.rsna_dataset import Exam, RsnaDetectionDataset
from pytorch_detection.sources import Collection
from pytorch_detection.training_data import Data


def pack(data: Data, path: Path) -> None:
    """Write the exams of ``data.train`` to one file: squares as lossless WebP, boxes, classes and patients."""
    squares: list[NDArray[np.uint8]] = []
    for index in data.train:
        stream = io.BytesIO()
        Image.fromarray(np.array(data.images.images[index])).save(stream, "WEBP", lossless=True)
        squares.append(np.frombuffer(stream.getvalue(), np.uint8))
    exams = data.of(data.train)
    columns: dict[str, Any] = {
        "squares": np.concatenate(squares),
        "ends": np.cumsum([len(square) for square in squares]),
        "size": np.array(data.images.images.shape[1]),
        "boxes": np.concatenate(data.truths(data.train)),
        "box_ends": np.cumsum([len(exam.boxes_xyxy) for exam in exams]),
        "exam_ids": np.array([exam.exam_id for exam in exams]),
        "findings": np.array([exam.finding for exam in exams]),
        "patients": np.array([exam.patient for exam in exams]),
        "hashes": np.array([data.hashes[index] for index in data.train]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez(file, **columns))


def unpacked(path: Path, size: int, device: torch.device) -> Data:
    """The exams that ``pack`` wrote; their boxes are in pixels of the square.

    Raises:
        ValueError: another file, or squares of another size.
    """
    try:
        with np.load(path) as file:
            columns: dict[str, NDArray[Any]] = dict(file)
        found = int(columns["size"])
        squares = np.split(columns["squares"], columns["ends"][:-1])
        boxes = np.split(columns["boxes"].astype(np.float64), columns["box_ends"][:-1])
        rows = [columns[name].tolist() for name in ("exam_ids", "findings", "patients", "hashes")]
    except (KeyError, BadZipFile, EOFError, ValueError) as error:
        raise ValueError(f"{path}: expected a file that --packed wrote ({error}); give another name") from error
    if found != size:
        raise ValueError(f"{path}: squares of {found} pixels, not of --size {size}; give another name")
    images = np.stack([np.asarray(Image.open(io.BytesIO(square.tobytes())).convert("L")) for square in squares])
    exams = [
        Exam(name, Path(name), tuple(map(tuple, own.tolist())), finding, patient, None, None, None)
        for own, name, finding, patient in zip(boxes, *rows[:3], strict=True)
    ]
    sizes = np.full((len(exams), 2), size, np.int32)
    dataset = RsnaDetectionDataset(images, sizes, exams)
    none = np.zeros(0, np.int64)
    every = np.arange(len(exams))
    collection = Collection(path, exams, dataset, sizes, rows[3], every, {})
    return Data(**vars(collection), squares=Squares(images, device), train=every, validation=none, held_out=none)
