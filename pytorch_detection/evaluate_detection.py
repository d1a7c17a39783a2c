"""Judge a finished detector, or anyone's boxes, on exams with true boxes.

    python pytorch_detection/evaluate_detection.py --data-dir dataset_det
    python pytorch_detection/evaluate_detection.py --table boxes.csv --model my_detector.pth
    python pytorch_detection/evaluate_detection.py --data-dir dataset_det --predictions submission.csv

Prints the report that training ends with (RSNA score, AP at IoU .50 and COCO's AP, FROC, image ROC AUC, intervals by
patient), and writes it as report.json with errors.csv (the most confident error first) and pictures. The table has the
columns path (from its own folder on), x, y, width and height, a row for each box in pixels of its own image and one
without numbers for an image without a box; and if you like patient and any others, for whose values results are given
apart. Exams that the model was trained on or chosen by are left out. Patients are told by the table or the challenge's
mapping, else by the Patient ID of DICOM files.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import MODEL_FILE, SMALLEST_SIZE, EvaluateConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(EvaluateConfig, __doc__) if __name__ == "__main__" else None

import numpy as np

from cxr import runtime
from cxr.model_file import image_key, run_environment
from pytorch_detection import box_tables, report
from pytorch_detection.detector import Detector


def require_sensible(config: EvaluateConfig) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: not one source of exams, or a model beside predictions.
    """
    if (config.data_dir is None) == (config.table is None):
        raise ValueError("expected one of --data-dir and --table, which say where the exams are")
    if config.predictions is not None and config.model is not None:
        raise ValueError("--predictions are judged without a model; give one of --predictions and --model")


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


def of_model(config: EvaluateConfig, run: runtime.Runtime) -> tuple[report.Judged, dict[str, Any], str]:
    """The exams that the model does not know and what it finds in them, what it is in the report, and in a sentence."""
    detector = Detector.load(config.model or MODEL_FILE, run, config.threshold)
    if detector.training_images is None:
        warnings.warn("the model file does not say which exams it was trained on; none is left out", stacklevel=2)
    known = detector.training_images or frozenset()
    collection = load(config, detector.size, run)
    others = [index for index in collection.readable if image_key(collection.hashes[index]) not in known]
    if not others:
        raise ValueError(
            f"{collection.source}: none of its {len(collection.exams)} exams is left to report on; the model was "
            "trained on all that can be read, or chosen by them"
        )
    judged = report.judge(collection, detector, run, np.array(others, np.int64))
    about = {**detector.record(), "model": detector.provenance.record()}
    return judged, about, f"model: {detector.provenance.sentence(detector.threshold)}"


def of_file(config: EvaluateConfig, path: Path, run: runtime.Runtime) -> tuple[report.Judged, dict[str, Any], str]:
    """The exams and the boxes of the file ``path``, what they are in the report, and in a sentence."""
    collection = load(config, SMALLEST_SIZE, run)
    boxes, scores, there = box_tables.read_predictions(
        path, collection.exams, collection.sizes, allow_missing=config.allow_missing
    )
    kept = np.isin(there, collection.readable)
    boxes, scores = ([some for some, keep in zip(all_of, kept, strict=True) if keep] for all_of in (boxes, scores))
    judged_exams = there[kept]
    lowest = box_tables.lowest(scores)
    default = 1.0 if lowest is None else lowest
    judged = report.Judged(
        collection.source,
        collection.of(judged_exams),
        report.columns_of(collection, judged_exams),
        boxes,
        scores,
        default if config.threshold is None else config.threshold,
        None,
        {"unreadable": len(collection.exams) - len(collection.readable), "in_training": 0},
    )
    held = "no box" if lowest is None else f"boxes from a score of {lowest:.3f} on, and AP and FROC know of no others"
    return judged, {"predictions": str(path)}, f"predictions: {path}; they hold {held}"


def main(config: EvaluateConfig) -> None:
    """Parse, load, evaluate."""
    require_sensible(config)
    with runtime.start(config.device, "fp32", seed=0) as run:
        judged, about, sentence = (
            of_model(config, run) if config.predictions is None else of_file(config, config.predictions, run)
        )
    found: dict[str, Any] = {"set": str(judged.source), **report.evaluated(judged), **about}
    print(f"{report.format_report(found)}\n")
    path = config.output_dir / "report.json"
    report.write({**found, "provenance": run_environment(run)}, path, config.output_dir, judged)
    print(f"report, errors.csv and pictures: {config.output_dir}\n{sentence}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
