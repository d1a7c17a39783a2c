import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from pytorch_classification import plots

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(120) < 0.6).astype(int)
PROBABILITIES = 1 / (1 + np.exp(-RANDOM.normal(np.where(LABELS == 1, 1.5, -1.5), 1.5)))
PATIENTS = RANDOM.integers(0, 60, 120)


def test_confusion_matrix_writes_counts_and_row_shares(figures, tmp_path):
    plots.confusion_matrix([[1500, 500], [0, 0]], tmp_path / "a.png", title="")
    cells = figures[0].axes[0].texts
    assert [cell.get_text() for cell in cells] == ["1,500\n75.0%", "500\n25.0%", "no image", "no image"]
    # Row is truth: text sits at (column, row).
    assert [cell.get_position() for cell in cells] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_curves_are_those_of_scikit_learn_and_pass_through_the_operating_point(figures, tmp_path):
    plots.roc_and_precision_recall(LABELS, PROBABILITIES, 0.5, tmp_path / "a.png", groups=PATIENTS, title="")
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


def test_one_class_alone_is_said_not_drawn(figures, tmp_path):
    plots.roc_and_precision_recall(LABELS * 0, PROBABILITIES, 0.5, tmp_path / "a.png", groups=PATIENTS, title="")
    texts = [[text.get_text() for text in axes.texts] for axes in figures[0].axes]
    assert texts == [["undefined: one class alone"]] * 2


def test_reliability_of_two_worked_bins_and_one_too_small_to_draw(figures, tmp_path):
    labels = [0, 0, 0, 1, 1, *[1] * 6, 0]
    plots.reliability(labels, [*[0.11] * 5, *[0.98] * 6, 0.5], tmp_path / "a.png", before=[0.5] * 12, title="")
    diagram, counts = figures[0].axes
    _, before, after, *_ = diagram.lines
    assert (before.get_xdata().tolist(), before.get_ydata().tolist()) == ([0.5], [8 / 12])
    np.testing.assert_allclose(after.get_xydata(), [[0.11, 0.4], [0.98, 1.0]])
    images = [0, 5, *[0] * 5, 1, *[0] * 6, 6]
    assert [bar.get_height() for bar in counts.patches] == images
    assert [text.get_text() for text in counts.texts] == [str(count) if count else "" for count in images]
    assert before.get_label().startswith("before calibration: ECE 0.167, Brier 0.250")


def test_a_threshold_sweep_holds_sensitivity_specificity_and_predictive_values(figures, tmp_path):
    plots.threshold_sweep(LABELS, PROBABILITIES, 0.3, tmp_path / "a.png", groups=PATIENTS, prevalence=0.2, title="")
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
