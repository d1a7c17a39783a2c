"""The synthetic data sets: what is drawn is what the tables say, in the layouts of the real sets, and no shortcut tells."""

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from evaluation_files import lines_of
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from scipy.ndimage import laplace
from sklearn.metrics import roc_auc_score

import make_sample_data
from make_sample_data import SampleConfig

TABLE = ["patientId", "x", "y", "width", "height", "Target"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("data") / "sample"
    return SampleConfig(output_dir=output_dir, images=160, widest=176, exams=110, exam_size=176, workers=1)


@pytest.fixture(scope="module")
def sample(config):
    make_sample_data.main(config)
    return config.output_dir


def grey(path):
    dicom = pydicom.dcmread(path)
    return 255 - dicom.pixel_array if dicom.PhotometricInterpretation == "MONOCHROME1" else dicom.pixel_array


def test_classification_files_have_kaggles_folders_names_and_counts(sample, config):
    paths = sorted((sample / "chest_xray").rglob("*.jpeg"))
    assert len(paths) == config.images
    form = {
        "NORMAL": r"(NORMAL2-)?IM-\d{4}-0001(-000\d)?\.jpeg",
        "PNEUMONIA": r"person\d+_(bacteria|virus)_\d+\.jpeg",
    }
    for path in paths:
        assert re.fullmatch(form[path.parent.name], path.name), path
    folders = Counter(path.relative_to(sample / "chest_xray").parent.as_posix() for path in paths)
    assert folders["val/NORMAL"] == folders["val/PNEUMONIA"] == 8
    assert folders["test/NORMAL"] == 18 and folders["test/PNEUMONIA"] == 22, "a quarter of 72 and of 88"
    assert folders["train/NORMAL"] == 72 - 18 - 8 and folders["train/PNEUMONIA"] == 88 - 22 - 8


def test_a_patient_has_several_images_and_is_in_one_split_and_class_only(sample):
    where, images = defaultdict(set), Counter()
    for path in (sample / "chest_xray").rglob("*.jpeg"):
        patient = re.match(r"(person\d+)_|((?:NORMAL2-)?IM-\d{4})-", path.name)[0]
        where[patient].add(path.parent)
        images[patient] += 1
    assert all(len(folders) == 1 for folders in where.values())
    assert 2 <= max(images.values()) <= 4 and Counter(images.values())[1] > 10


def test_opacity_boxes_belong_to_the_pneumonia_images_and_lie_inside_them(sample):
    boxes = lines_of(sample / "chest_xray" / "opacity_boxes.csv")
    assert list(boxes[0]) == ["path", "x", "y", "width", "height"]
    ill = {path.relative_to(sample / "chest_xray").as_posix() for path in (sample / "chest_xray").rglob("person*.jpeg")}
    assert {row["path"] for row in boxes} == ill
    for row in boxes:
        with Image.open(sample / "chest_xray" / row["path"]) as image:
            width, height = image.size
        x, y, across, down = (int(row[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x < x + across <= width and 0 <= y < y + down <= height
        assert 0.05 < across / width < 0.45 and 0.07 < down / height < 0.65


def test_labels_classes_mapping_and_files_speak_of_the_same_exams(sample, config):
    folder = sample / "dataset_det"
    labels, classes = (
        lines_of(folder / "stage_2_train_labels.csv"),
        lines_of(folder / "stage_2_detailed_class_info.csv"),
    )
    mapping = json.loads((folder / "pneumonia-challenge-dataset-mappings_2018.json").read_text())
    exams = {path.stem for path in (folder / "stage_2_train_images").glob("*.dcm")}
    assert list(labels[0]) == TABLE and list(classes[0]) == ["patientId", "class"]
    assert len(exams) == config.exams == len(mapping)
    assert [row["patientId"] for row in labels] == [row["patientId"] for row in classes], "one class row per box"
    assert exams == {row["patientId"] for row in labels} == {entry["subset_img_id"] for entry in mapping}
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uid) for uid in exams)
    by_class = defaultdict(set)
    for label, row in zip(labels, classes, strict=True):
        ill = row["class"] == "Lung Opacity"
        assert label["Target"] == str(int(ill)) and bool(label["x"]) == ill
        by_class[row["class"]].add(row["patientId"])
    assert set(by_class) == {"Normal", "No Lung Opacity / Not Normal", "Lung Opacity"}
    assert sum(map(len, by_class.values())) == len(exams)
    assert all(re.fullmatch(r"\d{8}_\d{3}\.png", entry["img_id"]) for entry in mapping)
    assert len({entry["img_id"] for entry in mapping}) == len(mapping)
    assert max(Counter(entry["img_id"][:8] for entry in mapping).values()) >= 2, "an exam is not a patient"


def test_dicom_headers_mix_what_the_readers_must_cope_with(sample, config):
    folder = sample / "dataset_det"
    mapping = json.loads((folder / "pneumonia-challenge-dataset-mappings_2018.json").read_text())
    seen, instances, person = Counter(), set(), defaultdict(set)
    for entry in mapping:
        exam = pydicom.dcmread(folder / "stage_2_train_images" / f"{entry['subset_img_id']}.dcm")
        assert exam.Modality == "CR" and exam.ViewPosition in ("AP", "PA") and exam.PatientSex in ("F", "M")
        assert re.fullmatch(r"0[1-9]\dY", exam.PatientAge)
        assert exam.PatientID == entry["subset_img_id"] and "SYNTHETIC" in exam.ImageComments
        assert exam.pixel_array.shape == (config.exam_size,) * 2 and exam.pixel_array.dtype == np.uint8
        seen[exam.PhotometricInterpretation, exam.file_meta.TransferSyntaxUID] += 1
        instances.add(exam.SOPInstanceUID)
        person[entry["img_id"][:8]].add((exam.PatientSex, exam.PatientAge))
    assert set(seen) == {
        (photometric, syntax)
        for photometric in ("MONOCHROME1", "MONOCHROME2")
        for syntax in (JPEGBaseline8Bit, ExplicitVRLittleEndian)
    }
    assert len(instances) == len(mapping) and all(len(told) == 1 for told in person.values())


def plain_features(pixels, size):
    return {
        "mean grey": pixels.mean(),
        "contrast": pixels.std(),
        "mean |Laplacian|": np.abs(laplace(pixels.astype(float))).mean(),
        "file size": size,
        "pixels": pixels.size,
        "aspect": pixels.shape[1] / pixels.shape[0],
    }


def separations(features, labels):
    return {name: round(float(roc_auc_score(labels, [one[name] for one in features])), 3) for name in features[0]}


def test_no_plain_feature_separates_the_classification_classes(sample):
    paths = sorted((sample / "chest_xray").rglob("*.jpeg"))
    features: list[dict[str, float]] = []
    for path in paths:
        with Image.open(path) as image:
            features.append(plain_features(np.asarray(image), path.stat().st_size))
    found = separations(features, [path.parent.name == "PNEUMONIA" for path in paths])
    assert all(0.35 <= auc <= 0.65 for auc in found.values()), found


def test_no_plain_feature_separates_the_detection_positives(sample):
    folder = sample / "dataset_det"
    target = {row["patientId"]: row["Target"] == "1" for row in lines_of(folder / "stage_2_train_labels.csv")}
    features = [plain_features(grey(folder / "stage_2_train_images" / f"{uid}.dcm"), 0) for uid in target]
    found = separations(features, list(target.values()))
    for name in ("mean grey", "contrast", "mean |Laplacian|"):
        assert 0.35 <= found[name] <= 0.65, found


SMALL = SampleConfig(only="detection", exams=2, exam_size=128, workers=1)


def test_the_same_settings_again_change_nothing_and_others_are_refused(tmp_path, capsys):
    (tmp_path / "dataset_det").mkdir()  # an empty folder is nobody's
    config = replace(SMALL, output_dir=tmp_path)
    make_sample_data.main(config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    make_sample_data.main(config)
    assert "already there" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a sample made with other settings"):
        make_sample_data.main(replace(config, seed=1))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_number_of_workers_does_not_change_the_files(tmp_path):
    for workers in (1, 2):
        make_sample_data.main(replace(SMALL, output_dir=tmp_path / str(workers), exams=6, workers=workers))
    one, two = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in "12")
    assert [path.name for path in one] == [path.name for path in two]
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(one, two, strict=True))
