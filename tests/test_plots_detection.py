"""Curves of a detector's scores, and boxes on radiographs: places, styles and labels."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from pytorch_detection import plots

IMAGE = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (100, 1))  # 100 high, 80 wide, dark to bright
TRUE, FOUND, FALSE = [10, 20, 40, 60], [12, 22, 42, 62], [50, 5, 75, 30]


def grid(truths, boxes, scores, folder, hit_iou=0.5):
    """One image with these boxes."""
    truth, found = (np.array(some, np.float64).reshape(-1, 4) for some in (truths, boxes))
    plots.detection_grid(
        [IMAGE], [truth], [found], [np.array(scores)], ["a"], folder / "a.png", hit_iou=hit_iou, caption=""
    )


@pytest.mark.parametrize(
    ("truths", "boxes", "scores", "kinds"),
    [
        ([[0, 0, 40, 40]], [[0, 0, 40, 20]], [0.5], ["missed", "✗ 0.50"]),  # IoU .5
        ([[0, 0, 40, 40]], [[0, 0, 40, 21], [0, 0, 40, 40]], [0.5, 0.9], ["✓ 0.90", "✗ 0.50"]),  # the surer takes it
        ([[0, 0, 40, 40]], [[0, 0, 40, 21], [0, 0, 40, 40]], [0.9, 0.5], ["✓ 0.90", "✗ 0.50"]),
        ([[0, 0, 40, 40], [50, 50, 70, 70]], [[50, 50, 70, 71]], [0.5], ["missed", "✓ 0.50"]),
        ([], [[0, 0, 40, 40]], [0.5], ["✗ 0.50"]),
        ([[0, 0, 40, 40]], [], [], ["missed"]),
    ],
)
def test_hits_false_boxes_and_missed_ones_of_worked_boxes(truths, boxes, scores, kinds, figures, tmp_path):
    grid(truths, boxes, scores, tmp_path, hit_iou=0.51)
    assert sorted(text.get_text() for text in figures[0].axes[0].texts) == sorted(kinds)


def test_true_and_predicted_boxes_differ_in_style_and_words_and_lie_where_they_should(figures, tmp_path):
    missed = [45, 60, 70, 90]
    grid([TRUE, missed], [FOUND, FALSE], [0.91, 0.42], tmp_path)
    patches = [patch for patch in figures[0].axes[0].patches if isinstance(patch, Rectangle)]
    boxes = {tuple(np.add(patch.get_bbox().extents, 0.5).round(6)): patch for patch in patches}
    assert set(boxes) == {tuple(map(float, box)) for box in (TRUE, missed, FOUND, FALSE)}
    solid = [boxes[tuple(map(float, box))].get_linestyle() in ("solid", "-") for box in (TRUE, missed, FOUND, FALSE)]
    assert solid == [False, False, True, True]
    assert len({patch.get_edgecolor() for patch in boxes.values()}) == 4


def test_froc_steps_hold_to_the_right_on_a_log_scale(figures, tmp_path):
    plots.froc(
        np.array([2.0, 0.0, 0.5]),
        np.array([0.8, 0.1, 0.4]),
        tmp_path / "a.png",
        points={0.5: 0.4},
        band=(np.array([0.5, 2]), np.array([0.3, 0.6]), np.array([0.5, 0.9])),
        threshold=0.25,
        at_threshold=(0.75, 0.4),
        title="",
    )
    (axes,) = figures[0].axes
    curve, point, marked = axes.lines
    assert curve.get_xydata().tolist() == [[1 / 16, 0.1], [0.5, 0.4], [2, 0.8], [16, 0.8]]
    assert (curve.get_drawstyle(), axes.get_xscale()) == ("steps-post", "log")
    assert point.get_xydata().tolist() == [[0.5, 0.4]] and axes.texts[0].get_text() == "0.40"
    assert marked.get_xydata().tolist() == [[0.75, 0.4]]
    (band,) = axes.collections
    assert {(0.5, 0.3), (0.5, 0.5), (2, 0.6), (2, 0.9)} <= {tuple(at) for at in band.get_paths()[0].vertices.tolist()}
