"""Exams of a worklist that no model has predicted, and its page as a browser parses it."""

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxr.prediction import Box, Model, Prediction
from reading_room import page, thumbnails
from reading_room.exams import Exam, Journal

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror='window.hacked = 1'>",
    "'; window.hacked = 1; //",
    "</td></tr></table><h1>hacked</h1>",
    "</script><script>window.hacked = 1</script>",
    "{{ 7 * 7 }}{% raw %}",
    "exam\u202egpj.exe",
    "\u2066\u2067left\u2069right\u200f",
    "line\nend\r\ttab\x07bell",
    "&lt;b&gt;&amp;&#x27;",
    "환자 사진 é ß 日本",
    "x" * 10_000,
)


def exam(number: int, **changes: Any) -> Exam:
    """One with a prediction, which ``changes`` may be of too; the higher its ``number``, the less urgent."""
    file = changes.get("file", f"folder/exam-{number:04}.dcm")
    values: dict[str, Any] = {
        "key": f"1.2.3.{number}",
        "sha256": f"{number:064}",
        "place": f"place {number}",
        "state": f"state {number}",
        "file": file,
        "acquired": f"2026-11-{1 + number % 28:02}T10:{number % 60:02}",
        "is_study_date": False,
        "view": ("PA", "AP")[number % 2],
        "patient": "",
    }
    predicted: dict[str, Any] = {
        "path": Path(file),
        "probability": 0.95 - 0.9 * number / (number + 10),
        "highest_score": 0.1,
        "width": 120,
        "height": 100,
    }
    of_exam = {name: value for name, value in changes.items() if name in values}
    of_prediction = {name: value for name, value in changes.items() if name not in values}
    return Exam(**values | of_exam, prediction=Prediction(**predicted | of_prediction))


def box(score: float = 0.8) -> Box:
    return Box(10.0, 20.0, 30.5, 40.0, score)


def about(**changes: Any) -> page.About:
    values: dict[str, Any] = {
        "classifier": Model("a classifier", "classifier.pth", "c1a55" * 12, 0.5),
        "detector": Model("a detector", "detector.pth", "de7ec7" * 10, 0.6),
        "commit": "0123456789ab",
        "identifiers": False,
        "watched": False,
    }
    return page.About(**values | changes)


def film() -> bytes:
    stream = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)
    Image.fromarray(grey).resize((120, 100)).save(stream, "JPEG")
    return stream.getvalue()


def heat() -> bytes:
    return thumbnails.heat(np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32))


def journal(folder: Path, exams: list[Exam]) -> Journal:
    """In ``folder``, with pictures for those that have a prediction."""
    found = Journal.open(folder, {"watched": False})
    for one in exams:
        found.add(one, *(() if one.prediction.error else (film(), heat())))
    return found


def written(folder: Path, exams: list[Exam], **changes: Any) -> Path:
    """The page of ``exams`` in ``folder``."""
    page.write(journal(folder, exams), about(**changes))
    return folder / page.PAGE


class Page(HTMLParser):
    """A page as a browser without a script parses it.

    Attributes:
        tags: every element with its attributes, in order. rows: attributes of each exam. texts: all text outside of style and
            script. codes: what stands in them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.codes: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.codes if self._inside in ("style", "script") else self.texts).append(data)

    @property
    def rows(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "tr" and "data-key" in attributes]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
