"""Style features on planted shortcuts, on sets without one, and scores of groups counted by hand."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cxr import metrics
from studies import style

COUNT = 40  # images of each class
LABELS = np.repeat([0, 1], COUNT)
PATIENTS = [f"{'ab'[label]}{number // 2}" for label in (0, 1) for number in range(COUNT)]  # two images of each


def clouds(shortcut: str = "") -> np.ndarray:
    """Cloudy squares uint8 [2 * COUNT, 56, 56] that differ between the classes by ``shortcut`` alone."""
    random = np.random.default_rng(3)
    smooth = gaussian_filter(random.normal(size=(2 * COUNT, 56, 56)), (0, 3, 3))
    grey = 128 + 30 * smooth / smooth.std(axis=(1, 2), keepdims=True) + random.normal(0, 15, (2 * COUNT, 1, 1))
    grain = random.normal(0, 4, grey.shape)
    second = LABELS == 1
    if shortcut == "outer frame":
        grey[second, -4:] -= 70
    if shortcut == "corners":
        grey[second, 3:9, 3:9] += 90
    if shortcut == "grey histogram":
        grey[second] = 128 + 0.5 * (grey[second] - 128)
    if shortcut == "power spectrum":
        grain[second] *= 3
    return (grey + grain).clip(0, 255).astype(np.uint8)


def parts(squares: np.ndarray) -> dict[str, np.ndarray]:
    return style.picture_features(squares, np.arange(len(squares)))


def auc(features: np.ndarray) -> float:
    return float(metrics.roc_auc(style.cross_fitted(features, LABELS, PATIENTS, seed=0), LABELS))


@pytest.mark.parametrize("shortcut", style.PICTURE)
def test_a_planted_shortcut_is_found_in_its_features(shortcut):
    assert auc(parts(clouds(shortcut))[shortcut]) > 0.95


def test_without_a_shortcut_the_style_predicts_nothing():
    assert 0.3 < auc(style.joined(parts(clouds()))) < 0.7


def test_the_histogram_holds_shares_of_32_levels():
    square = np.full((1, 56, 56), 255, np.uint8)
    square[0, :14] = 9
    histogram = parts(square)["grey histogram"]
    assert histogram[0, [1, 31]].tolist() == [0.25, 0.75]
    assert histogram.sum() == 1


def test_a_style_of_another_set_is_fitted_without_shared_patients():
    features = LABELS[:, None] * 10.0 + np.random.default_rng(0).normal(size=(len(LABELS), 1))
    others = [f"other {patient}" for patient in PATIENTS]
    right = style.predict_from_other_set(features, LABELS, PATIENTS, features, others, seed=0)
    assert metrics.roc_auc(right, LABELS) > 0.99
    # The known images of the evaluated patients have the opposite labels of all other known images.
    known = np.concatenate([features, features, features])
    labels = np.concatenate([LABELS, 1 - LABELS, 1 - LABELS])
    patients = others + PATIENTS * 2
    there = style.predict_from_other_set(known, labels, patients, features, PATIENTS, seed=0)
    assert metrics.roc_auc(there, LABELS) > 0.99
    with pytest.raises(style.TooFewPatients, match="found 0 and 0"):
        style.predict_from_other_set(features, LABELS, PATIENTS, features, PATIENTS, seed=0)


#       class, contradicts, called PNEUMONIA
CASES = [
    (1, False, True),
    (1, False, True),
    (1, False, True),
    (1, False, False),
    (1, True, True),
    (1, True, False),
    (0, False, False),
    (0, False, False),
    (0, True, True),
    (0, True, True),
    (0, True, False),
]


def worked() -> dict:
    labels, contradicts, called = (np.array(column) for column in zip(*CASES, strict=True))
    return style.group_scores(called, labels, contradicts, [f"p{number}" for number in range(len(CASES))])


def test_groups_are_counted_by_class_and_style():
    found = worked()
    assert {
        (name, group): (score["value"], score["images"]) for name, of in found.items() for group, score in of.items()
    } == {
        ("sensitivity", "all"): (pytest.approx(4 / 6), 6),
        ("sensitivity", "agrees"): (3 / 4, 4),
        ("sensitivity", "contradicts"): (1 / 2, 2),
        ("specificity", "all"): (pytest.approx(3 / 5), 5),
        ("specificity", "agrees"): (1.0, 2),
        ("specificity", "contradicts"): (pytest.approx(1 / 3), 3),
    }
    assert found["sensitivity"]["all"]["low"] < 4 / 6 < found["sensitivity"]["all"]["high"]
    low, high = metrics.wilson_interval(2, 2)
    assert (found["specificity"]["agrees"]["low"], found["specificity"]["agrees"]["high"]) == (low, high)


def test_a_style_needs_twenty_patients_of_each_class():
    few = [f"p{number % 19}" for number in range(COUNT)] + PATIENTS[COUNT:]
    with pytest.raises(style.TooFewPatients, match=r"at least 20 patients of each class are needed, found 19 and 20"):
        style.cross_fitted(np.zeros((2 * COUNT, 1)), LABELS, few, seed=0)


def test_a_score_of_few_images_is_no_alarm():
    scores = worked()
    assert "no worst group: each has under 10 images" in style.format_groups(scores, ("NORMAL", "PNEUMONIA"))
    scores["specificity"]["contradicts"]["images"] = 10
    text = style.format_groups(scores, ("NORMAL", "PNEUMONIA"))
    assert "worst group: specificity 0.333 on NORMAL in the style of PNEUMONIA" in text
