"""The report on exams with true boxes: scores, subgroups and errors, all with plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr import evaluation, metrics, reading, runtime
from cxr.evaluation import RESAMPLES, SUBGROUP_RESAMPLES, EvaluatedSet
from cxr.files import write_json
from cxr.messages import aligned
from cxr.metrics import Array, interval_text
from cxr.training_run import ERRORS
from pytorch_detection import box_metrics, plots
from pytorch_detection.box_tables import ExamSet
from pytorch_detection.detector import Detector
from pytorch_detection.inference import in_original
from pytorch_detection.rsna_dataset import Exam

HIT_IOU = box_metrics.IOU_THRESHOLDS[box_metrics.HIT_COLUMN]
_GRID = 9  # pictures in the grid of examples
_ERROR_EXAMS = 6  # in the sheet, with each kind of error
_LEAST_SCORE = 0.001  # of a missed box that no prediction overlaps, for its log-odds
_EXAMPLES = (
    "a third each of exams with all opacities found, with some missed, and without opacity but with a box; of each "
    "kind spread evenly from the highest score to the lowest; others where a kind has too few"
)
# The scores of the table, in this order; the JSON file holds them too.
_ROWS = {
    "rsna_score": "RSNA score (IoU above .40 to .75)",
    "ap50": "AP at IoU .50",
    "ap": "AP at IoU .50 to .95 (COCO)",
    "sensitivity_at_0.125_fp": "sensitivity at 1/8 false positives per image",
    "sensitivity_at_0.25_fp": "sensitivity at 1/4",
    "sensitivity_at_0.5_fp": "sensitivity at 1/2",
    "sensitivity_at_1_fp": "sensitivity at 1",
    "sensitivity_at_2_fp": "sensitivity at 2",
    "sensitivity_at_4_fp": "sensitivity at 4",
    "sensitivity_at_8_fp": "sensitivity at 8",
    "image_auc": "image ROC AUC",
    "box_sensitivity": "box sensitivity at the threshold",
    "box_precision": "box precision at the threshold",
    "false_positives_per_image": "false positives per image at the threshold",
    "image_sensitivity": "image sensitivity at the threshold",
    "image_specificity": "image specificity at the threshold",
}
_GROUP_COUNTS = {"images": "exams", "images_with_opacity": "opacity"}
_GROUP_SCORES = {
    "rsna_score": "RSNA score",
    "ap50": "AP at IoU .50",
    "image_auc": "image ROC AUC",
    "image_specificity": "specificity",  # of images
}


@dataclass(frozen=True)
class EvaluatedExams(EvaluatedSet):
    """Exams and the boxes that were predicted for them.

    Attributes:
        exams: N.
        boxes: N of float64 [n, 4] xyxy in pixels of the original image, at any score.
        scores: N of float64 [n] in 0..1.
    """

    exams: list[Exam]
    boxes: list[Array]
    scores: list[Array]

    @property
    def truths(self) -> list[Array]:
        """N of float64 [m, 4] xyxy in pixels of the original image."""
        return [np.array(exam.boxes_xyxy, np.float64).reshape(-1, 4) for exam in self.exams]


def evaluated_exams(
    exam_set: ExamSet,
    indices: NDArray[np.int64],
    boxes: list[Array],
    scores: list[Array],
    threshold: float,
    out_of_distribution: NDArray[np.bool_] | None = None,
    *,
    in_training: int = 0,
) -> EvaluatedExams:
    """The exams of ``exam_set`` at ``indices`` with boxes, in the same order, in pixels of the original images."""
    exams = exam_set.of(indices)
    return EvaluatedExams(
        name=exam_set.source.resolve().name,
        paths=[exam.path for exam in exams],
        patients=[exam.patient for exam in exams],
        columns={name: [values[index] for index in indices] for name, values in exam_set.columns.items()},
        out_of_distribution=out_of_distribution,
        threshold=threshold,
        left_out={"unreadable": len(exam_set.exams) - len(exam_set.readable), "in_training": in_training},
        exams=exams,
        boxes=boxes,
        scores=scores,
    )


def evaluate(exam_set: ExamSet, detector: Detector, run: runtime.Runtime, indices: NDArray[np.int64]) -> EvaluatedExams:
    """The predictions of ``detector`` for the exams at ``indices``; it was trained on the others that are readable."""
    found, features = detector.predict(exam_set.images.images, run, indices)
    boxes, scores = detector.rule.apply(found)
    sizes = exam_set.sizes[indices].tolist()
    return evaluated_exams(
        exam_set,
        indices,
        [in_original(some, detector.size, size) for some, size in zip(boxes, sizes, strict=True)],
        scores,
        detector.threshold,
        None if detector.feature_distance is None else detector.feature_distance.is_ood(features),
        in_training=len(exam_set.readable) - len(indices),
    )


def report_on(evaluated: EvaluatedExams) -> dict[str, Any]:
    """The report as plain values: what is left out, ``all`` (``box_metrics.evaluate_detections``), ``subgroups``."""
    everything = np.arange(len(evaluated))
    return {
        **evaluated.frame(),
        "hit_iou": HIT_IOU,
        "all": _scores(evaluated, everything, RESAMPLES),
        "subgroups": {name: _scores(evaluated, at, SUBGROUP_RESAMPLES) for name, at in evaluated.subgroups().items()},
    }


def _scores(evaluated: EvaluatedExams, at: NDArray[np.int64], resamples: int) -> dict[str, Any]:
    truths, exams = evaluated.truths, [evaluated.exams[index] for index in at]
    return box_metrics.evaluate_detections(
        [evaluated.boxes[index] for index in at],
        [evaluated.scores[index] for index in at],
        [truths[index] for index in at],
        [exam.patient for exam in exams],
        evaluated.threshold,
        classes=[exam.finding for exam in exams],
        resamples=resamples,
    )


def format_report(report: Mapping[str, Any]) -> str:
    """What ``report_on`` returned, for the terminal."""
    whole, groups = report["all"], report["subgroups"]
    rows = [[name, interval_text(whole["scores"][key])] for key, name in _ROWS.items()]
    rates = [[f"  {name}", interval_text(rate)] for name, rate in whole["false_positive_rates"].items()]
    blocks = [
        f"{whole['images']} exams of {whole['patients']} patients, {whole['images_with_opacity']} with opacity "
        f"({whole['true_boxes']} boxes); score threshold {whole['threshold']:.4f}; 95% intervals by patient\n"
        f"AP, sensitivity and precision: a hit has an IoU above {report['hit_iou']:g}",
        aligned([*rows, ["false-positive rate of images without opacity (any box), by class:", ""], *rates]),
        aligned(evaluation.group_rows("subgroups", groups, _GROUP_COUNTS, _GROUP_SCORES)) if groups else "",
        evaluation.counts_text(evaluation.counts(report)),
    ]
    return "\n\n".join(filter(None, blocks))


def write(report: Mapping[str, Any], path: Path, images_dir: Path, evaluated: EvaluatedExams) -> None:
    """``report`` to the JSON file ``path``, beside it ``errors.csv``, and the pictures."""
    write_json(path, report)
    wrong = errors(evaluated)
    header = ("error", "x", "y", "width", "height", "score", "threshold", "class")
    rows = ((error.exam, _error_row(error, evaluated)) for error in wrong)
    evaluation.write_errors(path.parent / ERRORS, evaluated, header, rows)
    draw(images_dir, evaluated, report, wrong)


# ---------------------------------------------------------------------------------------------------------- errors


class Error(NamedTuple):
    """A box that is reported and false, or true and not reported; a hit has an IoU above ``HIT_IOU``.

    Attributes:
        exam: its index.
        kind: ``false`` or ``missed``.
        box: xyxy in pixels of the original image.
        score: of the false box; for a missed one the highest score below the threshold of a box that would have hit
            it, 0 without one.
        confidence: absolute difference of the log-odds of score and threshold.
    """

    exam: int
    kind: str
    box: tuple[float, ...]
    score: float
    confidence: float


def errors(evaluated: EvaluatedExams) -> list[Error]:
    """All errors, the most confident first."""
    found: list[Error] = []

    def add(exam: int, kind: str, box: Array, score: float) -> None:
        clipped = np.clip([score, evaluated.threshold], _LEAST_SCORE, 1 - _LEAST_SCORE)
        log_odds = np.log(clipped / (1 - clipped))
        found.append(Error(exam, kind, tuple(box.tolist()), score, abs(float(log_odds[0] - log_odds[1]))))

    for exam, (boxes, scores, truths) in enumerate(
        zip(evaluated.boxes, evaluated.scores, evaluated.truths, strict=True)
    ):
        reported = scores >= evaluated.threshold
        is_found, hits = box_metrics.matched(boxes[reported], scores[reported], truths, HIT_IOU)
        for box, score in zip(boxes[reported][~hits], scores[reported][~hits], strict=True):
            add(exam, "false", box, float(score))
        near = box_metrics.overlaps(truths, boxes[~reported]) > HIT_IOU
        for index in np.flatnonzero(~is_found):
            add(exam, "missed", truths[index], float(scores[~reported][near[index]].max(initial=0.0)))
    return sorted(found, key=lambda error: -error.confidence)


def _error_row(error: Error, evaluated: EvaluatedExams) -> list[str]:
    left, top, right, bottom = error.box
    return [
        f"{error.kind} box",
        *(f"{side:.1f}" for side in (left, top, right - left, bottom - top)),
        f"{error.score:.6f}",
        f"{evaluated.threshold:.6f}",
        evaluated.exams[error.exam].finding,
    ]


# -------------------------------------------------------------------------------------------------------- pictures


def draw(folder: Path, evaluated: EvaluatedExams, report: Mapping[str, Any], wrong: Sequence[Error]) -> None:
    """The pictures of a report."""
    matches = box_metrics.match(evaluated.boxes, evaluated.scores, evaluated.truths)
    draw_score_curves(folder, evaluated, matches, report["all"]["scores"]["ap50"])
    cases = grid_cases(matches, evaluated.threshold)
    draw_examples(folder / "detection_example.png", evaluated, cases, f"Shown: {_EXAMPLES}.")
    draw_errors(folder / "errors.png", evaluated, wrong)
    everything = {"all": report["all"]} if report["subgroups"] else {}
    title = f"{evaluated.title}, threshold {evaluated.threshold:.3f}"
    evaluation.draw_groups(folder / "subgroups.png", everything | report["subgroups"], _GROUP_SCORES, title)


def draw_score_curves(
    folder: Path, evaluated: EvaluatedExams, matches: box_metrics.Matches, ap50: Mapping[str, Any]
) -> None:
    """Precision-recall and FROC, the latter with its interval by patient, and the threshold on both."""
    true_boxes, threshold = int(matches.true_boxes.sum()), evaluated.threshold
    title = f"{evaluated.title}, {true_boxes} true boxes, a hit has an IoU above {HIT_IOU:g}"
    reported = matches.score >= threshold
    boxes, hits = int(reported.sum()), int((reported & matches.hit[:, box_metrics.HIT_COLUMN]).sum())
    above, found, _ = box_metrics.hits_by_threshold(matches)
    sensitivity = metrics.ratio(found, matches.true_boxes.sum())
    plots.precision_recall(
        sensitivity,
        found / above,
        folder / "precision_recall_detection.png",
        label=f"AP {interval_text(ap50)}",
        point=(hits / true_boxes, hits / boxes) if boxes and true_boxes else None,
        point_label=f"threshold {threshold:.3f}: {boxes} boxes, {hits} hits, {boxes - hits} false",
        title=title,
    )
    budgets = np.geomspace(1 / 8, 8, 61)
    band = metrics.bootstrap(
        lambda weights: box_metrics.froc_sensitivities(matches, weights, budgets.tolist()),
        evaluated.patients,
        resamples=RESAMPLES,
    )
    low, high = (
        np.array([score["value"] if score[end] is None else score[end] for score in band.values()])
        for end in ("low", "high")
    )
    at_budget = box_metrics.froc_sensitivities(matches, np.ones((1, matches.images))).values()
    plots.froc(
        (above - found) / matches.images,
        sensitivity,
        folder / "froc.png",
        points={
            rate: float(value[0]) for rate, value in zip(box_metrics.FALSE_POSITIVES_PER_IMAGE, at_budget, strict=True)
        },
        band=(budgets, low, high) if true_boxes else None,
        threshold=threshold,
        at_threshold=((boxes - hits) / matches.images, hits / true_boxes) if true_boxes else None,
        title=title,
    )


def draw_examples(
    path: Path, evaluated: EvaluatedExams, shown: Sequence[int], caption: str, *, with_id: bool = False
) -> None:
    """The exams at the indices ``shown`` with true and reported boxes."""
    exams, truths = [evaluated.exams[index] for index in shown], evaluated.truths
    reported = [evaluated.scores[index] >= evaluated.threshold for index in shown]
    counts = [plots.number_of_boxes(int(kept.sum()), evaluated.threshold) for kept in reported]
    plots.detection_grid(
        [reading.read(exam.path).whole() for exam in exams],
        [truths[index] for index in shown],
        [evaluated.boxes[index][kept] for index, kept in zip(shown, reported, strict=True)],
        [evaluated.scores[index][kept] for index, kept in zip(shown, reported, strict=True)],
        [f"{exam.exam_id}\n" * with_id + f"{exam.finding}\n{count}" for exam, count in zip(exams, counts, strict=True)],
        path,
        hit_iou=HIT_IOU,
        caption=f"{evaluated.title}. {caption}",
    )


def draw_errors(path: Path, evaluated: EvaluatedExams, wrong: Sequence[Error]) -> None:
    """The exams with the most confident errors of both kinds."""
    path.unlink(missing_ok=True)  # of an earlier report
    shown: list[int] = []
    for kind in ("false", "missed"):
        of_kind = dict.fromkeys(error.exam for error in wrong if error.kind == kind and error.exam not in shown)
        shown += [*of_kind][:_ERROR_EXAMS]
    caption = (
        f"Shown: up to {_ERROR_EXAMS} exams with the most confident false boxes, then up to {_ERROR_EXAMS} with the "
        "most confident misses."
    )
    if shown:
        draw_examples(path, evaluated, shown, caption, with_id=True)


def grid_cases(matches: box_metrics.Matches, threshold: float) -> list[int]:
    """Indices of the cases that ``_EXAMPLES`` describes; where one kind has too few, the next ones fill its places."""
    reported, hit = matches.score >= threshold, matches.hit[:, box_metrics.HIT_COLUMN]
    hits = np.bincount(matches.image[reported & hit], minlength=matches.images)
    false = np.bincount(matches.image[reported & ~hit], minlength=matches.images)
    highest = matches.highest_scores()
    kinds = (
        (hits == matches.true_boxes) & (hits > 0),
        hits < matches.true_boxes,
        (false > 0) & (matches.true_boxes == 0),
        np.ones(matches.images, np.bool_),
    )
    shown: list[int] = []
    for number, kind in enumerate(kinds, 1):
        pool = np.setdiff1d(np.flatnonzero(kind), shown)
        pool = pool[np.argsort(-highest[pool], kind="stable")]
        wanted = min(_GRID, number * _GRID // 3) - len(shown)
        places = np.linspace(0, len(pool) - 1, wanted).round().astype(int) if len(pool) else []
        shown += np.unique(pool[places]).tolist()
    return shown
