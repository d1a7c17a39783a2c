"""What has been answered, on disk: a line for each exam, and its pictures. A kill at any moment loses nothing."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cxr.files import writing
from cxr.training_run import parsed, whole_lines

JOURNAL = "answers.jsonl"
PICTURES = "pictures"
_FORMAT = 1
_OUR_PICTURE = re.compile(r"[0-9a-f]{24}\.(film\.jpg|heat\.webp)")


@dataclass(frozen=True)
class Box:
    """An opacity in pixels of the original image; ``x`` and ``y`` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass(frozen=True)
class Exam:
    """One file that was asked for, and its answer or why there is none.

    Attributes:
        key: SOP Instance UID, or ``content`` where there is none. One key is answered once.
        content: SHA-256 of the file.
        place: hash of the path. state: hash of path, size and times of the file, by which it is known again.
        file: for a reader; without what the header says of the patient, unless identifiers were asked for.
        error: why there is no answer; empty where there is one.
        probability: of PNEUMONIA, calibrated. highest: score among all boxes looked at, given out or not.
        out_of_distribution: whether the image is unlike those the model was trained on; None: the model cannot tell.
        width, height: of the original image in pixels.
        acquired: ISO 8601, as far as the header says it. study_date: whether that is the date of the study only.
        note: what the header says against a frontal chest radiograph.
        patient: name and id; empty unless identifiers were asked for.
    """

    key: str
    content: str
    place: str
    state: str
    file: str
    error: str = ""
    probability: float = 0.0
    borderline: bool = False
    out_of_distribution: bool | None = None
    boxes: tuple[Box, ...] = ()
    highest: float = 0.0
    width: int = 0
    height: int = 0
    acquired: str = ""
    study_date: bool = False
    view: str = ""
    note: str = ""
    patient: str = ""

    @property
    def instance(self) -> str:
        """SOP Instance UID; empty where there is none."""
        return "" if self.key == self.content else self.key

    @property
    def name(self) -> str:
        """A short name for files, whatever the key is."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:24]

    @property
    def urgency(self) -> tuple[float, float, str]:
        """Sorts the most urgent first."""
        return (-self.probability, -self.highest, self.file)


@dataclass
class Answers:
    """The answers in ``folder``; ``start`` and ``go_on`` make one.

    Attributes:
        exams: those with an answer, by key. failed: those without, by place.
    """

    folder: Path
    exams: dict[str, Exam] = field(default_factory=dict[str, Exam])
    failed: dict[str, Exam] = field(default_factory=dict[str, Exam])

    @classmethod
    def start(cls, folder: Path, made: dict[str, Any]) -> "Answers":
        """No answers yet; those of an earlier run in ``folder`` are replaced, if it was not one of --watch.

        Args:
            folder: gets the journal and a folder of pictures.
            made: plain values that tell what answers, and whether it is ``watched``.

        Raises:
            ValueError: the folder is kept by --watch.
        """
        answers = cls(folder)
        lines = whole_lines(folder / JOURNAL)
        if lines and parsed(lines[0], f"{folder / JOURNAL}, line 1").get("watched"):
            raise ValueError(f"{folder.absolute()} is kept by --watch; give --output-dir another folder")
        return answers._emptied(made)

    @classmethod
    def go_on(cls, folder: Path, made: dict[str, Any]) -> "Answers":
        """The answers of earlier runs with --watch in ``folder``; without any, as ``start``.

        Raises:
            ValueError: the journal is damaged, or was written with other models or settings.
        """
        answers, path = cls(folder), folder / JOURNAL
        lines = whole_lines(path)
        records = [parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
        if not records or not records[0].get("watched"):
            return answers._emptied(made)
        expected = {"format": _FORMAT, **made}
        if other := [name for name in {**expected, **records[0]} if records[0].get(name) != expected.get(name)]:
            raise ValueError(
                f"{path.absolute()} was written with other models or settings ({', '.join(other)}); start with the "
                "same ones, give --output-dir another folder, or move this one away"
            )
        os.truncate(path, sum(len(line) + 1 for line in lines))  # the next line must not go on one cut short by a kill
        for number, record in enumerate(records[1:], 2):
            answers._take(_exam(record, f"{path}, line {number}"))
        return answers

    def add(self, exam: Exam, film: bytes = b"", heat: bytes = b"") -> None:
        """Keep an answer, or why there is none: its pictures first, since the line makes it count."""
        for kind, content in (("film.jpg", film), ("heat.webp", heat)):
            if content:
                path = self.picture(exam, kind)
                with writing(path, len(content)):
                    path.write_bytes(content)
        self._append(asdict(exam))
        self._take(exam)

    def settle(self) -> None:
        """Flush the answers to the disk, in milliseconds; a power cut loses only those added later."""
        with writing(self._journal()), self._journal().open("rb+") as file:
            os.fsync(file.fileno())  # some systems tell of a full disk only now

    def picture(self, exam: Exam, kind: str) -> Path:
        """Where the ``film.jpg`` or the ``heat.webp`` of an exam lies."""
        return self._pictures() / f"{exam.name}.{kind}"

    def answered(self) -> list[Exam]:
        """Those with an answer, most urgent first."""
        return sorted(self.exams.values(), key=lambda exam: exam.urgency)

    def unanswered(self) -> list[Exam]:
        """Those without, by name."""
        return sorted(self.failed.values(), key=lambda exam: exam.file)

    def states(self) -> set[str]:
        """Of the files that need not be read again; those that failed are tried again by the next run."""
        return {exam.state for exam in self.exams.values()}

    def _emptied(self, made: dict[str, Any]) -> "Answers":
        self._pictures().mkdir(parents=True, exist_ok=True)
        self._journal().unlink(missing_ok=True)
        for picture in self._pictures().iterdir():
            if _OUR_PICTURE.fullmatch(picture.name):  # a folder of this name may hold pictures of somebody else
                picture.unlink()
        self._append({"format": _FORMAT, **made})
        return self

    def _take(self, exam: Exam) -> None:
        self.failed.pop(exam.place, None)
        if exam.error:
            self.failed[exam.place] = exam
        else:
            self.exams[exam.key] = exam

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        with writing(self._journal(), len(line)), self._journal().open("ab") as file:
            file.write(line)

    def _journal(self) -> Path:
        return self.folder / JOURNAL

    def _pictures(self) -> Path:
        return self.folder / PICTURES


def _exam(record: dict[str, Any], where: str) -> Exam:
    try:
        values: dict[str, Any] = {**record, "boxes": tuple(Box(**box) for box in record["boxes"])}
        return Exam(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: not an answer of this program ({error}); mend or remove the line") from error
