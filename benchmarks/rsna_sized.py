"""A data set of the RSNA challenge's form and of any size that takes little room: no pixel of it is written."""

import csv
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr.reading import store
from pytorch_detection.rsna_dataset import CLASS_INFO, CLASSES, IMAGES, LABELS, MAPPING

BYTES_AN_EXAM = 12 * 2**10  # of the disk: two pages of the store, lines of tables, a name in a folder

Row = Sequence[Any]

_WIDTH = 1024  # pixels of an original


@dataclass(frozen=True)
class Tables:
    """The rows of the three tables of the challenge."""

    labels: list[Row]
    classes: list[Row]
    mapping: list[tuple[str, str]]

    @classmethod
    def read(cls, folder: Path) -> "Tables":
        """Those in ``folder``."""
        rows: list[list[Row]] = []
        for name in (LABELS, CLASS_INFO):
            with (folder / name).open(newline="", encoding="utf-8") as file:
                rows.append(list(csv.reader(file))[1:])
        entries = json.loads((folder / MAPPING).read_text(encoding="utf-8"))
        return cls(rows[0], rows[1], [(entry["subset_img_id"], entry["img_id"]) for entry in entries])

    @classmethod
    def generate(cls, count: int) -> "Tables":
        """``count`` exams, two of nine with one or two boxes, as many patients as there are pairs."""
        made = cls([], [], [])
        for number in range(count):
            exam = f"exam{number:06}"
            boxes = [(300, 400, 200, 250), (600, 300, 180, 300)][: number % 9 < 2 and 1 + number % 2]
            made.labels.extend([(exam, *box, 1) for box in boxes] or [(exam, "", "", "", "", 0)])
            made.classes.append((exam, CLASSES[2 if boxes else number % 2]))
            made.mapping.append((exam, f"{number // 2:08}_000.png"))
        return made

    @property
    def exams(self) -> list[str]:
        """The id of each exam, sorted."""
        return sorted({str(row[0]) for row in self.labels})

    def write(self, folder: Path, copies: int) -> list[Path]:
        """The challenge's folder with each exam ``copies`` times; the DICOM files in the order of their names."""
        (folder / IMAGES).mkdir(parents=True)
        for name, header, rows in (
            (LABELS, ("patientId", "x", "y", "width", "height", "Target"), self.labels),
            (CLASS_INFO, ("patientId", "class"), self.classes),
        ):
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows((f"{row[0]}-{copy}", *row[1:]) for copy in range(copies) for row in rows)
        mapping = [
            {"subset_img_id": f"{exam}-{copy}", "img_id": f"{int(name[:8]) + copy * 100_000:08}{name[8:]}"}
            for copy in range(copies)
            for exam, name in self.mapping
        ]
        (folder / MAPPING).write_text(json.dumps(mapping), encoding="utf-8")
        paths: list[Path] = []
        for copy in range(copies):
            headers = itertools.cycle(write_headers(folder, copy))
            for exam in self.exams:
                paths.append(folder / IMAGES / f"{exam}-{copy}.dcm")
                os.link(next(headers), paths[-1])
        return sorted(paths, key=lambda path: path.stem)


def write_headers(folder: Path, copy: int) -> list[Path]:
    """DICOM files without pixels, of several ages and views; others for each copy: a file has only so many names."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    paths: list[Path] = []
    for age, sex, view in itertools.product(("002Y", "030Y", "051Y", "077Y"), "FM", ("AP", "PA")):
        exam = Dataset()
        exam.file_meta = FileMetaDataset()
        exam.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        exam.file_meta.MediaStorageSOPClassUID = exam.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        exam.PatientAge, exam.PatientSex, exam.ViewPosition = age, sex, view
        exam.Rows = exam.Columns = _WIDTH
        paths.append(folder / f"{copy}-{age}-{sex}-{view}.dcm")
        exam.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_store(paths: Sequence[Path], size: int, folder: Path) -> None:
    """What ``decode`` would leave of ``paths``, with holes in place of the squares."""
    folder.mkdir()
    file_name, record = folder / f"exams-{size}px-{store._key(paths, size)}.npy", store._record(size)
    with file_name.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (len(paths),)}
        np.lib.format.write_array_header_2_0(file, header)
        # Not through a map: the kernel would fill holes around whatever is touched, up to megabytes for each exam.
        for path in paths:
            facts = np.array((_WIDTH, _WIDTH, hashlib.sha256(str(path).encode()).hexdigest()), store._FACTS)
            file.seek(size * size, os.SEEK_CUR)
            file.write(facts.tobytes())
