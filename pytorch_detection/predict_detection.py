"""Box lung opacities on chest radiographs: DICOM, JPEG, PNG or TIFF; files, folders or globs.

    python pytorch_detection/predict_detection.py --image chest.dcm

It draws the boxes on a picture of each image. For one image it prints a sentence for each box; for many it writes
predictions.csv with the columns path, x, y, width, height, score, error: a row for each box, and one row for an image
without a box or that could not be read. Boxes are in pixels of the original image, x to the right and y down from the
top left corner. With --dicom-output each DICOM file also gets a structured report with its boxes, and its picture, as
DICOM files for a PACS. Exit code 0: all answered; 1: some files could not be read; 2: nothing could be done. Research
only, not a medical device.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import PredictConfig

if __name__ == "__main__":
    cli.parse(PredictConfig, summary=__doc__)  # --help and mistakes are answered before torch is imported: seconds

import numpy as np
from tqdm import tqdm

from cxr import names, reading, runtime, tables
from pytorch_detection.detector import Detector

_BATCH = 16


class Box(NamedTuple):
    """An opacity in pixels of the original image; ``x`` and ``y`` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass(frozen=True)
class Answer:
    """What is said of one file.

    Attributes:
        boxes: with a score at or above the threshold, highest first.
        highest: score of any box, also below the threshold; None when ``error`` says why.
    """

    path: Path
    boxes: list[Box]
    highest: float | None
    error: str
    picture: Path | None

    def rows(self) -> list[list[str]]:
        """For the CSV."""
        path = names.shown_path(self.path)
        if not self.boxes:
            return [[path, "", "", "", "", "", self.error]]
        return [[path, *(f"{side:.1f}" for side in box[:4]), f"{box.score:.6f}", ""] for box in self.boxes]

    def submitted(self) -> list[str]:
        """For the challenge: the name without extension, then score and box for each box."""
        text = " ".join(f"{box.score:.6f} " + " ".join(f"{side:.1f}" for side in box[:4]) for box in self.boxes)
        return [self.path.stem, text]

    def sentences(self, threshold: float) -> str:
        """For a person."""
        path = names.shown_path(self.path)
        if not self.boxes:
            return f"{path}: no opacity (highest score {self.highest:.3f}, threshold {threshold:.3f})"
        return "\n".join(
            f"{path}: opacity of {box.width:.0f} x {box.height:.0f} pixels, upper left corner at x {box.x:.0f}, "
            f"y {box.y:.0f}; score {box.score:.3f} (threshold {threshold:.3f})"
            for box in self.boxes
        )

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "boxes": [box._asdict() for box in self.boxes],
            "highest_score": self.highest,
            "picture": None if self.picture is None else str(self.picture),
            "error": self.error or None,
        }


def predict(detector: Detector, paths: list[Path], config: PredictConfig, run: runtime.Runtime) -> list[Answer]:
    """An answer for each of ``paths``, in order."""
    answers: list[Answer] = []
    taken: set[str] = set()
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=len(paths) == 1) as progress:
        for batch in reading.read_ahead(paths, detector.size, _BATCH):
            good = [read for read in batch if read.image is not None]
            found = iter(boxes_in(detector, good, run) if good else [])
            for read in batch:
                if read.image is None:
                    answers.append(Answer(read.path, [], None, read.error, None))
                    continue
                boxes, highest = next(found)
                answer = Answer(read.path, boxes, highest, "", None)
                answers.append(draw_answer(answer, read, config, taken) if config.pictures else answer)
            progress.update(len(batch))
    return answers


def boxes_in(detector: Detector, reads: Sequence[reading.Read], run: runtime.Runtime) -> list[tuple[list[Box], float]]:
    """For each image the boxes at or above the threshold, highest score first, and the highest score of any box."""
    rule = detector.rule
    found = detector.find(np.stack([read.image for read in reads if read.image is not None]), run)
    answers: list[tuple[list[Box], float]] = []
    for read, boxes, scores in zip(reads, *rule.apply(found), strict=True):
        whole = np.array([read.width, read.height, read.width, read.height], np.float64)
        left, top, right, bottom = np.clip(boxes * whole / detector.size, 0, whole).T
        sides = np.stack([left, top, right - left, bottom - top, scores], axis=1)
        order = [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] >= rule.threshold]
        answers.append(([Box(*sides[index].tolist()) for index in order], float(scores.max(initial=0.0))))
    return answers


