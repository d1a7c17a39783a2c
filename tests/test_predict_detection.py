import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_detection
import torch
from evaluation_files import lines_of
from PIL import Image
from tiny_detection import HEIGHT, WIDTH, exam_id

from cxr import reading
from pytorch_detection import predict_detection
from pytorch_detection.detector import Detector, Rule
from pytorch_detection.model import Architecture, construct
from pytorch_detection.predict_detection import Answer, Box, main
from pytorch_detection.rsna_dataset import IMAGES


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


def test_the_threshold_of_training_can_be_set_aside(command, images, model, tmp_path):
    def boxes(*words):
        words = ("--image", images[1], "--model", model, "--no-pictures", "--json", "--output-dir", tmp_path, *words)
        ended = command(main, *words)
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    usual, every = boxes(), boxes("--threshold", "0")
    found, more = usual["images"][0]["boxes"], every["images"][0]["boxes"]
    assert every["threshold"] == 0 and found == [box for box in more if box["score"] >= usual["threshold"]]
    assert (usual["origin"]["adapted"], every["origin"]["adapted"]) == ("", "operating point set by --threshold")
    assert len(more) > 2
    middle = more[len(more) // 2]["score"]
    assert boxes("--threshold", repr(middle))["images"][0]["boxes"] == [b for b in more if b["score"] >= middle]


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
    for row in lines_of(tmp_path / "predictions.csv"):
        if row["x"]:
            numbers = tuple(float(row[key]) for key in ("x", "y", "width", "height", "score"))
            expected[Path(row["path"]).stem].append(numbers)
    assert any(expected.values())
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert np.abs(np.reshape(found[name], (-1, 5)) - np.reshape(boxes, (-1, 5))).max(initial=0) < 0.11


def test_the_sentence_names_place_size_and_score():
    answer = Answer(Path("a.dcm"), [Box(10.4, 20.6, 30, 40, 0.51)], 0.51, 0.25, "", None)
    assert answer.sentences() == (
        "a.dcm: opacity of 30 x 40 pixels, upper left corner at x 10, y 21; score 0.510 (threshold 0.250)"
    )
    clear = Answer(Path("a.dcm"), [], 0.125, 0.25, "", None)
    assert clear.sentences() == "a.dcm: no box at or above 0.250 (highest score 0.125)"


def test_a_submission_has_score_and_box_of_each_box():
    answer = Answer(Path("some/exam.dcm"), [Box(1, 2, 3, 4, 0.5), Box(5, 6, 7.25, 8, 0.25)], 0.5, 0.2, "", None)
    assert answer.submitted() == ["exam", "0.500000 1.0 2.0 3.0 4.0 0.250000 5.0 6.0 7.2 8.0"]
    assert Answer(Path("exam.dcm"), [], 0.1, 0.2, "", None).submitted() == ["exam", ""]


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


def test_many_images_are_a_table_with_a_row_for_each_box(model, images, tmp_path, command):
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(images[0].read_bytes()[:-3000])
    ended = command(
        main,
        "--image",
        *images,
        bad,
        "--model",
        model,
        "--output-dir",
        tmp_path / "out",
        "--no-pictures",
        "--device",
        "cpu",
    )
    assert ended.code == 1 and "7 files: " in ended.out and "1 not readable" in ended.out
    rows = lines_of(tmp_path / "out" / "predictions.csv")
    assert list(rows[0]) == list(predict_detection._HEADER)
    assert list(dict.fromkeys(row["path"] for row in rows)) == [*map(str, images), str(bad)]
    boxes = [row for row in rows if row["score"]]
    assert boxes and f"({len(boxes)} boxes)" in ended.out
    for row in boxes:
        x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + width <= WIDTH + 0.1 and y >= 0 and y + height <= HEIGHT + 0.1 and min(width, height) > 0
        assert 0.2 <= float(row["score"]) <= 1 and row["error"] == ""
    (failed,) = (row for row in rows if row["error"])
    assert failed["path"] == str(bad) and "bad.dcm" in failed["error"] and not failed["x"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]


def test_predictions_are_those_of_evaluation(model, images, tmp_path, command, processor):
    """From the file to the table and from the store to the rule: the same boxes."""
    command(main, "--image", *images, "--model", model, "--output-dir", tmp_path, "--no-pictures", "--device", "cpu")
    store = reading.decode_once(images, 64, tmp_path / "store", name="exams", progress=False)
    detector = Detector.load(model, processor)
    boxes, scores = detector.rule.apply(detector.predict(store.images, processor)[0])
    rows = lines_of(tmp_path / "predictions.csv")
    for path, some, values in zip(images, boxes, scores, strict=True):
        kept = values >= detector.rule.threshold
        order = np.argsort(-values[kept], kind="stable")
        left, top, right, bottom = (some[kept][order] * np.array([WIDTH, HEIGHT] * 2) / 64).T
        mine = [row for row in rows if row["path"] == str(path) and row["score"]]
        expected = np.stack([left, top, right - left, bottom - top], axis=1)
        found = np.array([[float(row[name]) for name in ("x", "y", "width", "height")] for row in mine]).reshape(-1, 4)
        np.testing.assert_allclose(found, expected, atol=0.06)
        np.testing.assert_allclose([float(row["score"]) for row in mine], values[kept][order], atol=1e-5)


def test_a_file_that_goes_before_its_picture_is_drawn_does_not_stop_the_others(
    model, images, tmp_path, command, monkeypatch
):
    """Three of four are gone, damaged or of another size once their answers are known."""
    paths = [Path(shutil.copy(images[1], tmp_path / f"{name}.dcm")) for name in "abcd"]
    look = Detector.predict

    def then_go(self, squares, run):
        found = look(self, squares, run)
        paths[0].unlink()
        paths[1].write_bytes(b"only a text")
        Image.new("L", (99, 99)).save(paths[2], "PNG")
        return found

    monkeypatch.setattr(Detector, "predict", then_go)
    words = ("--model", model, "--output-dir", tmp_path / "out", "--device", "cpu")
    ended = command(main, "--image", *paths, *words)
    assert ended.code == 1 and "4 files: 1 with a box" in ended.out and "3 not readable" in ended.out
    first, second, third, *rest = lines_of(tmp_path / "out" / "predictions.csv")
    assert first["error"] == f"{paths[0]}: no such file" and second["error"].startswith(f"{paths[1]}: neither JPEG")
    assert third["error"] == f"{paths[2]}: changed while its answer was worked out"
    assert not any(row["score"] for row in (first, second, third))
    assert rest and all(row["path"] == str(paths[3]) and row["score"] and not row["error"] for row in rest)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["d_boxes.png", "predictions.csv"]
    shutil.copy(images[1], paths[0])
    ended = command(main, "--image", paths[0], *words)
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {paths[0]}: no such file\n")


@pytest.fixture
def answers(model, tmp_path, command):
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
    answers, images, monkeypatch
):
    together = answers(*images)
    assert sum(len(boxes) for boxes, _ in together.values()) > 3
    monkeypatch.setattr(reading, "cores", lambda: 7)
    backwards = answers(*reversed(images))
    assert list(backwards) == [str(path) for path in reversed(images)]
    monkeypatch.setattr(reading, "cores", lambda: 1)
    monkeypatch.setattr(predict_detection, "_BATCH", 2)
    others = [backwards, answers(*images), answers(images[1]), answers(images[3])]
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
    boxes = [row for row in lines_of(tmp_path / "predictions.csv") if row["score"]]
    numbers = [row["PredictionString"].split() for row in rows]
    assert sum(len(some) for some in numbers) == 5 * len(boxes) and numbers[-1] == []
    first = next(some for some in numbers if some)
    assert first[:5] == [boxes[0][name] for name in ("score", "x", "y", "width", "height")]


