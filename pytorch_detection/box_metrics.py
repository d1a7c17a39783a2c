"""Scores of boxes: the RSNA challenge's, COCO's average precision, FROC, with intervals by patient."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr import metrics
from cxr.metrics import Array

# .40, .45, ... .95; rounded, so that each is the float that the literal would be.
IOU_THRESHOLDS = tuple(round(0.40 + 0.05 * step, 2) for step in range(12))
RSNA_COLUMNS = slice(0, 8)  # .40 to .75, the challenge's thresholds
COCO_COLUMNS = slice(2, 12)  # .50 to .95
HIT_COLUMN = 2  # .50: a hit for AP50, FROC, precision and sensitivity
FALSE_POSITIVES_PER_IMAGE = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
_THRESHOLD_CANDIDATES, _THRESHOLD_RESAMPLES = 100, 200
_RECALLS = np.linspace(0, 1, 101)  # COCO's 101-point interpolation


@dataclass(frozen=True)
class Matches:
    """Which predictions found a true box, at every IoU threshold.

    Attributes:
        image: int64 [P], the image of each prediction, ascending.
        score: float64 [P], descending within an image.
        hit: bool [P, 12], whether it found a true box that was still free, at each of ``IOU_THRESHOLDS``.
        true_boxes: int64 [N], the number of true boxes of each image.
    """

    image: NDArray[np.int64]
    score: Array
    hit: NDArray[np.bool_]
    true_boxes: NDArray[np.int64]

    @property
    def images(self) -> int:
        return self.true_boxes.size

    def highest_scores(self) -> Array:
        """Of each image, float64 [N]; 0 without a prediction."""
        highest = np.zeros(self.images)
        np.maximum.at(highest, self.image, self.score)
        return highest


def match(boxes: Sequence[ArrayLike], scores: Sequence[ArrayLike], truths: Sequence[ArrayLike]) -> Matches:
    """Match the predictions of each image to its true boxes as the challenge did.

    Predictions are matched in descending score, equal scores in the order given. Each takes the true box that it
    overlaps most among those still free, if their IoU is *above* the threshold. Later predictions change nothing for
    earlier ones, so the boxes above a higher score threshold keep their matches.

    The challenge does not define which of several true boxes is taken; the most overlapped is COCO's rule. COCO also
    accepts an IoU equal to the threshold.
    """
    predicted, score, image, true, true_boxes = _joined(boxes, scores, truths)
    order = np.lexsort((-score, image))
    predicted, score, image = predicted[order], score[order], image[order]
    thresholds = np.array(IOU_THRESHOLDS)[:, None]
    free = np.ones((true_boxes.size, len(IOU_THRESHOLDS), true.shape[1]), np.bool_)
    hit = np.zeros((score.size, len(IOU_THRESHOLDS)), np.bool_)
    first = np.searchsorted(image, np.arange(true_boxes.size))
    waiting = np.bincount(image, minlength=true_boxes.size) * (true_boxes > 0)
    for rank in range(waiting.max()):  # the prediction of this rank in every image at once
        images = np.flatnonzero(waiting > rank)
        at = first[images] + rank
        overlap = _iou(predicted[at][:, None], true[images])[:, None]
        within_reach = np.where(free[images] & (overlap > thresholds), overlap, 0)  # [images, thresholds, true boxes]
        hit[at] = within_reach.max(-1) > 0
        row, column = hit[at].nonzero()
        free[images[row], column, within_reach.argmax(-1)[row, column]] = False
    return Matches(image, score, hit, true_boxes)


def matched(
    boxes: ArrayLike, scores: ArrayLike, truths: ArrayLike, iou: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of one image, which true boxes [m] are found and which predictions [n] hit one, by the rule of ``match``."""
    overlap = overlaps(truths, boxes)
    found, hits = (np.zeros(number, np.bool_) for number in overlap.shape)
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        free = np.where(found, 0.0, overlap[:, index])
        if free.max(initial=0.0) > iou:
            found[free.argmax()] = hits[index] = True
    return found, hits


def overlaps(boxes: ArrayLike, others: ArrayLike) -> Array:
    """Intersection over union [n, m] of each of ``boxes`` [n, 4] with each of ``others`` [m, 4], xyxy."""
    one, other = (np.asarray(some, np.float64).reshape(-1, 4) for some in (boxes, others))
    return _iou(one[:, None], other)


