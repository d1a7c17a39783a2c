import json
import math
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_detection
import torch
import torchvision
from killing import SCRIPTS, train_in_two
from tiny_detection import LOSS_PARTS, exam_id, few_samples, settings, write_rsna

from cxr import checkpoints, runtime, training_run
from pytorch_detection import train_detection
from pytorch_detection.box_metrics import match
from pytorch_detection.detector import Detector
from pytorch_detection.inference import find_boxes
from pytorch_detection.model import TASK, Architecture, construct
from pytorch_detection.report import format_report, grid_cases
from pytorch_detection.rsna_dataset import IMAGES, LABELS
from pytorch_detection.train_detection import (
    make_train_state,
    means_over_processes,
    train_one_epoch,
    validate,
    weighted_losses,
)
from pytorch_detection.training_data import batch_of, load_data


@pytest.fixture(scope="module")
def data(finished, tmp_path_factory, processor):
    """The data of the finished training, to be read only."""
    return load_data(replace(finished.config, output_dir=tmp_path_factory.mktemp("again")), processor)


@pytest.fixture
def train_state(finished, data, processor):
    torch.manual_seed(0)
    with few_samples():
        return make_train_state(finished.config, construct(Architecture("resnet18", 64, False, True)), 4, processor)


# ------------------------------------------------------------------------------------------------------ the loop


def test_the_image_loss_has_a_weight_of_its_own():
    losses = {name: torch.tensor(2.0**power) for power, name in enumerate(LOSS_PARTS)}
    assert weighted_losses(losses, 0.5)["loss"].item() == 1 + 2 + 4 + 8 + 0.5 * 16


def test_means_are_over_the_images_of_all_processes(monkeypatch, processor):
    parts = [({"loss": 6.0}, 4), ({"loss": 1.0}, 1), ({}, 0)]
    monkeypatch.setattr(train_detection.runtime, "gather_objects", lambda _value, _run: parts)
    assert means_over_processes({"loss": 6.0}, 4, processor) == {"loss": 1.4}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")  # the step that is refused comes first
def test_a_loss_that_is_not_finite_is_named_with_its_images_before_weights_change(
    train_state, data, finished, processor
):
    with torch.no_grad():
        train_state.model.rpn.head.bbox_pred.bias.fill_(math.nan)
    before = {name: value.clone() for name, value in train_state.model.named_parameters()}
    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 1: the loss is nan on the images .*exam\d+\.dcm, .*exam"
    ):
        train_one_epoch(train_state, data, finished.config, 0, processor)
    for name, value in train_state.model.named_parameters():
        assert torch.equal(value, before[name]) or name == "rpn.head.bbox_pred.bias"


def test_validation_evaluates_every_image_once_and_leaves_the_weights(
    train_state, data, finished, processor, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        train_detection, "batch_of", lambda data, chosen, run: (seen.extend(chosen), batch_of(data, chosen, run))[1]
    )
    monkeypatch.setattr(train_detection, "_BATCH", 2)
    before = {name: value.clone() for name, value in train_state.average.state_dict().items()}
    one, other = (validate(train_state, data, finished.config, processor) for _ in range(2))
    assert seen == data.validation.tolist() * 2 and one == other
    assert all(torch.equal(value, before[name]) for name, value in train_state.average.state_dict().items())
    parts = [one[f"val_{name}"] for name in LOSS_PARTS]
    assert one["val_loss"] == pytest.approx(sum(parts), rel=1e-5)
    expected = {"val_rsna_score", "val_threshold", "val_ap50", "val_ap", "val_image_auc", "val_image_head_auc"}
    assert expected | {f"val_sensitivity_at_{n}_fp" for n in ("0.125", "0.25", "0.5", "1", "2", "4", "8")} <= set(one)


@pytest.mark.slow
def test_eight_images_are_overfitted(data, finished, processor):
    positive = np.array([bool(data.exams[i].boxes_xyxy) for i in data.train])
    chosen = np.concatenate([data.train[positive][:4], data.train[~positive][:4]])
    few = replace(data, train=chosen, validation=chosen)
    config = replace(finished.config, epochs=120, light_augmentation_epochs=120)
    with few_samples():
        train_state = make_train_state(config, construct(Architecture("resnet18", 64, False, True)), 1, processor)
    for epoch in range(config.epochs):
        train_one_epoch(train_state, few, config, epoch, processor)
    scores = validate(train_state, few, config, processor)
    assert scores["val_ap50"] > 0.8 and scores["val_image_auc"] == 1.0


