"""Boxes found in exams that the network did not learn from: kept in files, scored, and a box rule fitted on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.files import write_atomically
from pytorch_detection import box_matching, box_metrics, rsna_dataset
from pytorch_detection.box_rule import Rule, choose_gate, choose_rule
from pytorch_detection.inference import Found, fuse

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
class OutOfFold:
    """What was found in some exams, and what is true; boxes are in pixels of the square."""

    found: Found
    truths: list[NDArray[Any]]
    exam_ids: list[str]
    findings: list[str]
    patients: list[str]

    @classmethod
    def of(cls, found: Found, truths: Sequence[NDArray[Any]], exams: Sequence[rsna_dataset.Exam]) -> "OutOfFold":
        """What was ``found`` in ``exams``."""
        ids, findings = [exam.exam_id for exam in exams], [exam.finding for exam in exams]
        return cls(found, list(truths), ids, findings, [exam.patient for exam in exams])

    def write(self, path: Path) -> None:
        """To a file that ``read`` reads."""
        columns: dict[str, Any] = {
            "boxes": np.concatenate(self.found.boxes),
            "scores": np.concatenate(self.found.scores),
            "counts": np.array([len(some) for some in self.found.boxes]),
            "probability": self.found.probability,
            "truths": np.concatenate(self.truths),
            "true_counts": np.array([len(some) for some in self.truths]),
            "exam_ids": np.array(self.exam_ids),
            "findings": np.array(self.findings),
            "patients": np.array(self.patients),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez_compressed(file, **columns))

    @classmethod
    def read(cls, path: Path) -> "OutOfFold":
        """What ``write`` wrote."""
        with np.load(path) as file:
            columns: dict[str, NDArray[Any]] = dict(file)
        ends, true_ends = columns["counts"].cumsum()[:-1], columns["true_counts"].cumsum()[:-1]
        found = Found(np.split(columns["boxes"], ends), np.split(columns["scores"], ends), columns["probability"])
        ids, findings, patients = (columns[name].tolist() for name in ("exam_ids", "findings", "patients"))
        return cls(found, np.split(columns["truths"], true_ends), ids, findings, patients)

    def at(self, rows: Iterable[int]) -> "OutOfFold":
        """The exams at ``rows``."""
        rows = list(rows)
        found = Found(
            [self.found.boxes[row] for row in rows],
            [self.found.scores[row] for row in rows],
            self.found.probability[rows],
        )
        return OutOfFold(
            found,
            [self.truths[row] for row in rows],
            [self.exam_ids[row] for row in rows],
            [self.findings[row] for row in rows],
            [self.patients[row] for row in rows],
        )

    def __add__(self, other: "OutOfFold") -> "OutOfFold":
        found = Found(
            self.found.boxes + other.found.boxes,
            self.found.scores + other.found.scores,
            np.concatenate([self.found.probability, other.found.probability]),
        )
        return OutOfFold(
            found,
            self.truths + other.truths,
            self.exam_ids + other.exam_ids,
            self.findings + other.findings,
            self.patients + other.patients,
        )

    def scores(self) -> dict[str, float | None]:
        """What recipes are compared by, one of each of ``COLUMNS``; None where undefined.

        The gate and the threshold are those that are best on these very exams.
        """
        gated = self.found.gated(choose_gate(self.found, self.truths))
        matches = box_matching.match(self.found.boxes, gated, self.truths)
        threshold, rsna = best_threshold(matches)
        scores = box_metrics.score_detections(self.found.boxes, gated, self.truths, threshold)
        return {
            "ap50": scores["ap50"],
            "rsna": rsna,
            "sensitivity": scores["sensitivity_at_1_fp"],
            "image_auc": scores["image_auc"],
            "not_normal": self._not_normal_with_a_box(gated, threshold),
        }

    def outcome(self, rule: Rule) -> tuple[float, float | None]:
        """RSNA score of ``rule``, and the share of Not Normal exams that it gives a box."""
        boxes, scores = rule.apply(self.found)
        matches = box_matching.match(boxes, scores, self.truths)
        rsna = float(box_metrics.rsna_score(matches, np.array([rule.threshold]))[0])
        return rsna, self._not_normal_with_a_box(scores, rule.threshold)

    def _not_normal_with_a_box(self, scores: Sequence[NDArray[np.float64]], threshold: float) -> float | None:
        among = [
            bool((some >= threshold).any())
            for some, finding in zip(scores, self.findings, strict=True)
            if finding == rsna_dataset.CLASSES[1]
        ]
        return float(np.mean(among)) if among else None


def best_threshold(matches: box_matching.Matches) -> tuple[float, float]:
    """The threshold with the highest RSNA score on these exams, and that score: what no choice beforehand can beat."""
    if not matches.score.size:
        return 1.0, 0.0
    thresholds = np.unique(matches.score)
    scores = box_metrics.rsna_score(matches, thresholds)
    best = int(scores.argmax())
    return float(thresholds[best]), float(scores[best])


def joined(folds: Sequence[OutOfFold]) -> OutOfFold:
    """The exams of several folds, one after the other."""
    first, *others = folds
    for other in others:
        first = first + other
    return first


def fused(wholes: Sequence[OutOfFold]) -> OutOfFold:
    """The same exams with the boxes of several networks fused, none of which learnt from the exam.

    This is what an average of so many networks reaches, without an exam set apart for it.
    """
    places = [{name: row for row, name in enumerate(whole.exam_ids)} for whole in wholes]
    answers = [
        fuse(
            [
                {
                    "boxes": torch.from_numpy(whole.found.boxes[place[name]]),
                    "scores": torch.from_numpy(whole.found.scores[place[name]]),
                    "labels": torch.ones(len(whole.found.scores[place[name]]), dtype=torch.int64),
                    "image_probability": torch.tensor(whole.found.probability[place[name]]),
                }
                for whole, place in zip(wholes, places, strict=True)
            ]
        )
        for name in wholes[0].exam_ids
    ]
    first = wholes[0]
    return OutOfFold(Found.of(answers), first.truths, first.exam_ids, first.findings, first.patients)


def rule_report(folds: Sequence[OutOfFold]) -> str:
    """How a box rule does that is fitted on few exams of a fold, against one fitted on all exams of the other folds.

    Both are judged on the rest of the fold. The few, drawn anew several times by patient, are exams of the network that
    is judged, as validation exams are; those of the other folds are of other networks, trained alike.

    Args:
        folds: all folds of one recipe and seed, each what the network without it found in it.
    """
    outcomes: dict[str, list[tuple[float, float | None]]] = {}
    for number, fold in enumerate(folds):
        others = joined([other for other in folds if other is not fold])
        everywhere, _ = choose_rule(others.found, others.truths)
        patients = np.array(fold.patients)
        few = min(_FEW, len(patients) // 2)
        for draw in range(_DRAWS):
            order = np.random.default_rng([number, draw]).permutation(np.unique(patients))
            size = np.cumsum([(patients == patient).sum() for patient in order])
            taken = np.isin(patients, order[size <= few])
            sample, rest = fold.at(np.flatnonzero(taken)), fold.at(np.flatnonzero(~taken))
            if not all(any(len(truth) for truth in part.truths) for part in (sample, rest)):
                continue  # no rule can be fitted without an opacity
            here, _ = choose_rule(sample.found, sample.truths)
            best, _ = choose_rule(rest.found, rest.truths)
            for title, rule in {
                f"{few} exams of the same network": here,
                "all exams of the other folds": everywhere,
                "the exams it is judged on (not honest)": best,
            }.items():
                outcomes.setdefault(title, []).append(rest.outcome(rule))
    lines = [f"{'box rule fitted on':42}{COLUMNS['rsna']:>18}{COLUMNS['not_normal']:>27}"]
    for title, found in outcomes.items():
        rsna, not_normal = (mean_text(values) for values in zip(*found, strict=True))
        lines.append(f"{title:42}{rsna:>18}{not_normal:>27}")
    return "\n".join(lines)


def mean_text(values: Sequence[float | None]) -> str:
    """Mean and standard deviation of those that are defined."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.mean(known):.3f}" + (f" +- {np.std(known, ddof=1):.3f}" if len(known) > 1 else "")
