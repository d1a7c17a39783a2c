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
        """The challenge's folder with each exam ``copies`` times; the files, which are empty, by name."""
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
            (folder / f"{copy}.dcm").touch()  # another for each copy: a file has only so many names
            for exam in self.exams:
                paths.append(folder / IMAGES / f"{exam}-{copy}.dcm")
                os.link(folder / f"{copy}.dcm", paths[-1])
        return sorted(paths, key=lambda path: path.stem)


def write_store(paths: Sequence[Path], size: int, folder: Path) -> None:
    """What ``decode_once`` would leave of ``paths``, with holes in place of the squares."""
    folder.mkdir()
    file = folder / f"exams-{size}px-{store.key(paths, size)}.npy"
    with file.open("wb") as opened:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), size, size)}
        np.lib.format.write_array_header_2_0(opened, header)
        opened.truncate(opened.tell() + len(paths) * size * size)
    said = itertools.cycle(itertools.product((2, 30, 51, 77), "FM", ("AP", "PA")))
    facts = [
        {
            "file": path.name,
            "height": _WIDTH,
            "width": _WIDTH,
            "sha256": hashlib.sha256(str(path).encode()).hexdigest(),
            "header": dict(zip(("age_years", "sex", "view"), next(said), strict=True)),
        }
        for path in paths
    ]
    store.write_facts(file, facts)
