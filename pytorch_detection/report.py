"""The report on exams with true boxes: scores, subgroups and errors, all with plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr import messages, metrics, patients, prediction, reading, runtime, tables
from cxr import plots as cxr_plots
from cxr.files import write_json
from cxr.metrics import Array, interval_text
from cxr.training_run import ERRORS
from pytorch_detection import box_metrics, plots
from pytorch_detection.box_tables import ExamSet
from pytorch_detection.detector import Detector
from pytorch_detection.inference import in_original
from pytorch_detection.rsna_dataset import Exam

HIT_IOU = box_metrics.IOU_THRESHOLDS[box_metrics.HIT_COLUMN]
_GRID = 9  # pictures in the grid of examples
_OF_A_KIND = 6  # exams with each kind of error in the sheet
_RESAMPLES, _FEW_RESAMPLES = 2000, 500  # for all exams, and for each of the subgroups
_ENDS = ("low", "high")  # of an interval
_LEAST_SCORE = 0.001  # what no prediction overlaps counts as found with so much
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
_BY_GROUP = {
    "rsna_score": "RSNA score",
    "ap50": "AP at IoU .50",
    "image_auc": "image ROC AUC",
    "image_specificity": "specificity",  # of images
}


@dataclass(frozen=True)
class Judged:
    """Exams and the boxes that were predicted for them.

    Attributes:
        source: the folder or the table.
        exams: N that can be read and that the model was not trained on.
        columns: what divides them into subgroups, N values each.
        boxes: N of float64 [n, 4] xyxy in pixels of the original image, at any score.
        scores: N of float64 [n] in 0..1.
        threshold: boxes that score at or above it are reported.
        unlike: bool [N], unlike the training images; None where nobody can tell.
        left_out: how many exams are not among them, by the reason.
    """

    source: Path
    exams: list[Exam]
    columns: Mapping[str, list[str]]
    boxes: list[Array]
    scores: list[Array]
    threshold: float
    unlike: NDArray[np.bool_] | None
    left_out: dict[str, int]

    @property
    def truths(self) -> list[Array]:
        """N of float64 [m, 4] xyxy in pixels of the original image."""
        return [np.array(exam.boxes_xyxy, np.float64).reshape(-1, 4) for exam in self.exams]

    @property
    def title(self) -> str:
        """For pictures."""
        return f"{len(self.exams)} exams ({self.source.resolve().name})"

    def at(self, indices: NDArray[np.int64]) -> "Judged":
        """The exams at ``indices``."""
        return Judged(
            self.source,
            [self.exams[index] for index in indices],
            {name: [values[index] for index in indices] for name, values in self.columns.items()},
            [self.boxes[index] for index in indices],
            [self.scores[index] for index in indices],
            self.threshold,
            None if self.unlike is None else self.unlike[indices],
            self.left_out,
        )


def judge(collection: ExamSet, detector: Detector, run: runtime.Runtime, indices: NDArray[np.int64]) -> Judged:
    """What ``detector`` finds in the exams of ``collection`` at ``indices``."""
    found, features = detector.predict(collection.images.images, run, indices)
    boxes, scores = detector.rule.apply(found)
    return Judged(
        collection.source,
        collection.of(indices),
        columns_of(collection, indices),
        [
            in_original(some, detector.size, size)
            for some, size in zip(boxes, collection.sizes[indices].tolist(), strict=True)
        ],
        scores,
        detector.threshold,
        None if detector.feature_distance is None else detector.feature_distance.is_ood(features),
        left_out(collection, indices),
    )


def columns_of(collection: ExamSet, indices: NDArray[np.int64]) -> dict[str, list[str]]:
    """What divides the exams at ``indices`` into subgroups."""
    return {name: [values[index] for index in indices] for name, values in collection.columns.items()}


def left_out(collection: ExamSet, indices: NDArray[np.int64]) -> dict[str, int]:
    """How many exams are not among ``indices``: those that cannot be read, and others, which a model knows."""
    readable = len(collection.readable)
    return {"unreadable": len(collection.exams) - readable, "in_training": readable - len(indices)}


def evaluated(judged: Judged) -> dict[str, Any]:
    """The report as plain values: what is left out, ``all`` (``box_metrics.evaluate_detections``), ``subgroups``."""
    columns = dict(judged.columns)
    if judged.unlike is not None:
        columns["unlike training:"] = [prediction.in_words(bool(unlike)) for unlike in judged.unlike]
    return {
        "left_out": judged.left_out,
        "out_of_distribution": None if judged.unlike is None else int(judged.unlike.sum()),
        "hit_iou": HIT_IOU,
        "all": _scores(judged, _RESAMPLES),
        "subgroups": {name: _scores(judged.at(at), _FEW_RESAMPLES) for name, at in patients.subgroups(columns).items()},
    }


def _scores(judged: Judged, resamples: int) -> dict[str, Any]:
    return box_metrics.evaluate_detections(
        judged.boxes,
        judged.scores,
        judged.truths,
        [exam.patient for exam in judged.exams],
        judged.threshold,
        classes=[exam.finding for exam in judged.exams],
        resamples=resamples,
    )


def format_report(report: Mapping[str, Any]) -> str:
    """What ``evaluated`` returned, for the terminal."""
    whole = report["all"]
    lines = [
        f"{whole['images']} exams of {whole['patients']} patients, {whole['images_with_opacity']} with opacity "
        f"({whole['true_boxes']} boxes); score threshold {whole['threshold']:.4f}; 95% intervals by patient",
        f"AP, sensitivity and precision count a box as found from an IoU above {report['hit_iou']:g} on",
        "",
    ]
    lines += [f"{name:46}{interval_text(whole['scores'][key])}" for key, name in _ROWS.items()]
    lines += ["", "false-positive rate of images without opacity (any box), by class:"]
    lines += [f"  {name:44}{interval_text(rate)}" for name, rate in whole["false_positive_rates"].items()]
    if report["subgroups"]:
        lines += ["", *_group_lines(report["subgroups"])]
    counts = {
        "left out, cannot be read": report["left_out"]["unreadable"],
        "left out, the model was trained on them or chosen by them": report["left_out"]["in_training"],
        "unlike the images the model was trained on": report["out_of_distribution"],
    }
    lines += ["", *(f"{name}: {count}" for name, count in counts.items() if count)]
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _group_lines(groups: Mapping[str, Any]) -> list[str]:
    width = max(len(name) for name in groups) + 2
    lines = [f"{'':{width}}{'exams':>6} {'opacity':>8}   " + "".join(f"{name:24}" for name in _BY_GROUP.values())]
    for name, part in groups.items():
        cells = "".join(f"{interval_text(part['scores'][key]):24}" for key in _BY_GROUP)
        lines.append(f"{name:{width}}{part['images']:>6} {part['images_with_opacity']:>8}   {cells}")
    return lines


def write(report: Mapping[str, Any], path: Path, images_dir: Path, judged: Judged) -> None:
    """``report`` to the JSON file ``path``, beside it ``errors.csv``, and the pictures."""
    write_json(path, report)
    wrong = errors(judged)
    write_errors(path.parent / ERRORS, judged, wrong)
    draw(images_dir, judged, report, wrong)


# ---------------------------------------------------------------------------------------------------------- errors


class Error(NamedTuple):
    """A box that is reported and false, or true and not reported; a hit has an IoU above ``HIT_IOU``.

    Attributes:
        exam: its index.
        kind: ``false`` or ``missed``.
        box: xyxy in pixels of the original image.
        score: of the false box; for a missed one the highest score below the threshold of a box that would have hit
            it, 0 without one.
        confidence: how far the score is on the wrong side of the threshold, as a difference of log-odds.
    """

    exam: int
    kind: str
    box: tuple[float, ...]
    score: float
    confidence: float


def errors(judged: Judged) -> list[Error]:
    """All errors, the most confident first."""
    found: list[Error] = []
    for index, (boxes, scores, truths) in enumerate(zip(judged.boxes, judged.scores, judged.truths, strict=True)):
        reported = scores >= judged.threshold
        was_found, hits = box_metrics.matched(boxes[reported], scores[reported], truths, HIT_IOU)
        false = zip(boxes[reported][~hits], scores[reported][~hits], strict=True)
        found += [_error(index, "false", box, float(score), judged.threshold) for box, score in false]
        rest = ~reported
        for box in truths[~was_found]:
            near = rest.copy()
            near[rest] = box_metrics.overlaps(boxes[rest], box[None])[:, 0] > HIT_IOU
            found.append(_error(index, "missed", box, float(scores[near].max(initial=0.0)), judged.threshold))
    return sorted(found, key=lambda error: -error.confidence)


def _error(index: int, kind: str, box: Array, score: float, threshold: float) -> Error:
    odds = [np.log(value / (1 - value)) for value in np.clip([score, threshold], _LEAST_SCORE, 1 - _LEAST_SCORE)]
    return Error(index, kind, tuple(box.tolist()), score, abs(float(odds[0] - odds[1])))


def write_errors(path: Path, judged: Judged, wrong: Sequence[Error]) -> None:
    """A line for each error, the most confident first."""
    further = [name for name, values in judged.columns.items() if any(values)]
    header = (
        "path",
        "error",
        "x",
        "y",
        "width",
        "height",
        "score",
        "threshold",
        "class",
        "out_of_distribution",
        "patient",
    )
    rows = (
        [
            messages.shown_path(judged.exams[error.exam].path),
            f"{error.kind} box",
            *(f"{side:.1f}" for side in (*error.box[:2], error.box[2] - error.box[0], error.box[3] - error.box[1])),
            f"{error.score:.6f}",
            f"{judged.threshold:.6f}",
            judged.exams[error.exam].finding,
            "" if judged.unlike is None else prediction.in_words(bool(judged.unlike[error.exam])),
            judged.exams[error.exam].patient,
            *(judged.columns[name][error.exam] for name in further),
        ]
        for error in wrong
    )
    tables.write_csv(path, (*header, *further), rows)


# -------------------------------------------------------------------------------------------------------- pictures


def draw(folder: Path, judged: Judged, report: Mapping[str, Any], wrong: Sequence[Error]) -> None:
    """The pictures of a report."""
    matches = box_metrics.match(judged.boxes, judged.scores, judged.truths)
    title = f"{judged.title}, {matches.true_boxes.sum()} true boxes, found from an IoU above {HIT_IOU:g} on"
    draw_froc(folder / "froc.png", judged, matches, title)
    scores = report["all"]["scores"]
    precision, recall, cuts = box_metrics.precision_recall_curve(matches)
    reported = int((cuts >= judged.threshold).sum())
    boxes, hits = _counts(matches, judged.threshold)
    plots.precision_recall(
        recall,
        precision,
        folder / "precision_recall_detection.png",
        label=f"AP {interval_text(scores['ap50'])}",
        point=(float(recall[reported - 1]), float(precision[reported - 1])) if reported else None,
        point_label=f"threshold {judged.threshold:.3f}: {boxes} boxes, {hits} of {matches.true_boxes.sum()} true ones "
        f"found, {boxes - hits} false",
        title=title,
    )
    draw_examples(
        folder / "detection_example.png", judged, instructive_cases(matches, judged.threshold), f"Shown: {_EXAMPLES}."
    )
    draw_errors(folder / "errors.png", judged, wrong)
    (folder / "subgroups.png").unlink(missing_ok=True)  # of another report
    if report["subgroups"]:
        rows = {f"all ({report['all']['images']} exams)": scores}
        rows |= {f"{name} ({group['images']})": group["scores"] for name, group in report["subgroups"].items()}
        cxr_plots.forest_plot(
            rows, _BY_GROUP, folder / "subgroups.png", title=f"{judged.title}, threshold {judged.threshold:.3f}"
        )


def _counts(matches: box_metrics.Matches, threshold: float) -> tuple[int, int]:
    """How many boxes score at or above the threshold, and how many of them found a true one."""
    reported = matches.score >= threshold
    return int(reported.sum()), int((reported & matches.hit[:, box_metrics.HIT_COLUMN]).sum())


def draw_froc(path: Path, judged: Judged, matches: box_metrics.Matches, title: str) -> None:
    """FROC with its interval by patient, and where the threshold lies on it."""
    rates, found, _ = box_metrics.froc_curve(matches)
    budgets = np.geomspace(1 / 8, 8, 61)
    band = metrics.bootstrap(
        lambda weights: box_metrics.froc_sensitivities(matches, weights, budgets.tolist()),
        [exam.patient for exam in judged.exams],
        resamples=_RESAMPLES,
    )
    ends = [[score["value"] if score[end] is None else score[end] for score in band.values()] for end in _ENDS]
    at_budget = box_metrics.froc_sensitivities(matches, np.ones((1, matches.images)))
    boxes, hits = _counts(matches, judged.threshold)
    true_boxes = int(matches.true_boxes.sum())
    plots.froc(
        rates,
        found,
        path,
        points=dict(
            zip(box_metrics.FALSE_POSITIVES_PER_IMAGE, (float(value[0]) for value in at_budget.values()), strict=True)
        ),
        band=(budgets, ends[0], ends[1]) if true_boxes else None,
        threshold=judged.threshold,
        at_threshold=((boxes - hits) / matches.images, hits / true_boxes) if true_boxes else None,
        title=title,
    )


def draw_examples(path: Path, judged: Judged, shown: NDArray[np.int64], caption: str, *, named: bool = False) -> None:
    """The exams at the indices ``shown`` with true and reported boxes; ``named`` if they are to be looked up."""
    some = judged.at(shown)
    reported = [scores >= judged.threshold for scores in some.scores]
    plots.detection_grid(
        [reading.read_grey(exam.path) for exam in some.exams],
        some.truths,
        [boxes[kept] for boxes, kept in zip(some.boxes, reported, strict=True)],
        [scores[kept] for scores, kept in zip(some.scores, reported, strict=True)],
        [
            f"{exam.exam_id}\n" * named + f"{exam.finding}\n{plots.number_of_boxes(int(kept.sum()), judged.threshold)}"
            for exam, kept in zip(some.exams, reported, strict=True)
        ],
        path,
        hit_iou=HIT_IOU,
        caption=f"{judged.title}. {caption}",
    )


def draw_errors(path: Path, judged: Judged, wrong: Sequence[Error]) -> None:
    """The exams with the most confident errors of both kinds."""
    shown: list[int] = []
    for kind in ("false", "missed"):
        of_kind = dict.fromkeys(error.exam for error in wrong if error.kind == kind and error.exam not in shown)
        shown += [*of_kind][:_OF_A_KIND]
    if not shown:
        path.unlink(missing_ok=True)  # of another report
        return
    caption = (
        f"Shown: up to {_OF_A_KIND} exams with the most confident false boxes, then up to {_OF_A_KIND} with the most "
        "confident misses."
    )
    draw_examples(path, judged, np.array(shown, np.int64), caption, named=True)


def instructive_cases(matches: box_metrics.Matches, threshold: float) -> NDArray[np.int64]:
    """Indices of instructive pictures, as ``_EXAMPLES`` says; what one kind lacks the next ones fill."""
    reported, hit = matches.score >= threshold, matches.hit[:, box_metrics.HIT_COLUMN]
    hits = np.bincount(matches.image[reported & hit], minlength=matches.images)
    false = np.bincount(matches.image[reported & ~hit], minlength=matches.images)
    highest = np.zeros(matches.images)
    np.maximum.at(highest, matches.image, matches.score)
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
        shown += (
            np.unique(pool[np.linspace(0, len(pool) - 1, wanted).round().astype(int)]).tolist() if len(pool) else []
        )
    return np.array(shown, np.int64)
