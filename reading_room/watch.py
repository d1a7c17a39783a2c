"""The input of a worklist: files are taken when they no longer change, read ahead, and predicted in batches."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from cxr import dicom_results, reading, runtime
from cxr.messages import first_of, one_line
from cxr.prediction import Model, Prediction
from cxr.reading.dicom_header import read_header
from pytorch_classification.classifier import Classifier
from pytorch_detection.detector import DetectionResult, Detector
from reading_room import thumbnails
from reading_room.exams import Exam, Journal, Naming, hashed

_BATCH = 16
_DUPLICATE = "duplicate SOP Instance UID of another image, which is on the worklist"


def state_of(path: Path) -> str:
    """By which an unchanged file is recognized without being read; empty where it cannot be accessed."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return hashed(f"{path.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}")


@dataclass
class Inbox:
    """Files that arrive in ``folders``, except in ``left_out``.

    Attributes:
        stable_seconds: a file whose size and times have not changed for so long is no longer being written.
        known: states of files that were taken before.
    """

    folders: Sequence[str]
    left_out: Sequence[Path]
    stable_seconds: float
    known: set[str]
    _waiting: dict[Path, tuple[str, float]] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)

    def arrived(self, now: float) -> list[tuple[Path, str]]:
        """Stable files with their states, without those of earlier calls; ``now`` in seconds of a monotonic clock."""
        ready: list[tuple[Path, str]] = []
        waiting: dict[Path, tuple[str, float]] = {}
        for path in self._listed():
            state = state_of(path)
            if not state or state in self.known:
                continue
            before, since = self._waiting.get(path, ("", now))
            since = since if state == before else now
            if now - since >= self.stable_seconds:
                ready.append((path, state))
                self.known.add(state)
            else:
                waiting[path] = (state, since)
        self._waiting = waiting
        return ready

    def _listed(self) -> Iterator[Path]:
        for folder in self.folders:
            with suppress(OSError):  # empty, or a network share that is absent for a while
                yield from reading.find_images([folder], self.left_out)
            self._warn_if_absent(folder)

    def _warn_if_absent(self, folder: str) -> None:
        """Warn once, since an absent folder would look like an empty one."""
        try:
            is_there = Path(folder).is_dir()
        except OSError:  # of some absent network shares
            is_there = False
        if not is_there and folder not in self._absent:
            now = f"{datetime.now():%H:%M:%S}"  # makes a second absence another warning: Python drops repeated ones
            warn(f"{now} {Path(folder).absolute()} does not exist; waiting for it to come back", stacklevel=2)
        (self._absent.discard if is_there else self._absent.add)(folder)


@dataclass(frozen=True)
class _Read:
    """A file, read: its exam without a prediction, or with the error.

    Attributes:
        header: ``NO_HEADER`` itself unless the file is DICOM.
        squares: uint8 [S, S] for the classifier, and for the detector if there is one. film: JPEG.
    """

    path: Path
    exam: Exam
    header: reading.Header
    squares: tuple[NDArray[np.uint8], ...] = ()
    film: bytes = b""


@dataclass(frozen=True)
class Predictor:
    """The models, where they compute, and what becomes of their predictions.

    Attributes:
        models: the two as pages and DICOM results name them; the second is None without a detector.
        dicom_output: gets DICOM results; None for none.
    """

    classifier: Classifier
    detector: Detector | None
    run: runtime.Runtime
    models: tuple[Model, Model | None]
    journal: Journal
    naming: Naming
    dicom_output: Path | None

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the squares for both models, in pixels."""
        return (self.classifier.store_size, *(() if self.detector is None else (self.detector.size,)))

    def predict(self, files: Sequence[tuple[Path, str]]) -> Iterator[int]:
        """Add those of ``files`` (path and state) that are not in the journal; yields how many files each batch had.

        This program's own DICOM results, which an archive may return, are ignored: their results would return too.
        Memory holds three batches of squares and one full image for each core, however many the files are.
        """
        journal = self.journal
        for batch in reading.in_batches(lambda file: self._read(*file), files, _BATCH):
            new: dict[str, _Read] = {}
            own: list[Path] = []
            for one in batch:
                exam = one.exam
                before = new[exam.key].exam if exam.key in new else journal.exams.get(exam.key)
                if one.header.is_own_result:
                    own.append(one.path)
                elif exam.prediction.error:
                    journal.add(exam)
                elif before is None:
                    new[exam.key] = one
                elif before.sha256 != exam.sha256:
                    journal.add(replace(exam, prediction=replace(exam.prediction, error=_DUPLICATE)))
                else:  # a copy
                    journal.failed.pop(exam.place, None)
            if own:
                warn(f"ignored as DICOM results of this program: {first_of(own)}", stacklevel=2)
            if new:
                self._predict(list(new.values()))
            journal.flush()
            yield len(batch)

    def _read(self, path: Path, state: str) -> _Read:
        try:
            radiograph = reading.read(path)
            header, (height, width) = radiograph.header, radiograph.size
            squares, film = tuple(map(radiograph.square, self.sides)), thumbnails.film(radiograph)
        except (reading.UnreadableImage, OSError) as error:
            header = read_header(path)
            exam = self.naming.exam(path, state, header, "", Prediction(path, error=one_line(error)))
            return _Read(path, exam, header)
        found = Prediction(path, note=one_line(header.note), height=height, width=width)
        if state_of(path) != state:
            found = Prediction(path, error="changed while it was read")
        exam = self.naming.exam(path, state, header, radiograph.sha256, found)
        return _Read(path, exam, header, squares, film)

    def _predict(self, reads: list[_Read]) -> None:
        output = self.classifier.predict(np.stack([one.squares[0] for one in reads]), self.run, grad_cam=True)
        assert output.grad_cam is not None
        detected: Sequence[DetectionResult | None] = [None] * len(reads)
        if self.detector is not None:
            sizes = [(one.exam.prediction.height, one.exam.prediction.width) for one in reads]
            detected = self.detector.detect(np.stack([one.squares[1] for one in reads]), sizes, self.run)
        for index, (one, result) in enumerate(zip(reads, detected, strict=True)):
            flags = [] if output.out_of_distribution is None else [bool(output.out_of_distribution[index])]
            found = replace(one.exam.prediction, probability=float(output.probability[index]))
            if result is not None:
                found = replace(found, boxes=result.boxes, highest_score=result.highest_score)
                flags += [] if result.out_of_distribution is None else [result.out_of_distribution]
            found = replace(found, out_of_distribution=any(flags) if flags else None)
            if self.dicom_output is not None and one.header is not reading.NO_HEADER:
                # Before the journal: after a kill the same results are written again.
                self._write_dicom(self.dicom_output, one, found, output.grad_cam[index])
            self.journal.add(replace(one.exam, prediction=found), one.film, thumbnails.heat(output.grad_cam[index]))

    def _write_dicom(self, folder: Path, one: _Read, found: Prediction, grad_cam: NDArray[np.float32]) -> None:
        """The DICOM results of a DICOM file.

        A source that allows no valid document, or that is gone since it was read, causes a warning: the exam is on the
        worklist all the same.
        """
        with tempfile.TemporaryDirectory() as drawings:
            drawn = thumbnails.plot(one.film, grad_cam, found, self.classifier, self.detector, Path(drawings))
            try:
                dicom_results.write(replace(found, path=one.path, picture=drawn), folder, *self.models)
            except (ValueError, FileNotFoundError) as error:  # the second: the source is gone
                warn(f"no DICOM results: {one_line(error)}", stacklevel=2)
