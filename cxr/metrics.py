"""Scores of images with confidence intervals by patient.

Every score is a function of *weights*, the number of times each image counts, so that a bootstrap is one call on a
table of weights, where scikit-learn would be called once for each resample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
_TABLE_CELLS = 1 << 20  # weights held at once, 8 MiB: memory stays flat however many images and resamples


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, sound for few trials and at 0 and 1 (Wilson 1927, doi:10.2307/2276774)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def by_score(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> tuple[Array, Array]:
    """Weight of the positives and of the negatives at each distinct score, highest first: what curves are made of.

    Args:
        scores: [N].
        labels: [N], 0 or 1.
        weights: [..., N], how often each image counts; once each by default.

    Returns:
        Two tables [..., D] for D distinct scores.
    """
    values, truth = checked(scores, labels)
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
    return ratio((positives * lower).sum(-1), positives.sum(-1) * negatives.sum(-1))


def cluster_resamples(groups: Sequence[object] | NDArray[Any], resamples: int, seed: int) -> Array:
    """Weights of bootstrap resamples that draw groups (patients) with replacement, each with all its images.

    Images of one patient are correlated: drawing images would make intervals too narrow.

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
        score: takes weights [R, N] and returns named scores [R], NaN where a score is undefined; called on parts of
            the resamples, so that memory does not grow with their number.
        groups: [N], the patient of each image.
        reflected: names of scores that noise can only raise, such as a calibration error. Resampling adds its noise to
            the sample's, so percentiles lie too high; these are mirrored at the value (the basic bootstrap), from 0 up.

    Returns:
        For each name ``value``, ``low`` and ``high``: floats, or None with a ``note`` on the reason. Resamples in which
        a score is undefined are left out; the note counts them.
    """
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    generator = np.random.default_rng(seed)
    rows = max(1, _TABLE_CELLS // group_of.size)
    parts = [score(_draw(group_of, min(rows, resamples - first), generator)) for first in range(0, resamples, rows)]
    return {
        name: _interval(float(value[0]), np.concatenate([part[name] for part in parts]), name in reflected)
        for name, value in score(np.ones((1, group_of.size))).items()
    }


def add_wilson_interval(rate: dict[str, Any], trials: int) -> None:
    """Give a rate of 0 or 1, which resamples cannot bound, Wilson's interval over so many patients, with a note."""
    if rate["low"] is None and rate["value"] in (0, 1):
        rate["low"], rate["high"] = wilson_interval(int(rate["value"]) * trials, trials)
        rate["note"] = "Wilson's interval over patients: all resamples give the same value"


def interval_text(score: Mapping[str, Any]) -> str:
    """A score of ``bootstrap`` as every report shows it: ``0.961 (0.944-0.975)``, or ``undefined``."""
    if score["value"] is None:
        return "undefined"
    interval = "" if score["low"] is None else f" ({score['low']:.3f}-{score['high']:.3f})"
    return f"{score['value']:.3f}{interval}"


def _interval(value: float, resampled: Array, reflect: bool) -> dict[str, Any]:
    if math.isnan(value):
        return {"value": None, "low": None, "high": None, "note": "undefined for these images"}
    defined = resampled[~np.isnan(resampled)]
    if defined.size == 0 or np.ptp(defined) == 0:
        return {"value": value, "low": None, "high": None, "note": "all resamples give the same value"}
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


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Division with NaN, and no warning, where the denominator is 0."""
    above, below = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """Scores float64 [N] and labels as booleans [N].

    Raises:
        ValueError: shapes differ, a score is not finite, or a label is neither 0 nor 1.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape or values.size == 0:
        shapes = f"{values.shape} and {truth.shape}"
        raise ValueError(f"expected one score and one label for each image, found arrays of shape {shapes}")
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{bad} of {values.size} scores are not finite; did training diverge?")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"expected labels 0 and 1, found {np.unique(truth)[:5].tolist()}")
    return values, truth.astype(bool)
