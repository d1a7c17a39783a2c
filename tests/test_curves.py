import sys

import numpy as np
import pytest

from cxr import plots

RECORDS = [
    {"epoch": 1, "train_loss": 3.0, "val_loss": None, "improved": True, "val_auc": 0.5, "train_a": 0.5, "val_a": 0.6},
    {"epoch": 2, "train_loss": float("inf"), "val_loss": 2.0, "improved": True, "train_a": 0.4, "val_a": 0.5},
    {
        "epoch": 3,
        "train_loss": 1.0,
        "val_loss": 2.5,
        "improved": False,
        "val_auc": float("nan"),
        "train_a": 0.3,
        "val_a": 0.4,
    },
]


def draw(path):
    plots.loss_curves(RECORDS, path, scores={"val_auc": "ROC AUC", "val_other": "other"})


def test_loss_curves_leave_gaps_and_mark_the_best_epoch_so_far(figures, tmp_path):
    draw(tmp_path / "a.png")
    loss, score = figures[0].axes
    train, validation, kept = loss.lines
    assert train.get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_array_equal(train.get_ydata(), [3, np.nan, 1])
    np.testing.assert_array_equal(validation.get_ydata(), [np.nan, 2, 2.5])
    assert train.get_linestyle() != validation.get_linestyle()
    assert (list(kept.get_xdata()), kept.get_label()) == ([2, 2], "best epoch: 2")
    assert [line.get_label() for line in score.lines] == ["ROC AUC", "best epoch: 2"]


def test_parts_of_the_loss_have_a_panel_for_training_and_one_for_validation(figures, tmp_path):
    plots.loss_curves(RECORDS, tmp_path / "a.png", scores={}, parts={"a": "part"})
    _, scores, training, validation = figures[0].axes
    assert [text.get_text() for text in scores.texts] == ["not recorded"]
    assert training.lines[0].get_ydata().tolist() == [0.5, 0.4, 0.3]
    assert validation.lines[0].get_ydata().tolist() == [0.6, 0.5, 0.4]


def test_a_further_loss_stands_beside_the_two(figures, tmp_path):
    plots.loss_curves(RECORDS, tmp_path / "a.png", scores={}, losses={"val_a": "calibrated"})
    loss = figures[0].axes[0]
    assert [line.get_label() for line in loss.lines] == ["training", "validation", "calibrated", "best epoch: 2"]


def test_no_legend_of_either_training_is_cut(figures, script, tmp_path):
    config = script.settings(tmp_path, tmp_path)
    named = ("selection_loss", "shifted_auc", "val_ap50", "val_rsna_score", "val_image_auc", "val_sensitivity_at_1_fp")
    script.module.report.show_progress(config, [RECORDS[0] | dict.fromkeys(named, 0.5)])
    (figure,) = figures
    figure.draw_without_rendering()
    legends = [axes.get_legend().get_window_extent() for axes in figure.axes if axes.get_legend()]
    assert legends and all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in legends)


def scalars(folder):
    """{name: [(epoch, value)]} as TensorBoard reads them."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = event_accumulator.EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_tensorboard_gets_the_numbers_of_the_log_and_forgets_epochs_that_a_resumed_run_has_not(tmp_path):
    pytest.importorskip("tensorboard")
    plots.write_scalars(RECORDS, tmp_path)
    plots.write_scalars(RECORDS[:1], tmp_path)
    plots.write_scalars([RECORDS[0], {"epoch": 2, "train_loss": 2.5}], tmp_path)
    assert scalars(tmp_path) == {
        "train_loss": [(1, 3.0), (2, 2.5)],
        "val_auc": [(1, 0.5)],
        "train_a": [(1, 0.5)],
        "val_a": [(1, pytest.approx(0.6))],
    }


def test_a_missing_tensorboard_is_told_with_what_installs_it(monkeypatch, script, tmp_path, command):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    ended = command(script.module.main, "--data-dir", tmp_path, "--tensorboard")
    assert (ended.code, ended.err) == (
        2,
        "error: --tensorboard needs the package tensorboard: pip install tensorboard\n",
    )
