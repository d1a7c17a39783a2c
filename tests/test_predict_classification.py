import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_detection import write_dicom

from cxr import checkpoints, cli, metrics, reading
from cxr.files import sha256_of
from cxr.prediction import Prediction
from pytorch_classification import predict_classification
from pytorch_classification.classifier import Classifier
from pytorch_classification.model import TASK
from pytorch_classification.predict_classification import Output

COLUMNS = ["path", "probability", "class", "threshold", "borderline", "out_of_distribution", "note", "error", "model"]
SENTENCE = r"(?P<path>.+): (?P<class>NORMAL|PNEUMONIA), probability of PNEUMONIA (?P<probability>[01]\.\d{3}) \(threshold (?P<threshold>0\.\d{3})"


@pytest.fixture
def predict(trained, tmp_path, command):
    """Runs the script on the trained model; what it writes goes to ``tmp_path / "out"``."""

    def run(*arguments, model=trained.config.model_file):
        words = ["--model", model, "--output-dir", tmp_path / "out", "--device", "cpu", "--image", *arguments]
        return command(predict_classification.main, *words)

    return run


@pytest.fixture
def held_out(trained):
    """The folder of test images."""
    return trained.config.data_dir / "test"


@pytest.fixture
def image_file(held_out):
    """One test image that shows PNEUMONIA."""
    return sorted((held_out / "PNEUMONIA").iterdir())[0]


@pytest.fixture
def threshold(trained):
    return checkpoints.load(trained.config.model_file, task=TASK)["prediction"]["threshold"]


