"""The style of all plots, and the plots of both tasks."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

from cxr import plots
from cxr.plots import forest_plot

WIDE = np.full((50, 100), 90, np.uint8)


def draw(path):
    with plots.saved_figure(path, (3, 3)) as figure:
        figure.subplots().plot([1, 3, 2])
        figure.suptitle("title")


def test_the_same_data_gives_the_same_bytes_whatever_the_users_settings(tmp_path):
    draw(tmp_path / "new" / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "savefig.bbox": "tight"}):
        draw(tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_pyplot_no_display_and_nothing_heavy_before_the_first_picture(tmp_path):
    code = (
        "import logging, sys, numpy, pathlib\n"
        "from pytorch_classification import plots as classification\n"
        "from pytorch_detection import plots as detection\n"
        "assert not {'matplotlib', 'torch', 'sklearn'} & set(sys.modules), 'heavy'\n"
        "assert logging.getLogger('matplotlib').level == logging.NOTSET\n"
        "classification.confusion_matrix([[1, 2], [3, 4]], pathlib.Path(sys.argv[1]), title='a')\n"
        "print([name for name in sys.modules if 'pyplot' in name or name in ('tkinter', 'sklearn')])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_loss_curves_leave_gaps_and_mark_the_best_epoch_so_far(figures, tmp_path):
    records = [
        {"epoch": 1, "train_loss": 3.0, "val_loss": None, "improved": True, "auc": 0.5, "train_a": 0.5, "val_a": 0.6},
        {"epoch": 2, "train_loss": float("inf"), "val_loss": 2.0, "improved": True, "train_a": 0.4, "val_a": 0.5},
        {"epoch": 3, "train_loss": 1.0, "val_loss": 2.5, "improved": False, "auc": float("nan"), "val_a": 0.4},
    ]
    plots.loss_curves(
        records, tmp_path / "a.png", scores={"none": "none"}, losses={"auc": "third"}, parts={"a": "part"}
    )
    loss, scores, training, validation = figures[0].axes
    curves = [line.get_ydata() for line in loss.lines]
    np.testing.assert_array_equal(curves[:3], [[3, np.nan, 1], [np.nan, 2, 2.5], [0.5, np.nan, np.nan]])
    assert list(loss.lines[3].get_xdata()) == [2, 2]  # the best epoch
    assert not scores.lines and len(scores.texts) == 1
    np.testing.assert_array_equal(training.lines[0].get_ydata(), [0.5, 0.4, np.nan])
    np.testing.assert_array_equal(validation.lines[0].get_ydata(), [0.6, 0.5, 0.4])


def score(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def test_each_row_of_a_forest_plot_shows_its_value_and_interval_or_that_there_is_none(figures, tmp_path):
    rows = {
        "all (40)": {"auc": score(0.9, 0.8, 0.95), "sensitivity": score(0.7, 0.6, 0.8)},
        "site A (30)": {"auc": score(0.95, 0.9, 0.99), "sensitivity": score(1.0)},
        "site B (10)": {"auc": score(None), "sensitivity": score(0.5, 0.2, 0.7)},
    }
    forest_plot(rows, {"auc": "ROC AUC", "sensitivity": "sensitivity"}, tmp_path / "forest.png", title="40 images")
    left, right = figures[0].axes
    assert [label.get_text() for label in left.get_yticklabels()] == list(rows)
    assert [text.get_text() for text in left.texts] == ["0.900", "0.950", "undefined"]
    assert [0.9, 0.9] in [list(line.get_xdata()) for line in left.lines]  # all images, dotted through every row
    assert [0.2, 0.7] in [list(line.get_xdata()) for line in right.lines]
    assert left.get_ylim() == (2.5, -0.5)  # all images on top
