"""Box lung opacities on chest radiographs: DICOM, JPEG, PNG or TIFF; files, folders or globs.

    python pytorch_detection/predict_detection.py chest.dcm

It draws the boxes on a picture of each image. For one image it prints a sentence for each box; for many, the 20 images
with the highest scores, and predictions.csv with the columns path, x, y, width, height, score, threshold, borderline,
out_of_distribution, note (what the header says against a frontal chest), error and model: a row for each box, and one row
for an image without a box or that could not be read. Boxes are in pixels of the original image, x to the right and y
down from the top left corner. With --dicom-output each DICOM file also gets a structured report with its boxes, and its
picture, as DICOM files for a PACS. Exit code 0: all answered; 1: some files could not be read; 2: nothing could be
done. Research only, not a medical device.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import PredictConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(PredictConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
from tqdm import tqdm

from cxr import messages, prediction, reading, runtime, tables
from cxr.messages import first_lines
from cxr.prediction import Box
from pytorch_detection.detector import Detector

_BATCH = 16
_SIDES = ("x", "y", "width", "height", "score")
_HEADER = ("path", *_SIDES, "threshold", "borderline", "out_of_distribution", "note", "error", "model")


@dataclass(frozen=True)
class Answer:
    """What is said of one file.

    Attributes:
        boxes: with a score at or above the threshold, highest first.
        highest: score of any box, also below the threshold; None when ``error`` says why, or when an unlike image was
            refused.
        unlike: whether the image is unlike those of training; None where nobody can tell.
        note: what the header says against a frontal chest radiograph.
    """

    path: Path
    boxes: list[Box]
    highest: float | None
    threshold: float
    error: str
    picture: Path | None
    unlike: bool | None = None
    note: str = ""

    @property
    def borderline(self) -> bool:
        """Whether the highest score is so near the threshold that a box could as well be missing or be there."""
        return self.highest is not None and prediction.is_borderline(self.highest, self.threshold)

    @property
    def warnings(self) -> list[str]:
        """What must be said with the answer."""
        said = {prediction.BORDERLINE: self.borderline, prediction.UNLIKE: self.unlike, self.note: bool(self.note)}
        return [warning for warning, holds in said.items() if holds]

    def rows(self, origin: str) -> list[list[str]]:
        """For the CSV."""
        borderline = None if self.highest is None else self.borderline
        flags = [prediction.in_words(flag) for flag in (borderline, self.unlike)]
        rest = [f"{self.threshold:.6f}", *flags, self.note, self.error, origin]
        boxes = [[*(f"{side:.1f}" for side in box[:4]), f"{box.score:.6f}"] for box in self.boxes]
        return [[messages.shown_path(self.path), *box, *rest] for box in boxes or [[""] * len(_SIDES)]]

    def submitted(self) -> list[str]:
        """For the challenge: the name without extension, then score and box for each box."""
        text = " ".join(f"{box.score:.6f} " + " ".join(f"{side:.1f}" for side in box[:4]) for box in self.boxes)
        return [self.path.stem, text]

    def sentences(self) -> str:
        """For a person."""
        path = messages.shown_path(self.path)
        if self.highest is None:
            return self.error or f"{path}: no answer, {prediction.REFUSED}"
        found = [
            f"opacity of {box.width:.0f} x {box.height:.0f} pixels, upper left corner at x {box.x:.0f}, y {box.y:.0f}; "
            f"score {box.score:.3f} (threshold {self.threshold:.3f})"
            for box in self.boxes
        ] or [f"no box at or above {self.threshold:.3f} (highest score {self.highest:.3f})"]
        return "\n".join(f"{path}: {'; '.join([said, *self.warnings])}" for said in found)

    def line(self) -> str:
        """For one line among others."""
        found = f"{len(self.boxes) or 'no'} {'box' if len(self.boxes) < 2 else 'boxes'}"
        said = f"{messages.shown_path(self.path)}: {found}, highest score {self.highest:.3f}"
        return "; ".join([said, *self.warnings])

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "boxes": [box._asdict() for box in self.boxes],
            "highest_score": self.highest,
            "borderline": self.borderline,
            "out_of_distribution": self.unlike,
            "note": self.note or None,
            "picture": None if self.picture is None else str(self.picture),
            "error": self.error or None,
        }


def predict(
    detector: Detector, paths: list[Path], config: PredictConfig, run: runtime.Runtime, answers: list[Answer]
) -> None:
    """Append an answer for each of ``paths``, in order, to ``answers``; those of a stop before the end are there."""
    taken: set[str] = set()
    threshold = detector.threshold
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=len(paths) == 1) as progress:
        for batch in reading.read_ahead(paths, detector.size, _BATCH):
            good = [read for read in batch if read.image is not None]
            squares = np.stack([read.image for read in good if read.image is not None]) if good else None
            sizes = [(read.height, read.width) for read in good]
            found = iter([] if squares is None else detector.detect(squares, sizes, run))
            for read in batch:
                answer = Answer(read.path, [], None, threshold, read.error, None, note=read.note)
                if read.image is not None:
                    boxes, highest, unlike = next(found)
                    answer = replace(answer, boxes=list(boxes), highest=highest, unlike=unlike)
                    if unlike and config.refuse_ood:
                        answer = replace(answer, boxes=[], highest=None)
                    elif config.pictures:
                        answer = draw_answer(answer, read, config, taken, detector.provenance.sentence(threshold))
                answers.append(answer)
            progress.update(len(batch))


def draw_answer(answer: Answer, read: reading.Read, config: PredictConfig, taken: set[str], caption: str) -> Answer:
    """``answer`` with a picture beside it: the radiograph and its boxes.

    A file that is gone or another by now is answered with an error: its picture would not show what was judged.
    """
    from pytorch_detection import plots

    radiograph, error = reading.read_again(read)
    if radiograph is None:
        return replace(answer, boxes=[], highest=None, unlike=None, error=error)
    picture = messages.free_name(config.output_dir, answer.path.stem, "_boxes.png", taken)
    title = f"{answer.path.name}: {plots.number_of_boxes(len(answer.boxes), answer.threshold)}"
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in answer.boxes]
    scores = [box.score for box in answer.boxes]
    plots.detection_overlay(
        radiograph, corners, scores, picture, title="\n".join([title, *answer.warnings]), caption=caption
    )
    return replace(answer, picture=picture)


def submit(path: Path, answers: list[Answer]) -> None:
    """The challenge's file: one row for each image, empty where it has no box."""
    tables.write_csv(path, ("patientId", "PredictionString"), (answer.submitted() for answer in answers))


