"""Temperature, thresholds, their table, and operating points set for other images."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytorch_classification import operating_point
from pytorch_classification.image_metrics import evaluate_classifier
from pytorch_classification.operating_point import fit_temperature, format_trade_off, threshold_for, trade_off

SCORES, LABELS = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 0, 1, 0, 0]


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


def rates_at(scores, labels, *wanted):
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
    assert rates_at(SCORES, LABELS, target) == (pytest.approx(threshold), sensitivity, specificity)


def test_a_target_that_rounding_would_miss_is_met_with_no_image_too_many():
    scores = np.arange(100, 0, -1) / 200
    _, sensitivity, _ = rates_at(np.append(scores, 0.0), np.repeat([1, 0], [100, 1]), 0.07)
    assert sensitivity == 0.07


def test_a_specificity_is_reached_by_the_lowest_threshold_that_keeps_it():
    # NORMAL has .1, .2, .4 and .7; half of them lie below anything from above .2 to .3, where PNEUMONIA's lowest is.
    assert rates_at(SCORES, LABELS, 0.5, "specificity") == (pytest.approx(0.25), 1.0, 0.5)
    assert threshold_for(SCORES, LABELS, 1.0, "specificity") == pytest.approx(0.75)
    assert threshold_for([0.9, 0.5], [0, 1], 1.0, "specificity") == pytest.approx(0.95)
    lower = np.nextafter(0.5, 0)
    assert rates_at([lower, 0.5], [0, 1], 1.0, "specificity") == (0.5, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40), st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_no_higher_score_would_have_met_the_target(rows, target):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    scores = scores / 20
    assume(labels.any() and not labels.all())
    threshold, sensitivity, _ = rates_at(scores, labels, target)
    assert sensitivity >= target
    # Just above the lowest score that is called, at least one positive fewer is found, and that is too few.
    lowest = scores[scores >= threshold].min()
    assert np.mean(scores[labels] > lowest) < target


def test_each_threshold_of_a_table_is_what_a_report_at_it_would_say():
    random = np.random.default_rng(5)
    labels, patients = np.arange(200) % 2, [str(number // 4) for number in range(200)]
    probabilities = 1 / (1 + np.exp(-random.normal(np.where(labels, 1, -1.5), 1.5)))
    table = trade_off(probabilities, labels, patients, 0.3, 0.2, resamples=50)
    cuts = [row["threshold"] for row in table["rows"]]
    assert cuts == sorted(cuts) and len(cuts) == 12 and {0.3, 0.5} < {*cuts}
    for row in table["rows"]:
        report = evaluate_classifier(probabilities, labels, patients, row["threshold"], prevalence=0.2, resamples=50)
        for name in ("sensitivity", "specificity", "ppv", "npv"):
            assert row[name] == report["scores"][name]
            if row["reason"].startswith(name):
                assert row[name]["value"] >= float(row["reason"].split()[1])
        assert row["ppv_at_prevalence"]["value"] == report["at_prevalence"]["ppv"]["value"]
    printed = format_trade_off(table).splitlines()
    assert len(printed) == 13 and printed[0].endswith("PPV at 20%   NPV at 20%")
    assert sum("the model's" in line for line in printed) == 1


def shuffled(seed, patients=150):
    """Independent log-odds and labels, two images for each patient."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), 2).astype(str).tolist()
    return random.normal(0, 2, 2 * patients), random.integers(0, 2, 2 * patients), groups


@pytest.mark.parametrize("measure", ["sensitivity", "specificity"])
@pytest.mark.parametrize("seed", range(3))
def test_on_shuffled_labels_cross_fitted_sensitivity_and_specificity_sum_to_one(measure, seed):
    log_odds, labels, groups = shuffled(seed)
    found = operating_point.cross_fitted(log_odds, labels, groups, measure, 0.9, prevalence=0.1, seed=0)
    half = found["scores"]["balanced_accuracy"]
    assert half["low"] < 0.5 < half["high"] and half["high"] - half["low"] < 0.12
    assert found["scores"][measure]["low"] < 0.9 < found["scores"][measure]["high"]
    assert found["threshold"][0] < found["threshold"][1]  # each fold has its own


def test_no_patient_is_evaluated_with_a_threshold_that_was_set_on_the_same_patient(monkeypatch):
    log_odds, labels, groups = shuffled(0)
    fitted, evaluated = [], []
    monkeypatch.setattr(
        operating_point, "set_by_labels", lambda values, *_: fitted.append({*values}) or (1.0, float(len(fitted)) / 10)
    )
    monkeypatch.setattr(
        operating_point.image_metrics, "evaluate_classifier", lambda *arguments, **_: evaluated.append(arguments) or {}
    )
    operating_point.cross_fitted(log_odds, labels, groups, "sensitivity", 0.9, prevalence=0.1, seed=0)
    thresholds = evaluated[0][3]
    for fold, seen in enumerate(fitted, 1):
        held_out = np.flatnonzero(thresholds == fold / 10)
        patients = {groups[index] for index in held_out}
        assert len(held_out) and not any(log_odds[index] in seen for index in range(300) if groups[index] in patients)
    assert len(fitted) == 5


def test_a_stated_prevalence_decides_how_many_are_predicted_as_pneumonia():
    scores = np.arange(200) / 1000
    threshold = operating_point.set_by_prevalence(scores, 0.3, sensitivity=0.9, specificity=0.95)
    assert (scores >= threshold).sum() == round(200 * (0.3 * 0.9 + 0.7 * 0.05))
    assert threshold not in scores
    assert (scores >= operating_point.set_by_prevalence(scores, 0.001, 1.0, 1.0)).sum() == 1
