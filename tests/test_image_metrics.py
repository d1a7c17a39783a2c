import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from test_metrics import some_predictions

from cxr import metrics
from pytorch_classification.image_metrics import (
    average_precision,
    calibration_bin,
    calibration_error,
    evaluate_classifier,
    format_report,
    predictive_values,
)

ranked = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=30).map(
    lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True))
)


def test_average_precision_of_a_worked_ranking():
    # From the top: miss, hit (1 of 2), hit (2 of 3), miss.
    assert average_precision([0.9, 0.8, 0.7, 0.1], [0, 1, 1, 0]) == pytest.approx((1 / 2 + 2 / 3) / 2)


@given(ranked)
@settings(max_examples=200, deadline=None)
def test_auc_and_average_precision_under_weights_are_those_of_scikit_learn(rows):
    scores, labels, weights = rows
    found = [float(score(scores, labels, weights[None])[0]) for score in (metrics.roc_auc, average_precision)]
    if weights[labels == 1].sum() == 0 or weights[labels == 0].sum() == 0:
        assert np.isnan(found).all()
    else:
        kept = weights > 0  # scikit-learn counts a score of weight 0 as a step of its own
        expected = [
            sklearn_metrics.roc_auc_score(labels[kept], scores[kept], sample_weight=weights[kept]),
            sklearn_metrics.average_precision_score(labels[kept], scores[kept], sample_weight=weights[kept]),
        ]
        assert found == pytest.approx(expected, abs=1e-12)


def test_predictive_values_of_a_worked_population():
    # 1000 patients, 100 ill: 90 found, 45 of the 900 well called ill.
    ppv, npv = predictive_values(0.9, 0.95, 0.1)
    assert (ppv, npv) == (pytest.approx(90 / 135), pytest.approx(855 / 865))
    assert np.isnan(predictive_values(0.0, 1.0, 0.1)[0])


def test_report_of_six_worked_images():
    report = evaluate_classifier([0.9, 0.6, 0.4, 0.7, 0.2, 0.1], [1, 1, 1, 0, 0, 0], list("aabcde"), 0.5)
    assert (report["images"], report["patients"], report["threshold"]) == (6, 5, 0.5)
    assert report["confusion_matrix"] == [[2, 1], [1, 2]]
    for row in report["classes"].values():
        assert (row["support"], row["precision"]["value"], row["recall"]["value"]) == (
            3,
            pytest.approx(2 / 3),
            pytest.approx(2 / 3),
        )
    values = {name: score["value"] for name, score in report["scores"].items()}
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["roc_auc"] == pytest.approx(7 / 9)
    assert values["brier"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.49 + 0.04 + 0.01) / 6)
    there = report["at_prevalence"]
    assert there["prevalence"] == 0.1
    assert there["ppv"]["value"] == pytest.approx((2 / 3 * 0.1) / (2 / 3 * 0.1 + 1 / 3 * 0.9))


def test_report_agrees_with_scikit_learn():
    probabilities, labels, groups = some_predictions(500, seed=2)
    report = evaluate_classifier(probabilities, labels, groups, 0.37, resamples=50)
    called = (probabilities >= 0.37).astype(int)
    values = {name: score["value"] for name, score in report["scores"].items()}
    for index, row in enumerate(report["classes"].values()):
        columns = sklearn_metrics.precision_recall_fscore_support(labels, called, labels=[index])
        assert [row[key]["value"] for key in ("precision", "recall", "f1")] == pytest.approx(
            [c[0] for c in columns[:3]]
        )
        assert row["support"] == columns[3][0]
    assert report["confusion_matrix"] == sklearn_metrics.confusion_matrix(labels, called).tolist()
    assert values["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, called))
    assert values["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, called))
    assert values["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(labels, probabilities))
    assert values["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, probabilities))
    assert values["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(labels, probabilities))
    assert (values["ppv"], values["sensitivity"]) == tuple(
        report["classes"]["PNEUMONIA"][k]["value"] for k in ("precision", "recall")
    )
    assert (values["npv"], values["specificity"]) == tuple(
        report["classes"]["NORMAL"][k]["value"] for k in ("precision", "recall")
    )


def test_report_is_plain_and_the_same_each_time_and_its_intervals_hold_their_values():
    probabilities, labels, groups = some_predictions()
    report = evaluate_classifier(probabilities, labels, groups, 0.5, resamples=500)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert evaluate_classifier(probabilities, labels, groups, 0.5, resamples=500) == report
    for name, score in report["scores"].items():
        assert score["low"] < score["value"] < score["high"], name


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_leaves_scores_undefined_with_a_reason(label):
    absent = ("PNEUMONIA", "NORMAL")[label]
    report = evaluate_classifier([0.2, 0.3, 0.8], [label] * 3, range(3), 0.5, resamples=50)
    json.dumps(report, allow_nan=False)
    missing = report["classes"][absent]["recall"]
    assert missing == {"value": None, "low": None, "high": None, "note": f"no image shows {absent}"}
    for name in ("roc_auc", "average_precision", "balanced_accuracy"):
        assert report["scores"][name]["value"] is None
        assert report["scores"][name]["note"] == "needs images of both classes"
    assert "undefined [" in format_report(report)


def test_a_perfect_proportion_has_wilsons_interval_over_patients_not_images():
    labels, groups = np.repeat([0, 1], 20), np.repeat(np.arange(20), 2)
    report = evaluate_classifier(0.1 + 0.8 * labels, labels, groups, 0.5, resamples=50)
    sensitivity = report["scores"]["sensitivity"]
    assert (sensitivity["low"], sensitivity["high"]) == metrics.wilson_interval(10, 10)
    assert "Wilson" in sensitivity["note"]
    assert report["scores"]["roc_auc"]["low"] is None


def test_images_can_have_thresholds_of_their_own():
    report = evaluate_classifier([0.2, 0.4, 0.4, 0.8], [0, 0, 1, 1], list("abcd"), np.array([0.3, 0.5, 0.3, 0.5]))
    assert report["confusion_matrix"] == [[2, 0], [0, 2]] and report["threshold"] == [0.3, 0.5]
    assert "at or above 0.3 to 0.5, cross-fitted by patient" in format_report(report)


def test_calibration_error_of_three_worked_bins():
    # Bin 0 holds .02 and .06 (mean .04, none of 2 positive), bin 7 holds .5 (positive), bin 14 holds 1 (negative).
    error = calibration_error([0.02, 0.06, 0.5, 1.0], [0, 0, 1, 0])
    assert error == pytest.approx((2 * 0.04 + 0.5 + 1.0) / 4)


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