def table(tmp_path):
    with (tmp_path / "out" / "classification.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    assert rows[0] == COLUMNS
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def lines_of(text):
    """Without what a progress bar has drawn and taken away again."""
    return [line for line in text.replace("\r", "\n").splitlines() if line.strip() and "image/s" not in line]


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").rglob("*"))


# ----------------------------------------------------------------------------------------------------------- one image


def test_one_image_gives_a_sentence_and_a_picture(predict, image_file, tmp_path, threshold, trained, processor):
    ended = predict(image_file)
    sentence, picture, model = ended.out.splitlines()
    found = re.match(SENTENCE, sentence)
    square = reading.read(image_file).square(36)
    (expected,) = Classifier.load(trained.config.model_file, processor).probabilities(square[None], processor)
    assert ended.code == 0 and ended.err == "" and found["path"] == str(image_file)
    assert found["class"] == "PNEUMONIA" and float(found["probability"]) == pytest.approx(expected, abs=6e-4)
    assert float(found["threshold"]) == pytest.approx(threshold, abs=6e-4)
    assert picture == f"picture: {tmp_path / 'out' / (image_file.stem + '_grad_cam.png')}"
    assert model.startswith("model: model.pth, trained on 52 images of 26 patients (chest_xray), 20")
    assert model.endswith(f"operating point {threshold:.3f}; research only, not a medical device")
    assert written(tmp_path) == [f"{image_file.stem}_grad_cam.png"]
    with Image.open(tmp_path / "out" / written(tmp_path)[0]) as drawn:
        assert min(drawn.size) > 300 and len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_one_image_for_machines(predict, image_file, trained, threshold):
    ended = predict(image_file, "--json", "--no-grad-cam")
    found = json.loads(ended.out)
    assert ended.code == 0 and ended.err == ""
    assert (found["model"], found["threshold"]) == (str(trained.config.model_file), threshold)
    assert found["provenance"]["use"] == "research only, not a medical device"
    assert found["provenance"]["file"] == "model.pth"
    (image,) = found["images"]
    flags = {"borderline", "out_of_distribution", "note"}
    assert image.keys() == {"path", "probability", "class", "picture", "error"} | flags
    assert (image["path"], image["class"], image["picture"], image["error"]) == (
        str(image_file),
        "PNEUMONIA",
        None,
        None,
    )
    assert 0.5 < image["probability"] < 1


# --------------------------------------------------------------------------------------------------------- many images


def test_predictions_of_a_folder_agree_with_the_test_report(predict, held_out, trained, tmp_path, threshold):
    ended = predict(held_out)
    rows = table(tmp_path)
    assert ended.code == 0 and written(tmp_path) == ["classification.csv"]
    assert [row["path"] for row in rows] == sorted(str(path) for path in held_out.rglob("*.jpeg"))
    assert all(row["error"] == "" for row in rows)
    probabilities = np.array([float(row["probability"]) for row in rows])
    called = np.array([row["class"] == "PNEUMONIA" for row in rows])
    truth = np.array([Path(row["path"]).parent.name == "PNEUMONIA" for row in rows])
    assert (called == (probabilities >= threshold)).all()
    report = json.loads((trained.config.output_dir / "test_report.json").read_text())["scores"]
    matrix = [[int((row & column).sum()) for column in (~called, called)] for row in (~truth, truth)]
    assert matrix == report["confusion_matrix"] and threshold == report["threshold"]
    assert np.mean((probabilities - truth) ** 2) == pytest.approx(report["scores"]["brier"]["value"], abs=1e-5)
    assert metrics.roc_auc(probabilities, truth) == pytest.approx(report["scores"]["roc_auc"]["value"], abs=1e-3)
    *lines, more, counts, where, model = ended.out.splitlines()
    assert len(lines) == 20 and more == "and 4 more"
    shown = [float(re.match(SENTENCE, line)["probability"]) for line in lines]
    assert shown == sorted((round(p, 3) for p in probabilities), reverse=True)[:20]  # the highest probability first
    assert counts.startswith(f"24 files: {(~called).sum()} NORMAL, {called.sum()} PNEUMONIA (")
    assert counts.endswith("0 not readable") and where == f"table: {tmp_path / 'out' / 'classification.csv'}"
    weights = sha256_of(trained.config.model_file)
    assert model.startswith("model: model.pth, ") and {row["model"] for row in rows} == {f"model.pth {weights[:12]}"}
    assert {row["threshold"] for row in rows} == {f"{threshold:.6f}"}
    assert {row["borderline"] for row in rows} <= {"yes", "no"} >= {row["out_of_distribution"] for row in rows}


def test_a_prediction_does_not_depend_on_the_other_files_or_their_order(predict, trained, image_file):
    def probabilities(*arguments):
        images = json.loads(predict(*arguments, "--json", "--no-grad-cam").out)["images"]
        return {image["path"]: image["probability"] for image in images}

    train = trained.config.data_dir / "train"  # more than one batch
    files = sorted(train.rglob("*.jpeg"))
    folder, backwards = probabilities(train), probabilities(*reversed(files))
    assert len(folder) == 64 and list(backwards) == [str(path) for path in reversed(files)]
    globbed = probabilities(str(train / "**" / "*.jpeg"))
    alone = probabilities(files[40])
    for other in (backwards, globbed, alone):
        assert all(abs(probability - folder[path]) < 1e-4 for path, probability in other.items())
    assert globbed.keys() == folder.keys()
    assert list(probabilities(image_file, image_file)) == [str(image_file)]  # named twice, predicted once


def test_pictures_of_many_images_are_drawn_when_asked_and_do_not_overwrite_each_other(predict, held_out, tmp_path):
    source = sorted((held_out / "NORMAL").iterdir())[:2]
    for name, path in zip(("a", "b"), source, strict=True):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "chest.jpeg")
    ended = predict(tmp_path / "a", tmp_path / "b", "--grad-cam", "--json")
    assert written(tmp_path) == ["chest-2_grad_cam.png", "chest_grad_cam.png", "classification.csv"]
    pictures = [image["picture"] for image in json.loads(ended.out)["images"]]
    assert pictures == [str(tmp_path / "out" / name) for name in ("chest_grad_cam.png", "chest-2_grad_cam.png")]


def save_dicom(grey, path):
    write_dicom(path, 255 - grey, PhotometricInterpretation="MONOCHROME1")


def test_formats_of_the_same_pixels_have_the_same_prediction(predict, image_file, tmp_path):
    grey = reading.read(image_file).whole()
    Image.fromarray(grey).save(tmp_path / "chest.png")
    Image.fromarray(grey).save(tmp_path / "chest.tiff")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "chest16.png")
    save_dicom(grey, tmp_path / "chest.dcm")
    ended = predict(*sorted(tmp_path.glob("chest*")), "--json")
    found = [image["probability"] for image in json.loads(ended.out)["images"]]
    assert len(found) == 4 and max(found) - min(found) < 1e-4


