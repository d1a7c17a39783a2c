"""Answers -> worklist.html, one file that needs nothing else, and worklist.csv beside it."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cxr.files import write_pieces
from cxr.messages import printable, shortened
from cxr.prediction import Model, in_words
from cxr.tables import write_csv
from reading_room.answers import Answers, Box, Exam
from reading_room.header import HIDDEN
from reading_room.texts import TEXTS, english

PAGE, TABLE = "worklist.html", "worklist.csv"
TABLE_COLUMNS = (
    "rank",
    "file",
    "probability",
    "threshold",
    "class",
    "borderline",
    "out_of_distribution",
    "boxes",
    "highest_score",
    "acquired",
    "view",
    "note",
    "key",
    "error",
)
SOURCES = Path(__file__).resolve().parent
_LONGEST = 300  # characters of a name or a header's text in the page; the table has them all


@dataclass(frozen=True)
class Made:
    """What the page says of where it comes from.

    Attributes:
        classes: names of what is below, and of what is at or above the classifier's threshold.
        commit: of the code; None outside a git checkout.
        written: date and time, for a reader.
        watched: whether the page goes on changing.
    """

    classifier: Model
    detector: Model | None
    classes: tuple[str, str]
    commit: str | None
    written: str
    identifiers: bool
    watched: bool

    def above(self, exam: Exam) -> bool:
        """Whether the exam is called the second class."""
        return exam.probability >= self.classifier.threshold


def write(answers: Answers, made: Made) -> None:
    """Replace page and table in the folder of ``answers``; a reader sees the old or the new one, never half of one."""
    exams, failed = answers.answered(), answers.unanswered()
    write_pieces(answers.folder / PAGE, (piece.encode() for piece in page(answers, exams, failed, made)))
    rows = [_row(str(rank), exam, made) for rank, exam in enumerate(exams, 1)] + [_row("", one, made) for one in failed]
    patient = ("patient",) if made.identifiers else ()
    write_csv(answers.folder / TABLE, (*TABLE_COLUMNS, *patient), rows)


def page(answers: Answers, exams: list[Exam], failed: list[Exam], made: Made) -> Iterator[str]:
    """The page in pieces, so that its pictures are never in memory together."""
    environment = Environment(
        loader=FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,  # a page cut short is told by its end
    )
    style, script = _source("page.css"), _source("page.js")
    checked = any(exam.out_of_distribution is not None for exam in exams)
    return environment.get_template("page.html").generate(
        english=english,
        texts=TEXTS,
        style=style,
        style_hash=_policy_hash(style),
        script=script,
        script_hash=_policy_hash(script),
        made=made,
        columns=_columns(made),
        groups=_groups(exams, made, checked),
        unlike_checked=checked,
        threshold=f"{made.classifier.threshold:.3f}",
        point=f"{99 * made.classifier.threshold:.2f}",  # of 100; the mark is 1 wide
        count=len(exams),
        exams=(_shown(rank, exam, answers, made) for rank, exam in enumerate(exams, 1)),
        failed=[(_text(exam.file), _text(exam.error)) for exam in failed],
    )


def _columns(made: Made) -> list[tuple[str, str]]:
    """What a list can be sorted by, and which way round at first."""
    columns = [("rank", "ascending"), ("probability", "descending"), ("marks", "descending")]
    if made.detector is not None:
        columns.append(("boxes", "descending"))
    columns += [("acquired", "descending"), ("view", "ascending")]
    if made.identifiers:
        columns.append(("patient", "ascending"))
    return [*columns, ("file", "ascending")]


def _groups(exams: list[Exam], made: Made, checked: bool) -> dict[str, int]:
    """What a list can be filtered by, and how many exams that leaves."""
    counts = Counter(group for exam in exams for group in _groups_of(exam, made))
    boxed = ["boxed"] if made.detector is not None else []
    unlike = ["unlike"] if checked else []
    noted = ["noted"] if counts["noted"] else []
    names = ["above", "borderline", *unlike, *noted, *boxed, "below"]
    return {"all": len(exams), **{name: counts[name] for name in names}}


def _groups_of(exam: Exam, made: Made) -> list[str]:
    belongs = {
        "above": made.above(exam),
        "below": not made.above(exam),
        "borderline": exam.borderline,
        "unlike": bool(exam.out_of_distribution),
        "noted": bool(exam.note),
        "boxed": bool(exam.boxes),
    }
    return [group for group, does in belongs.items() if does]


def _shown(rank: int, exam: Exam, answers: Answers, made: Made) -> dict[str, Any]:
    """What a row says, as text; whatever comes from a file or its header is left for the template to escape."""
    groups = _groups_of(exam, made)
    folder, _, name = exam.file.rpartition("/")
    return {
        "rank": rank,
        "key": exam.name,
        "instance": _text(exam.instance),
        "groups": groups,
        "marks": [mark for mark in ("borderline", "unlike", "noted") if mark in groups],
        "note": _text(exam.note),
        "above": made.above(exam),
        "label": made.classes[made.above(exam)],
        "probability": f"{exam.probability:.3f}",
        "percent": f"{100 * exam.probability:.2f}",
        "boxes": [_shown_box(box) for box in exam.boxes],
        "highest": f"{exam.highest:.2f}",
        "width": exam.width,
        "height": exam.height,
        "picture": _data(answers.picture(exam, "film.jpg"), "image/jpeg"),
        "heat": _data(answers.picture(exam, "heat.webp"), "image/webp"),
        "acquired": exam.acquired,
        "study_date": exam.study_date,
        "view": _text(exam.view),
        "patient": _text(exam.patient) if made.identifiers else "",
        "file": _text(exam.file),
        "folder": _text(folder),
        "name": _text(f"{name} (UID …{exam.instance[-6:]})" if HIDDEN in name and exam.instance else name),
    }


def _shown_box(box: Box) -> dict[str, str]:
    return {side: f"{value:.2f}" for side, value in asdict(box).items()}


def _row(rank: str, exam: Exam, made: Made) -> list[str]:
    """For the table."""
    patient = [exam.patient] if made.identifiers else []
    if exam.error:
        return [rank, exam.file, *[""] * 7, exam.acquired, exam.view, exam.note, exam.key, exam.error, *patient]
    detector = made.detector is not None
    return [
        rank,
        exam.file,
        f"{exam.probability:.6f}",
        f"{made.classifier.threshold:.6f}",
        made.classes[made.above(exam)],
        in_words(exam.borderline),
        in_words(exam.out_of_distribution),
        str(len(exam.boxes)) if detector else "",
        f"{exam.highest:.6f}" if detector else "",
        exam.acquired,
        exam.view,
        exam.note,
        exam.key,
        "",
        *patient,
    ]


def _text(text: str) -> str:
    """``text`` for the page: not too long, control characters as escapes."""
    return shortened(printable(text), _LONGEST)


def _data(path: Path, kind: str) -> Markup | None:
    """A picture as a part of the page; None where somebody has removed it."""
    if not path.exists():
        return None
    return Markup(f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")


def _source(name: str) -> Markup:
    return Markup((SOURCES / name).read_text(encoding="utf-8"))


def _policy_hash(text: str) -> str:
    """By which the page's Content-Security-Policy knows its own style and script, and lets no other in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
