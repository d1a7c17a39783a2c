"""Evaluation of detectors and of boxes, and what it refuses."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny_detection
from evaluation_files import lines_of, without_progress, write_table
from tiny_detection import exam_id

from cxr import checkpoints
from pytorch_detection import box_tables, report
from pytorch_detection.evaluate_detection import main
from pytorch_detection.model import TASK
from pytorch_detection.predict_detection import main as predict
from pytorch_detection.rsna_dataset import Exam


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


# ----------------------------------------------------------------------------------------------------------- the report


def test_a_finished_model_on_trainings_own_folder_gives_trainings_report_bit_for_bit(finished, tmp_path, command):
    config = finished.config
    ended = command(main, "--data-dir", config.data_dir, "--model", config.model_file, "--output-dir", tmp_path)
    assert (ended.code, without_progress(ended.err)) == (0, "")
    before, found = json.loads((config.output_dir / "held_out_report.json").read_text()), report_of(tmp_path)
    assert {*found} - {*before} == {"model"}
    assert {name: found[name] for name in before} == before
    assert ended.out.split("report, errors.csv")[0].strip() in finished.printed
    assert (tmp_path / "errors.csv").read_bytes() == (config.output_dir / "errors.csv").read_bytes()
    pictures = {path.name: path.read_bytes() for path in config.images_dir.iterdir() if path.name != "loss_curve.png"}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == pictures
    assert {"froc.png", "precision_recall_detection.png", "detection_example.png", "subgroups.png"} <= {*pictures}


def others(folder):
    """A table of exams that the model of ``finished`` was not trained on: of 12 patients, sizes mixed, with site and patient."""
    rows = []
    for number in range(60, 84):
        image, boxes = tiny_detection.chest(number)
        times = 1 + number % 2  # every second image is twice as large
        name = f"{exam_id(number)}.dcm"
        tiny_detection.write_dicom(folder / name, np.kron(image, np.ones((times, times), np.uint8)))
        about = {"patient": f"p{number // 2}", "site": "AB"[number % 3 == 0], "age": number}
        for box in boxes or [("",) * 4]:
            sides = [side * times if side != "" else "" for side in box]
            rows.append({"path": name, **dict(zip(("x", "y", "width", "height"), sides, strict=True)), **about})
    return rows


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    return write_table(folder / "boxes.csv", others(folder))


def test_a_table_with_mixed_sizes_gives_results_by_patient_and_for_its_columns(
    finished, clinic, tmp_path, command, without_pictures
):
    model = finished.config.model_file
    ended = command(main, "--table", clinic, "--model", model, "--output-dir", tmp_path)
    assert ended.code == 0 and "warning" not in ended.err, ended.err
    found = report_of(tmp_path)
    assert (found["all"]["images"], found["all"]["patients"], found["all"]["images_with_opacity"]) == (24, 12, 12)
    assert {"site A", "site B", "age 65 and over"} <= {*found["subgroups"]}
    assert found["subgroups"]["site B"]["images"] == 8 and "site B" in ended.out
    assert found["all"]["scores"]["image_auc"]["value"] > 0.8 and "trained on" in ended.out


def test_predicted_boxes_from_a_file_are_evaluated_as_the_models_own(
    finished, clinic, tmp_path, command, without_pictures
):
    """Predicted in original pixels, rounded to a tenth, and read again."""
    model, images = finished.config.model_file, clinic.parent
    assert command(main, "--table", clinic, "--model", model, "--output-dir", tmp_path / "model").code == 0
    asked = ("--model", model, "--output-dir", tmp_path, "--no-pictures", "--threshold", "0")
    submission = tmp_path / "submission.csv"
    assert command(predict, *sorted(images.glob("*.dcm")), *asked, "--submission", submission).code == 0
    one = report_of(tmp_path / "model")["all"]
    for name, path in (("table", tmp_path / "detection.csv"), ("submission", submission)):
        options = ("--threshold", one["threshold"], "--output-dir", tmp_path / name)
        ended = command(main, "--table", clinic, "--predictions", path, *options)
        assert ended.code == 0 and f"predictions: {path}; boxes with scores from 0." in ended.out, ended.err
        other = report_of(tmp_path / name)["all"]
        for score, value in one["scores"].items():
            found = other["scores"][score]["value"]
            assert (found is None) == (value["value"] is None), score
            assert found is None or found == pytest.approx(value["value"], abs=0.02), score


def test_perfect_boxes_score_1_and_all_of_them_count_without_a_threshold(clinic, tmp_path, command, without_pictures):
    rows = [
        {name: row[name] for name in ("path", "x", "y", "width", "height")} | {"score": row["x"] and 0.3 + number / 100}
        for number, row in enumerate(lines_of(clinic))
    ]
    perfect = write_table(tmp_path / "perfect.csv", rows)
    assert command(main, "--table", clinic, "--predictions", perfect, "--output-dir", tmp_path).code == 0
    found = report_of(tmp_path)["all"]
    for name in ("rsna_score", "ap50", "ap", "image_auc", "box_precision", "box_sensitivity", "image_specificity"):
        assert found["scores"][name]["value"] == 1, name
    assert found["threshold"] == min(row["score"] for row in rows if row["score"])
    assert lines_of(tmp_path / "errors.csv") == []


# --------------------------------------------------------------------------------------------------------------- errors


def test_errors_are_false_boxes_and_missed_ones_the_most_confident_first(tmp_path, monkeypatch):
    true = ((0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0))
    exams = [
        Exam("a", tmp_path / "a.dcm", true, "Lung Opacity", "p", 1, "F", "AP"),
        Exam("b", tmp_path / "b.dcm", (), "Normal", "q", 1, "F", "AP"),
    ]
    boxes = [
        np.array([[0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 59]], float),
        np.array([[1, 1, 5, 5], [2, 2, 5, 5]], float),
    ]
    scores = [np.array([0.9, 0.6, 0.3]), np.array([0.95, 0.2])]
    paths, columns = [exam.path for exam in exams], {"site": ["X", "Y"]}
    evaluated = report.EvaluatedExams("a", paths, ["p", "q"], columns, None, 0.5, {}, exams, boxes, scores)
    found = report.errors(evaluated)
    assert [(error.exam, error.kind, error.box, error.score) for error in found] == [
        (1, "false", (1, 1, 5, 5), 0.95),
        (0, "missed", true[1], 0.3),
        (0, "false", (0, 0, 10, 8), 0.6),
    ]
    monkeypatch.setattr(report, "draw", lambda *_: None)
    report.write({}, tmp_path / "report.json", tmp_path, evaluated)
    first, second, _ = lines_of(tmp_path / "errors.csv")
    assert (first["error"], first["width"], first["patient"], first["site"]) == ("false box", "4.0", "q", "Y")
    assert (second["error"], second["x"], second["score"]) == ("missed box", "50.0", "0.300000")


# ----------------------------------------------------------------------------------------------------- what is refused


def bad(finished, clinic, folder):
    """What a user may get wrong -> arguments, and what the one line says."""
    model, data = ("--model", finished.config.model_file), ("--data-dir", finished.config.data_dir)
    unknown = write_table(folder / "unknown.csv", [{"patientId": "nobody", "PredictionString": ""}])
    return {
        "no source": (model, "one of --data-dir and --table"),
        "two sources": ((*data, "--table", clinic), "one of --data-dir and --table"),
        "model and predictions": ((*data, *model, "--predictions", unknown), "give one of --predictions and --model"),
        "no model": ((*data, "--model", folder / "none.pth"), "no model at .*none.pth"),
        "no table": (("--table", folder / "none.csv", *model), "no file .*none.csv"),
        "no folder": (("--data-dir", folder / "none", *model), "no folder .*none; expected a data folder"),
    }


def test_mistakes_are_one_line_and_exit_code_2(finished, clinic, tmp_path, command):
    for name, (arguments, message) in bad(finished, clinic, tmp_path).items():
        ended = command(main, *arguments, "--output-dir", tmp_path / "out")
        lines = [line for line in without_progress(ended.err).splitlines() if line.startswith("error: ")]
        assert ended.code == 2 and len(lines) == 1 and re.search(message, lines[0]), (name, ended.err)
        assert "Traceback" not in ended.err and not (tmp_path / "out" / "report.json").exists(), name


# ----------------------------------------------------------------------------------------------------- training on both


def test_training_learns_from_a_table_and_ends_with_the_same_report(finished, folder, capsys):
    config = replace(finished.config, epochs=1, output_dir=folder / "a", model_file=folder / "a.pth")
    data = box_tables.load(
        finished.config.data_dir, None, 64, folder / "store", skip_bad=False, allow_missing=False, progress=False
    )
    rows = [
        dict(zip(("path", "x", "y", "width", "height", "patient"), (exam.path, *box, exam.patient), strict=True))
        for exam in data.exams
        for box in [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in exam.boxes_xyxy] or [("",) * 4]
    ]
    table = write_table(folder / "boxes.csv", rows)
    tiny_detection.train(replace(config, table=table))
    printed = capsys.readouterr().out
    assert "train: 40 exams of 20 patients, 20 with opacity (32 boxes)" in printed
    state = checkpoints.load(folder / "a.pth", task=TASK)
    assert state["trained_on"]["images"] == 40
    whole = json.loads((folder / "a" / "held_out_report.json").read_text())
    assert whole["set"] == str(table) and whole["all"]["images"] == 4
    assert {path.name for path in (folder / "a" / "images").glob("*.png")} >= {"froc.png", "loss_curve.png"}
