"""The pointing game on worked heat maps and boxes."""

import numpy as np
import pytest

from studies.pointing_game import covered_share, is_inside, peak, read_boxes

BOX = np.array([[100.0, 50.0, 200.0, 100.0]])  # x, y, width, height: 100..300 across, 50..150 down


def test_the_peak_of_a_coarse_map_is_the_middle_of_its_cell():
    heatmap = np.zeros((4, 8), np.float32)
    heatmap[1, 6] = 1
    assert peak(heatmap) == (6.5 / 8, 1.5 / 4)


@pytest.mark.parametrize(
    ("point", "hit"),
    [((0.2, 0.5), True), ((0.25, 0.25), True), ((0.61, 0.5), False), ((0.2, 0.76), False), ((0.19, 0.5), False)],
)
def test_a_point_counts_in_pixels_of_the_original(point, hit):
    assert is_inside(*point, BOX, width=500, height=200) == hit


def test_x_goes_with_width_and_y_with_height():
    assert is_inside(0.5, 0.1, np.array([[240.0, 0.0, 20.0, 30.0]]), width=500, height=200)
    assert not is_inside(0.1, 0.5, np.array([[240.0, 0.0, 20.0, 30.0]]), width=500, height=200)


def test_chance_is_the_area_that_boxes_cover_together():
    assert covered_share(BOX, 500, 200) == pytest.approx(0.4 * 0.5)
    assert covered_share(np.concatenate([BOX, BOX]), 500, 200) == pytest.approx(0.4 * 0.5)
    other = np.array([[300.0, 150.0, 200.0, 50.0]])
    assert covered_share(np.concatenate([BOX, other]), 500, 200) == pytest.approx(0.2 + 0.4 * 0.25)


def test_boxes_are_read_by_path_and_by_exam(tmp_path):
    (tmp_path / "a.csv").write_text("path,x,y,width,height\ntest/p.jpeg,1,2,3,4\ntest/p.jpeg,5,6,7,8\n")
    assert {name: boxes.tolist() for name, boxes in read_boxes(tmp_path / "a.csv").items()} == {
        str(tmp_path / "test" / "p.jpeg"): [[1, 2, 3, 4], [5, 6, 7, 8]]
    }
    (tmp_path / "b.csv").write_text("patientId,x,y,width,height,Target\nu,1,2,3,4,1\nv,,,,,0\n")
    assert {name: boxes.tolist() for name, boxes in read_boxes(tmp_path / "b.csv").items()} == {"u": [[1, 2, 3, 4]]}
