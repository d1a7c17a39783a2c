"""Scores of a yes/no classifier with confidence intervals by patient, its operating point and its calibration.

Every score here is a function of *weights*, the number of times each image counts, so that a bootstrap of thousands of
resamples is one call on a table of weights, where scikit-learn would be called once for each resample. The tests hold
every score against scikit-learn.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
CALIBRATION_BINS = 15
# Logits that need more than a twentyfold change are no classifier's (all alike, or worse than chance): stop there.
TEMPERATURE_LIMITS = (0.05, 20.0)
_TABLE_CELLS = 1 << 20  # weights held at once, 8 MiB: memory stays flat however many images and resamples


@dataclass(frozen=True)
class OperatingPoint:
    """A decision rule, ``probability >= threshold`` is PNEUMONIA, and what it did on the images it was chosen on."""

    threshold: float
    sensitivity: float
    specificity: float
    target: float


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature for which ``sigmoid(logit / temperature)`` has the smallest log loss on these images.

    The labels are softened as Platt proposed, to (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images: n images
    without an error leave room for one. Otherwise a validation set that is told apart perfectly would ask for a
    temperature of 0, for certainty, which no finite set of images can support.

    There is no bias term. It would carry the share of pneumonia in the validation images into every probability, and
    that share is a habit of the collection (74 % in Kaggle's train/, 62 % in its test/), not of the reader's patients.
    Where to cut is the operating point's business, and a bias would not move its decisions.

    Args:
        logits: [N], log-odds of PNEUMONIA.
        labels: [N], 1 is PNEUMONIA.

    Returns:
        A number within ``TEMPERATURE_LIMITS``; above 1 the logits were too sure of themselves.

    Raises:
        ValueError: shapes differ, a logit is not finite, a label is neither 0 nor 1, or one class is missing.

    Guo et al. 2017, arXiv:1706.04599; Platt 1999, "Probabilistic outputs for support vector machines", section 2.2.
    """
    scores, truth = _both_classes(*_checked(logits, labels))
    positives = truth.sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (truth.size - positives + 2))
    coldest, hottest = TEMPERATURE_LIMITS
    # The log loss is convex in 1 / temperature: its slope changes sign once. 60 halvings reach the last bit.
    low, high = 1 / hottest, 1 / coldest
    for _ in range(60):
        middle = (low + high) / 2
        probability = 0.5 * (1 + np.tanh(0.5 * middle * scores))  # the sigmoid, without overflow
        slope = np.mean((probability - target) * scores)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(2 / (low + high))


def operating_point(probabilities: ArrayLike, labels: ArrayLike, target_sensitivity: float) -> OperatingPoint:
    """The highest threshold at which the sensitivity on these images is at or above ``target_sensitivity``.

    Any number between the lowest score that must be called PNEUMONIA and the next lower score makes the same decisions
    here. The threshold is put half-way, so that the last digit of a score (another batch size, another machine) decides
    nothing; 0 stands in where no score is lower.

    Raises:
        ValueError: the target is not in (0, 1], one class is missing, or a probability is not in 0..1.
    """
    if not 0 < target_sensitivity <= 1:
        raise ValueError(f"the target sensitivity must be above 0 and at most 1, found {target_sensitivity}")
    scores, truth = _both_classes(*_checked(probabilities, labels))
    _require_probabilities(scores)
    positives = np.sort(scores[truth])[::-1]
    # k / n against the target, not k against n * target: .07 * 100 is 7.000000000000001, which would ask for an 8th.
    needed = int(np.argmax(np.arange(1, positives.size + 1) / positives.size >= target_sensitivity))
    above = float(positives[needed])
    below = float(scores[scores < above].max(initial=0.0))
    middle = (above + below) / 2
    threshold = middle if middle > below else above  # two neighbouring floats have no middle
    called = scores >= threshold
    return OperatingPoint(threshold, float(called[truth].mean()), float((~called)[~truth].mean()), target_sensitivity)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, sound for few trials and at 0 and 1 (Wilson 1927, doi:10.2307/2276774).

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"expected 0 <= successes <= trials and a trial, found {successes} of {trials}")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    # At 0 and 1 the interval ends there exactly; the arithmetic would miss it by a rounding error.
    low = 0.0 if successes == 0 else (centre - half) / (1 + spread)
    high = 1.0 if successes == trials else (centre + half) / (1 + spread)
    return low, high


