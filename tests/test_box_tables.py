import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_detection import write_dicom, write_rsna

from pytorch_detection import box_tables
from pytorch_detection.box_tables import read_predictions
from pytorch_detection.rsna_dataset import OPACITY_CLASS, UNCLASSIFIED, Exam

# ------------------------------------------------------------------------------------------------- ground-truth boxes

HEADER = ("path", "x", "y", "width", "height")


def write_images(folder, **sizes):
    """Grey PNG files of (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, size) in enumerate(sizes.items()):
        Image.new("L", size, 30 + number).save(folder / f"{name}.png")


def write_table(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def load(table, folder, **options):
    given = {"skip_bad": False, "allow_missing": False, "progress": False} | options
    return box_tables.load(None, table, 64, folder / "store", **given)


def test_boxes_are_in_pixels_of_their_own_image(tmp_path):
    write_images(tmp_path / "scans", wide=(200, 100), tall=(100, 400), clear=(64, 64))
    rows = [
        ("scans/wide.png", 20, 10, 100, 50, "A"),
        ("scans/clear.png", "", "", "", "", "B"),
        ("scans/tall.png", 0, 0, 100, 400, "A"),
        ("./scans/wide.png", 150, 0, 50, 100, "A"),
    ]
    table = write_table(tmp_path / "boxes.csv", rows, (*HEADER, "patient"))
    found = load(table, tmp_path)
    assert [exam.exam_id for exam in found.exams] == ["scans/wide.png", "scans/clear.png", "scans/tall.png"]
    assert [exam.boxes_xyxy for exam in found.exams] == [
        ((20, 10, 120, 60), (150, 0, 200, 100)),
        (),
        ((0, 0, 100, 400),),
    ]
    assert [exam.patient for exam in found.exams] == ["A", "B", "A"]
    assert [exam.finding for exam in found.exams] == [OPACITY_CLASS, UNCLASSIFIED, OPACITY_CLASS]
    squares = [found.images.target(index)["boxes"].tolist() for index in range(3)]
    np.testing.assert_allclose(squares[0], [[6.4, 6.4, 38.4, 38.4], [48, 0, 64, 64]], rtol=1e-6)
    assert squares[1:] == [[], [[0, 0, 64, 64]]]


def test_patients_come_from_the_table_then_from_dicom_then_each_image_is_one(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    for name, patient in (("a", "P"), ("b", "P"), ("c", "Q")):
        write_dicom(tmp_path / f"{name}.dcm", pixels, PatientID=patient)
    write_images(tmp_path, d=(64, 64))
    rows = [
        (name, "", "", "", "", patient)
        for name, patient in (("a.dcm", ""), ("b.dcm", ""), ("c.dcm", "stated"), ("d.png", ""))
    ]
    table = write_table(tmp_path / "boxes.csv", rows, (*HEADER, "patient"))
    with pytest.warns(UserWarning, match=r"the patient of 1 of 4 images is unknown \(first: d.png\)"):
        a, b, c, d = (exam.patient for exam in load(table, tmp_path).exams)
    assert a == b and (c, d) == ("stated", "d.png") and a not in ("P", "a.dcm")


def test_further_columns_of_images_give_subgroups_and_those_of_boxes_are_named(tmp_path):
    write_images(tmp_path, a=(64, 64), b=(64, 64))
    header = (*HEADER, "patient", "site", "reader")
    rows = [
        ("a.png", 1, 1, 9, 9, "p", "X", "one"),
        ("a.png", 2, 2, 9, 9, "p", "X", "two"),
        ("b.png", *[""] * 4, "q", "Y", ""),
    ]
    table = write_table(tmp_path / "boxes.csv", rows, header)
    with pytest.warns(UserWarning, match="reader differs between boxes of one image"):
        columns = load(table, tmp_path).columns
    assert columns["site"] == ["X", "Y"] and set(columns) == {"site", "age", "sex", "view"}


BAD_TABLES = {
    "a missing column": (("path", "x", "y", "width"), [("a.png", 1, 1, 9)], "no column height"),
    "an unknown file": (HEADER, [("a.png", 1, 1, 9, 9), ("z.png", 1, 1, 9, 9)], r"path names no file.*z\.png.*\(line 3\)"),
    "half a box": (HEADER, [("a.png", 1, 1, "", 9)], r"x, y, width or height is missing \(line 2\)"),
    "no number": (HEADER, [("a.png", 1, "left", 9, 9)], r"y is not a number \(line 2\)"),
    "no area": (HEADER, [("a.png", 1, 1, 0, 9)], r"width or height is not above 0; .* no numbers \(line 2\)"),
    "shares": (HEADER, [("a.png", 0.1, 0.1, 0.5, 0.9)], r"smaller than a pixel; .*pixels of their image \(line 2\)"),
    "a box twice": (HEADER, [("a.png", 1, 1, 9, 9), ("./a.png", 1, 1, 9, 9)], r"duplicate row \(line 3\)"),
    "with and without": (HEADER, [("a.png", 1, 1, 9, 9), ("a.png", *[""] * 4)], r"another row has a box.*\(line 3\)"),
    "outside": ((*HEADER, "patient"), [("a.png", 1, 1, 9, 9, "p"), ("b.png", 1, 1, 64, 9, "q")], r"exceeds the image \(line 3\)"),
    "two patients": ((*HEADER, "patient"), [("a.png", 1, 1, 9, 9, "p"), ("a.png", 2, 1, 9, 9, "q")], r"different patient for this image \(line 3"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "rows", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_an_invalid_table_is_refused_by_lines(header, rows, message, tmp_path):
    write_images(tmp_path, a=(64, 64), b=(32, 64))
    table = write_table(tmp_path / "boxes.csv", rows, header)
    with pytest.raises(ValueError, match=f"{re.escape(str(table))}: .*{message}"):
        load(table, tmp_path)


def test_the_rsna_folder_and_a_table_of_the_same_boxes_are_equal(tmp_path):
    data = write_rsna(tmp_path / "dataset_det", 12)
    folder = box_tables.load(data, None, 64, tmp_path / "store", skip_bad=False, allow_missing=False, progress=False)
    rows = [
        (f"dataset_det/stage_2_train_images/{exam.path.name}", *box, exam.patient)
        for exam in folder.exams
        for box in [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in exam.boxes_xyxy] or [("",) * 4]
    ]
    found = load(write_table(tmp_path / "boxes.csv", rows, (*HEADER, "patient")), tmp_path)
    for one, other in zip(folder.exams, found.exams, strict=True):
        assert (one.path, one.boxes_xyxy, one.patient, one.view) == (
            other.path,
            other.boxes_xyxy,
            other.patient,
            other.view,
        )
    assert found.hashes == folder.hashes and np.array_equal(found.images.images, folder.images.images)


# --------------------------------------------------------------------------------------------------- prediction files

SIZES = np.array([[100, 200], [100, 100], [0, 0]], np.int32)  # x is 200 wide, z unreadable


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


def test_an_image_may_be_named_in_several_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x", "x.dcm", str(tmp_path / "x.dcm"), "./x.dcm", f"../{tmp_path.name}/x.dcm", "elsewhere\\x.dcm"):
        _, _, there = read(tmp_path, f"path,x,y,width,height,score\n{name},1,1,9,9,.5\ny,,,,,\n")
        assert there.tolist() == [0, 1], name


def test_an_ambiguous_name_is_refused(tmp_path):
    pair = [Exam(f"{at}/x.png", Path(at, "x.png"), (), "No Lung Opacity", at, None, None, None) for at in ("a", "b")]
    path = tmp_path / "found.csv"
    path.write_text("path,x,y,width,height,score\na/x.png,1,1,9,9,.5\nx.png,1,1,9,9,.5\n")
    with pytest.raises(ValueError, match=r"unknown image 'x.png', not among the exams \(line 3\)"):
        read_predictions(path, pair, SIZES[:2])


BAD_PREDICTIONS = {
    "an unknown image": (SUBMISSION + "w,\n", r"unknown image 'w', not among the exams \(line 4\)"),
    "an image twice": (SUBMISSION + "y,\n", r"duplicate image \(line 4\)"),
    "four numbers": ("patientId,PredictionString\ny,\nx,1 2 3 4\n", r"has 4 numbers.*\(line 3\)"),
    "a word": ("patientId,PredictionString\ny,\nx,.5 2 3 4 five\n", r"height is not a number \(line 3\)"),
    "a percentage": ("patientId,PredictionString\ny,\nx,50 2 3 4 5\n", r"score is not from 0 to 1 \(line 3\)"),
    "a box twice": (TABLE + "x.dcm,10,20,30,40,0.9,,\n", r"duplicate row \(line 5\)"),
    "upside down": (TABLE + "x.dcm,10,20,30,-4,0.9,,\n", r"width or height is below 0 \(line 5\)"),
    "no score": (TABLE + "x.dcm,10,20,30,40,,,\n", r"height or score is missing \(line 5\)"),
    "outside": (TABLE + "y.dcm,100,20,30,40,.5,,\n", r"lies outside the image \(line 5\)"),
    "shares": (
        "patientId,PredictionString\nx,.5 .1 .1 .5 .5\ny,\nz,\n",
        "in the first pixel; expected pixels of the original",
    ),
    "no form": (
        "path,x,y\nx,1,2\n",
        "no column width, height, score; expected patientId and PredictionString, or path",
    ),
    "no row": ("patientId,PredictionString\nx,\n", r"no row for 1 of 3 exams \(first: y\).*--allow-missing"),
}


@pytest.mark.parametrize(("text", "message"), BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_an_invalid_prediction_file_is_refused_by_lines(text, message, tmp_path):
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / 'found.csv'))}: .*{message}"):
        read(tmp_path, text)
