"""Files -> answers: read ahead by all cores while the networks compute, each file once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from warnings import warn

import numpy as np

from cxr import reading, runtime
from cxr.messages import first_of
from cxr.prediction import is_borderline
from pytorch_classification.classifier import Classifier
from pytorch_detection.detector import DetectionResult, Detector
from reading_room import pictures
from reading_room.answers import Answers, Box
from reading_room.documents import Documents
from reading_room.header import Naming
from reading_room.looking import Look, look

_BATCH = 16
_NOT_UNIQUE = "its SOP Instance UID, which must be unique, is that of another image, which has been answered"


@dataclass(frozen=True)
class Judges:
    """The models, and where they compute."""

    classifier: Classifier
    detector: Detector | None
    run: runtime.Runtime

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in pixels of the squares that the models look at."""
        return (self.classifier.store_size, *(() if self.detector is None else (self.detector.size,)))


def answer(
    judges: Judges,
    files: Sequence[tuple[Path, str]],
    answers: Answers,
    naming: Naming,
    documents: Documents | None,
) -> Iterator[int]:
    """Add an answer for each of ``files`` (path and state) that has none yet; yields how many files each batch had.

    Our own DICOM documents, which an archive may send back, are passed over: answered, they would go round for ever.
    Memory holds three batches of squares and one full image for each core, however many the files are.
    """
    for batch in reading.in_batches(lambda file: look(*file, judges.sizes, naming), files, _BATCH):
        new: dict[str, Look] = {}
        own: list[Path] = []
        for one in batch:
            exam = one.exam
            before = new[exam.key].exam if exam.key in new else answers.exams.get(exam.key)
            if one.own:
                own.append(one.path)
            elif exam.error:
                answers.add(exam)
            elif before is None:
                new[exam.key] = one
            elif before.content != exam.content:
                answers.add(replace(exam, error=_NOT_UNIQUE))
            else:  # a copy
                answers.failed.pop(exam.place, None)
        if own:
            warn(f"passed over as DICOM results of this program: {first_of(own)}", stacklevel=2)
        if new:
            _judge(judges, list(new.values()), answers, documents)
        answers.settle()
        yield len(batch)


def _judge(judges: Judges, looks: list[Look], answers: Answers, documents: Documents | None) -> None:
    classifier, detector, run = judges.classifier, judges.detector, judges.run
    squares = np.stack([one.squares[0] for one in looks])
    judged = classifier.predict(squares, run, grad_cam=True)
    assert judged.grad_cam is not None
    unlike = [None] * len(looks) if judged.out_of_distribution is None else judged.out_of_distribution.tolist()
    found = [DetectionResult((), 0.0, None)] * len(looks)
    if detector is not None:
        sizes = [(one.exam.height, one.exam.width) for one in looks]
        found = detector.detect(np.stack([one.squares[1] for one in looks]), sizes, run)
    for one, probability, is_unlike, heatmap, seen in zip(
        looks, judged.probability.tolist(), unlike, judged.grad_cam, found, strict=True
    ):
        exam = replace(
            one.exam,
            probability=probability,
            borderline=is_borderline(probability, classifier.threshold),
            out_of_distribution=_either(is_unlike, seen.out_of_distribution),
            boxes=tuple(Box(*box) for box in seen.boxes),
            highest=seen.highest_score,
        )
        heat = pictures.heat(heatmap)
        if documents is not None:  # before the answer counts: a kill in between makes them once more, and the same
            documents.write(one.path, exam, one.film, heat)
        answers.add(exam, one.film, heat)


def _either(*flags: bool | None) -> bool | None:
    """Whether one of the models finds the image unlike those it was trained on; None where none of them can tell."""
    known = [flag for flag in flags if flag is not None]
    return any(known) if known else None
