import csv
import json
import math
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_detection import write_dicom

from cxr import checkpoints, cli, metrics, reading
from pytorch_classification import predict_classification as prediction
from pytorch_classification.classifier import Classifier
from pytorch_classification.model import TASK
from pytorch_classification.predict_classification import Answer

COLUMNS = ["path", "probability", "class", "threshold", "borderline", "out_of_distribution", "note", "error", "model"]
SENTENCE = r"(?P<path>.+): (?P<class>NORMAL|PNEUMONIA), probability of PNEUMONIA (?P<probability>[01]\.\d{3}) \(operating point (?P<threshold>0\.\d{3})"


@pytest.fixture
def predict(trained, tmp_path, command):
    """Runs the script on the trained model; what it writes goes to ``tmp_path / "out"``."""

    def run(*arguments, model=trained.config.model_file):
        words = ["--model", model, "--output-dir", tmp_path / "out", "--device", "cpu", "--image", *arguments]
        return command(prediction.main, *words)

    return run


@pytest.fixture
def held_out(trained):
    """The folder of test images."""
    return trained.config.data_dir / "test"


@pytest.fixture
def film(held_out):
    """One test image that shows PNEUMONIA."""
    return sorted((held_out / "PNEUMONIA").iterdir())[0]


@pytest.fixture
def threshold(trained):
    return checkpoints.load(trained.config.model_file, task=TASK)["prediction"]["threshold"]


def table(tmp_path):
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == COLUMNS
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def lines_of(text):
    """Without what a progress bar has drawn and taken away again."""
    return [line for line in text.replace("\r", "\n").splitlines() if line.strip() and "image/s" not in line]


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").rglob("*"))


# ----------------------------------------------------------------------------------------------------------- one image


def test_one_image_gives_a_sentence_and_a_picture(predict, film, tmp_path, threshold, trained, processor):
    ended = predict(film)
    sentence, picture, model = ended.out.splitlines()
    found = re.match(SENTENCE, sentence)
    square = reading.read(film).square(36)
    (expected,) = Classifier.load(trained.config.model_file, processor).probabilities(square[None], processor)
    assert ended.code == 0 and ended.err == "" and found["path"] == str(film)
    assert found["class"] == "PNEUMONIA" and float(found["probability"]) == pytest.approx(expected, abs=6e-4)
    assert float(found["threshold"]) == pytest.approx(threshold, abs=6e-4)
    assert picture == f"picture: {tmp_path / 'out' / (film.stem + '_grad_cam.png')}"
    assert model.startswith("model: model.pth, trained on 52 images of 26 patients (chest_xray), 20")
    assert model.endswith(f"operating point {threshold:.3f}; research only, not a medical device")
    assert written(tmp_path) == [f"{film.stem}_grad_cam.png"]
    with Image.open(tmp_path / "out" / written(tmp_path)[0]) as drawn:
        assert min(drawn.size) > 300 and len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_without_a_picture_nothing_is_written(predict, film, tmp_path):
    ended = predict(film, "--no-grad-cam")
    assert ended.code == 0 and len(ended.out.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_one_image_for_machines(predict, film, trained, threshold):
    ended = predict(film, "--json", "--no-grad-cam")
    found = json.loads(ended.out)
    assert ended.code == 0 and ended.err == ""
    assert (found["model"], found["operating_point"]) == (str(trained.config.model_file), threshold)
    assert found["origin"]["use"] == "research only, not a medical device"
    assert found["origin"]["validation"]["val images"] == 16
    (image,) = found["images"]
    flags = {"borderline", "out_of_distribution", "note"}
    assert image.keys() == {"path", "probability", "class", "picture", "error"} | flags
    assert (image["path"], image["class"], image["picture"], image["error"]) == (str(film), "PNEUMONIA", None, None)
    assert 0.5 < image["probability"] < 1


def test_another_threshold_makes_other_classes_and_is_told(predict, held_out, film, tmp_path):
    ended = predict(held_out, "--threshold", "0.999")
    assert ended.code == 0 and "; operating point set by --threshold; " in ended.out
    rows = table(tmp_path)
    assert {row["threshold"] for row in rows} == {"0.999000"}
    assert all((float(row["probability"]) >= 0.999) == (row["class"] == "PNEUMONIA") for row in rows)
    assert all(row["model"].endswith("operating point set by --threshold") for row in rows)
    found = json.loads(predict(film, "--threshold", "0.001", "--json", "--no-grad-cam").out)
    assert found["operating_point"] == 0.001 and found["images"][0]["class"] == "PNEUMONIA"
    assert not any(name.endswith(("sensitivity", "specificity")) for name in found["origin"]["validation"])


# --------------------------------------------------------------------------------------------------------- many images


def test_a_folder_gives_a_table_that_agrees_with_the_report(predict, held_out, trained, tmp_path, threshold):
    ended = predict(held_out)
    rows = table(tmp_path)
    assert ended.code == 0 and written(tmp_path) == ["predictions.csv"]
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
    assert shown == sorted((round(p, 3) for p in probabilities), reverse=True)[:20]  # the most suspicious first
    assert counts.startswith(f"24 files: {(~called).sum()} NORMAL, {called.sum()} PNEUMONIA (")
    assert counts.endswith("0 not readable") and where == f"table: {tmp_path / 'out' / 'predictions.csv'}"
    assert {f"model: {row['model']}" for row in rows} == {model.split(";")[0]}
    assert {row["threshold"] for row in rows} == {f"{threshold:.6f}"}
    assert {row["borderline"] for row in rows} <= {"yes", "no"} >= {row["out_of_distribution"] for row in rows}


def test_a_file_has_the_same_answer_alone_among_many_and_in_any_order(predict, trained, film):
    def answers(*arguments):
        images = json.loads(predict(*arguments, "--json", "--no-grad-cam").out)["images"]
        return {image["path"]: image["probability"] for image in images}

    train = trained.config.data_dir / "train"  # more than one batch
    files = sorted(train.rglob("*.jpeg"))
    folder, backwards = answers(train), answers(*reversed(files))
    assert len(folder) == 64 and list(backwards) == [str(path) for path in reversed(files)]
    globbed = answers(str(train / "**" / "*.jpeg"))
    alone = answers(files[40])
    for other in (backwards, globbed, alone):
        assert all(abs(probability - folder[path]) < 1e-4 for path, probability in other.items())
    assert globbed.keys() == folder.keys()
    assert list(answers(film, film)) == [str(film)]  # named twice, answered once


def test_pictures_of_many_images_are_drawn_when_asked_and_do_not_overwrite_each_other(predict, held_out, tmp_path):
    source = sorted((held_out / "NORMAL").iterdir())[:2]
    for name, path in zip(("a", "b"), source, strict=True):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "chest.jpeg")
    ended = predict(tmp_path / "a", tmp_path / "b", "--grad-cam", "--json")
    assert written(tmp_path) == ["chest-2_grad_cam.png", "chest_grad_cam.png", "predictions.csv"]
    pictures = [image["picture"] for image in json.loads(ended.out)["images"]]
    assert pictures == [str(tmp_path / "out" / name) for name in ("chest_grad_cam.png", "chest-2_grad_cam.png")]


