import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_detection
import torch
from evaluation_files import lines_of
from PIL import Image
from tiny_detection import HEIGHT, WIDTH, exam_id

from cxr import reading
from cxr.prediction import Box, Prediction
from pytorch_detection import predict_detection
from pytorch_detection.detector import Detector, Rule
from pytorch_detection.model import Architecture, construct
from pytorch_detection.predict_detection import Output, main
from pytorch_detection.rsna_dataset import IMAGES

SIDES = ("x", "y", "width", "height", "score")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Some exams of the tiny data set."""
    data = tiny_detection.write_rsna(tmp_path_factory.mktemp("data") / "dataset_det", 6)
    return sorted((data / IMAGES).iterdir())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A finished detector that has learnt nothing but gives out some boxes."""
    torch.manual_seed(0)
    network = construct(Architecture("resnet18", 64, False, True))
    with torch.no_grad():
        network.roi_heads.box_predictor.bbox_pred.weight.mul_(20)
    path = tmp_path_factory.mktemp("detector") / "model.pth"
    Detector((network,), True, Rule(0.5, 0.9, 0.2), tiny_detection.anything_goes()).save(path)
    return path


def test_a_pacs_gets_the_boxes_of_the_table_to_a_tenth_of_a_pixel(command, images, model, tmp_path):
    from highdicom.sr import srread

    folder = images[0].parent
    ended = command(
        main, "--image", folder, "--model", model, "--output-dir", tmp_path, "--dicom-output", tmp_path / "pacs"
    )
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-2] == f"{2 * len(images)} DICOM documents in {tmp_path / 'pacs'}"
    found = {}
    for path in (tmp_path / "pacs").glob("report_*"):
        report = srread(path)
        found[report.PatientID] = [
            (*group.roi.value[0], *(group.roi.value[2] - group.roi.value[0]), group.get_measurements()[0].value / 100)
            for group in report.content.get_planar_roi_measurement_groups()
        ]
    expected = {path.stem: [] for path in images}
    for row in lines_of(tmp_path / "detection.csv"):
        if row["x"]:
            numbers = tuple(float(row[key]) for key in ("x", "y", "width", "height", "score"))
            expected[Path(row["path"]).stem].append(numbers)
    assert any(expected.values())
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert np.abs(np.reshape(found[name], (-1, 5)) - np.reshape(boxes, (-1, 5))).max(initial=0) < 0.11


def output(threshold=0.25):
    return Output(Path("m.pth"), threshold, SimpleNamespace(model_id="m"), Path())


def predicted(*boxes, highest_score, path="a.dcm"):
    return Prediction(Path(path), boxes=boxes, highest_score=highest_score)


def test_a_score_near_the_threshold_is_borderline_with_and_without_a_box():
    for highest, boxes, borderline in ((0.21, 1, True), (0.19, 0, True), (0.9, 1, False), (0.05, 0, False)):
        one = predicted(*[Box(1, 2, 3, 4, highest)] * boxes, highest_score=highest)
        assert output(0.2).is_borderline(one) is borderline
        assert ("inconclusive" in output(0.2).lines(one, single=True)[0]) is borderline


# ------------------------------------------------------------------------------------------------- the command line


def test_one_image_is_a_sentence_for_each_box_and_a_picture(model, images, tmp_path, command):
    ended = command(main, "--image", images[1], "--model", model, "--output-dir", tmp_path, "--device", "cpu")
    assert ended.code == 0 and ended.err == ""
    *boxes, picture, origin = ended.out.splitlines()
    assert origin.startswith("model: model.pth, trained on ") and origin.endswith("research only, not a medical device")
    assert all(line.startswith(f"{images[1]}: opacity of ") for line in boxes) and boxes
    assert picture == f"picture: {tmp_path / (exam_id(1) + '_boxes.png')}"
    assert [path.name for path in tmp_path.iterdir()] == [f"{exam_id(1)}_boxes.png"]
    with Image.open(tmp_path / f"{exam_id(1)}_boxes.png") as drawn:
        assert drawn.size[1] > drawn.size[0]  # as upright as the image


