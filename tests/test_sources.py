"""Tables of one's own boxes, and both kinds of sources as one collection."""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from tiny_detection import write_dicom, write_rsna

from pytorch_detection import box_tables
from pytorch_detection.rsna_dataset import OPACITY_CLASS, UNCLASSIFIED

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


def test_no_image_of_a_table_need_have_a_box(tmp_path):
    write_images(tmp_path, a=(64, 64), b=(64, 64))
    table = write_table(
        tmp_path / "boxes.csv", [("a.png", *[""] * 4, "p"), ("b.png", *[""] * 4, "q")], (*HEADER, "patient")
    )
    found = load(table, tmp_path)
    assert [(exam.boxes_xyxy, exam.finding) for exam in found.exams] == [((), UNCLASSIFIED)] * 2


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


def test_further_columns_are_of_images_and_those_of_boxes_are_named(tmp_path):
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


BAD = {
    "a missing column": (("path", "x", "y", "width"), [("a.png", 1, 1, 9)], "no column height"),
    "an unknown file": (HEADER, [("a.png", 1, 1, 9, 9), ("z.png", 1, 1, 9, 9)], r"path names no file.*z\.png.*\(line 3\)"),
    "half a box": (HEADER, [("a.png", 1, 1, "", 9)], r"x, y, width or height is missing \(line 2\)"),
    "no number": (HEADER, [("a.png", 1, "left", 9, 9)], r"y is not a number \(line 2\)"),
    "no area": (HEADER, [("a.png", 1, 1, 0, 9)], r"width or height is not above 0; .* no numbers \(line 2\)"),
    "shares": (HEADER, [("a.png", 0.1, 0.1, 0.5, 0.9)], r"smaller than a pixel; .*pixels of their image \(line 2\)"),
    "a box twice": (HEADER, [("a.png", 1, 1, 9, 9), ("./a.png", 1, 1, 9, 9)], r"stands there before \(line 3\)"),
    "with and without": (HEADER, [("a.png", 1, 1, 9, 9), ("a.png", *[""] * 4)], r"another row has one.*\(line 3\)"),
    "outside": (HEADER, [("a.png", 1, 1, 9, 9), ("b.png", 1, 1, 64, 9)], r"reaches outside the image \(line 3\)"),
    "two patients": ((*HEADER, "patient"), [("a.png", 1, 1, 9, 9, "p"), ("a.png", 2, 1, 9, 9, "q")], r"another patient.*line 3"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "rows", "message"), BAD.values(), ids=BAD)
def test_a_table_that_cannot_be_is_refused_by_lines(header, rows, message, tmp_path):
    write_images(tmp_path, a=(64, 64), b=(32, 64))
    table = write_table(tmp_path / "boxes.csv", rows, header)
    with pytest.raises(ValueError, match=f"{re.escape(str(table))}: .*{message}"):
        load(table, tmp_path)


def test_the_challenges_folder_and_a_table_of_the_same_boxes_give_the_same(tmp_path):
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
