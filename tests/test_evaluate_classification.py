"""Evaluation on labelled images, its operating points and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_files import lines_of, without_progress, write_table
from tiny_classification import write_chest_xray

from cxr import checkpoints
from pytorch_classification import operating_point
from pytorch_classification.augment import CORRUPTIONS
from pytorch_classification.evaluate_classification import main
from pytorch_classification.model import TASK
from pytorch_classification.predict_classification import main as predict


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Images that the model of ``trained`` was not trained on: 44 of each class, each of another patient."""
    folder = write_chest_xray(tmp_path_factory.mktemp("others"), {"train": 46, "test": 44})
    shutil.rmtree(folder / "train")
    return folder / "test"


def rows_of(folder):
    """path and label of each image of ``folder``."""
    return [{"path": str(path), "label": path.parent.name} for path in sorted(folder.glob("*/*"))]


# ----------------------------------------------------------------------------------------------------------- the report


def test_a_finished_model_on_trainings_own_test_folder_gives_trainings_report_bit_for_bit(trained, tmp_path, command):
    config = trained.config
    ended = command(
        main, "--data-dir", config.data_dir / "test", "--model", config.model_file, "--output-dir", tmp_path
    )
    assert (ended.code, without_progress(ended.err)) == (0, "")
    before = json.loads((config.output_dir / "test_report.json").read_text())
    found = json.loads((tmp_path / "report.json").read_text())
    assert {*before} - {*found} == {"validation"} and {*found} - {*before} == {"model"}
    del before["validation"], found["model"]
    assert found == before
    assert ended.out.split("report, errors.csv")[0].strip() in trained.printed
    assert (tmp_path / "errors.csv").read_bytes() == (config.output_dir / "errors.csv").read_bytes()
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == sorted({path.name for path in config.images_dir.iterdir()} - {"loss_curve_classification.png"})
    for name in pictures:
        assert (tmp_path / name).read_bytes() == (config.images_dir / name).read_bytes(), name


def test_a_table_gives_results_by_patient_and_for_each_value_of_its_columns(
    trained, others, tmp_path, command, without_pictures
):
    """Half of the images come from a site whose labels are all wrong."""
    rows = rows_of(others)
    for number, row in enumerate(rows):
        wrong = number % 2
        row["label"] = {"NORMAL": "well", "PNEUMONIA": "ill"}[row["label"]]
        if wrong:
            row["label"] = {"well": "ill", "ill": "well"}[row["label"]]
        row |= {"patient": f"p{number // 4}", "site": "BA"[wrong], "age": 3 if number < 80 else 50}
    table = write_table(tmp_path / "labels.csv", rows)
    names = ("--normal", "well", "--pneumonia", "ill")
    ended = command(
        main, "--table", table, "--model", trained.config.model_file, "--output-dir", tmp_path / "out", *names
    )
    assert ended.code == 0 and "warning" not in ended.err
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["scores"]["images"], found["scores"]["patients"]) == (88, 22)
    assert found["patients_of_both_classes"] == 22 and "patients with images of both classes: 22" in ended.out
    groups = found["subgroups"]
    known = ["site A", "site B", "age under 18", "age 40 to 64"]
    assert [name for name in groups if not name.startswith("out of distribution")] == known
    aucs = [groups[name]["scores"]["roc_auc"]["value"] for name in known[:2]]
    assert aucs[0] < 0.1 and aucs[1] > 0.9
    assert groups["site A"]["images"] == groups["site B"]["images"] == 44
    assert groups["age 40 to 64"]["images"] == 8
    assert "site A" in ended.out and "subgroups" not in ended.err
    errors = lines_of(tmp_path / "out" / "errors.csv")
    (tn, fp), (fn, tp) = found["scores"]["confusion_matrix"]
    assert len(errors) == fp + fn and tn + tp + fp + fn == 88
    assert {row["site"] for row in errors[:10]} == {"A"} and errors[0]["patient"].startswith("p")
    odds = [abs(np.log(float(row["probability"]) / (1 - float(row["probability"])))) for row in errors]
    assert odds[0] == max(odds[:5]) and errors[0]["class"] != errors[0]["predicted"]


def test_a_table_with_splits_is_evaluated_on_its_test_rows(trained, others, tmp_path, command, without_pictures):
    rows = [{**row, "split": ("train", "test")[number % 2]} for number, row in enumerate(rows_of(others))]
    table = write_table(tmp_path / "labels.csv", rows)
    ended = command(main, "--table", table, "--model", trained.config.model_file, "--output-dir", tmp_path / "out")
    assert ended.code == 0 and "\n44 images, 44 patients;" in f"\n{ended.out}"


