"""From log-odds to decisions: temperature scaling, calibration error, operating point."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.metrics import Array, checked, ratio

Measure: TypeAlias = Literal["sensitivity", "specificity"]
CALIBRATION_BINS = 15
# Logits that need more than a twentyfold change are no classifier's (all alike, or worse than chance): stop there.
TEMPERATURE_LIMITS = (0.05, 20.0)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature for which ``sigmoid(logit / temperature)`` has the smallest log loss on these images.

    The labels are softened as Platt proposed, to (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images: n images
    without an error leave room for one. Otherwise a perfectly separated validation set would give a
    temperature of 0, that is certainty, which no finite set of images can support.

    There is no bias term. It would carry the prevalence in the validation images into every probability, and that is a
    property of the data set (74 % in Kaggle's train/, 62 % in its test/), not of the reader's patients. The decision
    is made by the operating point, which a bias would not change.

    Args:
        logits: [N], log-odds of PNEUMONIA.
        labels: [N], 1 is PNEUMONIA.

    Returns:
        A number within ``TEMPERATURE_LIMITS``; above 1 the logits were overconfident.

    Raises:
        ValueError: a logit is not finite.

    Guo et al. 2017, arXiv:1706.04599; Platt 1999, "Probabilistic outputs for support vector machines", section 2.2.
    """
    scores, truth = checked(logits, labels)
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


def operating_point(
    probabilities: ArrayLike, labels: ArrayLike, target: float, measure: Measure = "sensitivity"
) -> float:
    """The highest threshold whose sensitivity, or the lowest whose specificity, is at or above ``target`` here.

    ``probability >= threshold`` is PNEUMONIA.
    Any number between the last score that must be on its side and the next one beyond makes the same decisions here.
    The threshold is put half-way, so that the last digit of a score (another batch size, another machine) decides
    nothing; 0 or 1 stands in where no score is beyond. Both classes must be there.
    """
    scores, truth = checked(probabilities, labels)
    if measure == "sensitivity":
        last = _last_needed(np.sort(scores[truth])[::-1], target)
        beyond = float(scores[scores < last].max(initial=0.0))
    else:
        last = _last_needed(np.sort(scores[~truth]), target)
        beyond = float(scores[scores > last].min(initial=1.0))
    middle = (last + beyond) / 2
    # Two neighbouring floats have no middle; a score of the threshold is positive.
    return middle if min(last, beyond) < middle else max(last, beyond)


def _last_needed(scores: Array, target: float) -> float:
    """Of the scores of one class, the most certain first, the one with which ``target`` is reached."""
    # k / n against the target, not k against n * target: .07 * 100 is 7.000000000000001, which would ask for an 8th.
    return float(scores[np.argmax(np.arange(1, scores.size + 1) / scores.size >= target)])


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
