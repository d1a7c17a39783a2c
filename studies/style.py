"""Style features of radiographs that may predict the class without the lungs, and scores where they mislead.

Data sets collect their classes at different times and places. Where border, markers, tone or sharpness predict the
class, a classifier may learn them instead of the lungs, and a test set of the same source does not show it.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cxr import metrics, patients
from cxr.messages import aligned
from pytorch_classification.data_load import patients_of_each_class
from pytorch_classification.image_metrics import add_wilson_intervals, rates

# Visible to a classifier; the sizes of image and file are not.
PICTURE = ("outer frame", "corners", "grey histogram", "power spectrum")
_FEW = 10  # images; a score of fewer is no alarm
LEAST_PATIENTS = 20  # of each class; four in a fold
_GRID = 28  # cells along a side of the thumbnail that frame and corners are cut from
_FRAME, _CORNER = 3, 6  # cells
_BINS = 32  # of the grey histogram, and rings of the spectrum
_BATCH = 256  # images at once, so that memory does not grow with their number

Floats = NDArray[np.float64]


class TooFewPatients(ValueError):
    """Too few patients to distinguish a style from chance."""


def picture_features(squares: NDArray[np.uint8], chosen: NDArray[np.int64]) -> dict[str, Floats]:
    """Style features of the squares [S, S] at ``chosen``, in four groups float64 [len(chosen), D].

    ``outer frame`` and ``corners`` are grey levels of a thumbnail of 28 x 28 cells: its outermost 3 cells, and 6 x 6 in
    each corner. ``grey histogram`` (shares of 32 grey levels) and ``power spectrum`` (log power in 32 rings up to the
    Nyquist frequency, of the standardised picture under a Hann window) include the lungs, but no positions.
    """
    parts = [_features_of(squares[chosen[first : first + _BATCH]]) for first in range(0, len(chosen), _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _features_of(squares: NDArray[np.uint8]) -> dict[str, Floats]:
    count = len(squares)
    grey = torch.from_numpy(squares).double()
    thumbnails = functional.adaptive_avg_pool2d(grey[:, None], _GRID)[:, 0].numpy()
    frame, corners = np.ones((_GRID, _GRID), bool), np.zeros((_GRID, _GRID), bool)
    frame[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    edges = np.r_[:_CORNER, _GRID - _CORNER : _GRID]
    corners[np.ix_(edges, edges)] = True
    levels = (squares.reshape(count, -1) // (256 // _BINS)).astype(np.int64) + _BINS * np.arange(count)[:, None]
    histogram = np.bincount(levels.ravel(), minlength=count * _BINS).reshape(count, _BINS) / levels.shape[1]
    return {
        "outer frame": thumbnails[:, frame],
        "corners": thumbnails[:, corners],
        "grey histogram": histogram,
        "power spectrum": _spectrum(grey),
    }


def _spectrum(grey: torch.Tensor) -> Floats:
    """Log of the mean power of [N, S, S] in rings of equal width, from the lowest frequency to Nyquist's: [N, R].

    R is 32, or S / 2 where that is less: narrower rings would be empty.
    """
    deviation, mean = torch.std_mean(grey, dim=(1, 2), keepdim=True, correction=0)
    side = grey.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=grey.dtype)
    power = torch.fft.fft2((grey - mean) / (deviation + 1) * window[:, None] * window).abs().square().flatten(1)
    along = torch.fft.fftfreq(side, dtype=grey.dtype)
    count = min(_BINS, side // 2)
    rings = (torch.hypot(along[:, None], along) * 2 * count).long().flatten()
    inside = rings < count  # beyond Nyquist's lie the corners of the square alone
    sums = torch.zeros(len(grey), count, dtype=grey.dtype).index_add_(1, rings[inside], power[:, inside])
    return (sums / torch.bincount(rings[inside], minlength=count) + 1e-9).log().numpy()


def joined(features: Mapping[str, Floats], names: Iterable[str] = PICTURE) -> Floats:
    """The feature groups ``names`` side by side, float64 [N, D]."""
    return np.concatenate([features[name] for name in names], axis=1)


def cross_fitted(features: Floats, labels: NDArray[np.int64], groups: Sequence[str], seed: int) -> Floats:
    """Probability [N] of class 1 from ``features`` [N, D], predicted by a model fitted on other patients.

    For equally likely classes, so that .5 is between both styles whatever their shares.

    Args:
        groups: [N], the patient of each image.
        seed: of the folds.

    Raises:
        TooFewPatients: fewer than 20 of a class.
    """
    require_patients(labels, groups)
    found = np.zeros(len(labels))
    for others, held_out in patients.folds(labels, groups, seed):
        found[held_out] = _fit_predict(features[others], labels[others], features[held_out], seed)
    return found


def predict_from_other_set(
    known: Floats,
    known_labels: NDArray[np.int64],
    known_groups: Sequence[str],
    features: Floats,
    groups: Sequence[str],
    seed: int,
) -> Floats:
    """As ``cross_fitted``, by a model fitted on the ``known`` images of another set, without shared patients.

    Raises:
        TooFewPatients: fewer than 20 of a class are left.
    """
    evaluated = set(groups)
    usable = np.array([group not in evaluated for group in known_groups])
    require_patients(known_labels[usable], [group for group in known_groups if group not in evaluated])
    return _fit_predict(known[usable], known_labels[usable], features, seed)


def _fit_predict(known: Floats, labels: NDArray[np.int64], features: Floats, seed: int) -> Floats:
    """Probability of class 1 of ``features`` by gradient boosting on ``known``, for equally likely classes.

    32 bins instead of 255 take two thirds of the time. The shares of the classes are taken out afterwards, by Bayes'
    rule: weights while fitting make scikit-learn choose its bins in a way that takes twenty times as long.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=200, max_bins=32, max_leaf_nodes=16, min_samples_leaf=5, max_features=0.2, random_state=seed
    ).fit(known, labels)
    first, second = (model.predict_proba(features) / np.bincount(labels)).T
    # Rounded: without any signal the last digit would differ between the folds and pass for an order.
    return np.round(second / (first + second), 9)