def save_dicom(grey, path):
    write_dicom(path, 255 - grey, PhotometricInterpretation="MONOCHROME1")


def test_formats_of_the_same_pixels_have_the_same_answer(predict, film, tmp_path):
    grey = reading.read(film).whole()
    Image.fromarray(grey).save(tmp_path / "chest.png")
    Image.fromarray(grey).save(tmp_path / "chest.tiff")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "chest16.png")
    save_dicom(grey, tmp_path / "chest.dcm")
    ended = predict(*sorted(tmp_path.glob("chest*")), "--json")
    found = [image["probability"] for image in json.loads(ended.out)["images"]]
    assert len(found) == 4 and max(found) - min(found) < 1e-4


# -------------------------------------------------------------------------------------------------------------- DICOM


def test_a_dicom_file_gets_a_report_and_its_picture_for_a_pacs(predict, film, tmp_path, threshold):
    from highdicom.sr import srread
    from pydicom import dcmread

    save_dicom(reading.read(film).whole(), tmp_path / "chest.dcm")
    ended = predict(tmp_path / "chest.dcm", film, "--dicom-output", tmp_path / "pacs")
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


def test_what_dicom_output_lacks_is_said_before_anything_is_predicted(predict, film, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    ended = predict(film, "--dicom-output", tmp_path / "pacs")
    message = "error: DICOM output needs highdicom, which is not installed: pip install highdicom"
    assert (ended.code, ended.out, ended.err.splitlines()) == (2, "", [message])


# ----------------------------------------------------------------------------------------------------------- bad files


@pytest.fixture
def mixed(film, tmp_path):
    """A folder of a good file between bad ones."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jpeg").write_bytes(b"")
    shutil.copy(film, folder / "b.jpeg")
    (folder / "c.png").write_bytes(b"only a text")
    (folder / "d.jpeg").write_bytes(film.read_bytes()[:200])
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


@pytest.fixture
def going(film, tmp_path, monkeypatch):
    """A folder of which three files are gone, damaged or of another size once their answers are known."""
    folder = tmp_path / "going"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        shutil.copy(film, folder / f"{name}.jpeg")
    judge = Classifier.predict

    def then_go(self, squares, run, **choice):
        found = judge(self, squares, run, **choice)
        if choice:
            return found
        (folder / "a.jpeg").unlink()
        (folder / "b.jpeg").write_bytes(b"only a text")
        Image.new("L", (99, 99)).save(folder / "c.jpeg")
        return found

    monkeypatch.setattr(Classifier, "predict", then_go)
    return folder


def test_a_file_that_goes_before_its_picture_is_drawn_does_not_stop_the_others(predict, going, tmp_path):
    ended = predict(going, "--grad-cam")
    rows = table(tmp_path)
    assert ended.code == 1 and "4 files: 0 NORMAL, 1 PNEUMONIA" in ended.out and "3 not readable" in ended.out
    assert [(row["class"], row["probability"]) for row in rows[:3]] == [("", "")] * 3
    assert rows[0]["error"] == f"{going / 'a.jpeg'}: no such file"
    assert rows[1]["error"].startswith(f"{going / 'b.jpeg'}: neither JPEG")
    assert rows[2]["error"] == f"{going / 'c.jpeg'}: changed while its answer was worked out"
    assert rows[3]["class"] == "PNEUMONIA" and written(tmp_path) == ["d_grad_cam.png", "predictions.csv"]


def test_a_missing_image_is_named_in_full(predict, tmp_path, monkeypatch, film):
    monkeypatch.chdir(tmp_path)
    for arguments in (["none.jpeg"], [film, "none.jpeg"], ["no*.jpeg"]):
        ended = predict(*arguments)
        assert (ended.code, ended.out) == (2, "") and ended.err.startswith(f"error: {tmp_path / Path(arguments[-1])}: ")
    (tmp_path / "empty").mkdir()
    ended = predict("empty")
    assert ended.code == 2 and "holds no images" in ended.err and not (tmp_path / "out").exists()


def test_a_missing_model_tells_how_to_get_one(predict, film, tmp_path):
    ended = predict(film, model=tmp_path / "none.pth")
    assert (ended.code, ended.out) == (2, "") and ended.err.count("\n") == 1
    assert ended.err.startswith(
        f"error: no model at {tmp_path / 'none.pth'}; train one with `python pytorch_classification/"
    )
    assert "the path of another" in ended.err and not (tmp_path / "out").exists()


def test_a_file_that_is_no_finished_model_ends_in_one_line(predict, film, trained, tmp_path):
    torch.save({"format": 1, "task": "detection"}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("weights")
    for model, message in (
        (trained.config.output_dir / "last.pth", "a training checkpoint, not a finished model"),
        (tmp_path / "other.pth", "of the task 'detection', expected 'classification'"),
        (tmp_path / "text.pth", "text.pth: "),
        (tmp_path, str(tmp_path)),
    ):
        ended = predict(film, model=model)
        assert (ended.code, ended.out) == (2, "") and ended.err.count("\n") == 1 and message in ended.err


# ------------------------------------------------------------------------------------------------------------ wording


def answer(probability, threshold=0.4, error=""):
    return Answer(Path("chest.jpeg"), probability, threshold, error, None)


def test_the_operating_point_itself_is_pneumonia():
    assert [answer(p).label for p in (0.3999, 0.4, 0.4001)] == ["NORMAL", "PNEUMONIA", "PNEUMONIA"]
    assert answer(None, error="bad").label == ""


@pytest.mark.parametrize(("factor", "near"), [(0.45, False), (0.55, True), (1.0, True), (1.9, True), (2.1, False)])
def test_borderline_is_within_a_factor_of_two_of_the_odds(factor, near):
    odds = factor * 0.4 / 0.6
    found = answer(odds / (1 + odds))
    assert found.borderline is near and ("borderline" in found.sentence()) is near
    assert found.record()["borderline"] is near and found.row("")[4] == ("yes" if near else "no")


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_certainty_is_no_error(probability, threshold):
    found = answer(probability, threshold)
    assert found.borderline is (probability == threshold) and found.label and math.isfinite(float(found.row("")[1]))


def test_a_sentence_names_the_class_the_probability_and_the_operating_point():
    assert answer(0.9).sentence() == "chest.jpeg: PNEUMONIA, probability of PNEUMONIA 0.900 (operating point 0.400)"
    assert answer(0.35).sentence() == (
        "chest.jpeg: NORMAL, probability of PNEUMONIA 0.350 (operating point 0.400); borderline, near the operating "
        "point: treat as undecided"
    )
    assert (
        replace(answer(0.9), unlike=True, note="a lateral view")
        .sentence()
        .endswith("; unlike the images this model was trained on: the answer means little; a lateral view")
    )


# --------------------------------------------------------------------------------------------------- unlike training


@pytest.fixture
def noise(tmp_path):
    """An image that is no chest, not even a tiny one."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)).save(path)
    return path


def test_an_image_unlike_those_of_training_is_said_to_be_so(predict, film, noise, tmp_path):
    ended = predict(noise, "--no-grad-cam")
    assert ended.code == 0 and "; unlike the images this model was trained on: the answer means little" in ended.out
    ended = predict(noise, film)
    assert "1 unlike training's images" in ended.out
    assert [row["out_of_distribution"] for row in table(tmp_path)] == ["yes", "no"]
    assert all(row["probability"] for row in table(tmp_path))


def test_an_unlike_image_can_be_refused(predict, film, noise, tmp_path):
    ended = predict(noise, film, "--refuse-ood", "--grad-cam")
    first, second = table(tmp_path)
    assert ended.code == 0 and "(1 refused), 0 not readable" in ended.out
    assert (first["probability"], first["class"], first["out_of_distribution"], first["error"]) == ("", "", "yes", "")
    assert second["class"] == "PNEUMONIA" and written(tmp_path) == [f"{film.stem}_grad_cam.png", "predictions.csv"]
    ended = predict(noise, "--refuse-ood")
    assert ended.code == 0 and ended.out.startswith(f"{noise}: no answer, unlike the images this model was trained on")


def test_an_older_model_file_says_once_that_it_cannot_tell(predict, trained, held_out, noise, tmp_path):
    state = checkpoints.load(trained.config.model_file, task=TASK)
    for name in ("likeness", "heat_scale", "trained_on", "task", "format"):
        del state[name]
    checkpoints.save(tmp_path / "older.pth", task=TASK, **state)
    with pytest.warns(UserWarning, match="cannot flag out-of-distribution images") as warned:
        ended = predict(noise, held_out, model=tmp_path / "older.pth")
    assert len(warned) == 1 and ended.code == 0 and {row["out_of_distribution"] for row in table(tmp_path)} == {""}
    assert "model: older.pth, trained on images that the model file does not state" in ended.out


# --------------------------------------------------------------------------------------------------------------- stops


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (cli.Terminated, 143)])
def test_a_stopped_prediction_keeps_what_was_answered_and_says_where(
    predict, held_out, tmp_path, monkeypatch, stop, code
):
    monkeypatch.setattr(prediction, "_BATCH", 5)
    judge, seen = Classifier.predict, []

    def then_stop(self, squares, run):
        seen.append(len(squares))
        if len(seen) == 3:
            raise stop
        return judge(self, squares, run)

    monkeypatch.setattr(Classifier, "predict", then_stop)
    ended = predict(held_out)
    kept = tmp_path / "out" / "predictions.csv"
    assert ended.code == code and lines_of(ended.err)[-1].endswith(f": 10 of 24 files were answered; {kept} holds them")
    assert [row["path"] for row in table(tmp_path)] == sorted(str(path) for path in held_out.rglob("*.jpeg"))[:10]


