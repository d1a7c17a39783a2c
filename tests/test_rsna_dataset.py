import csv
import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tiny_detection
import torch

from cxr import reading
from cxr.reading import Decoded, Header
from pytorch_detection import rsna_dataset
from pytorch_detection.rsna_dataset import (
    CLASS_INFO,
    IMAGES,
    LABELS,
    MAPPING,
    OPACITY,
    UNCLASSIFIED,
    Exam,
    RsnaDetectionDataset,
    describe,
    list_exams,
)
from pytorch_detection.training_data import split

SIDE = 64
DATA = Path(os.environ.get("CXR_DATA", Path(__file__).parents[2] / "shared" / "data"))


def write_dicom(path, pixels=None, **values):
    tiny_detection.write_dicom(path, np.zeros((SIDE, SIDE), np.uint8) if pixels is None else pixels, **values)


def write_folder(
    root, rows, *, classes=None, mapping=None, header=("patientId", "x", "y", "width", "height", "Target")
):
    """The four parts of the challenge's folder from the rows of its label table."""
    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    with (root / LABELS).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for exam_id in {row[0] for row in rows if row}:
        write_dicom(root / IMAGES / f"{exam_id}.dcm")
    if classes is not None:
        with (root / CLASS_INFO).open("w", newline="") as file:
            csv.writer(file).writerows([("patientId", "class"), *classes])
    if mapping is not None:
        entries = [{"subset_img_id": exam_id, "img_id": name} for exam_id, name in mapping.items()]
        (root / MAPPING).write_text(json.dumps(entries))
    return root


def read_exams(folder, **options):
    """The exams of a folder, whose files are decoded."""
    listing = list_exams(folder, **options)
    store = folder.parent / f"{folder.name} store"
    decoded = reading.decode_once(listing.paths, 16, store, name="x", skip_bad=True, progress=False)
    return rsna_dataset.read_exams(listing, decoded)


NEGATIVE = ("", "", "", "", 0)
ROWS = [("b", *NEGATIVE), ("a", 10, 20, 30, 40, 1), ("a", 1, 2, 3.5, 4, 1), ("c", *NEGATIVE)]
KNOWN = {"a": "00000017_003.png", "b": "00000017_000.png", "c": "00012345_012.png"}


def exam(exam_id, patient, finding="Normal", boxes=0, **values):
    given = {"age_years": None, "sex": None, "view": None, **values}
    return Exam(exam_id, Path(f"{exam_id}.dcm"), ((1.0, 2.0, 3.0, 4.0),) * boxes, finding, patient, **given)


class TestReading:
    def test_an_exam_in_full(self, tmp_path):
        classes = [("a", "Lung Opacity")] * 2 + [("b", "Normal"), ("c", "No Lung Opacity / Not Normal")]
        write_folder(tmp_path, ROWS, classes=classes, mapping=KNOWN)
        write_dicom(tmp_path / IMAGES / "a.dcm", PatientAge="57", PatientSex="F", ViewPosition="AP")
        first, second, third = read_exams(tmp_path)
        assert [first.exam_id, second.exam_id, third.exam_id] == ["a", "b", "c"]
        assert first == Exam(
            exam_id="a",
            path=tmp_path / IMAGES / "a.dcm",
            boxes_xyxy=((10, 20, 40, 60), (1, 2, 4.5, 6)),
            finding="Lung Opacity",
            patient="00000017",
            age_years=57,
            sex="F",
            view="AP",
        )
        assert (second.finding, second.patient) == ("Normal", "00000017")
        assert (second.age_years, second.sex, second.view) == (None, None, None)
        assert (third.finding, third.patient) == ("No Lung Opacity / Not Normal", "00012345")

    def test_exams_missing_in_the_mapping_count_as_one_patient_each(self, tmp_path):
        exams = read_exams(write_folder(tmp_path, ROWS, mapping={"a": "00000017_003.png", "z": "00000018_000.png"}))
        assert [exam.patient for exam in exams] == ["00000017", "b", "c"]
        assert [exam.finding for exam in exams] == ["Lung Opacity", UNCLASSIFIED, UNCLASSIFIED]  # no class table
        assert describe(exams) == (
            "3 exams of 3 patients, 1 with opacity (2 boxes); 2 exams of unknown patients count as one patient each"
        )

    def test_without_mapping_one_warning_names_the_consequence_and_the_download(self, tmp_path):
        write_folder(tmp_path, ROWS)
        where = "https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/pneumonia-challenge-dataset-mappings_2018.json"
        with pytest.warns(
            UserWarning, match=f"patients may be in both .* and scores are too optimistic.*{where}"
        ) as caught:
            exams = read_exams(tmp_path)
        assert len(caught) == 1
        assert [exam.patient for exam in exams] == ["a", "b", "c"]

    def test_without_mapping_a_shared_patient_id_is_the_patient(self, tmp_path, recwarn):
        write_folder(tmp_path, ROWS)
        for exam_id, patient in {"a": "P1", "b": "P2", "c": "P1"}.items():
            write_dicom(tmp_path / IMAGES / f"{exam_id}.dcm", PatientID=patient)
        first, second, third = (exam.patient for exam in read_exams(tmp_path))
        assert first == third != second and not recwarn.list