def require_patients(labels: NDArray[np.int64], groups: Sequence[str]) -> None:
    """Raise TooFewPatients unless both classes have 20."""
    first, second = map(len, patients_of_each_class(labels, groups))
    if min(first, second) < LEAST_PATIENTS:
        raise TooFewPatients(f"at least {LEAST_PATIENTS} patients of each class are needed, found {first} and {second}")


def contradicting(style: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an image has the style of the other class; ``style`` [N] is the probability of class 1 by style."""
    return (style >= 0.5) != (labels == 1)


def group_scores(
    predicted: NDArray[np.bool_],
    labels: NDArray[np.int64],
    contradicts: NDArray[np.bool_],
    groups: Sequence[str],
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Sensitivity and specificity of a classifier, over all images and where their style agrees or contradicts.

    Args:
        predicted: [N], whether an image was predicted to be of class 1.
        contradicts: [N], as ``contradicting`` gives it.

    Returns:
        ``sensitivity`` and ``specificity``, each with ``all``, ``agrees`` and ``contradicts``: a score as in
        ``metrics.bootstrap``, and the ``images`` it is among.
    """
    right = predicted == (labels == 1)
    styles = {"all": np.ones_like(contradicts), "agrees": ~contradicts, "contradicts": contradicts}
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        of_class = {style: chosen & (labels == label) for style, chosen in styles.items()}
        counted = {style: (right & of, of) for style, of in of_class.items()}
        found = metrics.bootstrap(partial(rates, counted), groups, seed=seed)
        add_wilson_intervals(found, counted, groups)
        scores[name] = {style: {**found[style], "images": int(of.sum())} for style, of in of_class.items()}
    return scores


def format_groups(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], classes: tuple[str, str]) -> str:
    """What ``group_scores`` returned as a table for the terminal, and the worst group beside the mean."""
    table = aligned(group_rows(scores))
    below = {
        (name, group): of[group]["value"] - of["all"]["value"]
        for name, of in scores.items()
        for group in ("agrees", "contradicts")
        if of[group]["images"] >= _FEW
    }
    if not below:
        return f"{table}\nno worst group: each has under {_FEW} images, too few"
    name, group = min(below, key=below.__getitem__)
    label = int(name == "sensitivity")
    whose = classes[label if group == "agrees" else 1 - label]
    return (
        f"{table}\nworst group: {name} {scores[name][group]['value']:.3f} on {classes[label]} in the style of {whose}; "
        f"{scores[name]['all']['value']:.3f} on all {classes[label]}"
    )


def group_rows(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """What ``group_scores`` returned as a table; the first row is the header."""
    rows = [
        [name, *(f"{metrics.interval_text(score)}, {score['images']} images" for score in of.values())]
        for name, of in scores.items()
    ]
    return [["", "all", "style agrees with the class", "style contradicts the class"], *rows]
