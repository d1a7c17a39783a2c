"""Boxes found in exams that the network did not learn from: kept in files, scored, and a box rule fitted on them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.files import write_atomically
from pytorch_detection import box_metrics, rsna_dataset
from pytorch_detection.detector import Rule, choose_gate, choose_rule
from pytorch_detection.inference import RawDetections, fuse

COLUMNS = {
    "ap50": "AP50",
    "rsna": "RSNA score",
    "sensitivity": "sensitivity at 1 FP/image",
    "image_auc": "image AUC",
    "not_normal": "Not Normal with a box",
}
_FEW = 113  # exams that training chooses its rule by, a tenth of 1,129
_DRAWS = 10  # of so few


@dataclass(frozen=True)
class Answer:
    """What was found in an exam, and what is true; boxes are xyxy in pixels of the square."""

    exam_id: str
    finding: str
    patient: str
    boxes: list[list[float]]
    scores: list[float]
    probability: float
    truth: list[list[float]]


def answers_of(
    found: RawDetections, truths: Sequence[NDArray[np.floating]], exams: Sequence[rsna_dataset.Exam]
) -> list[Answer]:
    """What was ``found`` in ``exams``, one by one."""
    each = zip(exams, found.boxes, found.scores, found.probability, truths, strict=True)
    return [
        Answer(exam.exam_id, exam.finding, exam.patient, boxes.tolist(), scores.tolist(), float(sure), truth.tolist())
        for exam, boxes, scores, sure, truth in each
    ]


def write(path: Path, answers: Sequence[Answer]) -> None:
    """To a file that ``read`` reads."""
    text = json.dumps([asdict(answer) for answer in answers])
    write_atomically(path, lambda file: file.write(text.encode()))


def read(path: Path) -> list[Answer]:
    """What ``write`` wrote."""
    return [Answer(**row) for row in json.loads(path.read_bytes())]


def _found(answers: Sequence[Answer]) -> RawDetections:
    boxes, scores = _boxes([answer.boxes for answer in answers]), [np.array(answer.scores) for answer in answers]
    return RawDetections(boxes, scores, np.array([answer.probability for answer in answers]))


def _truths(answers: Sequence[Answer]) -> list[NDArray[np.float64]]:
    return _boxes([answer.truth for answer in answers])


def _boxes(rows: Sequence[list[list[float]]]) -> list[NDArray[np.float64]]:
    return [np.array(row, np.float64).reshape(-1, 4) for row in rows]


def scores_of(answers: Sequence[Answer]) -> dict[str, float | None]:
    """What recipes are compared by, one of each of ``COLUMNS``; None where undefined.

    The gate and the threshold are those that are best on these very exams.
    """
    found, truths = _found(answers), _truths(answers)
    gated = found.gated(choose_gate(found, truths))
    matches = box_metrics.match(found.boxes, gated, truths)
    threshold, rsna = best_threshold(matches)
    scores = box_metrics.score_detections(found.boxes, gated, truths, threshold)
    return {
        "ap50": scores["ap50"],
        "rsna": rsna,
        "sensitivity": scores["sensitivity_at_1_fp"],
        "image_auc": scores["image_auc"],
        "not_normal": _not_normal_with_a_box(answers, gated, threshold),
    }


def outcome(answers: Sequence[Answer], rule: Rule) -> tuple[float, float | None]:
    """RSNA score of ``rule``, and the share of Not Normal exams that it gives a box."""
    boxes, scores = rule.apply(_found(answers))
    matches = box_metrics.match(boxes, scores, _truths(answers))
    rsna = float(box_metrics.rsna_score(matches, np.array([rule.threshold]))[0])
    return rsna, _not_normal_with_a_box(answers, scores, rule.threshold)


def _not_normal_with_a_box(
    answers: Sequence[Answer], scores: Sequence[NDArray[np.float64]], threshold: float
) -> float | None:
    among = [
        bool((some >= threshold).any())
        for some, answer in zip(scores, answers, strict=True)
        if answer.finding == rsna_dataset.CLASSES[1]
    ]
    return float(np.mean(among)) if among else None


def best_threshold(matches: box_metrics.Matches) -> tuple[float, float]:
    """The threshold with the highest RSNA score on these exams, and that score: what no choice beforehand can beat."""
    if not matches.score.size:
        return 1.0, 0.0
    thresholds = np.unique(matches.score)
    scores = box_metrics.rsna_score(matches, thresholds)
    best = int(scores.argmax())
    return float(thresholds[best]), float(scores[best])


def fused(wholes: Sequence[Sequence[Answer]]) -> list[Answer]:
    """The same exams with the boxes of several networks fused, none of which learnt from the exam.

    This is what an average of so many networks reaches, without an exam set apart for it.
    """
    by_exam = [{answer.exam_id: answer for answer in whole} for whole in wholes]
    found: list[Answer] = []
    for first in wholes[0]:
        same = [answers[first.exam_id] for answers in by_exam]
        detections = [
            {
                "boxes": torch.tensor(one.boxes, dtype=torch.float64).reshape(-1, 4),
                "scores": torch.tensor(one.scores, dtype=torch.float64),
                "labels": torch.ones(len(one.scores), dtype=torch.int64),
                "image_probability": torch.tensor(one.probability, dtype=torch.float64),
            }
            for one in same
        ]
        both = fuse(detections)
        boxes, scores, sure = (both[name].tolist() for name in ("boxes", "scores", "image_probability"))
        found.append(replace(first, boxes=boxes, scores=scores, probability=sure))
    return found


def rule_report(folds: Sequence[Sequence[Answer]]) -> str:
    """How a box rule does that is fitted on few exams of a fold, against one fitted on all exams of the other folds.

    Both are judged on the rest of the fold. The few, drawn anew several times by patient, are exams of the network that
    is judged, as validation exams are; those of the other folds are of other networks, trained alike.

    Args:
        folds: all folds of one recipe and seed, each what the network without it found in it.
    """
    outcomes: dict[str, list[tuple[float, float | None]]] = {}
    for number, fold in enumerate(folds):
        everywhere = _best_rule([answer for other in folds if other is not fold for answer in other])
        patients = np.array([answer.patient for answer in fold])
        few = min(_FEW, len(patients) // 2)
        for draw in range(_DRAWS):
            order = np.random.default_rng([number, draw]).permutation(np.unique(patients))
            size = np.cumsum([(patients == patient).sum() for patient in order])
            taken = np.isin(patients, order[size <= few])
            sample, rest = ([fold[int(row)] for row in np.flatnonzero(part)] for part in (taken, ~taken))
            if not all(any(answer.truth for answer in part) for part in (sample, rest)):
                continue  # no rule can be fitted without an opacity
            for title, rule in {
                f"{few} exams of the same network": _best_rule(sample),
                "all exams of the other folds": everywhere,
                "the exams it is judged on (not honest)": _best_rule(rest),
            }.items():
                outcomes.setdefault(title, []).append(outcome(rest, rule))
    lines = [f"{'box rule fitted on':42}{COLUMNS['rsna']:>18}{COLUMNS['not_normal']:>27}"]
    for title, found in outcomes.items():
        rsna, not_normal = (mean_text(values) for values in zip(*found, strict=True))
        lines.append(f"{title:42}{rsna:>18}{not_normal:>27}")
    return "\n".join(lines)


def _best_rule(answers: Sequence[Answer]) -> Rule:
    return choose_rule(_found(answers), _truths(answers))[0]


def mean_text(values: Sequence[float | None]) -> str:
    """Mean and standard deviation of those that are defined."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.mean(known):.3f}" + (f" +- {np.std(known, ddof=1):.3f}" if len(known) > 1 else "")