# -------------------------------------------------------------------------------------------------- a whole run


def test_a_training_learns_and_logs_it(finished):
    records = training_run.read_records(finished.config.output_dir / "metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["train_loss"] < 0.6 * records[0]["train_loss"]
    assert max(record["val_image_auc"] for record in records) > 0.9
    assert max(record["val_ap50"] for record in records) > 0.02  # from .00; boxes need more than thirty steps
    for record in records:
        for part in ("train", "val"):
            parts = [record[f"{part}_{name}"] for name in LOSS_PARTS]
            assert record[f"{part}_loss"] == pytest.approx(sum(parts), rel=1e-5)


def test_the_finished_model_holds_all_that_prediction_needs(finished, data, processor):
    path = finished.config.model_file
    found = Detector.load(path, processor)
    assert found.size == 64 and not found.flip_tta
    state = checkpoints.load(path, task=TASK)
    assert state["validation"]["images"] == len(data.validation) and "rsna_score" in state["validation"]
    assert state["provenance"]["torch"] == torch.__version__
    last = checkpoints.load(finished.config.output_dir / "last.pth", task=TASK)
    assert state["provenance"]["bf16"] is last["bf16"]
    assert last["epoch"] == finished.config.epochs
    for name, value in found.networks[0].state_dict().items():
        average = last["average"][f"module.{name}"]
        assert torch.equal(value, average.half().float() if average.ndim > 1 else average)
    boxes = find_boxes(found.networks, data.images.images, data.validation, False, processor)
    again = found.predict(data.images.images[data.validation], processor)[0]
    for one, other in zip(boxes.boxes, again.boxes, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_second_network_is_another_one_and_may_be_added_later(data, folder, processor, without_pictures, capsys):
    config = settings(data.source, folder, epochs=1, ensemble=2)
    second = config.output_dir / "member_2"
    tiny_detection.train(config)
    printed = capsys.readouterr().out
    assert f"network 2 of 2, in {second}" in printed
    score = checkpoints.load(config.model_file, task=TASK)["validation"]["rsna_score"]
    assert ("this threshold means nothing" in printed) == (score == 0)
    wanted = Detector.load(config.model_file, processor)
    shutil.rmtree(second)  # as if the run had had one network
    tiny_detection.train(replace(config, resume=True))
    assert capsys.readouterr().out.count("already trained: epoch 1 of 1") == 1
    found = Detector.load(config.model_file, processor)
    assert found.rule == wanted.rule and len(found.networks) == 2
    states = [[network.state_dict() for network in model.networks] for model in (found, wanted)]
    for mine, theirs in zip(*states, strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    name = "backbone.body.layer4.1.conv2.weight"
    assert not torch.equal(states[0][0][name], states[0][1][name])


def test_the_report_is_of_the_held_out_exams_alone(finished, data):
    result = json.loads((finished.config.output_dir / "held_out_report.json").read_text())
    assert result["all"]["images"] == len(data.held_out)
    assert result["all"]["true_boxes"] == sum(len(exam.boxes_xyxy) for exam in data.of(data.held_out))
    assert set(result["all"]["false_positive_rates"]) <= {"Normal", "No Lung Opacity / Not Normal"}
    for kind in ("view", "age"):  # all held-out exams are of one sex
        groups = [part for name, part in result["subgroups"].items() if name.startswith(kind)]
        assert sum(part["images"] for part in groups) == len(data.held_out)
    assert {"value", "low", "high"} <= set(result["all"]["scores"]["rsna_score"])
    table = format_report(result)
    assert table in finished.printed
    assert "RSNA score" in table and "view AP" in table


def test_grid_cases_show_found_missed_and_false_boxes():
    box, other, none = np.array([[0.0, 0, 10, 10]]), np.array([[50.0, 50, 60, 60]]), np.zeros((0, 4))
    truths = [box] * 10 + [none] * 20
    boxes = [box] * 5 + [other] * 5 + [box] * 5 + [none] * 15
    scores = [np.full(len(some), 0.9 - place / 100) for place, some in enumerate(boxes)]
    shown = grid_cases(match(boxes, scores, truths), 0.5)
    assert list(shown) == [0, 2, 4, 5, 7, 9, 10, 12, 14]
    few = grid_cases(match(boxes[-12:], scores[-12:], truths[-12:]), 0.5)
    assert len(few) == 9 == len(set(few))


@pytest.mark.slow
def test_a_resumed_training_from_coco_weights_equals_an_uninterrupted_one(folder, monkeypatch, without_pictures):
    torch.manual_seed(0)
    theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
    torch.save(theirs, folder / "coco.pth")
    data = write_rsna(folder / "dataset_det", 20)
    changes = {"backbone": "resnet50_v2", "weights": str(folder / "coco.pth"), "batch_size": 4, "lr": 1e-4}
    whole, stopped = (settings(data, folder / name, **changes) for name in ("whole", "stopped"))
    tiny_detection.train(whole)
    epochs = iter((train_one_epoch,))
    monkeypatch.setattr(train_detection, "train_one_epoch", lambda *words: next(epochs)(*words))
    with pytest.raises(StopIteration):
        tiny_detection.train(stopped)
    monkeypatch.setattr(train_detection, "train_one_epoch", train_one_epoch)
    tiny_detection.train(replace(stopped, resume=True))
    one, other = (checkpoints.load(config.output_dir / "last.pth", task=TASK) for config in (whole, stopped))
    for name in ("model", "average"):
        assert all(torch.equal(value, other[name][key]) for key, value in one[name].items())
    losses = [record["train_loss"] for record in training_run.read_records(whole.output_dir / "metrics.jsonl")]
    assert np.isfinite(losses).all() and len(losses) == 2
    # Frozen layers are unchanged, the first folded to one plane; the others are trained.
    trained = one["model"]
    assert torch.equal(trained["backbone.body.conv1.weight"], theirs["backbone.body.conv1.weight"].sum(1, keepdim=True))
    name = "backbone.body.layer1.0.conv2.weight"
    assert torch.equal(trained[name], theirs[name])
    for name in ("backbone.body.layer2.0.conv2.weight", "rpn.head.bbox_pred.weight", "roi_heads.box_head.5.weight"):
        assert not torch.equal(trained[name], theirs[name])
    Detector.load(whole.model_file, runtime.Runtime(torch.device("cpu"), False))


# ----------------------------------------------------------------------------------------------- the command line


@pytest.mark.slow
def test_two_processes_train_one_model_and_evaluate_every_image_once(finished, folder, processor):
    config = settings(finished.config.data_dir, folder, epochs=1, negatives_per_positive=0.5)
    printed, nothing = train_in_two(SCRIPTS["detection"], config)
    assert printed.count("epoch   1/1") == 1 and "2 processes" in printed and not nothing
    result = json.loads((config.output_dir / "held_out_report.json").read_text())
    whole = json.loads((finished.config.output_dir / "held_out_report.json").read_text())
    assert result["all"]["images"] == whole["all"]["images"]
    # The validation scores of two processes are those of one on the same weights.
    data = load_data(replace(config, output_dir=folder / "again"), processor)
    state = checkpoints.load(config.output_dir / "last.pth", task=TASK)
    train_state = make_train_state(config, construct(Architecture.of(state, config.output_dir)), 1, processor)
    train_state.restore(state)
    found = validate(train_state, data, config, processor)
    (record,) = training_run.read_records(config.output_dir / "metrics.jsonl")
    for name in ("val_ap50", "val_rsna_score", "val_image_head_auc", "val_loss_image"):
        assert record[name] == pytest.approx(found[name], abs=1e-4), name


BAD = {
    "a truncated DICOM": (
        lambda data: os.truncate(data / IMAGES / f"{exam_id(3)}.dcm", 5000),
        "exam003.dcm.* --skip-bad",
    ),
    "no opacity left": (
        lambda data: (data / LABELS).write_text(
            "patientId,x,y,width,height,Target\n" + "".join(f"{exam_id(n)},,,,,0\n" for n in range(24))
        ),
        "no Lung Opacity image is left for train",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD)
def test_bad_data_is_one_line_and_exit_code_2(damage, message, folder, command):
    data = write_rsna(folder / "dataset_det", 24)
    (data / "stage_2_detailed_class_info.csv").unlink()
    damage(data)
    ended = command(train_detection.main, settings(data, folder))
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert ended.code == 2 and len(lines) == 1 and re.search(message, lines[0]), ended.err
    assert not (folder / "run" / "last.pth").exists()
