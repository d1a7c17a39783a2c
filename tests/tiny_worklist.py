"""Answers for a worklist that no model has given, and the page as a reader's program finds it."""

import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxr import reading
from cxr.prediction import Model
from reading_room import page, pictures
from reading_room.answers import Answers, Box, Exam

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
    """One with an answer; the higher its ``number``, the less urgent."""
    values: dict[str, Any] = {
        "key": f"1.2.3.{number}",
        "content": f"{number:064}",
        "place": f"place {number}",
        "state": f"state {number}",
        "file": f"folder/exam-{number:04}.dcm",
        "probability": 0.95 - 0.9 * number / (number + 10),
        "highest": 0.1,
        "width": 120,
        "height": 100,
        "acquired": f"2026-11-{1 + number % 28:02}T10:{number % 60:02}",
        "view": ("PA", "AP")[number % 2],
    }
    return Exam(**values | changes)


def box(score: float = 0.8) -> Box:
    return Box(10.0, 20.0, 30.5, 40.0, score)


def made(**changes: Any) -> page.Made:
    values: dict[str, Any] = {
        "classifier": Model("a classifier", "classifier.pth", "c1a55" * 12, 0.5),
        "detector": Model("a detector", "detector.pth", "de7ec7" * 10, 0.6),
        "classes": ("NORMAL", "PNEUMONIA"),
        "commit": "0123456789ab",
        "written": "2026-11-26 10:32:05",
        "identifiers": False,
        "watched": False,
    }
    return page.Made(**values | changes)


def film(number: int = 0) -> bytes:
    grey = np.random.default_rng(number).integers(0, 256, (10, 12), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(grey).resize((120, 100)).save(Path(folder) / "a.png")
        return pictures.film(reading.read(Path(folder) / "a.png"))


def heat() -> bytes:
    return pictures.heat(np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32))


def answers(folder: Path, exams: list[Exam]) -> Answers:
    """In ``folder``, with pictures for those that have an answer."""
    found = Answers.start(folder, {"watched": False})
    for number, one in enumerate(exams):
        found.add(one, *(() if one.error else (film(number), heat())))
    return found


def written(folder: Path, exams: list[Exam], **changes: Any) -> Path:
    """The page of ``exams`` in ``folder``."""
    page.write(answers(folder, exams), made(**changes))
    return folder / page.PAGE


class Page(HTMLParser):
    """What a browser without a script makes of a page.

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