def _iou(boxes: Array, others: Array) -> Array:
    """Intersection over union of boxes [..., 4] xyxy, broadcast against each other; 0 for two boxes without area."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    intersection = np.maximum(sides, 0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (others[..., 2:] - others[..., :2]).prod(-1)
    return np.nan_to_num(metrics.ratio(intersection, areas - intersection))


def _joined(
    boxes: Sequence[ArrayLike], scores: Sequence[ArrayLike], truths: Sequence[ArrayLike]
) -> tuple[Array, Array, NDArray[np.int64], Array, NDArray[np.int64]]:
    """Predictions [P, 4], scores [P], image [P]; true boxes [N, most, 4], zero after the last, numbers [N]."""
    predicted, true = ([np.asarray(some, np.float64).reshape(-1, 4) for some in part] for part in (boxes, truths))
    score = [np.asarray(some, np.float64).ravel() for some in scores]
    number_predicted, true_boxes = np.array([len(some) for some in predicted]), np.array([len(some) for some in true])
    padded = np.zeros((len(true), max(1, true_boxes.max()), 4))
    padded[np.arange(padded.shape[1]) < true_boxes[:, None]] = np.concatenate(true)
    image = np.repeat(np.arange(len(predicted)), number_predicted)
    return np.concatenate(predicted), np.concatenate(score), image, padded, true_boxes


def rsna_score(matches: Matches, thresholds: ArrayLike, weights: Array | None = None) -> Array:
    """The official score of the RSNA Pneumonia Detection Challenge 2018, the mean over the images that count.

    An image's score is TP / (TP + FP + FN), averaged over the IoU thresholds .40 to .75. An image without a true box
    counts only if something is predicted there, and then with 0.

    Args:
        thresholds: [C]; predictions that score at or above it count.
        weights: [..., N], how often each image counts; once each by default.

    Returns:
        [..., C]; NaN where no image counts.
    """
    first = np.searchsorted(matches.image, np.arange(matches.images))
    hits = np.concatenate([np.zeros((1, 8), np.int64), matches.hit[:, RSNA_COLUMNS].cumsum(0)])
    of_images: list[Array] = []
    for threshold in np.atleast_1d(np.asarray(thresholds, np.float64)):
        reported = np.bincount(matches.image[matches.score >= threshold], minlength=matches.images)
        found = hits[first + reported] - hits[first]
        of_images.append(metrics.ratio(found, (reported + matches.true_boxes)[:, None] - found).mean(-1))
    scores = np.array(of_images)  # [C, N], NaN for an image that does not count
    weights = np.ones(matches.images) if weights is None else weights
    return metrics.ratio(weights @ np.nan_to_num(scores).T, weights @ ~np.isnan(scores).T)


def choose_threshold(matches: Matches) -> tuple[float, float]:
    """The score threshold with the highest expected RSNA score on other images, and its RSNA score on these.

    The best threshold of a hundred images is largely chance. So the best one is found on bootstrap resamples of the
    images, and these are averaged (as logarithms of the number of boxes above them; of equally good thresholds of a
    resample, the middle). This recovers about a third of what the best threshold of these images loses on others
    (``noisy_detector`` in tests/test_box_metrics.py).

    Candidates keep 1, ..., all boxes, in steps of a few per cent of their number, each half-way to the next lower
    score, so that the last digit of a score changes no decision. The threshold is 1 where nothing is predicted.

    Raises:
        ValueError: no image has a true box.
    """
    if not matches.true_boxes.any():
        raise ValueError(f"none of {matches.images} images has a true box: no threshold can be chosen")
    if not matches.score.size:
        return 1.0, 0.0
    ranked = np.append(np.sort(matches.score)[::-1], 0.0)
    wanted = np.geomspace(1, matches.score.size, _THRESHOLD_CANDIDATES).round().astype(np.int64)
    reported = np.unique(np.searchsorted(-ranked[:-1], -ranked[wanted - 1], side="right"))  # equal scores go together
    thresholds = (ranked[reported - 1] + ranked[reported]) / 2
    resamples = metrics.cluster_resamples(np.arange(matches.images), _THRESHOLD_RESAMPLES, seed=0)
    resamples = np.vstack([resamples[resamples @ matches.true_boxes > 0], np.ones(matches.images)])
    scores = rsna_score(matches, thresholds, resamples)
    best = scores >= scores.max(-1, keepdims=True) - 1e-12  # sums of the same numbers may differ in the last bit
    middle = ((best @ np.log(reported)) / best.sum(-1)).mean()
    chosen = int(np.abs(np.log(reported) - middle).argmin())
    return float(thresholds[chosen]), float(scores[-1, chosen])


def average_precisions(matches: Matches, weights: Array) -> dict[str, Array]:
    """COCO's average precision at IoU .50 and over .50 to .95, with 101 recalls and boxes of any size and number.

    Implemented here because a bootstrap needs weights, which no library has; the tests compare it with one.

    Args:
        weights: [R, N], how often each image counts.

    Returns:
        ``ap50`` and ``ap``, each [R]; NaN where no true box has weight.
    """
    order = np.argsort(-matches.score, kind="stable")  # equal scores rank in the order of the images, as COCO has it
    hits = matches.hit[order, COCO_COLUMNS]
    at = np.flatnonzero(hits.any(-1))  # precision can only peak at a hit
    hit_image = matches.image[order][at]
    reported = _running_totals(weights, matches.image[order], np.searchsorted(at, np.arange(order.size)), at.size)
    true_boxes = weights @ matches.true_boxes
    values = np.zeros((hits.shape[1], len(weights)))
    for column in range(hits.shape[1]):
        found = (weights[:, hit_image] * hits[at, column]).cumsum(-1)
        # Precision at a recall is the best precision at that recall or a higher one.
        precision = np.maximum.accumulate(np.nan_to_num(metrics.ratio(found, reported))[:, ::-1], axis=-1)[:, ::-1]
        recall = metrics.ratio(found, true_boxes[:, None])
        for row in range(len(weights)):
            reached = np.searchsorted(recall[row], _RECALLS, side="left")
            values[column, row] = precision[row, reached[reached < at.size]].sum() / _RECALLS.size
    values[:, true_boxes == 0] = np.nan
    return {"ap50": values[0], "ap": values.mean(0)}


def hits_by_threshold(matches: Matches) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Reported boxes [K] and true boxes found [K] (IoU above .5) at each distinct score [K], highest first."""
    order = np.argsort(-matches.score, kind="stable")
    ranked = matches.score[order]
    ends = np.flatnonzero(np.diff(ranked, append=-np.inf))
    return ends + 1, matches.hit[order, HIT_COLUMN].cumsum()[ends], ranked[ends]


