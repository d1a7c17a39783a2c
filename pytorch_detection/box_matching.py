"""Which predicted boxes find which true ones.

Boxes come as lists with one entry for each image: ``boxes`` float [n, 4] xyxy (x right, y down, origin top left, pixels
of the image that the truth speaks of), ``scores`` float [n] in 0..1, ``truths`` float [m, 4] xyxy. Where an image has
no box, n or m is 0; any array of size 0 says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr import metrics
from cxr.metrics import Array

# .40, .45, ... .95; rounded, so that each is the float that the literal would be.
IOU_THRESHOLDS = tuple(round(0.40 + 0.05 * step, 2) for step in range(12))
HIT_COLUMN = 2  # .50: what AP50, FROC, precision and sensitivity call a hit


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


def match(boxes: Sequence[ArrayLike], scores: Sequence[ArrayLike], truths: Sequence[ArrayLike]) -> Matches:
    """Match the predictions of each image to its true boxes as the challenge did.

    Predictions are visited in descending score, equal scores in the order given. Each takes the true box that it
    overlaps most among those still free, if their IoU is *above* the threshold. Later predictions change nothing for
    earlier ones, so the boxes above a higher score threshold keep their matches.

    The challenge does not say which of several true boxes is taken; the most overlapped is COCO's rule. COCO also takes
    an IoU that equals the threshold, which the boxes of a network do not have.
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
