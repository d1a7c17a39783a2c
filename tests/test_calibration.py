import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxr import metrics
from pytorch_classification.image_metrics import calibration_bin, calibration_error
from pytorch_classification.operating_point import fit_temperature, threshold_for

SCORES, LABELS = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 0, 1, 0, 0]


def test_calibration_error_of_three_worked_bins():
    # Bin 0 holds .02 and .06 (mean .04, none of 2 positive), bin 7 holds .5 (positive), bin 14 holds 1 (negative).
    error = calibration_error([0.02, 0.06, 0.5, 1.0], [0, 0, 1, 0])
    assert error == pytest.approx((2 * 0.04 + 0.5 + 1.0) / 4)


def test_bins_are_closed_below_and_one_belongs_to_the_last():
    assert calibration_bin([0, 1 / 15 - 1e-9, 1 / 15, 0.5, 14 / 15 - 1e-9, 1]).tolist() == [0, 0, 1, 7, 13, 14]


def test_temperature_finds_by_how_much_logits_were_sharpened():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, 50_000)
    labels = random.random(50_000) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.03)


def test_temperature_is_the_minimum_of_the_log_loss_and_scales_with_the_logits():
    random = np.random.default_rng(1)
    labels = np.arange(400) % 2
    logits = random.normal(np.where(labels == 1, 2, -2), 2)
    temperature = fit_temperature(logits, labels)
    soft = np.where(labels == 1, 201 / 202, 1 / 202)

    def loss(at):
        return np.mean(np.logaddexp(0, logits / at) - soft * logits / at)

    assert loss(temperature) < min(loss(temperature * 1.001), loss(temperature / 1.001))
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * temperature)


def test_temperature_of_a_perfect_validation_set_leaves_room_for_one_error_in_each_class():
    labels = np.repeat([0, 1], 98)
    logits = np.where(labels == 1, 40.0, -40.0)
    probability = 1 / (1 + np.exp(-40 / fit_temperature(logits, labels)))
    assert probability == pytest.approx(99 / 100)


@pytest.mark.parametrize(("logit", "limit"), [(-5.0, 20.0), (1e-4, 0.05)], ids=["worse than chance", "all alike"])
def test_temperature_stays_within_its_limits(logit, limit):
    labels = np.arange(50) % 2
    assert fit_temperature(np.where(labels == 1, logit, -logit), labels) == pytest.approx(limit)


def judged(scores, labels, *wanted):
    """The threshold, and the sensitivity and specificity that it has."""
    threshold, scores, truth = threshold_for(scores, labels, *wanted), np.array(scores), np.array(labels) == 1
    return threshold, np.mean(scores[truth] >= threshold), np.mean(scores[~truth] < threshold)


@pytest.mark.parametrize(
    ("target", "threshold", "sensitivity", "specificity"),
    [
        (0.25, 0.85, 0.25, 1.0),
        (0.26, 0.75, 0.5, 1.0),
        (0.75, 0.5, 0.75, 0.75),
        (1.0, 0.25, 1.0, 0.5),
    ],
)
def test_operating_point_is_half_way_below_the_last_positive_it_needs(target, threshold, sensitivity, specificity):
    assert judged(SCORES, LABELS, target) == (pytest.approx(threshold), sensitivity, specificity)


def test_operating_point_reaches_down_to_zero_where_no_score_is_lower():
    assert threshold_for([0.4, 0.5], [1, 0], 1.0) == pytest.approx(0.2)
    assert threshold_for([0.0, 0.5], [1, 0], 1.0) == 0.0


def test_a_target_that_rounding_would_miss_is_met_with_no_image_too_many():
    scores = np.arange(100, 0, -1) / 200
    _, sensitivity, _ = judged(np.append(scores, 0.0), np.repeat([1, 0], [100, 1]), 0.07)
    assert sensitivity == 0.07


def test_a_specificity_is_reached_by_the_lowest_threshold_that_keeps_it():
    # NORMAL has .1, .2, .4 and .7; half of them lie below anything from above .2 to .3, where PNEUMONIA's lowest is.
    assert judged(SCORES, LABELS, 0.5, "specificity") == (pytest.approx(0.25), 1.0, 0.5)
    assert threshold_for(SCORES, LABELS, 1.0, "specificity") == pytest.approx(0.75)
    assert threshold_for([0.9, 0.5], [0, 1], 1.0, "specificity") == pytest.approx(0.95)
    lower = np.nextafter(0.5, 0)
    assert judged([lower, 0.5], [0, 1], 1.0, "specificity") == (0.5, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40), st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_no_higher_score_would_have_met_the_target(rows, target):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    scores = scores / 20
    assume(labels.any() and not labels.all())
    threshold, sensitivity, _ = judged(scores, labels, target)
    assert sensitivity >= target
    # Just above the lowest score that is called, at least one positive fewer is found, and that is too few.
    lowest = scores[scores >= threshold].min()
    assert np.mean(scores[labels] > lowest) < target


def test_the_interval_of_a_calibration_error_holds_the_truth_where_percentiles_do_not():
    random = np.random.default_rng(0)
    grid = np.linspace(-12, 12, 20_001)
    density = np.exp(-(grid**2) / 32) / np.exp(-(grid**2) / 32).sum()
    sharpened, true = 1 / (1 + np.exp(-2 * grid)), 1 / (1 + np.exp(-grid))
    bins = calibration_bin(sharpened)
    truth = np.abs(np.bincount(bins, density * (sharpened - true), minlength=15)).sum()
    held = {"mirrored": 0, "percentile": 0}
    for trial in range(60):
        logits = random.normal(0, 4, 400)
        labels = random.random(400) < 1 / (1 + np.exp(-logits))
        probabilities = 1 / (1 + np.exp(-2 * logits))
        for kind, reflected in (("mirrored", ["ece"]), ("percentile", [])):
            score = metrics.bootstrap(
                lambda w, p=probabilities, y=labels: {"ece": calibration_error(p, y, w)},
                range(400),
                resamples=200,
                seed=trial,
                reflected=reflected,
            )["ece"]
            held[kind] += score["low"] <= truth <= score["high"]
    assert held["mirrored"] >= 52 > held["percentile"]


def test_log_odds_of_a_diverged_training_have_no_temperature():
    with pytest.raises(ValueError, match="1 of 2 scores are not finite; did training diverge"):
        fit_temperature([1.0, math.inf], [1, 0])
