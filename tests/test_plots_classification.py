"""Plots of a classifier's scores and Grad-CAM: their numbers against worked ones and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from pytorch_classification import plots

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(120) < 0.6).astype(int)
PROBABILITIES = 1 / (1 + np.exp(-RANDOM.normal(np.where(LABELS == 1, 1.5, -1.5), 1.5)))
PATIENTS = RANDOM.integers(0, 60, 120).astype(str).tolist()
IMAGE = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (100, 1))  # 100 high, 80 wide, dark to bright
PLAIN = {"caption": "", "common_scale": False}


def test_curves_are_those_of_scikit_learn_and_pass_through_the_operating_point(figures, tmp_path):
    plots.roc_and_precision_recall(LABELS, PROBABILITIES, 0.5, tmp_path / "a.png", patients=PATIENTS, title="")
    roc, recall = figures[0].axes
    false_rate, sensitivity, _ = roc_curve(LABELS, PROBABILITIES, drop_intermediate=False)
    _, curve, point = roc.lines
    np.testing.assert_allclose(curve.get_xdata(), false_rate)
    np.testing.assert_allclose(curve.get_ydata(), sensitivity)
    called = PROBABILITIES >= 0.5
    place = (called[LABELS == 0].mean(), called[LABELS == 1].mean())
    assert (point.get_xdata()[0], point.get_ydata()[0]) == place
    precision, found, _ = precision_recall_curve(LABELS, PROBABILITIES)
    _, curve, point = recall.lines
    np.testing.assert_allclose(curve.get_xdata()[1:], found[-2::-1])
    np.testing.assert_allclose(curve.get_ydata()[1:], precision[-2::-1])
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (place[1], LABELS[called].mean())


def test_one_class_alone_gives_a_note_in_place_of_curves(figures, tmp_path):
    named = {"patients": PATIENTS, "title": ""}
    plots.roc_and_precision_recall(LABELS * 0, PROBABILITIES, 0.5, tmp_path / "a.png", **named)
    plots.threshold_sweep(LABELS * 0, PROBABILITIES, 0.5, tmp_path / "b.png", prevalence=0.2, **named)
    assert [len(axes.texts) for figure in figures for axes in figure.axes] == [1] * 4


def test_reliability_of_two_worked_bins_and_one_too_small_to_draw(figures, tmp_path):
    labels, scores = np.array([0, 0, 0, 1, 1, *[1] * 6, 0]), np.array([*[0.11] * 5, *[0.98] * 6, 0.5])
    plots.reliability(labels, scores, tmp_path / "a.png", before=np.full(12, 0.5), title="")
    diagram, counts = figures[0].axes
    _, before, after, *_ = diagram.lines
    assert (before.get_xdata().tolist(), before.get_ydata().tolist()) == ([0.5], [8 / 12])
    np.testing.assert_allclose(after.get_xydata(), [[0.11, 0.4], [0.98, 1.0]])
    images = [0, 5, *[0] * 5, 1, *[0] * 6, 6]
    assert [bar.get_height() for bar in counts.patches] == images
    assert [text.get_text() for text in counts.texts] == [str(count) if count else "" for count in images]
    assert before.get_label().startswith("before calibration: ECE 0.167, Brier 0.250")


def test_a_threshold_sweep_holds_sensitivity_specificity_and_predictive_values(figures, tmp_path):
    plots.threshold_sweep(LABELS, PROBABILITIES, 0.3, tmp_path / "a.png", patients=PATIENTS, prevalence=0.2, title="")
    rates, values = figures[0].axes
    curves = {line.get_label(): line.get_xydata() for axes in (rates, values) for line in axes.lines}
    assert {*curves} == {"operating point 0.300", "sensitivity", "specificity", "PPV", "NPV"}
    for cut, sensitivity in curves["sensitivity"][::40]:
        assert sensitivity == pytest.approx((PROBABILITIES[LABELS == 1] >= cut).mean())
    for cut, specificity in curves["specificity"][::40]:
        assert specificity == pytest.approx((PROBABILITIES[LABELS == 0] < cut).mean())
    middle = len(curves["PPV"]) // 2
    (_, sensitivity), (_, specificity) = curves["sensitivity"][middle], curves["specificity"][middle]
    assert curves["PPV"][middle, 1] == pytest.approx(sensitivity * 0.2 / (sensitivity * 0.2 + (1 - specificity) * 0.8))
    assert all(len(axes.collections) == 2 for axes in (rates, values))  # the bands


def test_heat_lies_where_the_map_has_it_and_leaves_the_anatomy(figures, tmp_path):
    heat = np.zeros((4, 4))
    heat[3, 0] = 1  # lower left
    plots.grad_cam_overlay(IMAGE, heat, "a", tmp_path / "a.png", **PLAIN)
    shown = figures[0].axes[0].images[0].get_array().astype(int)
    plain, heated = shown[:, :80], shown[:, -80:]
    assert (plain == IMAGE[..., None]).all()
    changed = np.abs(heated - plain).sum(axis=2)
    assert changed[75:, :20].mean() > 50 and changed[:40, 50:].max() == 0
    plots.grad_cam_overlay(IMAGE, np.ones((7, 7)), "a", tmp_path / "a.png", **PLAIN)
    hottest = figures[1].axes[0].images[0].get_array().astype(int)[:, -80:]
    assert (np.ptp(hottest, axis=1)[0] >= 0.39 * 255).all()  # of the contrast below, 40 % stays in sight
