"""Boxes that others have predicted, in both forms."""

import re
from pathlib import Path

import numpy as np
import pytest

from pytorch_detection.box_tables import lowest, read_predictions
from pytorch_detection.rsna_dataset import Exam

SIZES = np.array([[100, 200], [100, 100], [0, 0]], np.int32)  # of x 200 wide; z cannot be read


def exams(folder):
    return [Exam(name, folder / f"{name}.dcm", (), "No Lung Opacity", name, None, None, None) for name in "xyz"]


def read(folder, text, **options):
    path = folder / "found.csv"
    path.write_text(text)
    return read_predictions(path, exams(folder), SIZES, **options)


SUBMISSION = "patientId,PredictionString\ny,\nx,0.9 10 20 30 40 0.25 150.5 0 49.5 100\n"
TABLE = "path,x,y,width,height,score,threshold,model\nx.dcm,10,20,30,40,0.9,.2,m\nx.dcm,150.5,0,49.5,100,0.25,.2,m\ny.dcm,,,,,,.2,m\n"


@pytest.mark.parametrize("text", [SUBMISSION, TABLE], ids=["a submission", "our table"])
def test_boxes_are_corner_plus_size_in_pixels_of_the_original(text, tmp_path):
    boxes, scores, there = read(tmp_path, text)
    assert there.tolist() == [0, 1]
    assert [some.tolist() for some in boxes] == [[[10, 20, 40, 60], [150.5, 0, 200, 100]], []]
    assert [some.tolist() for some in scores] == [[0.9, 0.25], []]
    assert lowest(scores) == 0.25 and lowest(scores[1:]) is None


def test_a_box_that_rounding_left_without_width_is_kept(tmp_path):
    """The tables have tenths of a pixel; at a threshold of 0 an untrained network has such boxes."""
    boxes, _, _ = read(tmp_path, TABLE + "x.dcm,10,20,0.0,3.1,0.01,0,m\nx.dcm,200.0,20,0.0,3.1,0.01,0,m\n")
    assert boxes[0][2:].tolist() == [[10, 20, 10, 23.1], [200, 20, 200, 23.1]]


def test_an_image_may_be_named_in_several_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x", "x.dcm", str(tmp_path / "x.dcm"), "./x.dcm", f"../{tmp_path.name}/x.dcm", "elsewhere\\x.dcm"):
        _, _, there = read(tmp_path, f"path,x,y,width,height,score\n{name},1,1,9,9,.5\ny,,,,,\n")
        assert there.tolist() == [0, 1], name


def test_a_name_that_two_images_share_is_no_name(tmp_path):
    pair = [Exam(f"{at}/x.png", Path(at, "x.png"), (), "No Lung Opacity", at, None, None, None) for at in ("a", "b")]
    path = tmp_path / "found.csv"
    path.write_text("path,x,y,width,height,score\na/x.png,1,1,9,9,.5\nx.png,1,1,9,9,.5\n")
    with pytest.raises(ValueError, match=r"none of those to judge: 'x.png' \(line 3\)"):
        read_predictions(path, pair, SIZES[:2])


BAD = {
    "an unknown image": (SUBMISSION + "w,\n", r"none of those to judge: 'w' \(line 4\)"),
    "an image twice": (SUBMISSION + "y,\n", r"stands in a row before \(line 4\)"),
    "four numbers": ("patientId,PredictionString\ny,\nx,1 2 3 4\n", r"has 4 numbers.*\(line 3\)"),
    "a word": ("patientId,PredictionString\ny,\nx,.5 2 3 4 five\n", r"height is not a number \(line 3\)"),
    "a percentage": ("patientId,PredictionString\ny,\nx,50 2 3 4 5\n", r"score is not from 0 to 1 \(line 3\)"),
    "a box twice": (TABLE + "x.dcm,10,20,30,40,0.9,,\n", r"stands there before \(line 5\)"),
    "upside down": (TABLE + "x.dcm,10,20,30,-4,0.9,,\n", r"width or height is below 0 \(line 5\)"),
    "no score": (TABLE + "x.dcm,10,20,30,40,,,\n", r"height or score is missing \(line 5\)"),
    "outside": (TABLE + "y.dcm,100,20,30,40,.5,,\n", r"lies outside the image \(line 5\)"),
    "shares": ("patientId,PredictionString\nx,.5 .1 .1 .5 .5\ny,\nz,\n", "in the first pixel; expected them in pixels"),
    "no form": (
        "path,x,y\nx,1,2\n",
        "no column width, height, score; expected patientId and PredictionString, or path",
    ),
    "no row": ("patientId,PredictionString\nx,\n", r"no row for 1 of 3 exams \(first: y\).*--allow-missing"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_by_lines(text, message, tmp_path):
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / 'found.csv'))}: .*{message}"):
        read(tmp_path, text)


def test_exams_without_a_row_may_be_left_out(tmp_path):
    with pytest.warns(UserWarning, match="no row for 1 of 3 exams .*; left out"):
        _, _, there = read(tmp_path, "patientId,PredictionString\nx,\n", allow_missing=True)
    assert there.tolist() == [0]


def test_boxes_that_reach_beyond_the_image_are_counted(tmp_path):
    with pytest.warns(UserWarning, match="1 boxes reach beyond their image by more than a pixel"):
        boxes, _, _ = read(tmp_path, "patientId,PredictionString\ny,.5 50 50 50.9 9 .4 50 50 60 9\nx,\n")
    assert boxes[1].tolist() == [[50, 50, 100.9, 59], [50, 50, 110, 59]]
