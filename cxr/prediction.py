"""One prediction per image: its record, the loop that computes it, and the output of both predict scripts."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr import cli, reading, tables
from cxr.files import sha256_of
from cxr.messages import first_lines, free_name, one_line, shown_path

if TYPE_CHECKING:
    from cxr.model_file import ModelProvenance

BORDERLINE = "inconclusive (near the threshold)"
OUT_OF_DISTRIBUTION = "out of distribution: result unreliable"
_NEAR = math.log(2)


class Box(NamedTuple):
    """A predicted opacity in pixels of the original image; ``x`` and ``y`` are its upper left corner, score in 0..1."""

    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """What the models predict for one file.

    Attributes:
        error: why there is no prediction; empty where there is one.
        note: what the DICOM header states against a frontal chest radiograph; empty if nothing.
        height, width: of the original image in pixels; 0 where it could not be read.
        probability: of PNEUMONIA, calibrated, in 0..1; None without a classifier, with an error, or where an
            out-of-distribution image was refused.
        boxes: at or above the detector's threshold, highest score first.
        highest_score: of any box, also below the threshold, 0 without a box; None like ``probability``.
        out_of_distribution: None where no model can state it.
        picture: the plot that was drawn of it.
    """

    path: Path
    error: str = ""
    note: str = ""
    height: int = 0
    width: int = 0
    probability: float | None = None
    boxes: tuple[Box, ...] = ()
    highest_score: float | None = None
    out_of_distribution: bool | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class Model:
    """The model of a prediction, for pages and documents.

    Attributes:
        name: the kind of network and its task, at most 64 characters.
        file: name of the model file. sha256: of its content, in hexadecimal digits.
        threshold: the operating point: from this probability or score on, a finding is positive.
        adapted: how the threshold was set after training; empty if it was not.
    """

    name: str
    file: str
    sha256: str
    threshold: float
    adapted: str = ""

    @classmethod
    def of(cls, name: str, path: Path, threshold: float, adapted: str) -> "Model":
        """The model in the file ``path``."""
        return cls(name, path.name, sha256_of(path), threshold, adapted)


def is_borderline(probability: float, threshold: float) -> bool:
    """Whether the odds lie within a factor of two of those at the threshold."""
    return abs(_log_odds(probability) - _log_odds(threshold)) < _NEAR


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-12), 1 - 1e-12)
    return math.log(clipped / (1 - clipped))


def remarks(out_of_distribution: bool | None, *others: str) -> tuple[str, ...]:
    """The warnings that a reader of a prediction must see; an empty one is left out."""
    return tuple(filter(None, (OUT_OF_DISTRIBUTION if out_of_distribution else "", *others)))


def in_words(flag: bool | None) -> str:
    """For a table: yes, no, or empty where it is not known."""
    return "" if flag is None else ("no", "yes")[flag]


@dataclass(frozen=True)
class Sample:
    """One file of a batch; a subclass may hold further data of it.

    Attributes:
        prediction: without a model's outputs yet; its ``error`` states why the file cannot be read.
        squares: uint8 [S, S] for each side that was asked for; none with an error.
        radiograph: the file in memory, where something else is made of it after the prediction.
    """

    prediction: Prediction
    squares: tuple[NDArray[np.uint8], ...] = ()
    radiograph: reading.Radiograph | None = None


SampleType = TypeVar("SampleType", bound=Sample)
File = TypeVar("File")
Output = TypeVar("Output")


def load(path: Path, sides: Sequence[int], *, keep: bool = False) -> Sample:
    """One file read once, with a square for each of ``sides`` (pixels); ``keep`` leaves the file in memory."""
    try:
        radiograph = reading.read(path)
        squares = tuple(map(radiograph.square, sides))
    except (reading.UnreadableImage, OSError) as error:
        return Sample(Prediction(path, one_line(error)))
    height, width = radiograph.size
    prediction = Prediction(path, note=radiograph.header.note, height=height, width=width)
    return Sample(prediction, squares, radiograph if keep else None)


def predict_in_batches(
    files: Sequence[File],
    load: Callable[[File], SampleType],
    predict: Callable[[list[SampleType]], Iterable[tuple[Prediction, Output]]],
    batch_size: int,
    *,
    draw: Callable[[SampleType, Prediction, Output], Prediction] | None = None,
    refuse_ood: bool = False,
) -> Iterator[list[Prediction]]:
    """Batches of predictions for ``files``, in order; memory holds three batches of samples, however many the files.

    Args:
        files: anything that ``load`` takes.
        load: reads one file, on all cores ahead of the models.
        predict: runs the models on the readable samples of a batch; for each, in order, its prediction and what
            ``draw`` needs of it. A prediction may be an error too.
        batch_size: files.
        draw: makes a picture, or more; not of errors and refused images.
        refuse_ood: leave out the outputs of out-of-distribution images.
    """
    for batch in reading.in_batches(load, files, batch_size):
        readable = [sample for sample in batch if not sample.prediction.error]
        outputs = iter(predict(readable) if readable else ())
        predictions: list[Prediction] = []
        for sample in batch:
            prediction = sample.prediction
            if not prediction.error:
                prediction, output = next(outputs)
                if refuse_ood and prediction.out_of_distribution:
                    prediction = replace(prediction, probability=None, boxes=(), highest_score=None)
                elif draw is not None and not prediction.error:
                    try:
                        prediction = draw(sample, prediction, output)
                    except reading.UnreadableImage as error:  # of pixels that the squares did without
                        prediction = replace(sample.prediction, error=one_line(error))
            predictions.append(prediction)
        yield predictions


class TaskOutput(ABC):
    """Output of a predict script: pictures, sentences, a CSV table and JSON; each task adds what it predicts.

    Attributes:
        columns: of the table, between ``path`` and those that both tasks have.
        model: the model file. folder: where pictures go.
    """

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, model: Path, threshold: float, provenance: "ModelProvenance", folder: Path) -> None:
        self.model, self.threshold, self.provenance, self.folder = model, threshold, provenance, folder
        self._taken: set[str] = set()

    def drawn(self, prediction: Prediction, ending: str, draw: Callable[[Path, str, str], None]) -> Prediction:
        """``prediction`` with the picture that ``draw`` made; it takes path, title (several lines) and caption."""
        picture = free_name(self.folder, prediction.path.stem, ending, self._taken)
        title = "\n".join([f"{prediction.path.name}: {self.result(prediction)}", *self.warnings(prediction)])
        draw(picture, title, self.provenance.sentence(self.threshold))
        return replace(prediction, picture=picture)

    @abstractmethod
    def score(self, prediction: Prediction) -> float | None:
        """Probability or highest score, by which images are sorted; None without a prediction."""

    @abstractmethod
    def cells(self, prediction: Prediction) -> list[list[str]]:
        """Values of ``columns``, for each row of this image."""

    @abstractmethod
    def record(self, prediction: Prediction) -> dict[str, Any]:
        """What the task adds to the JSON object of an image."""

    @abstractmethod
    def results(self, prediction: Prediction) -> list[str]:
        """Sentences for a single image with a prediction."""

    def result(self, prediction: Prediction) -> str:
        """The same in a list of many."""
        return self.results(prediction)[0]

    @abstractmethod
    def counts(self, predictions: Sequence[Prediction]) -> str:
        """How many images have which result."""

    def is_borderline(self, prediction: Prediction) -> bool:
        """Whether the score is so near the threshold that the result could as well be the other."""
        score = self.score(prediction)
        return score is not None and is_borderline(score, self.threshold)

    def warnings(self, prediction: Prediction) -> list[str]:
        """What must be stated with a result."""
        borderline = [BORDERLINE] if self.is_borderline(prediction) else []
        return [*borderline, *remarks(prediction.out_of_distribution, prediction.note)]

    def lines(self, prediction: Prediction, *, single: bool) -> list[str]:
        """For a terminal."""
        path = shown_path(prediction.path)
        if prediction.error or self.score(prediction) is None:
            return [prediction.error or f"{path}: no prediction, out of distribution"]
        results = self.results(prediction) if single else [self.result(prediction)]
        return [f"{path}: {'; '.join([result, *self.warnings(prediction)])}" for result in results]

    def write_table(self, path: Path, predictions: Sequence[Prediction]) -> None:
        """The predictions as CSV."""
        columns = ("path", *self.columns, "threshold", "borderline", "out_of_distribution", "note", "error", "model")
        tables.write_csv(path, columns, (row for prediction in predictions for row in self._rows(prediction)))

    def _rows(self, prediction: Prediction) -> Iterator[list[str]]:
        borderline = None if self.score(prediction) is None else self.is_borderline(prediction)
        flags = [in_words(flag) for flag in (borderline, prediction.out_of_distribution)]
        rest = [f"{self.threshold:.6f}", *flags, prediction.note, prediction.error, self.provenance.model_id]
        for cells in self.cells(prediction):
            yield [shown_path(prediction.path), *cells, *rest]

    def collect(self, batches: Iterable[list[Prediction]], total: int, table: Path | None) -> list[Prediction]:
        """All predictions, also in ``table``; those made before an interruption are written there.

        Raises:
            ValueError: the only file cannot be read.
        """
        predictions: list[Prediction] = []
        try:
            with tqdm(total=total, desc="predicting", unit="image", disable=total == 1) as progress:
                for batch in batches:
                    predictions += batch
                    progress.update(len(batch))
        except (KeyboardInterrupt, cli.Terminated) as stop:
            if not predictions or table is None:
                raise type(stop)("no image was predicted, and no table written") from stop
            self.write_table(table, predictions)
            raise type(stop)(f"{len(predictions)} of {total} files were predicted; {table} holds them") from stop
        if table is not None:
            self.write_table(table, predictions)
        elif predictions[0].error:
            raise ValueError(predictions[0].error)
        return predictions

    def show(
        self, predictions: Sequence[Prediction], table: Path | None, written: Sequence[str], *, as_json: bool
    ) -> int:
        """Print all as sentences or as one JSON document, and ``written``, a line for each further file; exit code."""
        if as_json:
            print(json.dumps(self._document(predictions), indent=2))
        else:
            lines = self.lines(predictions[0], single=True) if table is None else self._summary(predictions)
            if table is not None:
                lines.append(f"table: {table}")
            elif predictions[0].picture is not None:
                lines.append(f"picture: {shown_path(predictions[0].picture)}")
            print("\n".join([*lines, *written, f"model: {self.provenance.sentence(self.threshold)}"]))
        return int(any(prediction.error for prediction in predictions))

    def _summary(self, predictions: Sequence[Prediction]) -> list[str]:
        """A line for each of the highest scores and of the errors, and how many there are of each kind."""
        predicted = [one for one in predictions if self.score(one) is not None]
        predicted.sort(key=lambda one: -(self.score(one) or 0))
        errors = [one.error for one in predictions if one.error]
        ood = sum(one.out_of_distribution is True for one in predictions)
        refused = len(predictions) - len(predicted) - len(errors)
        return [
            *first_lines([line for one in predicted for line in self.lines(one, single=False)]),
            *(f"not readable: {error}" for error in first_lines(errors)),
            f"{len(predictions)} files: {self.counts(predictions)}, {ood} out of distribution"
            f"{f' ({refused} refused)' if refused else ''}, {len(errors)} not readable",
        ]

    def _document(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        images = [
            {
                "path": str(one.path),
                **self.record(one),
                "borderline": self.is_borderline(one),
                "out_of_distribution": one.out_of_distribution,
                "note": one.note or None,
                "picture": None if one.picture is None else str(one.picture),
                "error": one.error or None,
            }
            for one in predictions
        ]
        about = {"model": str(self.model), "threshold": self.threshold, "provenance": self.provenance.record()}
        return {**about, "images": images}