def test_images_that_the_model_was_trained_on_are_left_out(trained, others, tmp_path, command, without_pictures):
    data = shutil.copytree(others, tmp_path / "mine")
    for name in ("NORMAL", "PNEUMONIA"):
        first = min((trained.config.data_dir / "train" / name).iterdir())
        shutil.copy(first, data / name / first.name)
    words = ("--data-dir", data, "--model", trained.config.model_file, "--output-dir", tmp_path / "out")
    with pytest.warns(UserWarning, match=r"^2 images that the model was trained on are left out$"):
        assert command(main, *words).code == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["left_out"] == {"unreadable": 0, "in_training": 2} and found["scores"]["images"] == 88


def test_images_that_cannot_be_read_stop_the_evaluation_or_are_left_out_and_counted(
    trained, others, tmp_path, command, without_pictures
):
    data = shutil.copytree(others, tmp_path / "mine")
    (data / "NORMAL" / "IM-0900-0001.jpeg").write_bytes(b"text")
    words = ("--data-dir", data, "--model", trained.config.model_file, "--output-dir", tmp_path / "out")
    ended = command(main, *words)
    assert (ended.code, ended.out) == (2, "")
    assert without_progress(ended.err).startswith(f"error: 1 of 89 images cannot be read: {data}/NORMAL/IM-0900-0001")
    ended = command(main, *words, "--skip-bad")
    assert ended.code == 0 and "left out, unreadable: 1" in ended.out and "88 images, 44 patients;" in ended.out