BAD_ROWS = {
    ("d", "", 20, 30, 40, 1): "Target is 1 but x, y, width or height is missing",
    ("d", 10, 20, 0, 40, 1): "width or height is not above 0",
    ("d", 10, 20, 30, "wide", 1): "height is not a number",
    ("d", 10, 20, 54.5, 40, 1): "the box exceeds the image",
    ("d", -1, 20, 30, 40, 1): "the box exceeds the image",
    ("d", 10, 20, 30, 40, 2): "Target is neither 0 nor 1",
    ("d", 10, 20, 30, 40, ""): "Target is neither 0 nor 1",
    ("d", 10, 20, 30, 40, 0): "Target is 0 but there is a box",
    ("a", 10, 20.0, 30, "40", 1): "duplicate row",
    ("b", *NEGATIVE): "duplicate row",
    ("a", *NEGATIVE): "Target is 0 but another row has a box for this exam",
}
BAD_MAPPINGS = {
    "{": "expected a list of subset_img_id and img_id, found JSONDecodeError",
    '{"a": "00000001_000.png"}': "expected a list of subset_img_id and img_id, found TypeError",
    '[{"subset_img_id": "z", "img_id": "00000001_000.png"}]': "has none of the 3 exams",
    '[{"subset_img_id": "b", "img_id": "1_000.png"}]': "expected img_id such as 00012345_006.png, found '1_000",
}


class TestBadTables:
    @pytest.mark.parametrize(("row", "message"), BAD_ROWS.items())
    def test_a_bad_row_is_named_by_its_line(self, tmp_path, row, message):
        write_folder(tmp_path, [*ROWS, row], mapping=KNOWN)
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / LABELS}: {message} (line 6)")):
            read_exams(tmp_path)

    @pytest.mark.parametrize(("text", "message"), BAD_MAPPINGS.items())
    def test_an_invalid_mapping(self, tmp_path, text, message):
        write_folder(tmp_path, ROWS)
        (tmp_path / MAPPING).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_exams(tmp_path)


class TestIncompleteFolders:
    def test_labels_without_images_and_images_without_labels(self, tmp_path):
        write_folder(tmp_path, ROWS, mapping=KNOWN)
        for name in ("a", "c"):
            (tmp_path / IMAGES / f"{name}.dcm").unlink()
        write_dicom(tmp_path / IMAGES / "x.dcm")
        message = (
            rf"2 exams of {LABELS} have no DICOM file in {IMAGES}/ \(first: a\) and 1 DICOM files have no row in {LABELS} "
            r"\(first: x\)"
        )
        with pytest.raises(ValueError, match=f"{message}.*--allow-missing"):
            read_exams(tmp_path)
        with pytest.warns(UserWarning, match=f"{message}; left out"):
            assert [exam.exam_id for exam in read_exams(tmp_path, allow_missing=True)] == ["b"]


