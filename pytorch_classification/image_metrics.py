"""Scores of a binary image classifier with intervals by patient; the tests compare them with scikit-learn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.messages import aligned
from cxr.metrics import (
    CONFIDENCE,
    Array,
    add_wilson_interval,
    bootstrap,
    by_score,
    checked,
    interval_text,
    ratio,
    roc_auc,
)
from pytorch_classification.data_load import CLASSES

_SEED = 0  # of the bootstrap
CALIBRATION_BINS = 15
SCORES = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "ece": "ECE (15 bins)",
}
Counted = Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]  # name -> hits, and among which images, both [N]


def evaluate_classifier(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[object] | NDArray[Any],
    threshold: float | NDArray[np.float64],
    *,
    prevalence: float = 0.1,
    resamples: int = 2000,
) -> dict[str, Any]:
    """All scores of a classifier as plain values, which JSON and a checkpoint can hold.

    Args:
        probabilities: [N], of PNEUMONIA.
        labels: [N], 1 is PNEUMONIA.
        groups: [N], the patient of each image; intervals are drawn by patient.
        threshold: an image is predicted as PNEUMONIA where its probability is at or above it. [N] where each has its
            own; then the report gives their range.
        prevalence: at which PPV and NPV are stated too; it is far higher in data sets than in a hospital. About 10 %
            of the upright (PA) exams of the RSNA challenge show pneumonia.

    Returns:
        ``images``, ``patients``, ``threshold``, ``confidence``, ``resamples``, ``seed``; ``confusion_matrix``
        [[tn, fp], [fn, tp]], rows are the truth; ``scores``: name -> ``value``, ``low``, ``high`` (see ``bootstrap``;
        a proportion of 0 or 1 has Wilson's interval over patients); ``classes``: name -> ``precision``, ``recall``,
        ``f1``, each like a score, and ``support``; ``at_prevalence``: ``prevalence``, ``ppv``, ``npv``.
    """
    scores, truth = checked(probabilities, labels)
    positive = scores >= threshold
    found = bootstrap(
        lambda weights: _classifier_scores(scores, truth, positive, prevalence, weights),
        groups,
        resamples=resamples,
        seed=_SEED,
        reflected=["ece"],
    )
    for name, score in found.items():
        if score["value"] is None:
            score["note"] = _UNDEFINED.get(name, "needs images of both classes")
    add_wilson_intervals(found, counted(truth, positive), groups)
    keys = zip(CLASSES, ("npv", "ppv"), ("specificity", "sensitivity"), ("f1_negative", "f1_positive"), strict=True)
    table = {name: {"precision": found[p], "recall": found[r], "f1": found.pop(f)} for name, p, r, f in keys}
    matrix = [[int((row & column).sum()) for column in (~positive, positive)] for row in (~truth, truth)]
    at = float(threshold) if np.ndim(threshold) == 0 else [float(np.min(threshold)), float(np.max(threshold))]
    return {
        "images": int(truth.size),
        "patients": len(set(groups)),
        "threshold": at,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": _SEED,
        "confusion_matrix": matrix,
        "classes": {name: {**table[name], "support": sum(row)} for name, row in zip(CLASSES, matrix, strict=True)},
        "at_prevalence": {
            "prevalence": prevalence,
            "ppv": found.pop("ppv_at_prevalence"),
            "npv": found.pop("npv_at_prevalence"),
        },
        "scores": found,
    }


def rates(counts: Counted, weights: Array) -> dict[str, Array]:
    """The share of hits, [R] under ``weights`` [R, N]; NaN among no images."""
    return {name: ratio(weights @ hits, weights @ among) for name, (hits, among) in counts.items()}


def add_wilson_intervals(
    found: dict[str, dict[str, Any]], counts: Counted, groups: Sequence[object] | NDArray[Any]
) -> None:
    """Wilson's interval over patients for those of the bootstrapped ``rates`` in ``found`` that are 0 or 1."""
    for name in counts.keys() & found.keys():
        add_wilson_interval(found[name], len({*np.asarray(groups)[counts[name][1]]}))


def format_report(report: Mapping[str, Any]) -> str:
    """What ``evaluate_classifier`` returned as a table for the terminal (ASCII only: consoles differ)."""
    notes: list[str] = []

    def cell(score: Mapping[str, Any]) -> str:
        text = interval_text(score)
        if "note" in score:
            if score["note"] not in notes:
                notes.append(score["note"])
            text += f" [{notes.index(score['note']) + 1}]"
        return text

    negative, positive = report["classes"]
    rows = [
        [name, cell(row["precision"]), cell(row["recall"]), cell(row["f1"]), str(row["support"])]
        for name, row in report["classes"].items()
    ]
    (tn, fp), (fn, tp) = report["confusion_matrix"]
    there = report["at_prevalence"]
    share = f"{there['prevalence']:.0%} {positive}"
    scores = [[SCORES[name], cell(score)] for name, score in report["scores"].items()]
    scores += [[f"{name.upper()} at {share}", cell(there[name])] for name in ("ppv", "npv")]
    blocks = [
        f"{report['images']} images, {report['patients']} patients; "
        f"{positive} where the probability is at or above {_threshold_text(report['threshold'])}",
        aligned([["", "precision", "recall", "F1-score", "images"], *rows]),
        aligned(scores),
        aligned(
            [["truth / predicted", negative, positive], [negative, str(tn), str(fp)], [positive, str(fn), str(tp)]]
        ),
        f"In brackets: {report['confidence']:.0%} intervals, {report['resamples']} bootstrap resamples of patients.",
    ]
    return "\n\n".join(blocks) + "".join(f"\n[{number}] {note}" for number, note in enumerate(notes, 1))


def _threshold_text(threshold: float | Sequence[float]) -> str:
    if isinstance(threshold, Sequence):
        low, high = threshold
        return f"{low:.4g} to {high:.4g}, cross-fitted by patient"
    return f"{threshold:.4g}"


def average_precision(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Precision averaged over the positives, as scikit-learn defines it; arguments and result as in ``roc_auc``."""
    positives, negatives = by_score(scores, labels, weights)
    found, positive = positives.cumsum(-1), (positives + negatives).cumsum(-1)
    precision = np.divide(found, positive, out=np.zeros_like(found), where=positive > 0)
    # Without a negative every precision is 1 whatever the scores: undefined rather than perfect.
    return ratio((positives * precision).sum(-1), np.where(negatives.sum(-1) > 0, found[..., -1], 0))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Expected calibration error of the probability of the positive class in 15 bins of equal width (closed below).

    The gap between mean probability and share of positives in each bin, averaged over images. Guo et al. bin the
    confidence in the predicted class instead; with two classes that folds this diagram at .5. Arguments and result
    as in ``roc_auc``.
    """
    probability, truth = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    times = np.ones(probability.size) if weights is None else np.asarray(weights, np.float64)
    in_bin = calibration_bin(probability)[:, None] == np.arange(CALIBRATION_BINS)
    gaps = times @ (in_bin * (probability - truth)[:, None])
    return ratio(np.abs(gaps).sum(-1), times.sum(-1))


def calibration_bin(probabilities: ArrayLike) -> NDArray[np.int64]:
    """The index 0..14 of the bin of equal width that each probability falls in; 1 belongs to the last."""
    bins = np.floor(np.asarray(probabilities, np.float64) * CALIBRATION_BINS).astype(np.int64)
    return np.minimum(bins, CALIBRATION_BINS - 1)


def predictive_values(sensitivity: ArrayLike, specificity: ArrayLike, prevalence: float) -> tuple[Array, Array]:
    """PPV and NPV at a ``prevalence``, by Bayes' rule; NaN where there is nothing to divide by."""
    sensitivity, specificity = np.asarray(sensitivity, np.float64), np.asarray(specificity, np.float64)
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return (
        ratio(true_positive, true_positive + false_positive),
        ratio(true_negative, true_negative + false_negative),
    )


def _classifier_scores(
    scores: Array, truth: NDArray[np.bool_], positive: NDArray[np.bool_], prevalence: float, weights: Array
) -> dict[str, Array]:
    found = rates(counted(truth, positive), weights)
    accuracy, sensitivity, specificity = found.pop("accuracy"), found["sensitivity"], found["specificity"]
    ppv_at_prevalence, npv_at_prevalence = predictive_values(sensitivity, specificity, prevalence)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        **found,
        "roc_auc": roc_auc(scores, truth, weights),
        "average_precision": average_precision(scores, truth, weights),
        "brier": ratio(weights @ (scores - truth) ** 2, weights.sum(-1)),
        "ece": calibration_error(scores, truth, weights),
        "f1_negative": ratio(2 * (weights @ (~truth & ~positive)), weights @ (1.0 * ~truth + ~positive)),
        "f1_positive": ratio(2 * (weights @ (truth & positive)), weights @ (1.0 * truth + positive)),
        "ppv_at_prevalence": ppv_at_prevalence,
        "npv_at_prevalence": npv_at_prevalence,
    }


def counted(truth: NDArray[np.bool_], positive: NDArray[np.bool_]) -> Counted:
    """Hits and images for each score that is a proportion."""
    right = truth == positive
    return {
        "accuracy": (right, np.ones_like(right)),
        "sensitivity": (right & truth, truth),
        "specificity": (right & ~truth, ~truth),
        "ppv": (right & positive, positive),
        "npv": (right & ~positive, ~positive),
    }


_UNDEFINED = {
    "sensitivity": "no image shows PNEUMONIA",
    "specificity": "no image shows NORMAL",
    "ppv": "no image was predicted as PNEUMONIA",
    "npv": "no image was predicted as NORMAL",
    "f1_positive": "no image shows or was predicted as PNEUMONIA",
    "f1_negative": "no image shows or was predicted as NORMAL",
    "ppv_at_prevalence": "needs images of both classes, and one predicted as PNEUMONIA",
    "npv_at_prevalence": "needs images of both classes, and one predicted as NORMAL",
}
