"""Exams -> worklist.html, one file that needs no other, and worklist.csv beside it."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cxr.files import write_pieces
from cxr.messages import printable, shortened
from cxr.prediction import Model, in_words, is_borderline
from cxr.tables import write_csv
from pytorch_classification.data_load import CLASSES
from reading_room.exams import HIDDEN, Exam, Journal
from reading_room.texts import TEXTS, english

PAGE, TABLE = "worklist.html", "worklist.csv"
_PREDICTED = ["probability", "threshold", "class", "borderline", "out_of_distribution", "boxes", "highest_score"]
COLUMNS = ["rank", "file", *_PREDICTED, "acquired", "view", "note", "key", "error"]
SOURCES = Path(__file__).resolve().parent
_LONGEST = 300  # characters of a name or a header's text in the page; the table has them all


@dataclass(frozen=True)
class About:
    """What the page states of its own origin.

    Attributes:
        commit: of the code; None outside a git checkout.
        watched: whether the page keeps changing.
    """

    classifier: Model
    detector: Model | None
    commit: str | None
    identifiers: bool
    watched: bool

    def groups_of(self, exam: Exam) -> list[str]:
        """The filters that an exam passes."""
        found = exam.prediction
        above = exam.probability >= self.classifier.threshold
        passed = {
            "above": above,
            "below": not above,
            "borderline": is_borderline(exam.probability, self.classifier.threshold),
            "ood": found.out_of_distribution,
            "noted": found.note,
            "boxed": found.boxes,
        }
        return [group for group, does in passed.items() if does]


def write(journal: Journal, about: About) -> None:
    """Replace page and table in the journal's folder; a reader sees the old or the new one, never half of one."""
    exams = sorted(
        journal.exams.values(), key=lambda exam: (-exam.probability, -(exam.prediction.highest_score or 0), exam.file)
    )
    failed = sorted(journal.failed.values(), key=lambda exam: exam.file)
    write_pieces(journal.folder / PAGE, (piece.encode() for piece in page(journal, exams, failed, about)))
    rows = [_row(str(rank), exam, about) for rank, exam in enumerate(exams, 1)]
    rows += [_row("", exam, about) for exam in failed]
    write_csv(journal.folder / TABLE, [*COLUMNS, *["patient"] * about.identifiers], rows)


def page(journal: Journal, exams: list[Exam], failed: list[Exam], about: About) -> Iterator[str]:
    """The page in pieces, so that its pictures are never in memory together."""
    environment = Environment(
        loader=FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,  # by its end a whole page is recognized
    )
    environment.filters["text"] = _text
    style, script = (Markup((SOURCES / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    ood_stated = any(exam.prediction.out_of_distribution is not None for exam in exams)
    counts = Counter(group for exam in exams for group in about.groups_of(exam))
    shown = {"ood": ood_stated, "noted": counts["noted"], "boxed": about.detector is not None}
    groups = [name for name in ("above", "borderline", "ood", "noted", "boxed", "below") if shown.get(name, True)]
    return environment.get_template("page.html").generate(
        english=english,
        texts=TEXTS,
        style=style,
        style_hash=_policy_hash(style),
        script=script,
        script_hash=_policy_hash(script),
        about=about,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z"),
        columns=_columns(about),
        groups={"all": len(exams), **{name: counts[name] for name in groups}},
        ood_stated=ood_stated,
        threshold=about.classifier.threshold,
        count=len(exams),
        rows=(_shown(rank, exam, journal, about) for rank, exam in enumerate(exams, 1)),
        failed=failed,
    )


def _columns(about: About) -> list[tuple[str, str]]:
    """What the list can be sorted by, and in which order at first."""
    boxes = ["boxes"] if about.detector is not None else []
    patient = ["patient"] if about.identifiers else []
    names = ["rank", "probability", "marks", *boxes, "acquired", "view", *patient, "file"]
    ascending = ("rank", "view", "patient", "file")
    return [(name, "ascending" if name in ascending else "descending") for name in names]


def _shown(rank: int, exam: Exam, journal: Journal, about: About) -> dict[str, Any]:
    """An exam with what its row shows beside its own values."""
    folder, _, name = exam.file.rpartition("/")
    return {
        "rank": rank,
        "exam": exam,
        "found": exam.prediction,
        "groups": about.groups_of(exam),
        "picture": _data(journal.picture(exam, "film.jpg"), "image/jpeg"),
        "heat": _data(journal.picture(exam, "heat.webp"), "image/webp"),
        "folder": folder,
        "name": f"{name} (UID …{exam.instance[-6:]})" if HIDDEN in name and exam.instance else name,
    }


def _row(rank: str, exam: Exam, about: About) -> list[str]:
    """For the table."""
    found, values = exam.prediction, [""] * len(_PREDICTED)
    if not found.error:
        groups = about.groups_of(exam)
        values = [
            f"{exam.probability:.6f}",
            f"{about.classifier.threshold:.6f}",
            CLASSES["above" in groups],
            in_words("borderline" in groups),
            in_words(found.out_of_distribution),
            *(["", ""] if found.highest_score is None else [str(len(found.boxes)), f"{found.highest_score:.6f}"]),
        ]
    patient = [exam.patient] if about.identifiers else []
    return [rank, exam.file, *values, exam.acquired, exam.view, found.note, exam.key, found.error, *patient]


def _text(text: str) -> str:
    """``text`` for the page: not too long, control characters as escapes."""
    return shortened(printable(text), _LONGEST)


def _data(path: Path, kind: str) -> Markup | None:
    """A picture as a part of the page; None where somebody has removed it."""
    if not path.exists():
        return None
    return Markup(f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")


def _policy_hash(text: str) -> str:
    """For the Content-Security-Policy, which admits the page's own style and script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
