"""Evaluate a finished detector, or any predicted boxes, on exams with true boxes.

    python pytorch_detection/evaluate_detection.py --data-dir dataset_det
    python pytorch_detection/evaluate_detection.py --table boxes.csv --model my_detector.pth
    python pytorch_detection/evaluate_detection.py --data-dir dataset_det --predictions submission.csv

Prints the same report as training (RSNA score, AP at IoU .50 and COCO's AP, FROC, image ROC AUC, intervals by patient),
and writes it as report.json with errors.csv (the most confident error first) and pictures. The table has the columns
path (relative to its own folder), x, y, width and height, one row for each box in pixels of its own image, and one
without numbers for an image without a box; and optionally patient and others, whose values define subgroups. Exams
that the model was trained or selected on are left out. Patients are identified by the table or the challenge's mapping,
or else by the DICOM Patient ID.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import MODEL_FILE, SMALLEST_SIZE


@dataclass(frozen=True)
class EvaluateConfig:
    """Which exams, and which model or predicted boxes."""

    data_dir: Path | None = cli.flag(None, help="exams: a folder like the RSNA challenge's")
    table: Path | None = cli.flag(
        None, help="exams: CSV with path, x, y, width, height, and optionally patient and columns that define subgroups"
    )
    model: Path | None = cli.flag(None, help="the finished model; by default pneumonia_fasterrcnn.pth at the root")
    predictions: Path | None = cli.flag(
        None, help="evaluate these boxes instead of a model's: a submission to the challenge, or a detection.csv"
    )
    threshold: float | None = cli.flag(
        None,
        at_least=0,
        at_most=1,
        help="score threshold; by default the model's, or the lowest score of --predictions",
    )
    output_dir: Path = cli.flag(
        Path("evaluation") / "detection", help="for report, errors.csv and pictures; in the current directory"
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    skip_bad: bool = cli.flag(False, help="skip unreadable images")
    allow_missing: bool = cli.flag(
        False, help="skip exams without a DICOM file, a label or a row of --predictions, and files without a label"
    )


# Before torch is imported, so that --help and errors appear at once.
CONFIG = cli.start(EvaluateConfig, __doc__) if __name__ == "__main__" else None

import numpy as np

from cxr import evaluation, runtime
from cxr.model_file import run_environment
from pytorch_detection import box_tables, report
from pytorch_detection.detector import Detector


def load(config: EvaluateConfig, size: int, run: runtime.Runtime) -> box_tables.ExamSet:
    """The exams as squares of ``size`` pixels."""
    return box_tables.load(
        config.data_dir,
        config.table,
        size,
        config.output_dir / "decoded",
        skip_bad=config.skip_bad,
        allow_missing=config.allow_missing,
        progress=run.is_main,
    )


def evaluate_model(config: EvaluateConfig, run: runtime.Runtime) -> tuple[report.EvaluatedExams, dict[str, Any], str]:
    """The exams that the model was not trained on with its boxes, what the report states of it, and a sentence."""
    detector = Detector.load(config.model or MODEL_FILE, run, config.threshold)
    exam_set = load(config, detector.size, run)
    indices = evaluation.new_images(exam_set.hashes, exam_set.readable, detector.training_images, str(exam_set.source))
    evaluated = report.evaluate(exam_set, detector, run, indices)
    about = {**detector.record(), "model": detector.provenance.record()}
    return evaluated, about, f"model: {detector.provenance.sentence(detector.threshold)}"


def evaluate_predictions(
    config: EvaluateConfig, path: Path, run: runtime.Runtime
) -> tuple[report.EvaluatedExams, dict[str, Any], str]:
    """The exams with the boxes of the file ``path``, what the report states of them, and a sentence."""
    exam_set = load(config, SMALLEST_SIZE, run)
    boxes, scores, indices = box_tables.read_predictions(
        path, exam_set.exams, exam_set.sizes, allow_missing=config.allow_missing
    )
    kept = np.flatnonzero(np.isin(indices, exam_set.readable))
    boxes, scores = [boxes[index] for index in kept], [scores[index] for index in kept]
    lowest = min((float(some.min()) for some in scores if some.size), default=None)
    threshold = config.threshold if config.threshold is not None else 1.0 if lowest is None else lowest
    evaluated = report.evaluated_exams(exam_set, indices[kept], boxes, scores, threshold)
    content = "no box" if lowest is None else f"boxes with scores from {lowest:.3f}; AP and FROC are limited to these"
    return evaluated, {"predictions": str(path)}, f"predictions: {path}; {content}"


def main(config: EvaluateConfig) -> None:
    """Evaluate the model or the predictions, and write the report.

    Raises:
        ValueError: not exactly one source of exams, or a model beside predictions.
    """
    if (config.data_dir is None) == (config.table is None):
        raise ValueError("expected one of --data-dir and --table, which name the exams")
    if config.predictions is not None and config.model is not None:
        raise ValueError("--predictions are evaluated without a model; give one of --predictions and --model")
    with runtime.start(config.device, "fp32", seed=0) as run:
        if config.predictions is None:
            evaluated, about, sentence = evaluate_model(config, run)
        else:
            evaluated, about, sentence = evaluate_predictions(config, config.predictions, run)
    found: dict[str, Any] = {"set": str(config.table or config.data_dir), **report.report_on(evaluated), **about}
    print(f"{report.format_report(found)}\n")
    path = config.output_dir / "report.json"
    report.write({**found, "provenance": run_environment(run)}, path, config.output_dir, evaluated)
    print(f"report, errors.csv and pictures: {config.output_dir}\n{sentence}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