def require_distinct(paths: list[Path]) -> None:
    """Refuse a submission in which two rows would have the same id.

    Raises:
        ValueError: names the id.
    """
    name, count = Counter(path.stem for path in paths).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--submission: {count} files are called {name}, and the challenge has one row for each name")


def write_dicom(answers: list[Answer], detector: Detector, folder: Path, config: PredictConfig) -> str:
    """A report, and a picture where one was drawn, for each answered DICOM file; a sentence that counts them."""
    from cxr import dicom_results

    model = prediction.Model.of("Faster R-CNN detector", config.model, detector.threshold, detector.provenance.adapted)
    predictions = [
        prediction.Prediction(
            answer.path,
            note=answer.note,
            boxes=tuple(prediction.Box(*box) for box in answer.boxes),
            highest_score=answer.highest,
            out_of_distribution=answer.unlike,
            picture=answer.picture,
        )
        for answer in answers
    ]
    return dicom_results.write_all(predictions, folder, detector=model)


def summary(answers: list[Answer]) -> str:
    """A line for the highest scores, for what could not be read, and how many there are of each kind."""
    answered = [answer for answer in answers if answer.highest is not None]
    answered.sort(key=lambda answer: -(answer.highest or 0))
    boxes = sum(len(answer.boxes) for answer in answers)
    boxed = sum(bool(answer.boxes) for answer in answers)
    failed = [answer.error for answer in answers if answer.error]
    unlike = sum(answer.unlike is True for answer in answers)
    refused = len(answers) - len(answered) - len(failed)
    lines = first_lines([answer.line() for answer in answered])
    lines += [f"not readable: {error}" for error in first_lines(failed)]
    lines.append(
        f"{len(answers)} files: {boxed} with a box ({boxes} boxes), {len(answered) - boxed} without, {unlike} unlike "
        f"training's images{f' ({refused} refused)' if refused else ''}, {len(failed)} not readable"
    )
    return "\n".join(lines)


def main(config: PredictConfig) -> int:
    """Parse, load, answer."""
    paths = reading.find_images(config.image)
    single = len(paths) == 1 and Path(config.image[0]).is_file()
    if config.submission is not None:
        require_distinct(paths)
    if config.dicom_output is not None:  # what could only fail after the last image is refused at once
        from cxr import dicom_results

        dicom_results.require_highdicom()
    table = config.output_dir / "predictions.csv"
    answers: list[Answer] = []
    with runtime.start(config.device, "fp32", seed=0) as run:
        detector = Detector.load(config.model, run, config.threshold)
        try:
            predict(detector, paths, config, run, answers)
        except (KeyboardInterrupt, cli.Terminated) as stop:
            raise type(stop)(stopped(answers, len(paths), table, detector)) from stop
    failed = [answer for answer in answers if answer.error]
    if single and failed:
        raise ValueError(failed[0].error)
    origin, threshold = detector.provenance, detector.threshold
    if not single:
        write_table(table, answers, detector)
    if config.submission is not None:
        submit(config.submission, answers)
    documents = write_dicom(answers, detector, config.dicom_output, config) if config.dicom_output else ""
    if config.json:
        shown = {"model": str(config.model), "threshold": threshold, "origin": origin.record()}
        print(json.dumps({**shown, "images": [answer.record() for answer in answers]}, indent=2))
        return 1 if failed else 0
    print(answers[0].sentences() if single else f"{summary(answers)}\ntable: {table}")
    if single and answers[0].picture:
        print(f"picture: {messages.shown_path(answers[0].picture)}")
    if config.submission is not None:
        print(f"submission: {config.submission}")
    if documents:
        print(documents)
    print(f"model: {origin.sentence(threshold)}")
    return 1 if failed else 0


def write_table(table: Path, answers: list[Answer], detector: Detector) -> None:
    """predictions.csv."""
    origin = detector.provenance.short()
    tables.write_csv(table, _HEADER, (row for answer in answers for row in answer.rows(origin)))


def stopped(answers: list[Answer], wanted: int, table: Path, detector: Detector) -> str:
    """What there is after a stop before the end, which is written first."""
    if not answers:
        return "no image was answered, and no table written"
    write_table(table, answers, detector)
    return f"{len(answers)} of {wanted} files were answered; {table} holds them"


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