def froc_sensitivities(
    matches: Matches, weights: Array, budgets: Sequence[float] = FALSE_POSITIVES_PER_IMAGE
) -> dict[str, Array]:
    """The share of true boxes found at no more than so many false positives per image.

    It is that of the lowest threshold within the budget, not interpolated.

    Args:
        weights: [R, N], how often each image counts.
        budgets: false positives per image.

    Returns:
        ``sensitivity_at_<budget>_fp`` -> [R]; NaN where no true box has weight.
    """
    hit = matches.hit[:, HIT_COLUMN]
    order = np.argsort(-matches.score[hit], kind="stable")
    hit_score, hit_image = matches.score[hit][order], matches.image[hit][order]
    # A false positive counts at every hit that scores as high or lower: no threshold keeps that hit without it.
    since = np.searchsorted(-hit_score, -matches.score[~hit])
    false_positives = _running_totals(weights, matches.image[~hit], since, hit_score.size)
    found, images = weights[:, hit_image], weights.sum(-1, keepdims=True)
    within = {budget: found * (false_positives <= budget * images) for budget in budgets}
    true_boxes = weights @ matches.true_boxes
    return {f"sensitivity_at_{budget:g}_fp": metrics.ratio(hits.sum(-1), true_boxes) for budget, hits in within.items()}


def score_detections(
    boxes: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    truths: Sequence[ArrayLike],
    threshold: float | None = None,
) -> dict[str, float | None]:
    """All scores of one set of images as plain numbers, for the log of an epoch.

    Args:
        boxes, scores: predictions, already scaled.
        truths: true boxes.
        threshold: on the score; by default ``choose_threshold`` of these images.

    Returns:
        ``threshold``; ``rsna_score`` at it; ``ap50``, ``ap``; ``sensitivity_at_<budget>_fp``; ``image_auc`` (ROC of the
        highest score of an image, 0 without a box, for having a true box); and at the threshold ``box_sensitivity``,
        ``box_precision``, ``false_positives_per_image`` (a hit has IoU above .5), ``image_sensitivity`` and
        ``image_specificity`` (an image with any box is predicted positive). None where a score is undefined.
    """
    matches = match(boxes, scores, truths)
    if threshold is None:
        threshold, _ = choose_threshold(matches)
    values = {
        name: float(value[0]) for name, value in _scores(matches, threshold, {})(np.ones((1, len(boxes)))).items()
    }
    return {"threshold": threshold, **{name: None if math.isnan(value) else value for name, value in values.items()}}