# -------------------------------------------------------------------------------------------------------------- DICOM


def test_a_dicom_file_gets_a_report_and_its_picture_for_a_pacs(predict, image_file, tmp_path, threshold):
    from highdicom.sr import srread
    from pydicom import dcmread

    save_dicom(reading.read(image_file).whole(), tmp_path / "chest.dcm")
    ended = predict(tmp_path / "chest.dcm", image_file, "--dicom-output", tmp_path / "pacs")
    assert ended.code == 0, ended.err
    sentence = f"2 DICOM documents in {tmp_path / 'pacs'}; 1 files are not DICOM and got none"
    assert ended.out.splitlines()[-2] == sentence
    picture, report = sorted((tmp_path / "pacs").iterdir())
    with Image.open(tmp_path / "out" / "chest_grad_cam.png") as drawn:
        height = drawn.height
        assert np.array_equal(dcmread(picture).pixel_array[:height], np.asarray(drawn.convert("RGB")))
    (group,) = srread(report).content.get_image_measurement_groups()
    probability = float(table(tmp_path)[0]["probability"])
    assert [number.value for number in group.get_measurements()] == pytest.approx(
        [100 * probability, 100 * threshold], abs=1e-3
    )


def test_a_missing_highdicom_is_reported_before_anything_is_predicted(predict, image_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    ended = predict(image_file, "--dicom-output", tmp_path / "pacs")
    message = "error: DICOM output needs highdicom, which is not installed: pip install highdicom"
    assert (ended.code, ended.out, ended.err.splitlines()) == (2, "", [message])


# ----------------------------------------------------------------------------------------------------------- bad files


@pytest.fixture
def mixed(image_file, tmp_path):
    """A folder of a good file between bad ones."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jpeg").write_bytes(b"")
    shutil.copy(image_file, folder / "b.jpeg")
    (folder / "c.png").write_bytes(b"only a text")
    (folder / "d.jpeg").write_bytes(image_file.read_bytes()[:200])
    return folder


def test_a_bad_file_among_many_is_a_row_with_its_error(predict, mixed, tmp_path):
    ended = predict(mixed)
    rows = table(tmp_path)
    assert ended.code == 1 and "3 not readable" in ended.out and "Traceback" not in ended.err
    assert [line.split(": ")[1] for line in lines_of(ended.out) if line.startswith("not readable: ")] == [
        str(mixed / name) for name in ("a.jpeg", "c.png", "d.jpeg")
    ]
    assert [Path(row["path"]).name for row in rows] == ["a.jpeg", "b.jpeg", "c.png", "d.jpeg"]
    assert [(row["class"], bool(row["probability"]), bool(row["error"])) for row in rows] == [
        ("", False, True),
        ("PNEUMONIA", True, False),
        ("", False, True),
        ("", False, True),
    ]
    assert "empty (0 bytes)" in rows[0]["error"] and "neither JPEG, PNG" in rows[2]["error"]
    assert all(str(mixed) in row["error"] for row in rows if row["error"])


@pytest.mark.parametrize(("name", "flag"), [("a.jpeg", "--grad-cam"), ("d.jpeg", "--json")])
def test_a_bad_file_alone_ends_in_one_line(predict, mixed, tmp_path, name, flag):
    ended = predict(mixed / name, flag)
    assert (ended.code, ended.out) == (2, "") and ended.err.count("\n") == 1
    assert ended.err.startswith(f"error: {mixed / name}: ")
    assert not (tmp_path / "out").exists()


def test_each_file_is_read_and_computed_once_also_where_grad_cam_is_drawn(predict, held_out, tmp_path, monkeypatch):
    """The files are gone once their probabilities are known; the pictures are drawn all the same."""
    folder, passes = tmp_path / "going", []
    shutil.copytree(held_out / "PNEUMONIA", folder)
    predict_batch = Classifier.predict

    def then_remove(self, squares, run, **choice):
        passes.append(len(squares))
        if sum(passes) == 12:
            shutil.rmtree(folder)
        return predict_batch(self, squares, run, **choice)

    monkeypatch.setattr(Classifier, "predict", then_remove)
    ended = predict(folder, "--grad-cam")
    assert ended.code == 0, ended.err
    assert passes == [8, 4] and len(written(tmp_path)) == 13 and not folder.exists()


def test_pixels_that_only_the_picture_needs_may_be_unreadable(predict, image_file, tmp_path, monkeypatch):
    """A damaged JPEG may still decode at half its size."""

    def fail(radiograph):
        raise reading.UnreadableImage(f"{radiograph.path}: damaged")

    shutil.copy(image_file, tmp_path / "other.jpeg")
    monkeypatch.setattr(reading.Radiograph, "whole", fail)
    ended = predict(image_file, tmp_path / "other.jpeg", "--grad-cam")
    assert ended.code == 1
    assert [(row["probability"], row["error"].rpartition(": ")[2]) for row in table(tmp_path)] == [("", "damaged")] * 2


# ------------------------------------------------------------------------------------------------------------ wording


def output(threshold=0.4):
    return Output(Path("m.pth"), SimpleNamespace(threshold=threshold, provenance=None, grad_cam_scale=1.0), Path())


def predicted(probability, **values):
    return Prediction(Path("chest.jpeg"), probability=probability, **values)


def test_a_probability_at_the_threshold_is_pneumonia():
    labels = [output().label(predicted(probability)) for probability in (0.3999, 0.4, 0.4001, None)]
    assert labels == ["NORMAL", "PNEUMONIA", "PNEUMONIA", ""]


# ---------------------------------------------------------------------------------------------- out of distribution


@pytest.fixture
def noise(tmp_path):
    """An image that is no chest, not even a tiny one."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)).save(path)
    return path


def test_an_out_of_distribution_image_can_be_refused(predict, image_file, noise, tmp_path):
    ended = predict(noise, image_file, "--refuse-ood", "--grad-cam")
    first, second = table(tmp_path)
    assert ended.code == 0 and "(1 refused), 0 not readable" in ended.out
    assert (first["probability"], first["class"], first["out_of_distribution"], first["error"]) == ("", "", "yes", "")
    assert second["class"] == "PNEUMONIA" and written(tmp_path) == [
        "classification.csv",
        f"{image_file.stem}_grad_cam.png",
    ]
    ended = predict(noise, "--refuse-ood")
    assert ended.code == 0 and ended.out.startswith(f"{noise}: no prediction, out of distribution\n")


# --------------------------------------------------------------------------------------------------------------- stops


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (cli.Terminated, 143)])
def test_an_interrupted_prediction_keeps_finished_batches(predict, held_out, tmp_path, monkeypatch, stop, code):
    monkeypatch.setattr(predict_classification, "_BATCH", 5)
    predict_batch, seen = Classifier.predict, []

    def then_stop(self, squares, run, **choice):
        seen.append(len(squares))
        if len(seen) == 3:
            raise stop
        return predict_batch(self, squares, run, **choice)

    monkeypatch.setattr(Classifier, "predict", then_stop)
    ended = predict(held_out)
    kept = tmp_path / "out" / "classification.csv"
    assert ended.code == code and lines_of(ended.err)[-1].endswith(
        f": 10 of 24 files were predicted; {kept} holds them"
    )
    assert [row["path"] for row in table(tmp_path)] == sorted(str(path) for path in held_out.rglob("*.jpeg"))[:10]


# -------------------------------------------------------------------------------------------------------- odd names


ODD = [
    "a b.jpeg",
    "흉부.jpeg",
    "=cmd().jpeg",
    "-1+1.jpeg",
    'quote",comma.jpeg',
    "per%cent$x_y^2.jpeg",
    f"{'x' * 245}.jpeg",
]
if os.name == "posix":
    ODD += ["line\nbreak.jpeg", "tab\tand\x1b[31m.jpeg", os.fsdecode(b"latin\xe9.jpeg"), "*.jpeg"]
