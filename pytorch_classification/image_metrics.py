"""The report on a yes/no classifier of images: scores with intervals by patient, held to scikit-learn by the tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from pytorch_classification.calibration import calibration_error, require_probabilities


def evaluate_classifier(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[object] | NDArray[Any],
    threshold: float | NDArray[np.float64],
    *,
    classes: tuple[str, str] = ("NORMAL", "PNEUMONIA"),
    prevalence: float = 0.1,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The whole report on a classifier as plain values, which JSON and a checkpoint can hold.

    Args:
        probabilities: [N], of the second class.
        labels: [N], 1 is the second class.
        groups: [N], the patient of each image; intervals are drawn by patient.
        threshold: an image is predicted as the second class where its probability is at or above it. [N] where each
            has its own; then the report gives their range.
        classes: names of class 0 and class 1.
        prevalence: share of the second class at which PPV and NPV are stated too: it is far higher in data sets than
            in a hospital. About 10 % of the upright (PA) exams of the RSNA challenge show pneumonia.

    Returns:
        ``images``, ``patients``, ``threshold``, ``confidence``, ``resamples``, ``seed``; ``confusion_matrix``
        [[tn, fp], [fn, tp]], rows are the truth; ``scores``: name -> ``value``, ``low``, ``high`` (see ``bootstrap``;
        a proportion of 0 or 1 has Wilson's interval over patients); ``classes``: name -> ``precision``, ``recall``,
        ``f1``, each like a score, and ``support``; ``at_prevalence``: ``prevalence``, ``ppv``, ``npv``.

    Raises:
        ValueError: shapes differ, a probability or the prevalence is not in 0..1, or a label is neither 0 nor 1.
    """
    scores, truth = checked(probabilities, labels)
    require_probabilities(np.append(scores, prevalence))
    patients = np.asarray(groups)
    if patients.shape != truth.shape:
        raise ValueError(f"expected one patient for each of {truth.size} images, found shape {patients.shape}")
    called = scores >= threshold
    found = bootstrap(
        lambda weights: _classifier_scores(scores, truth, called, prevalence, weights),
        patients,
        resamples=resamples,
        seed=seed,
        reflected=["ece"],
    )
    _explain(found, truth, called, patients, classes)
    keys = zip(classes, ("npv", "ppv"), ("specificity", "sensitivity"), ("f1_negative", "f1_positive"), strict=True)
    table = {name: {"precision": found[p], "recall": found[r], "f1": found.pop(f)} for name, p, r, f in keys}
    matrix = [[int((row & column).sum()) for column in (~called, called)] for row in (~truth, truth)]
    return {
        "images": int(truth.size),
        "patients": int(np.unique(patients).size),
        "threshold": _one_or_range(threshold),
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "confusion_matrix": matrix,
        "classes": {name: {**table[name], "support": sum(row)} for name, row in zip(classes, matrix, strict=True)},
        "at_prevalence": {"prevalence": prevalence, "ppv": found.pop("ppv_there"), "npv": found.pop("npv_there")},
        "scores": found,
    }


def _one_or_range(threshold: float | NDArray[np.float64]) -> float | list[float]:
    return float(threshold) if np.ndim(threshold) == 0 else [float(np.min(threshold)), float(np.max(threshold))]


def proportions(
    counted: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], groups: Sequence[str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Shares of images, each with its interval by patient.

    Args:
        counted: name -> the images that count and those among which they are counted, both bool [N].
        groups: [N], the patient of each image.
        seed: of the bootstrap.

    Returns:
        As ``bootstrap``; a share of 0 or 1 has Wilson's interval over patients, and one among no images is None.
    """
    patients = np.asarray(groups)
    found = bootstrap(
        lambda weights: {
            name: ratio(weights @ (hits & among), weights @ among) for name, (hits, among) in counted.items()
        },
        patients,
        seed=seed,
    )
    for name, (_, among) in counted.items():
        add_wilson_interval(found[name], np.unique(patients[among]).size)
    return found


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
    scores = [[_LONG_NAMES[name], cell(score)] for name, score in report["scores"].items()]
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
        return f"{low:.4g} to {high:.4g}, each patient by that of the others"
    return f"{threshold:.4g}"


_LONG_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "ECE (15 bins)",
}


def average_precision(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Precision averaged over the positives, as scikit-learn defines it; arguments and result as in ``roc_auc``."""
    positives, negatives = by_score(scores, labels, weights)
    found, called = positives.cumsum(-1), (positives + negatives).cumsum(-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    # Without a negative every precision is 1 whatever the scores: undefined rather than perfect.
    return ratio((positives * precision).sum(-1), np.where(negatives.sum(-1) > 0, found[..., -1], 0))


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
    scores: Array, truth: NDArray[np.bool_], called: NDArray[np.bool_], prevalence: float, weights: Array
) -> dict[str, Array]:
    found = {name: ratio(weights @ hits, weights @ among) for name, (hits, among) in counted(truth, called).items()}
    accuracy, sensitivity, specificity = found.pop("accuracy"), found["sensitivity"], found["specificity"]
    ppv_there, npv_there = predictive_values(sensitivity, specificity, prevalence)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        **found,
        "roc_auc": roc_auc(scores, truth, weights),
        "average_precision": average_precision(scores, truth, weights),
        "brier": ratio(weights @ (scores - truth) ** 2, weights.sum(-1)),
        "ece": calibration_error(scores, truth, weights),
        "f1_negative": ratio(2 * (weights @ (~truth & ~called)), weights @ (1.0 * ~truth + ~called)),
        "f1_positive": ratio(2 * (weights @ (truth & called)), weights @ (1.0 * truth + called)),
        "ppv_there": ppv_there,
        "npv_there": npv_there,
    }


def counted(
    truth: NDArray[np.bool_], called: NDArray[np.bool_]
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """The images that each proportion counts, and those among which it counts them."""
    right = truth == called
    return {
        "accuracy": (right, np.ones_like(right)),
        "sensitivity": (right & truth, truth),
        "specificity": (right & ~truth, ~truth),
        "ppv": (right & called, called),
        "npv": (right & ~called, ~called),
    }


def _explain(
    found: dict[str, dict[str, Any]],
    truth: NDArray[np.bool_],
    called: NDArray[np.bool_],
    patients: NDArray[Any],
    classes: tuple[str, str],
) -> None:
    """Say in place why a score is undefined, and give proportions of 0 or 1 Wilson's interval."""
    negative, positive = classes
    reasons = {
        "sensitivity": f"no image shows {positive}",
        "specificity": f"no image shows {negative}",
        "ppv": f"no image was predicted as {positive}",
        "npv": f"no image was predicted as {negative}",
        "f1_positive": f"no image shows or was predicted as {positive}",
        "f1_negative": f"no image shows or was predicted as {negative}",
        "ppv_there": f"needs images of both classes, and one predicted as {positive}",
        "npv_there": f"needs images of both classes, and one predicted as {negative}",
    }
    for name, score in found.items():
        if score["value"] is None:
            score["note"] = reasons.get(name, "needs images of both classes")
    for name, (_, among) in counted(truth, called).items():
        add_wilson_interval(found[name], np.unique(patients[among]).size)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, each column as wide as its longest text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