def test_a_prediction_stopped_at_once_says_that_there_is_nothing(predict, held_out, tmp_path, monkeypatch):
    def stop(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "predict", stop)
    ended = predict(held_out)
    assert ended.code == 130 and lines_of(ended.err)[-1] == ("interrupted: no image was answered, and no table written")
    assert not (tmp_path / "out").exists()


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


def test_odd_file_names_reach_table_and_pictures_harmlessly(predict, film, tmp_path, monkeypatch):
    folder = tmp_path / "odd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ODD:
        shutil.copy(film, folder / name)
    ended = predict(*ODD[:3], *(f"./{name}" for name in ODD[3:]), "--grad-cam")
    rows = table(tmp_path)
    assert ended.code == 0 and len(rows) == len(ODD) and all(row["class"] == "PNEUMONIA" for row in rows)
    assert not any("\n" in row["path"] for row in rows)
    assert [row["path"] for row in rows[:3]] == ["a b.jpeg", "흉부.jpeg", "=cmd().jpeg"]
    assert len(written(tmp_path)) == len(ODD) + 1 and all(name.isprintable() for name in written(tmp_path))
    found = json.loads(predict(*(f"./{name}" for name in ODD), "--json", "--no-grad-cam").out)["images"]
    assert [Path(image["path"]).name for image in found] == ODD