def draw_answer(answer: Answer, read: reading.Read, config: PredictConfig, taken: set[str]) -> Answer:
    """``answer`` with a picture beside it: the radiograph and its boxes.

    A file that is gone or another by now is answered with an error: its picture would not show what was judged.
    """
    from pytorch_detection import plots

    radiograph, error = reading.read_again(read)
    if radiograph is None:
        return Answer(answer.path, [], None, error, None)
    picture = names.free_name(config.output_dir, answer.path.stem, "_boxes.png", taken)
    count = len(answer.boxes)
    title = f"{answer.path.name}: {count or 'no'} {'opacity' if count < 2 else 'opacities'}"
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in answer.boxes]
    scores = [box.score for box in answer.boxes]
    plots.detection_overlay(radiograph, corners, scores, picture, title=title)
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


def require_for_dicom(config: PredictConfig) -> None:
    """Refuse at once what could only fail after the last image.

    Raises:
        ValueError: --dicom-3d alone, or highdicom is not installed.
    """
    if config.dicom_output is not None:
        from cxr import dicom_output

        dicom_output.require_highdicom()
    elif config.dicom_3d:
        raise ValueError("--dicom-3d is a form of what --dicom-output writes; give both")


def write_dicom(answers: list[Answer], threshold: float, folder: Path, config: PredictConfig) -> str:
    """A report, and a picture where one was drawn, for each answered DICOM file; a sentence that counts them."""
    from cxr import dicom_output

    model = dicom_output.Model.of("Faster R-CNN detector", config.model)
    results = [
        (
            answer.path,
            dicom_output.Results(
                detection=dicom_output.Detection(model, answer.boxes, threshold, answer.highest),
                picture=answer.picture,
            ),
        )
        for answer in answers
        if answer.highest is not None
    ]
    return dicom_output.write_all(results, folder, three_dimensional=config.dicom_3d)


def summary(answers: list[Answer], table: Path) -> str:
    """How many have boxes, and how many could not be read."""
    boxes = sum(len(answer.boxes) for answer in answers)
    boxed = sum(bool(answer.boxes) for answer in answers)
    failed = sum(bool(answer.error) for answer in answers)
    clear = len(answers) - boxed - failed
    return (
        f"{len(answers)} files: {boxed} with opacity ({boxes} boxes), {clear} without, {failed} not readable\n"
        f"table: {table}"
    )


def main() -> int:
    """Parse, load, answer."""
    config = cli.parse(PredictConfig, summary=__doc__)
    paths = reading.find_images(config.image)
    single = len(paths) == 1 and Path(config.image[0]).is_file()
    if config.submission is not None:
        require_distinct(paths)
    require_for_dicom(config)
    with runtime.start(config.device, "fp32", seed=0) as run:
        detector = load(config, run)
        answers = predict(detector, paths, config, run)
    failed = [answer for answer in answers if answer.error]
    if single and failed:
        raise ValueError(failed[0].error)
    threshold = detector.rule.threshold
    table = config.output_dir / "predictions.csv"
    if not single:
        header = ("path", "x", "y", "width", "height", "score", "error")
        tables.write_csv(table, header, (row for answer in answers for row in answer.rows()))
    if config.submission is not None:
        submit(config.submission, answers)
    documents = write_dicom(answers, threshold, config.dicom_output, config) if config.dicom_output else ""
    if config.json:
        shown = {"model": str(config.model), "threshold": threshold}
        print(json.dumps({**shown, "images": [answer.record() for answer in answers]}, indent=2))
        return 1 if failed else 0
    print(answers[0].sentences(threshold) if single else summary(answers, table))
    if single and answers[0].picture:
        print(f"picture: {names.shown_path(answers[0].picture)}")
    if config.submission is not None:
        print(f"submission: {config.submission}")
    if documents:
        print(documents)
    return 1 if failed else 0


def load(config: PredictConfig, run: runtime.Runtime) -> Detector:
    """The model, or an error that says how to get one."""
    if not config.model.exists():
        raise FileNotFoundError(
            f"no model at {config.model.resolve()}; train one with "
            "`python pytorch_detection/train_detection.py` or name one with --model"
        )
    detector = Detector.load(config.model, run)
    if config.threshold is None:
        return detector
    return replace(detector, rule=replace(detector.rule, threshold=config.threshold))


if __name__ == "__main__":
    sys.exit(cli.run(main))
