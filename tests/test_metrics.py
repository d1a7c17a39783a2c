import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cxr import metrics


def some_predictions(images=300, seed=0):
    """Probabilities with ties, labels and patients of one to several images each."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.6).astype(int)
    logits = random.normal(np.where(labels == 1, 1.2, -1.2), 1.5)
    return np.round(1 / (1 + np.exp(-logits)), 2), labels, random.integers(0, images // 2, images)


ranked = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=30).map(
    lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True))
)


# --- ROC AUC, average precision, ECE ---------------------------------------------------------------------------------


def test_auc_counts_the_pairs_that_are_in_order_and_half_of_the_tied():
    # Positives .8 and .5, negatives .5, .3 and .9: in order (.8, .5), (.8, .3), (.5, .3); tied (.5, .5). 3.5 of 6.
    assert metrics.roc_auc([0.8, 0.5, 0.5, 0.3, 0.9], [1, 1, 0, 0, 0]) == pytest.approx(3.5 / 6)


def test_average_precision_of_a_worked_ranking():
    # From the top: miss, hit (1 of 2), hit (2 of 3), miss.
    assert metrics.average_precision([0.9, 0.8, 0.7, 0.1], [0, 1, 1, 0]) == pytest.approx((1 / 2 + 2 / 3) / 2)


@given(ranked)
@settings(max_examples=200, deadline=None)
def test_auc_and_average_precision_under_weights_are_those_of_scikit_learn(rows):
    scores, labels, weights = rows
    found = [float(score(scores, labels, weights[None])[0]) for score in (metrics.roc_auc, metrics.average_precision)]
    if weights[labels == 1].sum() == 0 or weights[labels == 0].sum() == 0:
        assert np.isnan(found).all()
    else:
        kept = weights > 0  # scikit-learn counts a score of weight 0 as a step of its own
        expected = [
            sklearn_metrics.roc_auc_score(labels[kept], scores[kept], sample_weight=weights[kept]),
            sklearn_metrics.average_precision_score(labels[kept], scores[kept], sample_weight=weights[kept]),
        ]
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_table_of_weights_gives_each_rows_score():
    probabilities, labels, groups = some_predictions()
    table = metrics.cluster_resamples(groups, 5, seed=1)
    for score in (metrics.roc_auc, metrics.average_precision, metrics.calibration_error):
        assert score(probabilities, labels, table) == pytest.approx(
            [float(score(probabilities, labels, row)) for row in table]
        )
        assert score(probabilities, labels) == pytest.approx(score(probabilities, labels, np.ones((1, labels.size)))[0])


def test_calibration_error_of_three_worked_bins():
    # Bin 0 holds .02 and .06 (mean .04, none of 2 positive), bin 7 holds .5 (positive), bin 14 holds 1 (negative).
    error = metrics.calibration_error([0.02, 0.06, 0.5, 1.0], [0, 0, 1, 0])
    assert error == pytest.approx((2 * 0.04 + 0.5 + 1.0) / 4)


def test_bins_are_closed_below_and_one_belongs_to_the_last():
    assert metrics.calibration_bin([0, 1 / 15 - 1e-9, 1 / 15, 0.5, 14 / 15 - 1e-9, 1]).tolist() == [0, 0, 1, 7, 13, 14]


# --- temperature -----------------------------------------------------------------------------------------------------


def test_temperature_finds_by_how_much_logits_were_sharpened():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, 50_000)
    labels = random.random(50_000) < 1 / (1 + np.exp(-logits))
    assert metrics.fit_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.03)


def test_temperature_is_the_minimum_of_the_log_loss_and_scales_with_the_logits():
    random = np.random.default_rng(1)
    labels = np.arange(400) % 2
    logits = random.normal(np.where(labels == 1, 2, -2), 2)
    temperature = metrics.fit_temperature(logits, labels)
    soft = np.where(labels == 1, 201 / 202, 1 / 202)

    def loss(at):
        return np.mean(np.logaddexp(0, logits / at) - soft * logits / at)

    assert loss(temperature) < min(loss(temperature * 1.001), loss(temperature / 1.001))
    assert metrics.fit_temperature(3 * logits, labels) == pytest.approx(3 * temperature)


def test_temperature_of_a_perfect_validation_set_leaves_room_for_one_error_in_each_class():
    labels = np.repeat([0, 1], 98)
    logits = np.where(labels == 1, 40.0, -40.0)
    probability = 1 / (1 + np.exp(-40 / metrics.fit_temperature(logits, labels)))
    assert probability == pytest.approx(99 / 100)


@pytest.mark.parametrize(("logit", "limit"), [(-5.0, 20.0), (1e-4, 0.05)], ids=["worse than chance", "all alike"])
def test_temperature_stays_within_its_limits(logit, limit):
    labels = np.arange(50) % 2
    assert metrics.fit_temperature(np.where(labels == 1, logit, -logit), labels) == pytest.approx(limit)


def test_temperature_survives_logits_of_any_size():
    assert metrics.fit_temperature([1e4, -1e4, 3e4, -2e4], [1, 0, 1, 0]) == pytest.approx(20)


# --- operating point -------------------------------------------------------------------------------------------------

SCORES, LABELS = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 0, 1, 0, 0]


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
    point = metrics.operating_point(SCORES, LABELS, target)
    assert (point.threshold, point.target) == (pytest.approx(threshold), target)
    assert (point.sensitivity, point.specificity) == (sensitivity, specificity)


def test_operating_point_takes_all_of_a_tie():
    point = metrics.operating_point([0.8, 0.6, 0.6, 0.6, 0.2], [1, 1, 1, 0, 0], 0.5)
    assert (point.threshold, point.sensitivity, point.specificity) == (pytest.approx(0.4), 1.0, 0.5)


def test_operating_point_reaches_down_to_zero_where_no_score_is_lower():
    assert metrics.operating_point([0.4, 0.5], [1, 0], 1.0).threshold == pytest.approx(0.2)
    assert metrics.operating_point([0.0, 0.5], [1, 0], 1.0).threshold == 0.0


def test_operating_point_between_neighbouring_floats_is_the_upper():
    lower = 0.5
    upper = math.nextafter(lower, 1)
    assert metrics.operating_point([upper, lower], [1, 0], 1.0).threshold == upper


def test_a_target_that_rounding_would_miss_is_met_with_no_image_too_many():
    scores = np.arange(100, 0, -1) / 200
    point = metrics.operating_point(np.append(scores, 0.0), [*[1] * 100, 0], 0.07)
    assert point.sensitivity == 0.07


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40), st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_no_higher_score_would_have_met_the_target(rows, target):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    scores = scores / 20
    if labels.all() or not labels.any():
        with pytest.raises(ValueError, match="both classes"):
            metrics.operating_point(scores, labels, target)
        return
    point = metrics.operating_point(scores, labels, target)
    assert point.sensitivity == np.mean(scores[labels] >= point.threshold) >= target
    assert point.specificity == np.mean(scores[~labels] < point.threshold)
    # Just above the lowest score that is called, at least one positive fewer is found, and that is too few.
    lowest = scores[scores >= point.threshold].min()
    assert np.mean(scores[labels] > lowest) < target


# --- intervals -------------------------------------------------------------------------------------------------------


def test_wilson_interval_of_published_numbers():
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3.
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert metrics.wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_what_is_no_proportion(successes, trials):
    with pytest.raises(ValueError, match=f"found {successes} of {trials}"):
        metrics.wilson_interval(successes, trials)


def test_resamples_keep_the_images_of_a_patient_together_and_draw_as_many_patients():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    table = metrics.cluster_resamples(groups, 400, seed=3)
    assert table.shape == (400, 6)
    assert (table[:, [0, 0, 1]] == table[:, [2, 5, 4]]).all()
    assert (table[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # A patient is drawn once on average, and left out of (2/3)^3 = 8 in 27 resamples.
    assert table[:, 0].mean() == pytest.approx(1, abs=0.15)
    assert (table[:, 0] == 0).mean() == pytest.approx(8 / 27, abs=0.08)
    assert (table == metrics.cluster_resamples(groups, 400, seed=3)).all()
    assert (table != metrics.cluster_resamples(groups, 400, seed=4)).any()


def test_bootstrap_is_the_percentiles_of_the_score_over_the_resamples_however_they_are_cut(monkeypatch):
    _, labels, groups = some_predictions(90)
    shares = metrics.cluster_resamples(groups, 300, seed=5) @ labels
    counts = metrics.cluster_resamples(groups, 300, seed=5).sum(axis=1)
    low, high = np.percentile(shares / counts, [2.5, 97.5])
    expected = {"value": pytest.approx(labels.mean()), "low": pytest.approx(low), "high": pytest.approx(high)}
    for cells in (1, 1000, 1 << 20):
        monkeypatch.setattr(metrics, "_TABLE_CELLS", cells)
        found = metrics.bootstrap(lambda w: {"share": w @ labels / w.sum(-1)}, groups, resamples=300, seed=5)
        assert found == {"share": expected}


def test_intervals_hold_the_truth_as_often_as_they_claim():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        drawn = random.random(150) < 0.7
        score = metrics.bootstrap(
            lambda w, hits=drawn: {"p": w @ hits / w.sum(-1)}, range(150), resamples=300, seed=trial
        )["p"]
        held += score["low"] <= 0.7 <= score["high"]
    assert 0.91 <= held / 300 <= 0.98


def test_images_of_one_patient_do_not_count_as_independent():
    random = np.random.default_rng(0)
    hits = np.repeat(random.random(100) < 0.7, 9)  # nine identical images of each patient

    def width(groups):
        score = metrics.bootstrap(lambda w: {"p": w @ hits / w.sum(-1)}, groups)["p"]
        return score["high"] - score["low"]

    assert width(np.repeat(np.arange(100), 9)) == pytest.approx(3 * width(np.arange(900)), rel=0.1)


def test_the_interval_of_a_calibration_error_holds_the_truth_where_percentiles_do_not():
    random = np.random.default_rng(0)
    grid = np.linspace(-12, 12, 20_001)
    density = np.exp(-(grid**2) / 32) / np.exp(-(grid**2) / 32).sum()
    sharpened, true = 1 / (1 + np.exp(-2 * grid)), 1 / (1 + np.exp(-grid))
    bins = metrics.calibration_bin(sharpened)
    truth = np.abs(np.bincount(bins, density * (sharpened - true), minlength=15)).sum()
    held = {"mirrored": 0, "percentile": 0}
    for trial in range(60):
        logits = random.normal(0, 4, 400)
        labels = random.random(400) < 1 / (1 + np.exp(-logits))
        probabilities = 1 / (1 + np.exp(-2 * logits))
        for kind, reflected in (("mirrored", ["ece"]), ("percentile", [])):
            score = metrics.bootstrap(
                lambda w, p=probabilities, y=labels: {"ece": metrics.calibration_error(p, y, w)},
                range(400),
                resamples=200,
                seed=trial,
                reflected=reflected,
            )["ece"]
            held[kind] += score["low"] <= truth <= score["high"]
    assert held["mirrored"] >= 52 > held["percentile"]


def test_bootstrap_says_what_it_left_out():
    labels = np.array([1, 0, 0, 0, 0, 0])
    hits = np.array([1.0, 0, 0, 0, 0, 0])
    with np.errstate(invalid="ignore"):
        found = metrics.bootstrap(
            lambda w: {
                "half": np.where(w[:, 0] > 0, w @ hits / w.sum(-1), np.nan),
                "always": w[:, 0] * 0 + 0.5,
                "never": w[:, 0] * np.nan,
            },
            range(labels.size),
            resamples=200,
        )
    assert found["half"]["note"].endswith("resamples left out in which it is undefined")
    assert int(found["half"]["note"].split()[0]) == (metrics.cluster_resamples(range(6), 200, 0)[:, 0] == 0).sum()
    assert found["always"] == {
        "value": 0.5,
        "low": None,
        "high": None,
        "note": "all resamples agree, so they bound nothing",
    }
    assert found["never"] == {"value": None, "low": None, "high": None, "note": "undefined for these images"}
    with pytest.raises(ValueError, match="at least one bootstrap resample, found 0"):
        metrics.bootstrap(lambda w: {"n": w.sum(-1)}, range(3), resamples=0)


def test_predictive_values_of_a_worked_population():
    # 1000 patients, 100 ill: 90 found, 45 of the 900 well called ill.
    ppv, npv = metrics.predictive_values(0.9, 0.95, 0.1)
    assert (ppv, npv) == (pytest.approx(90 / 135), pytest.approx(855 / 865))
    assert np.isnan(metrics.predictive_values(0.0, 1.0, 0.1)[0])


# --- the report ------------------------------------------------------------------------------------------------------


def test_report_of_six_worked_images():
    report = metrics.evaluate_classifier([0.9, 0.6, 0.4, 0.7, 0.2, 0.1], [1, 1, 1, 0, 0, 0], list("aabcde"), 0.5)
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
    report = metrics.evaluate_classifier(probabilities, labels, groups, 0.37, resamples=50)
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
    report = metrics.evaluate_classifier(probabilities, labels, groups, 0.5, resamples=500)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert metrics.evaluate_classifier(probabilities, labels, groups, 0.5, resamples=500) == report
    for name, score in report["scores"].items():
        assert score["low"] < score["value"] < score["high"], name
    assert metrics.evaluate_classifier(probabilities, labels, groups, 0.5, resamples=500, seed=1) != report


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_leaves_scores_undefined_with_a_reason(label):
    absent = ("PNEUMONIA", "NORMAL")[label]
    report = metrics.evaluate_classifier([0.2, 0.3, 0.8], [label] * 3, range(3), 0.5, resamples=50)
    json.dumps(report, allow_nan=False)
    missing = report["classes"][absent]["recall"]
    assert missing == {"value": None, "low": None, "high": None, "note": f"no image shows {absent}"}
    for name in ("roc_auc", "average_precision", "balanced_accuracy"):
        assert report["scores"][name]["value"] is None
        assert report["scores"][name]["note"] == "needs images of both classes"
    assert "undefined [" in metrics.format_report(report)


def test_a_perfect_proportion_has_wilsons_interval_over_patients_not_images():
    labels, groups = np.repeat([0, 1], 20), np.repeat(np.arange(20), 2)
    report = metrics.evaluate_classifier(0.1 + 0.8 * labels, labels, groups, 0.5, resamples=50)
    sensitivity = report["scores"]["sensitivity"]
    assert (sensitivity["low"], sensitivity["high"]) == metrics.wilson_interval(10, 10)
    assert "Wilson" in sensitivity["note"]
    assert report["scores"]["roc_auc"]["low"] is None


def test_no_image_called_positive_leaves_its_precision_undefined():
    report = metrics.evaluate_classifier([0.2, 0.3, 0.4], [0, 1, 0], range(3), 0.5, resamples=50)
    assert report["scores"]["ppv"]["note"] == "no image was called PNEUMONIA"
    assert report["scores"]["sensitivity"]["value"] == 0
    assert report["classes"]["PNEUMONIA"]["f1"]["value"] == 0


def test_the_printed_report_has_the_familiar_table_and_straight_columns():
    probabilities, labels, groups = some_predictions()
    report = metrics.evaluate_classifier(probabilities, labels, groups, 0.5, resamples=200)
    text = metrics.format_report(report)
    assert text.isascii()
    lines = text.splitlines()
    table = next(index for index, line in enumerate(lines) if "precision" in line and "F1-score" in line)
    starts = [lines[table].index(title) for title in ("precision", "recall", "F1-score", "images")]
    for line, name in zip(lines[table + 1 : table + 3], ("NORMAL", "PNEUMONIA"), strict=True):
        row = report["classes"][name]
        assert line.startswith(name)
        for start, key in zip(starts, ("precision", "recall", "f1"), strict=False):
            score = row[key]
            assert line[start:].startswith(f"{score['value']:.3f} ({score['low']:.3f}-{score['high']:.3f})")
        assert line[starts[3] :] == str(row["support"])
    assert f"ROC AUC                {report['scores']['roc_auc']['value']:.3f}" in text
    assert "95% intervals, 200 bootstrap resamples of patients" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([0.5], [1, 0], ["a"], 0.5),
            r"one score and one label for each image, found arrays of shape \(1,\) and \(2,\)",
        ),
        (([], [], [], 0.5), r"found arrays of shape \(0,\) and \(0,\)"),
        (([0.5, math.nan], [1, 0], ["a", "b"], 0.5), "1 of 2 scores are not finite"),
        (([0.5, 0.5], [1, 2], ["a", "b"], 0.5), r"labels 0 and 1, found \[1, 2\]"),
        (([0.5, 1.5], [1, 0], ["a", "b"], 0.5), r"probabilities in 0..1, found 0.1 to 1.5"),
        (([0.5, 0.5], [1, 0], ["a"], 0.5), r"one patient for each of 2 images, found shape \(1,\)"),
    ],
)
def test_report_refuses_what_it_cannot_score(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_classifier(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.operating_point([0.5, 0.6], [0, 0], 0.9), "both classes, found 2 with the label 0 alone"),
        (lambda: metrics.operating_point([0.5, 0.6], [0, 1], 0.0), "above 0 and at most 1, found 0.0"),
        (lambda: metrics.operating_point([-3.0, 2.0], [0, 1], 0.9), "probabilities in 0..1, found -3 to 2"),
        (lambda: metrics.fit_temperature([1.0, 2.0], [1, 1]), "both classes, found 2 with the label 1 alone"),
        (lambda: metrics.fit_temperature([1.0, math.inf], [1, 0]), "1 of 2 scores are not finite"),
    ],
)
def test_choices_on_validation_refuse_what_they_cannot_use(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_importing_costs_no_library_but_numpy():
    code = "import sys, cxr.metrics; print([name for name in ('torch', 'sklearn', 'scipy', 'pandas') if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