def test_many_images_give_a_table_with_a_row_for_each_box(model, images, tmp_path, command):
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(images[0].read_bytes()[:-3000])
    words = ("--model", model, "--output-dir", tmp_path / "out", "--no-pictures", "--device", "cpu")
    ended = command(main, "--image", *images, bad, *words)
    assert ended.code == 1 and "7 files: " in ended.out and "1 not readable" in ended.out
    rows = lines_of(tmp_path / "out" / "detection.csv")
    assert list(rows[0])[:7] == ["path", *SIDES, "highest_score"]
    assert list(rows[0])[7:] == ["threshold", "borderline", "out_of_distribution", "note", "error", "model"]
    assert list(dict.fromkeys(row["path"] for row in rows)) == [*map(str, images), str(bad)]
    assert all(bool(row["highest_score"]) != bool(row["error"]) for row in rows)
    boxes = [row for row in rows if row["score"]]
    assert boxes and f"({len(boxes)} boxes)" in ended.out
    for row in boxes:
        x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + width <= WIDTH + 0.1 and y >= 0 and y + height <= HEIGHT + 0.1 and min(width, height) > 0
        assert 0.2 <= float(row["score"]) <= 1 and row["error"] == ""
    (failed,) = (row for row in rows if row["error"])
    assert failed["path"] == str(bad) and "bad.dcm" in failed["error"] and not failed["x"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["detection.csv"]


def test_predictions_are_those_of_evaluation(model, images, tmp_path, command, processor):
    """From the file to the table and from decoded images to the rule: the same boxes."""
    command(main, "--image", *images, "--model", model, "--output-dir", tmp_path, "--no-pictures", "--device", "cpu")
    store = reading.decode_once(images, 64, tmp_path / "store", name="exams", progress=False)
    detector = Detector.load(model, processor)
    boxes, scores = detector.rule.apply(detector.predict(store.images, processor)[0])
    rows = lines_of(tmp_path / "detection.csv")
    for path, some, values in zip(images, boxes, scores, strict=True):
        kept = values >= detector.rule.threshold
        order = np.argsort(-values[kept], kind="stable")
        left, top, right, bottom = (some[kept][order] * np.array([WIDTH, HEIGHT] * 2) / 64).T
        mine = [row for row in rows if row["path"] == str(path) and row["score"]]
        expected = np.stack([left, top, right - left, bottom - top], axis=1)
        found = np.array([[float(row[name]) for name in ("x", "y", "width", "height")] for row in mine]).reshape(-1, 4)
        np.testing.assert_allclose(found, expected, atol=0.06)
        np.testing.assert_allclose([float(row["score"]) for row in mine], values[kept][order], atol=1e-5)


@pytest.fixture
def predicted_boxes(model, tmp_path, command):
    """Asks the script about some files: for each path the boxes [n, 5] and the highest score."""

    def ask(*paths):
        words = ("--model", model, "--output-dir", tmp_path / "out", "--no-pictures", "--json", "--device", "cpu")
        images = json.loads(command(main, "--image", *paths, *words).out)["images"]
        return {
            image["path"]: (np.array([list(box.values()) for box in image["boxes"]]), image["highest_score"])
            for image in images
        }

    return ask


def assert_same_boxes(one, other):
    assert len(one[0]) == len(other[0]) and other[1] == pytest.approx(one[1], abs=1e-4)
    np.testing.assert_allclose(other[0], one[0], rtol=0, atol=1e-4)


def test_an_image_has_the_same_boxes_alone_among_many_in_any_order_by_any_number_of_readers(
    predicted_boxes, images, monkeypatch
):
    together = predicted_boxes(*images)
    assert sum(len(boxes) for boxes, _ in together.values()) > 3
    monkeypatch.setattr(reading, "cores", lambda: 7)
    backwards = predicted_boxes(*reversed(images))
    assert list(backwards) == [str(path) for path in reversed(images)]
    monkeypatch.setattr(reading, "cores", lambda: 1)
    monkeypatch.setattr(predict_detection, "_BATCH", 2)
    others = [backwards, predicted_boxes(*images), predicted_boxes(images[1]), predicted_boxes(images[3])]
    for path, found in (pair for other in others for pair in other.items()):
        assert_same_boxes(together[path], found)


def test_a_submission_has_one_row_for_each_image(model, images, tmp_path, command):
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"not an image")
    target = tmp_path / "submission.csv"
    ended = command(
        main, "--image", *images, bad, "--model", model, "--output-dir", tmp_path, "--no-pictures",
        "--submission", target, "--device", "cpu",
    )  # fmt: skip
    assert ended.code == 1 and f"submission: {target}" in ended.out
    rows = lines_of(target)
    assert list(rows[0]) == ["patientId", "PredictionString"]
    assert [row["patientId"] for row in rows] == [*(path.stem for path in images), "bad"]
    boxes = [row for row in lines_of(tmp_path / "detection.csv") if row["score"]]
    numbers = [row["PredictionString"].split() for row in rows]
    assert boxes and numbers[-1] == []
    expected = [box[name] for box in boxes for name in ("score", "x", "y", "width", "height")]
    assert [number for some in numbers for number in some] == expected


def test_json_is_one_document(model, images, tmp_path, command):
    missing = tmp_path / "empty.png"
    missing.write_bytes(b"")
    ended = command(
        main, "--image", *images[:2], missing, "--model", model, "--output-dir", tmp_path, "--json", "--device", "cpu"
    )
    result = json.loads(ended.out)
    assert ended.code == 1 and result["model"] == str(model) and result["threshold"] == 0.2
    assert [one["path"] for one in result["images"]] == [*map(str, images[:2]), str(missing)]
    flags = {"borderline", "out_of_distribution", "note"}
    assert set(result["images"][1]) == {"path", "boxes", "highest_score", "picture", "error"} | flags
    assert all(set(box) == {"x", "y", "width", "height", "score"} for box in result["images"][1]["boxes"])
    assert result["images"][1]["highest_score"] == pytest.approx(result["images"][1]["boxes"][0]["score"])
    assert Path(result["images"][1]["picture"]).exists()
    assert result["images"][2]["error"] and result["images"][2]["boxes"] == []


def test_an_out_of_distribution_image_is_flagged_and_can_be_refused(model, images, tmp_path, command, processor):
    detector = Detector.load(model, processor)
    strict = tmp_path / "strict.pth"
    replace(detector, feature_distance=replace(detector.feature_distance, limit=1e-6)).save(strict)
    words = ("--model", strict, "--output-dir", tmp_path / "out", "--device", "cpu", "--submission", tmp_path / "s.csv")
    ended = command(main, *images[:2], *words, "--no-pictures")  # also without --image
    rows = lines_of(tmp_path / "out" / "detection.csv")
    assert ended.code == 0 and "2 out of distribution" in ended.out
    assert {row["out_of_distribution"] for row in rows} == {"yes"} and any(row["score"] for row in rows)
    ended = command(main, *images[:2], *words, "--refuse-ood")
    rows = lines_of(tmp_path / "out" / "detection.csv")
    assert ended.code == 0 and "0 with a box (0 boxes), 0 without, 2 out of distribution (2 refused)" in ended.out
    assert [(row["score"], row["out_of_distribution"], row["error"]) for row in rows] == [("", "yes", "")] * 2
    assert [row["PredictionString"] for row in lines_of(tmp_path / "s.csv")] == ["", ""]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["detection.csv"]
