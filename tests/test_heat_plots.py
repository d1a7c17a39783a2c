import numpy as np
import pytest

from pytorch_classification import plots

IMAGE = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (100, 1))  # 100 high, 80 wide, dark to bright
PLAIN = {"caption": "", "common_scale": False}
HEAT = np.outer(np.hanning(7), np.hanning(7))


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


def test_wrong_answers_are_crossed_and_framed_right_ones_ticked(figures, tmp_path):
    plots.grad_cam_grid([IMAGE] * 2, [HEAT] * 2, ["a\nb"] * 2, tmp_path / "a.png", correct=[True, False], **PLAIN)
    right, wrong, _ = figures[0].axes
    assert [axes.get_title() for axes in (right, wrong)] == ["✓ a\nb", "✗ a\nb"]
    assert [axes.spines["left"].get_visible() for axes in (right, wrong)] == [False, True]


def test_an_overlay_keeps_the_proportions_of_the_original(figures, tmp_path):
    plots.grad_cam_overlay(np.zeros((300, 900), np.uint8), HEAT, "a", tmp_path / "a.png", **PLAIN)
    height, width, _ = figures[0].axes[0].images[0].get_array().shape
    assert (height, width) == (300, 900 + 15 + 900)
    assert figures[0].axes[0].get_aspect() == 1


@pytest.mark.parametrize("common_scale", [True, False])
def test_the_colour_bar_says_which_scale_it_shows_and_fits_the_picture(figures, tmp_path, common_scale):
    image, heat = np.zeros((40, 40), np.uint8), np.full((4, 4), 0.5, np.float32)
    plots.grad_cam_overlay(image, heat, "a title", tmp_path / "a.png", caption="m.pth", common_scale=common_scale)
    figure = figures[-1]
    figure.draw_without_rendering()
    label = figure.axes[-1].xaxis.label
    assert ("validation's clearest" in label.get_text()) is common_scale
    assert ("in this image" in label.get_text()) is not common_scale
    assert label.get_window_extent().x0 >= 0 and label.get_window_extent().x1 <= figure.bbox.x1
    assert figure.get_supxlabel() == "m.pth"
