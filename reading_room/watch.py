"""The input of a worklist: files are taken when they no longer change, and their predictions go into the journal."""

import os
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
from cxr.prediction import Model, Prediction, Sample, predict_in_batches
from cxr.reading.dicom_header import read_header
from pytorch_classification.classifier import Classifier
from pytorch_detection.detector import DetectionResult, Detector
from reading_room import thumbnails
from reading_room.exams import Journal, Naming, hashed

_BATCH = 16
_OWN_RESULT = "a DICOM result of this program"
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
    _since: dict[str, float] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)

    def arrived(self, now: float) -> list[tuple[Path, str]]:
        """Stable files with their states, without those of earlier calls; ``now`` in seconds of a monotonic clock."""
        ready: list[tuple[Path, str]] = []
        since, self._since = self._since, {}
        for path in self._listed():
            state = state_of(path)
            if state and state not in self.known:
                self._since[state] = since.get(state, now)
                if now - self._since[state] >= self.stable_seconds:
                    ready.append((path, state))
                    self.known.add(state)
        return ready

    def _listed(self) -> Iterator[Path]:
        for folder in self.folders:
            with suppress(OSError):  # empty, or a network share that is absent for a while
                yield from reading.find_images([folder], self.left_out)
            if os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises for some absent network shares
                self._absent.discard(folder)
            elif folder not in self._absent:  # it would look like an empty one
                self._absent.add(folder)
                now = f"{datetime.now():%H:%M:%S}"  # makes a second absence another warning: Python drops repeated ones
                warn(f"{now} {Path(folder).absolute()} does not exist; waiting for it to come back", stacklevel=2)


@dataclass(frozen=True)
class _Read(Sample):
    """A file, read; ``header`` is ``NO_HEADER`` itself unless it is DICOM, ``film`` a JPEG."""

    state: str = ""
    header: reading.Header = reading.NO_HEADER
    sha256: str = ""
    film: bytes = b""

    @property
    def key(self) -> str:
        """Equal for copies."""
        return self.header.sop_instance_uid or self.sha256


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

    def predict(self, files: Sequence[tuple[Path, str]]) -> Iterator[int]:
        """Add those of ``files`` (path and state) that are not in the journal; yields how many files each batch had.

        This program's own DICOM results, which an archive may return, are ignored: their results would return too.
        """
        facts: dict[Path, tuple[str, reading.Header]] = {}  # a file that fails must not show its patient either

        def read(file: tuple[Path, str]) -> _Read:
            one = self._read(*file)
            facts[file[0]] = file[1], one.header
            return one

        for batch in predict_in_batches(files, read, self._predict, _BATCH, draw=self._add):
            own = [one.path for one in batch if one.error == _OWN_RESULT]
            for one in batch:
                state, header = facts.pop(one.path)
                if one.error and one.error != _OWN_RESULT:
                    self.journal.add(self.naming.exam(one.path, state, header, "", one))
            if own:
                warn(f"ignored as DICOM results of this program: {first_of(own)}", stacklevel=2)
            self.journal.flush()
            yield len(batch)

    def _read(self, path: Path, state: str) -> _Read:
        sides = (self.classifier.store_size, *(() if self.detector is None else (self.detector.size,)))
        try:
            radiograph = reading.read(path)
            squares, film = tuple(map(radiograph.square, sides)), thumbnails.film(radiograph)
            header, (height, width) = radiograph.header, radiograph.size  # its note is whole once pixels are decoded
        except (reading.UnreadableImage, OSError) as error:
            header = read_header(path)  # a report of this program has no pixels
            return _Read(Prediction(path, _OWN_RESULT if header.is_own_result else one_line(error)), header=header)
        if header.is_own_result or state_of(path) != state:
            error = _OWN_RESULT if header.is_own_result else "changed while it was read"
            return _Read(Prediction(path, error), header=header)
        found = Prediction(path, note=one_line(header.note), height=height, width=width)
        return _Read(found, squares, state=state, header=header, sha256=radiograph.sha256, film=film)

    def _predict(self, reads: list[_Read]) -> Iterator[tuple[Prediction, NDArray[np.float32] | None]]:
        """Prediction and Grad-CAM [S, S] of each new exam; a copy has no Grad-CAM, a second image of a UID an error."""
        new: dict[str, _Read] = {}
        for one in reads:
            if one.key not in self.journal.exams:
                new.setdefault(one.key, one)
        predicted = self._run_models(list(new.values())) if new else iter(())
        for one in reads:
            if new.get(one.key) is one:
                yield next(predicted)
            elif (new.get(one.key) or self.journal.exams[one.key]).sha256 == one.sha256:
                yield one.prediction, None
            else:
                yield replace(one.prediction, error=_DUPLICATE), None

    def _run_models(self, reads: list[_Read]) -> Iterator[tuple[Prediction, NDArray[np.float32]]]:
        output = self.classifier.predict(np.stack([one.squares[0] for one in reads]), self.run, grad_cam=True)
        assert output.grad_cam is not None
        detected: Sequence[DetectionResult | None] = [None] * len(reads)
        if self.detector is not None:
            sizes = [(one.prediction.height, one.prediction.width) for one in reads]
            detected = self.detector.detect(np.stack([one.squares[1] for one in reads]), sizes, self.run)
        for index, (one, result) in enumerate(zip(reads, detected, strict=True)):
            found = one.prediction if result is None else replace(one.prediction, **result._asdict())
            flags = [] if output.out_of_distribution is None else [bool(output.out_of_distribution[index])]
            flags += [] if found.out_of_distribution is None else [found.out_of_distribution]
            found = replace(found, probability=float(output.probability[index]))
            yield replace(found, out_of_distribution=any(flags) if flags else None), output.grad_cam[index]

    def _add(self, one: _Read, found: Prediction, grad_cam: NDArray[np.float32] | None) -> Prediction:
        """Write the DICOM results, then the exam with its pictures: after a kill the same results are written again."""
        exam = self.naming.exam(found.path, one.state, one.header, one.sha256, found)
        if grad_cam is None:  # a copy
            self.journal.failed.pop(exam.place, None)
            return found
        if self.dicom_output is not None and one.header is not reading.NO_HEADER:
            with tempfile.TemporaryDirectory() as drawings:
                drawn = thumbnails.plot(one.film, grad_cam, found, self.classifier, self.detector, Path(drawings))
                try:
                    dicom_results.write(replace(found, picture=drawn), self.dicom_output, *self.models)
                except (ValueError, FileNotFoundError) as error:  # the second: the source is gone
                    warn(f"no DICOM results: {one_line(error)}", stacklevel=2)  # the exam counts all the same
        self.journal.add(exam, one.film, thumbnails.heat(grad_cam))
        return found
