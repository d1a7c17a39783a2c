import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_detection

from cxr import patients
from pytorch_detection.box_metrics import match
from pytorch_detection.rsna_dataset import CLASSES
from pytorch_detection.settings import TrainConfig
from pytorch_detection.training_data import load_data
from studies import classification_recipe, detection_folds, out_of_fold
from studies.detection_folds import FoldsConfig, Job, fold_of, jobs_of, table
from studies.out_of_fold import COLUMNS, Answer, best_threshold, fused, rule_report, scores_of

EXAMS = 32
NONE = np.zeros((0, 4))
A, B = [10.0, 10, 30, 40], [40.0, 10, 60, 40]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    place = tmp_path_factory.mktemp("folds")
    data = tiny_detection.write_rsna(place / "dataset_det", EXAMS)
    return FoldsConfig(
        data_dir=data, output_dir=place / "out", size=64, epochs=1, folds=2, device="cpu", precision="fp32"
    )


@pytest.fixture(scope="module")
def exams(config, processor):
    return detection_folds.development(config, processor)


def job(**changes):
    return replace(Job("base", 0, 0, 3, TrainConfig()), **changes)


# ------------------------------------------------------------------------------------------------------------ exams


def test_held_out_exams_are_in_no_fold(config, exams, processor):
    documented = load_data(TrainConfig(data_dir=config.data_dir, output_dir=config.output_dir, size=64), processor)
    held_out = {documented.exams[row].exam_id for row in documented.held_out}
    known = {exams.exams[row].exam_id for row in exams.train}
    assert held_out and not known & held_out
    assert len(known) + len(held_out) == EXAMS


@pytest.mark.parametrize("seed", [0, 1])
def test_every_exam_is_scored_once_by_a_training_without_its_patient(exams, seed):
    scored = []
    for fold in range(3):
        data = fold_of(exams, job(seed=seed, fold=fold))
        learnt, judged = ({exam.patient for exam in data.of(part)} for part in (data.train, data.validation))
        assert not learnt & judged
        assert {exam.finding for exam in data.of(data.validation)} == {exam.finding for exam in exams.exams}
        scored += data.validation.tolist()
    assert sorted(scored) == exams.train.tolist()


def test_parts_of_the_exams_are_nested_and_judged_on_the_same_fold(exams):
    whole, half, quarter = (fold_of(exams, job(recipe=name)) for name in ("base", "half-exams", "quarter-exams"))
    assert set(quarter.train) < set(half.train) < set(whole.train)
    groups = [
        len(set(patients.tied([e.patient for e in data.of(data.train)], [data.hashes[i] for i in data.train])))
        for data in (whole, half, quarter)
    ]
    assert groups[1:] == [round(groups[0] / 2), round(groups[0] / 4)]
    assert np.array_equal(quarter.validation, whole.validation) and np.array_equal(half.validation, whole.validation)


# --------------------------------------------------------------------------------------------------------- trainings


@pytest.mark.slow
def test_what_is_missing_is_trained_and_all_is_reported(config, command, figures, monkeypatch):
    words = [
        "--data-dir",
        config.data_dir,
        "--output-dir",
        config.output_dir,
        "--size",
        64,
        "--epochs",
        1,
        "--folds",
        2,
    ]
    words += ["--device", "cpu", "--precision", "fp32", "--recipes"]
    with tiny_detection.few_samples():
        first = command(detection_folds.main, *words, "base", "--seeds", 0)
        ended = command(detection_folds.main, *words, "base", "high-rate", "--seeds", 0)
    assert first.code == ended.code == 0, ended.err
    assert "; 2 of 2 trainings are to do" in first.out and "; 2 of 4 trainings are to do" in ended.out
    rows = [json.loads(line) for line in (config.output_dir / "runs.jsonl").read_text().splitlines()]
    assert [row["recipe"] for row in rows] == ["base"] * 2 + ["high-rate"] * 2
    for row in rows:
        assert all(row[name] is None or 0 <= row[name] <= 1 for name in COLUMNS)
    assert "  less base" in ended.out
    assert not figures  # no training on a part of the exams
    kept = out_of_fold.read(jobs_of(replace(config, recipes=("high-rate",)))[1].found)
    assert scores_of(kept) == {name: rows[3][name] for name in COLUMNS}

    def as_seed_0(job, _data):
        shutil.copy(replace(job, seed=0).found, job.found)
        return {**rows[job.fold], **job.key}

    monkeypatch.setattr(detection_folds, "train", as_seed_0)
    ended = command(detection_folds.main, *words, "base", "--seeds", 0, 1)
    assert "; 2 of 4 trainings are to do" in ended.out and "base, boxes of 2 seeds fused: AP50 " in ended.out


