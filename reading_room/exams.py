"""The exams of a worklist on disk: one line of a journal and two pictures each. A kill at any moment loses nothing."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cxr.files import writing
from cxr.messages import composed, one_line, printable
from cxr.prediction import Box, Prediction
from cxr.reading import Header
from cxr.training_run import read_records, whole_lines

JOURNAL = "exams.jsonl"
PICTURES = "pictures"
HIDDEN = "…"  # stands for text that identifies the patient
_FORMAT = 2
_OWN_PICTURE = re.compile(r"[0-9a-f]{24}\.(film\.jpg|heat\.webp)")
_SHORT = 4  # bytes; shorter names are hidden only as whole words, or the ID 1 would hide every 1 of a path


def hashed(text: str) -> str:
    """24 hexadecimal digits from which the text cannot be read."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


@dataclass(frozen=True)
class Exam:
    """One file of the input, with its prediction or the error.

    Attributes:
        key: SOP Instance UID, or ``sha256`` where there is none; ``place`` with an error. Predicted once.
        sha256: of the file; empty with an error.
        place: hash of the path. state: hash of path, size and times of the file, by which it is recognized unread.
        file: path for a reader, without text that identifies the patient unless identifiers were asked for.
        acquired: ISO 8601, as far as the header states it. is_study_date: whether that is only the date of the study.
        patient: name and ID; empty unless identifiers were asked for.
        prediction: whose ``path`` is ``file``.
    """

    key: str
    sha256: str
    place: str
    state: str
    file: str
    acquired: str
    is_study_date: bool
    view: str
    patient: str
    prediction: Prediction

    @property
    def instance(self) -> str:
        """SOP Instance UID; empty where there is none."""
        return "" if self.key == self.sha256 else self.key

    @property
    def name(self) -> str:
        """Of its pictures, whatever the key is."""
        return hashed(self.key)

    @property
    def probability(self) -> float:
        """Of PNEUMONIA; 0 without a prediction."""
        return self.prediction.probability or 0.0


@dataclass(frozen=True)
class Naming:
    """How files and patients are shown.

    Attributes:
        folders: of the input; a file is shown by its path within.
        identifiers: whether patients, and whole paths, are shown.
    """

    folders: tuple[Path, ...]
    identifiers: bool

    def exam(self, path: Path, state: str, header: Header, sha256: str, prediction: Prediction) -> Exam:
        """The exam in the file ``path``, with what of its header and of an error may be shown."""
        within = next((path.relative_to(folder) for folder in self.folders if path.is_relative_to(folder)), None)
        shown = str(path) if self.identifiers else path.name if within is None else within.as_posix()
        file, place = self._without_names(printable(shown), header), hashed(str(path.absolute()))
        if header.is_patient_unreadable and not self.identifiers:  # the name of the file may hold the patient's
            file = f"{place}{path.suffix}"
        error = prediction.error
        for whole in (f"{path}: ", f"{path.absolute()}: "):
            error = error.removeprefix(one_line(whole) + " ")
        return Exam(
            key=place if error else header.sop_instance_uid or sha256,
            sha256=sha256,
            place=place,
            state=state,
            file=file,
            acquired=header.acquired,
            is_study_date=header.is_study_date,
            view=printable(header.view_text),
            patient=printable(header.patient_text) if self.identifiers else "",
            prediction=replace(prediction, path=Path(file), error=self._without_names(error, header)),
        )

    def _without_names(self, text: str, header: Header) -> str:
        text = composed(text)
        for name in () if self.identifiers else sorted(header.patient_names, key=len, reverse=True):
            word = rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"
            pattern = word if len(name.encode()) < _SHORT else re.escape(name)
            text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
        return text


@dataclass
class Journal:
    """The exams in ``folder``; ``open`` makes one.

    Attributes:
        exams: those with a prediction, by key. failed: those without, by place.
    """

    folder: Path
    exams: dict[str, Exam] = field(default_factory=dict[str, Exam])
    failed: dict[str, Exam] = field(default_factory=dict[str, Exam])

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any]) -> "Journal":
        """With --watch, with the exams of earlier runs with --watch in ``folder``; others are removed.

        Args:
            folder: gets the journal and a folder of pictures.
            settings: plain values that predictions depend on, and whether exams are ``watched``.

        Raises:
            ValueError: a run without --watch in the folder of one with it; or the journal is damaged, or was written by
                another version, or with other models or settings.
        """
        journal, path, expected = cls(folder), folder / JOURNAL, {"format": _FORMAT, **settings}
        records = read_records(path)
        if not records or not records[0].get("watched"):
            journal._empty()
            journal._append(expected)
            return journal
        if not settings["watched"]:
            raise ValueError(f"{folder.absolute()} belongs to a run with --watch; give --output-dir another folder")
        if other := [name for name in {**expected, **records[0]} if records[0].get(name) != expected.get(name)]:
            raise ValueError(
                f"{path.absolute()} was written with other models or settings ({', '.join(other)}); start with the "
                "same ones, give --output-dir another folder, or move this one away"
            )
        os.truncate(path, sum(len(line) + 1 for line in whole_lines(path)))  # a kill may leave half a line
        for number, record in enumerate(records[1:], 2):
            journal._take(_exam(record, f"{path}, line {number}"))
        return journal

    def add(self, exam: Exam, film: bytes = b"", heat: bytes = b"") -> None:
        """Keep an exam: its pictures first, since the exam counts from its line on."""
        for kind, content in (("film.jpg", film), ("heat.webp", heat)):
            if content:
                path = self.picture(exam, kind)
                with writing(path, len(content)):
                    path.write_bytes(content)
        record = asdict(exam)
        del record["prediction"]["path"], record["prediction"]["picture"]
        self._append(record)
        self._take(exam)

    def flush(self) -> None:
        """Flush the journal to the disk, in milliseconds; a power cut loses only exams added later."""
        path = self.folder / JOURNAL
        with writing(path), path.open("rb+") as file:
            os.fsync(file.fileno())  # some systems report a full disk only now

    def picture(self, exam: Exam, kind: str) -> Path:
        """Path of the ``film.jpg`` or the ``heat.webp`` of an exam."""
        return self.folder / PICTURES / f"{exam.name}.{kind}"

    def _empty(self) -> None:
        pictures = self.folder / PICTURES
        pictures.mkdir(parents=True, exist_ok=True)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        for picture in pictures.iterdir():
            if _OWN_PICTURE.fullmatch(picture.name):  # a folder of this name may hold pictures of somebody else
                picture.unlink()

    def _take(self, exam: Exam) -> None:
        self.failed.pop(exam.place, None)
        if exam.prediction.error:
            self.failed[exam.place] = exam
        else:
            self.exams[exam.key] = exam

    def _append(self, record: dict[str, Any]) -> None:
        path, line = self.folder / JOURNAL, json.dumps(record, allow_nan=False).encode() + b"\n"
        with writing(path, len(line)), path.open("ab") as file:
            file.write(line)


def _exam(record: dict[str, Any], where: str) -> Exam:
    try:
        values: dict[str, Any] = {**record["prediction"], "path": Path(record["file"])}
        values["boxes"] = tuple(Box(*box) for box in values["boxes"])
        whole: dict[str, Any] = {**record, "prediction": Prediction(**values)}
        return Exam(**whole)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: not an exam of this program ({error}); correct or remove the line") from error
