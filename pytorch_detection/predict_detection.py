"""Detect lung opacities on chest radiographs: DICOM, JPEG, PNG or TIFF; files, folders or globs.

    python pytorch_detection/predict_detection.py chest.dcm

It draws the boxes on a picture of each image. For one image it prints a sentence for each box; for many, the 20 images
with the highest scores, and writes detection.csv with the columns path, x, y, width, height, score, highest_score (of
any box of the image, also below the threshold), threshold, borderline, out_of_distribution, note (what the header
states against a frontal chest radiograph), error and model: a row for each box, and one row for an image without a box
or that could not be read. Boxes are in pixels of the original image, x to the right and y down from the top left
corner. With --dicom-output each DICOM file also gets a structured report with its boxes, and its picture, as DICOM
files for a PACS. Exit code 0: all predicted; 1: some files could not be read; 2: nothing could be done. Research only,
not a medical device.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import MODEL_FILE


@dataclass(frozen=True)
class PredictConfig:
    """Images, model and output."""

    image: tuple[str, ...] = cli.flag(positional=True, help="one or more files, folders or globs")
    model: Path = cli.flag(MODEL_FILE, help="the finished model that training wrote")
    threshold: float | None = cli.flag(
        None, at_least=0, at_most=1, help="report boxes from this score on; by default the model's threshold"
    )
    refuse_ood: bool = cli.flag(False, help="no prediction for out-of-distribution images")
    output_dir: Path = cli.flag(
        Path("predictions"), help="where pictures and detection.csv go; by default in the current directory"
    )
    pictures: bool = cli.flag(True, help="draw the boxes on each image")
    submission: Path | None = cli.flag(None, help="write also a file for the RSNA challenge, one row for each image")
    json: bool = cli.flag(False, help="print one JSON document instead of sentences")
    dicom_output: Path | None = cli.flag(
        None, help="write DICOM reports and pictures for a PACS there; needs highdicom"
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(PredictConfig, __doc__) if __name__ == "__main__" else None

import numpy as np

from cxr import prediction, reading, runtime, tables
from cxr.prediction import Prediction, Sample
from pytorch_detection.detector import Detector

_BATCH = 16
_DRAWN_BATCH = 8  # whose files stay in memory until their pictures are drawn


class Output(prediction.TaskOutput):
    """Boxes and their scores, drawn on the radiograph."""

    columns = ("x", "y", "width", "height", "score", "highest_score")

    def draw(self, sample: Sample, one: Prediction, _: None) -> Prediction:
        """``one`` with its picture."""
        from pytorch_detection import plots

        assert sample.radiograph is not None
        whole = sample.radiograph.whole()
        corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in one.boxes]
        scores = [box.score for box in one.boxes]
        return self.drawn(
            one,
            "_boxes.png",
            lambda path, title, caption: plots.detection_overlay(
                whole, corners, scores, path, title=title, caption=caption
            ),
        )

    def score(self, prediction: Prediction) -> float | None:
        """The highest of any box, also below the threshold."""
        return prediction.highest_score

    def cells(self, prediction: Prediction) -> list[list[str]]:
        """A row for each box, one without sides for an image without a box."""
        highest = "" if prediction.highest_score is None else f"{prediction.highest_score:.6f}"
        boxes = [[*(f"{side:.1f}" for side in box[:4]), f"{box.score:.6f}", highest] for box in prediction.boxes]
        return boxes or [["", "", "", "", "", highest]]

    def record(self, prediction: Prediction) -> dict[str, Any]:
        """Boxes and highest score."""
        return {"boxes": [box._asdict() for box in prediction.boxes], "highest_score": prediction.highest_score}

    def results(self, prediction: Prediction) -> list[str]:
        """A sentence for each box, or that there is none."""
        return [
            f"opacity of {box.width:.0f} x {box.height:.0f} pixels, upper left corner at x {box.x:.0f}, y {box.y:.0f}; "
            f"score {box.score:.3f} (threshold {self.threshold:.3f})"
            for box in prediction.boxes
        ] or [f"no box at or above {self.threshold:.3f} (highest score {prediction.highest_score:.3f})"]

    def result(self, prediction: Prediction) -> str:
        """Number of boxes and highest score."""
        boxes = f"{len(prediction.boxes) or 'no'} {'box' if len(prediction.boxes) < 2 else 'boxes'}"
        return f"{boxes}, highest score {prediction.highest_score:.3f}"

    def counts(self, predictions: Sequence[Prediction]) -> str:
        """Images with and without a box."""
        boxes = [len(one.boxes) for one in predictions if one.highest_score is not None]
        return f"{np.count_nonzero(boxes)} with a box ({sum(boxes)} boxes), {boxes.count(0)} without"


def predict(detector: Detector, samples: list[Sample], run: runtime.Runtime) -> Iterator[tuple[Prediction, None]]:
    """A prediction for each of the samples, whose only squares are stacked; a picture needs no more than that."""
    squares = np.stack([sample.squares[0] for sample in samples])
    sizes = [(sample.prediction.height, sample.prediction.width) for sample in samples]
    for sample, found in zip(samples, detector.detect(squares, sizes, run), strict=True):
        yield replace(sample.prediction, **found._asdict()), None


def require_distinct(paths: list[Path]) -> None:
    """Refuse a submission in which two rows would have the same id.

    Raises:
        ValueError: names the id.
    """
    name, count = Counter(path.stem for path in paths).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--submission: {count} files are named {name}; the challenge has one row for each name")


def submit(path: Path, predictions: Sequence[Prediction]) -> None:
    """The challenge's file: for each image its name without extension, then score and box of each box."""
    boxes = [
        " ".join(f"{box.score:.6f} " + " ".join(f"{side:.1f}" for side in box[:4]) for box in one.boxes)
        for one in predictions
    ]
    rows = zip((one.path.stem for one in predictions), boxes, strict=True)
    tables.write_csv(path, ("patientId", "PredictionString"), rows, mark=False)  # as Kaggle takes it


def main(config: PredictConfig) -> int:
    """Read, predict, write."""
    paths = reading.find_images(config.image)
    single = len(paths) == 1 and Path(config.image[0]).is_file()
    if config.submission is not None:
        require_distinct(paths)
    if config.dicom_output is not None:  # what could only fail after the last image is refused at once
        from cxr import dicom_results

        dicom_results.require_highdicom()
    table = None if single else config.output_dir / "detection.csv"
    with runtime.start(config.device, "fp32", seed=0) as run:
        detector = Detector.load(config.model, run, config.threshold)
        output = Output(config.model, detector.threshold, detector.provenance, config.output_dir)
        batches = prediction.predict_in_batches(
            paths,
            lambda path: prediction.load(path, [detector.size], keep=config.pictures),
            lambda samples: predict(detector, samples, run),
            _DRAWN_BATCH if config.pictures else _BATCH,
            draw=output.draw if config.pictures else None,
            refuse_ood=config.refuse_ood,
        )
        predictions = output.collect(batches, len(paths), table)
    written: list[str] = []
    if config.submission is not None:
        submit(config.submission, predictions)
        written.append(f"submission: {config.submission}")
    if config.dicom_output is not None:
        from cxr import dicom_results

        adapted = detector.provenance.adapted
        model = prediction.Model.of("Faster R-CNN detector", config.model, detector.threshold, adapted)
        written.append(dicom_results.write_all(predictions, config.dicom_output, detector=model))
    return output.show(predictions, table, written, as_json=config.json)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