def predictive_values(sensitivity: ArrayLike, specificity: ArrayLike, prevalence: float) -> tuple[Array, Array]:
    """PPV and NPV where a share ``prevalence`` of patients is ill, by Bayes' rule; NaN where nobody is called so."""
    sensitivity, specificity = np.asarray(sensitivity, np.float64), np.asarray(specificity, np.float64)
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return (
        _ratio(true_positive, true_positive + false_positive),
        _ratio(true_negative, true_negative + false_negative),
    )


def by_score(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> tuple[Array, Array]:
    """Weight of the positives and of the negatives at each distinct score, highest first: what curves are made of.

    Args:
        scores: [N].
        labels: [N], 0 or 1.
        weights: [..., N], how often each image counts; once each by default.

    Returns:
        Two tables [..., D] for D distinct scores.
    """
    values, truth = _checked(scores, labels)
    times = np.ones(values.size) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-values)
    starts = np.flatnonzero(np.diff(values[order], prepend=np.inf))
    ranked = times[..., order]
    positives = np.add.reduceat(ranked * truth[order], starts, axis=-1)
    return positives, np.add.reduceat(ranked, starts, axis=-1) - positives


def roc_auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Probability that a positive scores above a negative, ties counting half; arguments as in ``by_score``.

    Returns:
        [...]; NaN where either class has no weight.
    """
    positives, negatives = by_score(scores, labels, weights)
    lower = negatives[..., ::-1].cumsum(-1)[..., ::-1] - negatives / 2
    return _ratio((positives * lower).sum(-1), positives.sum(-1) * negatives.sum(-1))


def average_precision(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Precision averaged over the positives, as scikit-learn defines it; arguments and result as in ``roc_auc``."""
    positives, negatives = by_score(scores, labels, weights)
    found, called = positives.cumsum(-1), (positives + negatives).cumsum(-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    # Without a negative every precision is 1 whatever the scores: undefined rather than perfect.
    return _ratio((positives * precision).sum(-1), np.where(negatives.sum(-1) > 0, found[..., -1], 0))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Expected calibration error of the probability of the positive class in 15 bins of equal width (closed below).

    The gap between mean probability and share of positives in each bin, averaged over images. Guo et al. bin the
    confidence in the class called instead; with two classes that folds this diagram at .5. Arguments and result
    as in ``roc_auc``.
    """
    probability, truth = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    times = np.ones(probability.size) if weights is None else np.asarray(weights, np.float64)
    in_bin = calibration_bin(probability)[:, None] == np.arange(CALIBRATION_BINS)
    gaps = times @ (in_bin * (probability - truth)[:, None])
    return _ratio(np.abs(gaps).sum(-1), times.sum(-1))


def calibration_bin(probabilities: ArrayLike) -> NDArray[np.int64]:
    """The index 0..14 of the bin of equal width that each probability falls in; 1 belongs to the last."""
    bins = np.floor(np.asarray(probabilities, np.float64) * CALIBRATION_BINS).astype(np.int64)
    return np.minimum(bins, CALIBRATION_BINS - 1)


def cluster_resamples(groups: Sequence[object] | NDArray[Any], resamples: int, seed: int) -> Array:
    """Weights of bootstrap resamples that draw groups (patients) with replacement, each with all its images.

    Images of one patient are alike. Drawing images would count them as independent and make intervals too narrow.

    Args:
        groups: [N], the group of each image.
        resamples: rows to draw.
        seed: the same seed gives the same rows.

    Returns:
        [resamples, N], whole numbers: how often each image was drawn. A row draws as many groups as there are.
    """
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    return _draw(group_of, resamples, np.random.default_rng(seed))


def bootstrap(
    score: Callable[[Array], Mapping[str, Array]],
    groups: Sequence[object] | NDArray[Any],
    *,
    resamples: int = 2000,
    seed: int = 0,
    reflected: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Scores on all images, each with a 95 % percentile interval over ``cluster_resamples``.

    Args:
        score: takes weights [R, N] and returns named scores [R], NaN where a score is undefined. It is called with
            parts of the table of resamples, so that memory does not grow with their number.
        groups: [N], the patient of each image.
        resamples: how often to draw.
        seed: of the draws.
        reflected: names of scores that noise can only raise, such as a calibration error. Resampling adds its noise to
            the sample's, so percentiles lie too high; these are mirrored at the value (the basic bootstrap), from 0 up.

    Returns:
        For each name ``value``, ``low`` and ``high``: floats, or None with a ``note`` that says why. Resamples in which
        a score is undefined are left out, and its note counts them.

    Raises:
        ValueError: fewer than one resample is asked for.
    """
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if resamples < 1:
        raise ValueError(f"expected at least one bootstrap resample, found {resamples}")
    generator = np.random.default_rng(seed)
    rows = max(1, _TABLE_CELLS // group_of.size)
    parts = [score(_draw(group_of, min(rows, resamples - first), generator)) for first in range(0, resamples, rows)]
    return {
        name: _interval(float(value[0]), np.concatenate([part[name] for part in parts]), name in reflected)
        for name, value in score(np.ones((1, group_of.size))).items()
    }


def evaluate_classifier(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[object] | NDArray[Any],
    threshold: float,
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
        threshold: an image is called the second class where its probability is at or above it.
        classes: names of class 0 and class 1.
        prevalence: share of the second class at which PPV and NPV are stated too, as collections hold more illness than
            a ward does. About 10 % of the upright (PA) exams of the RSNA challenge show pneumonia.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        ``images``, ``patients``, ``threshold``, ``confidence``, ``resamples``, ``seed``; ``confusion_matrix``
        [[tn, fp], [fn, tp]], rows are the truth; ``scores``: name -> ``value``, ``low``, ``high`` (see ``bootstrap``;
        a proportion of 0 or 1 has Wilson's interval over patients); ``classes``: name -> ``precision``, ``recall``,
        ``f1``, each like a score, and ``support``; ``at_prevalence``: ``prevalence``, ``ppv``, ``npv``.

    Raises:
        ValueError: shapes differ, a probability or the prevalence is not in 0..1, or a label is neither 0 nor 1.
    """
    scores, truth = _checked(probabilities, labels)
    _require_probabilities(np.append(scores, prevalence))
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
        "threshold": float(threshold),
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "confusion_matrix": matrix,
        "classes": {name: {**table[name], "support": sum(row)} for name, row in zip(classes, matrix, strict=True)},
        "at_prevalence": {"prevalence": prevalence, "ppv": found.pop("ppv_there"), "npv": found.pop("npv_there")},
        "scores": found,
    }


def format_report(report: Mapping[str, Any]) -> str:
    """What ``evaluate_classifier`` returned as a table for the terminal (ASCII only: consoles differ)."""
    notes: list[str] = []

    def cell(score: Mapping[str, Any]) -> str:
        text = "undefined" if score["value"] is None else f"{score['value']:.3f}"
        if score["low"] is not None:
            text += f" ({score['low']:.3f}-{score['high']:.3f})"
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
        f"{positive} where the probability is at or above {report['threshold']:.4g}",
        _aligned([["", "precision", "recall", "F1-score", "images"], *rows]),
        _aligned(scores),
        _aligned([["truth / called", negative, positive], [negative, str(tn), str(fp)], [positive, str(fn), str(tp)]]),
        f"In brackets: {report['confidence']:.0%} intervals, {report['resamples']} bootstrap resamples of patients.",
    ]
    return "\n\n".join(blocks) + "".join(f"\n[{number}] {note}" for number, note in enumerate(notes, 1))


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


def _classifier_scores(
    scores: Array, truth: NDArray[np.bool_], called: NDArray[np.bool_], prevalence: float, weights: Array
) -> dict[str, Array]:
    found = {
        name: _ratio(weights @ hits, weights @ among) for name, (hits, among) in _proportions(truth, called).items()
    }
    accuracy, sensitivity, specificity = found.pop("accuracy"), found["sensitivity"], found["specificity"]
    ppv_there, npv_there = predictive_values(sensitivity, specificity, prevalence)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        **found,
        "roc_auc": roc_auc(scores, truth, weights),
        "average_precision": average_precision(scores, truth, weights),
        "brier": _ratio(weights @ (scores - truth) ** 2, weights.sum(-1)),
        "ece": calibration_error(scores, truth, weights),
        "f1_negative": _ratio(2 * (weights @ (~truth & ~called)), weights @ (1.0 * ~truth + ~called)),
        "f1_positive": _ratio(2 * (weights @ (truth & called)), weights @ (1.0 * truth + called)),
        "ppv_there": ppv_there,
        "npv_there": npv_there,
    }


def _proportions(
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
        "ppv": f"no image was called {positive}",
        "npv": f"no image was called {negative}",
        "f1_positive": f"no image shows or was called {positive}",
        "f1_negative": f"no image shows or was called {negative}",
        "ppv_there": f"needs images of both classes, and one called {positive}",
        "npv_there": f"needs images of both classes, and one called {negative}",
    }
    for name, score in found.items():
        if score["value"] is None:
            score["note"] = reasons.get(name, "needs images of both classes")
    for name, (_, among) in _proportions(truth, called).items():
        score, trials = found[name], np.unique(patients[among]).size
        if score["low"] is None and score["value"] in (0, 1):
            score["low"], score["high"] = wilson_interval(int(score["value"]) * trials, trials)
            score["note"] = "all resamples agree, so this is Wilson's interval over patients"


def _interval(value: float, resampled: Array, reflect: bool) -> dict[str, Any]:
    if math.isnan(value):
        return {"value": None, "low": None, "high": None, "note": "undefined for these images"}
    defined = resampled[~np.isnan(resampled)]
    if defined.size == 0 or np.ptp(defined) == 0:
        return {"value": value, "low": None, "high": None, "note": "all resamples agree, so they bound nothing"}
    low, high = (float(edge) for edge in np.percentile(defined, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]))
    if reflect:
        low, high = max(0.0, 2 * value - high), max(value, 2 * value - low)
    interval = {"value": value, "low": low, "high": high}
    if missing := resampled.size - defined.size:
        return {**interval, "note": f"{missing} resamples left out in which it is undefined"}
    return interval


def _draw(group_of: NDArray[np.integer[Any]], resamples: int, generator: np.random.Generator) -> Array:
    count = int(group_of.max()) + 1
    drawn = generator.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return times.astype(np.float64)[:, group_of]


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Division that answers NaN, without a warning, where there is nothing to divide by."""
    above, below = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape or values.size == 0:
        shapes = f"{values.shape} and {truth.shape}"
        raise ValueError(f"expected one score and one label for each image, found arrays of shape {shapes}")
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{bad} of {values.size} scores are not finite; did training diverge?")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"expected labels 0 and 1, found {np.unique(truth)[:5].tolist()}")
    return values, truth.astype(bool)


def _both_classes(scores: Array, truth: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    if truth.all() or not truth.any():
        raise ValueError(f"expected images of both classes, found {truth.size} with the label {int(truth[0])} alone")
    return scores, truth


def _require_probabilities(scores: Array) -> None:
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f"expected probabilities in 0..1, found {scores.min():.4g} to {scores.max():.4g}")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, each column as wide as its longest text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