class TestDataset:
    def test_items(self, tmp_path):
        write_folder(tmp_path, ROWS, mapping=KNOWN)
        pixels = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE).astype(np.uint8)
        write_dicom(tmp_path / IMAGES / "b.dcm", pixels)
        exams = read_exams(tmp_path)
        store = reading.decode_once([exam.path for exam in exams], SIDE, tmp_path, name="x", progress=False)
        dataset = RsnaDetectionDataset(store.images, store.sizes, exams)
        assert len(dataset) == 3
        image, target = dataset[1]
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (1, SIDE, SIDE))
        np.testing.assert_array_equal(image[0], pixels)
        assert (target["boxes"].dtype, tuple(target["boxes"].shape)) == (torch.float32, (0, 4))
        assert (target["labels"].dtype, tuple(target["labels"].shape)) == (torch.int64, (0,))
        _, target = dataset[0]
        assert target["boxes"].tolist() == [[10, 20, 40, 60], [1, 2, 4.5, 6]]
        assert target["labels"].tolist() == [OPACITY, OPACITY] == [1, 1]
        assert target["image_id"].dtype == torch.int64
        assert [dataset[index][1]["image_id"].item() for index in range(3)] == [0, 1, 2]

    def test_boxes_are_in_pixels_of_the_square(self):
        exams = [exam("a", "a"), Exam("b", Path("b"), ((100, 200, 300, 700),), "Lung Opacity", "b", None, None, None)]
        sizes = np.array([[1000, 2000], [1000, 2000]], np.int32)  # height, width
        dataset = RsnaDetectionDataset(np.zeros((2, 500, 500), np.uint8), sizes, exams)
        assert dataset[1][1]["boxes"].tolist() == [[25, 100, 75, 350]]  # x by 500 / 2000, y by 500 / 1000

    def test_an_unreadable_image_leaves_the_others(self):
        exams = [exam("a", "a", boxes=1), exam("b", "b", boxes=1)]
        dataset = RsnaDetectionDataset(np.zeros((2, 8, 8), np.uint8), np.array([[0, 0], [8, 8]]), exams)
        assert dataset[1][1]["boxes"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "rsna_tables").is_dir(), reason="no real tables (CXR_DATA names their folder)")
def test_the_real_tables(tmp_path):
    import pandas as pd

    (tmp_path / IMAGES).mkdir()
    for name in (LABELS, CLASS_INFO, MAPPING):
        (tmp_path / name).symlink_to(DATA / "rsna_tables" / name)
    names = pd.read_csv(tmp_path / LABELS)["patientId"].unique()
    for name in names:
        (tmp_path / IMAGES / f"{name}.dcm").touch()
    sizes, header = np.full((len(names), 2), 1024, np.int32), Header(50, "M", "PA")
    pixels, is_readable = np.zeros((len(names), 1, 1), np.uint8), np.ones(len(names), np.bool_)
    store = Decoded(pixels, sizes, [""] * len(names), [header] * len(names), is_readable)
    exams = rsna_dataset.read_exams(list_exams(tmp_path), store)
    assert describe(exams).startswith("26,684 exams of 11,508 patients, 6,012 with opacity (9,555 boxes); 98 exams")
    assert Counter(exam.finding for exam in exams) == {
        "No Lung Opacity / Not Normal": 11_821,
        "Normal": 8_851,
        "Lung Opacity": 6_012,
    }
    assert Counter(len(exam.boxes_xyxy) for exam in exams) == {0: 20_672, 1: 2_614, 2: 3_266, 3: 119, 4: 13}
    parts = split(exams, [exam.exam_id for exam in exams], 0)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 21_348,
        "held_out": 2_668,
        "validation": 2_668,
    }
    for part in parts.values():
        share = np.mean([bool(exams[index].boxes_xyxy) for index in part])
        assert share == pytest.approx(6_012 / 26_684, abs=0.002)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "dataset_det").is_dir(), reason="no real images (CXR_DATA names their folder)")
def test_the_real_images(tmp_path):
    listing = list_exams(DATA / "dataset_det")
    exams = rsna_dataset.read_exams(listing, reading.decode_once(listing.paths, 16, tmp_path, name="x", progress=False))
    assert describe(exams).startswith("1,129 exams of 911 patients, 319 with opacity (512 boxes); 7 exams")
    assert Counter(exam.view for exam in exams) == {"AP": 547, "PA": 582}
    first = next(exam for exam in exams if exam.exam_id.startswith("025d196b"))
    assert (first.boxes_xyxy, first.age_years, first.sex, first.view) == (((605, 559, 711, 634),), 57, "F", "AP")
    assert pydicom.dcmread(first.path, stop_before_pixels=True).PatientID == first.exam_id