# ------------------------------------------------------------------------------------------------------------ report


def row(recipe, fold, ap50, **others):
    return {"recipe": recipe, "seed": 0, "fold": fold, **dict.fromkeys(COLUMNS), "ap50": ap50, **others}


def test_recipes_are_compared_on_the_same_folds():
    rows = [
        row("base", 0, 0.2),
        row("base", 1, 0.4),
        row("base", 2, 0.9),
        row("high-rate", 0, 0.3),
        row("high-rate", 1, 0.6),
    ]
    header, base, high_rate, difference = (
        line.split("  ") for line in table(rows, ["base", "high-rate", "longer"]).splitlines()
    )
    assert header[0] == "recipe"
    assert "0.500 +- 0.361" in " ".join(base) and "0.450 +- 0.212" in " ".join(high_rate)
    assert "+0.150 (se 0.050)" in " ".join(difference)  # .1 and .2; the third fold has no partner
    assert [cell.strip() for cell in difference if cell.strip() == "-"] == ["-"] * 4


def exam(number, boxes, scores, truth, finding=CLASSES[2], probability=1.0):
    return Answer(f"e{number}", finding, f"p{number}", boxes, scores, probability, truth)


WHOLE = [
    exam(0, [A, B], [0.9, 0.4], [A]),
    exam(1, [B], [0.8], [B], probability=0.5),
    exam(2, [A], [0.7], [], CLASSES[1]),
    exam(3, [], [], [], CLASSES[1]),
    exam(4, [A], [0.2], [], CLASSES[0]),
]


def test_scores_at_the_best_threshold():
    scores = scores_of(WHOLE)
    # .75 keeps both true boxes and no other: the gate, which would put exam 1 below, is not taken.
    assert scores["rsna"] == scores["ap50"] == scores["sensitivity"] == scores["image_auc"] == 1
    assert scores["not_normal"] == 0
    threshold, rsna = best_threshold(match([[A]], [[0.3]], [NONE]))
    assert (threshold, rsna) == (0.3, 0)


def test_boxes_of_seeds_are_fused_exam_by_exam():
    one = [exam(0, [A], [0.8], [A], probability=0.6), exam(1, [B], [0.5], [])]
    other = [exam(1, [], [], [], probability=0.5), exam(0, [A], [0.4], [A], probability=0.2)]
    first, second = fused([one, other])
    assert (first.exam_id, second.exam_id) == ("e0", "e1")
    assert np.allclose(first.boxes, [A]) and np.allclose(first.scores, [0.6])
    assert np.allclose(second.scores, [0.25])  # only one of two has found it
    assert np.allclose([first.probability, second.probability], [0.4, 0.75])


def test_the_rule_of_many_exams_is_held_against_that_of_few():
    random = np.random.default_rng(0)

    def some(number):
        ill, sure = number % 2 == 0, random.normal(0.6 if number % 2 == 0 else 0.4, 0.15)
        return exam(number, [A], [np.clip(sure, 0.01, 0.99)], [A] if ill else [], CLASSES[2 if ill else 1])

    folds = [[some(number) for number in range(first, first + 60)] for first in (0, 60)]
    lines = rule_report(folds).splitlines()
    assert [line[:42].strip() for line in lines[1:]] == [
        "30 exams of the same network",
        "all exams of the other folds",
        "the exams it is judged on (not honest)",
    ]
    few, others, best = (float(line[42:].split()[0]) for line in lines[1:])
    assert min(few, others) > 0.3 and max(few, others) < best + 0.03


def test_classification_recipe_trains_what_is_missing_and_scores_it_on_sets_out_of_domain(
    command, chest_xray, tmp_path
):
    words = ("--data-dir", chest_xray, "--output-dir", tmp_path, "--size", 32, "--epochs", 1, "--recipes")
    for recipes in (["whole"], ["default", "whole"]):
        ended = command(classification_recipe.main, *words, *recipes, "--seeds", 0)
        assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [row["recipe"] for row in rows] == ["whole", "default"]
    assert len(ended.out.splitlines()) == 2
    for row in rows:
        assert all(0 <= row[f"{name}_auc"] <= 1 for name in ("val", "shifted", "left_out")) and "rsna_auc" not in row
    ended = command(classification_recipe.main, *words, "unheard")
    assert ended.code == 2 and "--recipes unheard: expected some of default, " in ended.err