def evaluate_detections(
    boxes: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    truths: Sequence[ArrayLike],
    groups: Sequence[object] | NDArray[Any],
    threshold: float,
    *,
    classes: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """All scores of a detector with intervals, as plain values that JSON and a checkpoint can hold.

    Args:
        boxes, scores: predictions, already scaled.
        truths: true boxes.
        groups: [N], the patient of each image; intervals are by patient.
        threshold: on the score, chosen on other images.
        classes: [N], of the images: adds a false-positive rate for each class of images without a true box.

    Returns:
        ``images``, ``images_with_opacity``, ``true_boxes``, ``patients``, ``threshold``, ``confidence``, ``resamples``,
        ``seed``; ``scores``: name as in ``score_detections`` -> ``value``, ``low``, ``high`` (``metrics.bootstrap``);
        ``false_positive_rates``: class -> the same for the share of images with any box, and ``images``.
        Such a rate of 0 or 1, also of ``image_sensitivity`` and ``image_specificity``, has Wilson's interval over
        patients.
    """
    matches, patients = match(boxes, scores, truths), np.asarray(groups)
    without = matches.true_boxes == 0
    of_class = np.asarray(classes) if classes is not None else np.full(matches.images, "")
    names = [] if classes is None else np.unique(of_class[without]).tolist()
    clear = {name: without & (of_class == name) for name in names}
    found = metrics.bootstrap(_scores(matches, threshold, clear), patients, resamples=resamples, seed=seed)
    rates = {name: {**found.pop(name), "images": int(among.sum())} for name, among in clear.items()}
    for name, rate in rates.items():
        metrics.add_wilson_interval(rate, np.unique(patients[clear[name]]).size)
    for name, among in (("image_sensitivity", ~without), ("image_specificity", without)):
        metrics.add_wilson_interval(found[name], np.unique(patients[among]).size)
    return {
        "images": matches.images,
        "images_with_opacity": int((matches.true_boxes > 0).sum()),
        "true_boxes": int(matches.true_boxes.sum()),
        "patients": int(np.unique(patients).size),
        "threshold": float(threshold),
        "confidence": metrics.CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "scores": found,
        "false_positive_rates": rates,
    }


def _scores(
    matches: Matches, threshold: float, clear: Mapping[str, NDArray[np.bool_]]
) -> Callable[[Array], dict[str, Array]]:
    """A function of weights [R, N] that returns every score [R]; ``clear`` names images without a true box."""
    kept = matches.score >= threshold
    reported = np.bincount(matches.image[kept], minlength=matches.images)
    found = np.bincount(matches.image[kept & matches.hit[:, HIT_COLUMN]], minlength=matches.images)
    called, positive = reported > 0, matches.true_boxes > 0
    highest = matches.highest_scores()
    ratios = {
        "box_sensitivity": (found, matches.true_boxes),
        "box_precision": (found, reported),
        "false_positives_per_image": (reported - found, np.ones(matches.images)),
        "image_sensitivity": (called & positive, positive),
        "image_specificity": (~called & ~positive, ~positive),
        **{name: (called & among, among) for name, among in clear.items()},
    }

    def scores(weights: Array) -> dict[str, Array]:
        return {
            "rsna_score": rsna_score(matches, threshold, weights)[:, 0],
            **average_precisions(matches, weights),
            **froc_sensitivities(matches, weights),
            "image_auc": metrics.roc_auc(highest, positive, weights),
            **{name: metrics.ratio(weights @ part, weights @ whole) for name, (part, whole) in ratios.items()},
        }

    return scores


def _running_totals(weights: Array, image: NDArray[np.int64], since: NDArray[np.integer[Any]], points: int) -> Array:
    """Weight [R, points] of the boxes up to each point, where box b, in ``image[b]``, counts from ``since[b]`` on."""
    from scipy.sparse import coo_array

    # Sparse: a table of resamples and boxes would be a hundred times larger than one of resamples and hits.
    counts = coo_array((np.ones(image.size), (image, since)), shape=(weights.shape[1], points + 1)).tocsr()
    return (weights @ counts)[:, :points].cumsum(-1)