def test_two_files_of_one_name_cannot_be_submitted(model, images, tmp_path, command):
    other = tmp_path / "other" / images[0].name
    other.parent.mkdir()
    shutil.copy(images[0], other)
    target = tmp_path / "submission.csv"
    ended = command(main, "--image", images[0], other, "--model", model, "--submission", target)
    assert ended.code == 2 and "--submission: 2 files are called exam000" in ended.err and not target.exists()


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


# ---------------------------------------------------------------------------------------------------------- refusals


def test_without_a_model_the_error_says_how_to_train_one(images, tmp_path, command):
    ended = command(main, "--image", images[0], "--model", tmp_path / "none.pth")
    assert ended.code == 2 and ended.out == ""
    assert re.search(r"^error: no model at .*none\.pth; train one with .*train_detection\.py", ended.err)


def test_one_image_that_cannot_be_read_is_one_line_and_exit_code_2(model, tmp_path, command):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    ended = command(main, "--image", bad, "--model", model, "--output-dir", tmp_path / "out", "--device", "cpu")
    assert ended.code == 2 and ended.out == "" and len(ended.err.splitlines()) == 1 and "bad.png" in ended.err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- prediction


def test_an_unlike_image_is_flagged_and_can_be_refused(model, images, tmp_path, command, processor):
    detector = Detector.load(model, processor)
    strict = tmp_path / "strict.pth"
    replace(detector, feature_distance=replace(detector.feature_distance, limit=1e-6)).save(strict)
    words = ("--model", strict, "--output-dir", tmp_path / "out", "--device", "cpu", "--submission", tmp_path / "s.csv")
    ended = command(main, *images[:2], *words, "--no-pictures")  # also without --image
    rows = lines_of(tmp_path / "out" / "predictions.csv")
    assert ended.code == 0 and "2 unlike training's images" in ended.out
    assert {row["out_of_distribution"] for row in rows} == {"yes"} and any(row["score"] for row in rows)
    ended = command(main, *images[:2], *words, "--refuse-ood")
    rows = lines_of(tmp_path / "out" / "predictions.csv")
    assert ended.code == 0 and "0 with a box (0 boxes), 0 without, 2 unlike training's images (2 refused)" in ended.out
    assert [(row["score"], row["out_of_distribution"], row["error"]) for row in rows] == [("", "yes", "")] * 2
    assert [row["PredictionString"] for row in lines_of(tmp_path / "s.csv")] == ["", ""]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]