def test_corrupted_images_are_evaluated_as_the_images_are(trained, tmp_path, command):
    words = ("--data-dir", trained.config.data_dir / "test", "--model", trained.config.model_file)
    ended = command(main, *words, "--no-grad-cam", "--corruptions", "--output-dir", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    found = report["corruptions"]
    assert [*found] == ["none", *CORRUPTIONS] and {row["images"] for row in found.values()} == {24}
    for name in ("roc_auc", "sensitivity", "specificity"):
        assert found["none"]["scores"][name]["value"] == report["scores"]["scores"][name]["value"]
    assert (
        found["none"]["out_of_distribution"]
        == report["out_of_distribution"]
        < found["blur of 2 pixels"]["out_of_distribution"]
    )
    assert (
        re.search(r"^JPEG of quality 10 +24 +12 +12 +\d+ +\d\.\d{3} ", ended.out, re.MULTILINE)
        and (tmp_path / "corruptions.png").exists()
    )


# ------------------------------------------------------------------------------------------------- the operating point


def test_an_operating_point_set_by_labels_is_stored_and_stated_with_each_prediction(
    trained, others, tmp_path, command, without_pictures
):
    model, image = tmp_path / "mine.pth", min((others / "NORMAL").iterdir())
    words = ("--data-dir", others, "--model", trained.config.model_file, "--output-dir", tmp_path / "out")
    ended = command(main, *words, "--set-sensitivity", "0.9", "--save-model", model)
    assert (ended.code, without_progress(ended.err)) == (0, "")
    found = json.loads((tmp_path / "out" / "report.json").read_text())["operating_point"]
    before, after = (checkpoints.load(path, task=TASK) for path in (trained.config.model_file, model))
    assert after["prediction"] == {
        **before["prediction"],
        "threshold": found["threshold"],
        "temperature": found["temperature"],
    }
    assert after["adapted"]["before"]["prediction"] == before["prediction"]
    assert found["cross_fitted"]["scores"]["sensitivity"]["value"] == pytest.approx(
        after["validation"]["test, cross-fitted"]["sensitivity"]
    )
    text = "operating point set for sensitivity 0.9 on 88 labelled images of 44 patients (test), "
    prediction = command(predict, image, "--model", model, "--no-grad-cam", "--output-dir", tmp_path / "one")
    assert (
        text in ended.out and text in prediction.out and "; test, cross-fitted (88 images): ROC AUC " in prediction.out
    )
    prediction = command(predict, image, "--model", model, "--json", "--no-grad-cam", "--output-dir", tmp_path / "one")
    assert json.loads(prediction.out)["provenance"]["adapted"].startswith(text)
    again = command(main, *words[:2], "--model", model, *words[4:], "--set-sensitivity", "0.9", "--save-model", "b.pth")
    assert again.code == 2 and "was already changed; start from the model that training wrote" in again.err


def test_an_operating_point_set_without_labels_is_stated_with_each_prediction(trained, others, tmp_path, command):
    mixed = tmp_path / "inbox"
    mixed.mkdir()
    for number, path in enumerate([*others.glob("*/*"), *(trained.config.data_dir / "test").glob("*/*")]):
        shutil.copy(path, mixed / f"{number}.jpeg")
    shutil.copy(mixed / "0.jpeg", mixed / "again.jpeg")
    model = tmp_path / "mine.pth"
    words = ("--model", trained.config.model_file, "--output-dir", tmp_path / "out", "--save-model", model)
    ended = command(main, "--unlabelled", mixed, "--prevalence", "0.25", *words)
    text = "operating point set without labels, for a prevalence of 0.25 among 112 images (inbox), "
    assert ended.code == 0 and text in ended.out
    before, after = (checkpoints.load(path, task=TASK) for path in (trained.config.model_file, model))
    assert after["prediction"]["threshold"] > before["prediction"]["threshold"]  # half of them show PNEUMONIA
    assert after["prediction"]["temperature"] == before["prediction"]["temperature"]
    assert "sensitivity" not in after["validation"]["val"] and "roc_auc" in after["validation"]["val"]
    predicted = command(predict, mixed, "--model", model, "--output-dir", tmp_path / "predicted")
    table = lines_of(tmp_path / "predicted" / "classification.csv")
    assert text in predicted.out and {row["model"].partition(" ")[0] for row in table} == {"mine.pth"}
    shares = operating_point.validation_rates(before, model)
    expected = 0.25 * shares[0] + 0.75 * (1 - shares[1])
    called = np.mean([row["class"] == "PNEUMONIA" for row in table])
    assert called == pytest.approx(expected, abs=0.02)


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].update(path="missing.png"), r"path names no file, the first is '.*missing.png' (line 3)"),
        (lambda rows: [row.pop("label") for row in rows], "no column label; found path"),
        (lambda rows: [row.update(label="NORMAL") for row in rows], "no image of label PNEUMONIA; both classes are"),
        (
            lambda rows: rows[2].update(label="COVID"),
            "label is none of NORMAL, PNEUMONIA; found 'COVID', 'NORMAL', 'PNEUMONIA'. Name yours with --normal "
            "and --pneumonia (line 4)",
        ),
        (lambda rows: rows[3].update(path=rows[0]["path"]), "duplicate image (line 5)"),
        (lambda rows: [row.update(split="rest") for row in rows], "split is none of train, val, test (lines 2, 3, 4"),
        (lambda rows: [row.update(split="train") for row in rows], "no image of label NORMAL and split test; both"),
    ],
    ids=[
        "unknown file",
        "no labels",
        "one class",
        "three labels",
        "a file twice",
        "a split of another name",
        "no test",
    ],
)
def test_a_bad_table_is_refused_in_one_line(trained, others, tmp_path, command, change, message):
    rows = rows_of(others)
    change(rows)
    table = write_table(tmp_path / "labels.csv", rows)
    ended = command(main, "--table", table, "--model", trained.config.model_file, "--output-dir", tmp_path / "out")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    pattern = ".*".join(map(re.escape, message.split(".*")))
    assert re.match(f"error: {re.escape(str(table))}: {pattern}", ended.err), ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected one of --data-dir, --table and --unlabelled"),
        (("--data-dir", "a", "--table", "b"), "expected one of --data-dir, --table and --unlabelled"),
        (
            ("--data-dir", "a", "--set-sensitivity", ".9", "--set-specificity", ".9", "--save-model", "b"),
            "--set-sensitivity and --set-specificity set the same operating point; give one of them",
        ),
        (("--data-dir", "a", "--set-sensitivity", ".9"), "--save-model goes with one of"),
        (("--data-dir", "a", "--save-model", "b"), "--save-model goes with one of"),
        (("--unlabelled", "a", "--save-model", "b"), "--unlabelled needs --prevalence"),
        (("--unlabelled", "a", "--prevalence", ".1"), "--save-model goes with one of"),
        (
            ("--data-dir", "a", "--set-sensitivity", ".9", "--save-model", "c", "--model", "c"),
            "--save-model c: would replace the model itself; give another file",
        ),
        (("--data-dir", "a", "--model", "none.pth"), f"no model at {Path('none.pth').resolve()}; train one with"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(command, words, message):
    ended = command(main, *words)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1) and ended.err.startswith(f"error: {message}")