def test_a_score_near_the_threshold_is_borderline_box_or_not():
    for highest, boxes, borderline in ((0.21, 1, True), (0.19, 0, True), (0.9, 1, False), (0.05, 0, False)):
        answer = Answer(Path("a.dcm"), [Box(1, 2, 3, 4, highest)] * boxes, highest, 0.2, "", None)
        assert answer.borderline is borderline and ("borderline" in answer.sentences()) is borderline
        assert {row[7] for row in answer.rows("")} == {"yes" if borderline else "no"}


def test_a_stopped_prediction_keeps_the_rows_of_what_was_answered(model, images, tmp_path, command, monkeypatch):
    monkeypatch.setattr(predict_detection, "_BATCH", 2)
    look, seen = Detector.predict, []

    def then_stop(self, squares, run):
        seen.append(len(squares))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return look(self, squares, run)

    monkeypatch.setattr(Detector, "predict", then_stop)
    words = ("--model", model, "--output-dir", tmp_path, "--no-pictures", "--device", "cpu")
    ended = command(main, "--image", *images, *words)
    kept = tmp_path / "predictions.csv"
    assert ended.code == 130 and ended.err.endswith(f"interrupted: 4 of 6 files were answered; {kept} holds them\n")
    assert {row["path"] for row in lines_of(kept)} == {str(path) for path in images[:4]}
