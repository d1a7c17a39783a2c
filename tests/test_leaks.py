"""The classic leaks, looked for in both trainings; a patient on both sides is looked for where data are divided."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_detection
from killing import assert_same_state

from cxr import checkpoints, reading, training_run
from pytorch_classification import train_classification
from pytorch_classification.classifier import Classifier
from pytorch_classification.image_metrics import evaluate_classifier
from pytorch_detection import box_metrics, train_detection
from pytorch_detection.detector import Detector, choose_rule
from pytorch_detection.rsna_dataset import CLASS_INFO, IMAGES, LABELS, list_exams, read_exams
from pytorch_detection.training_data import load_data, split


@pytest.fixture(scope="module")
def detection(finished, tmp_path_factory, processor):
    """A finished training of the detector, and the exams that it was made of."""
    return finished, load_data(replace(finished.config, output_dir=tmp_path_factory.mktemp("again")), processor)


def other_test_images(data):
    """Every test image is called its opposite."""
    (data / "test" / "NORMAL").rename(data / "test" / "other")
    (data / "test" / "PNEUMONIA").rename(data / "test" / "NORMAL")
    (data / "test" / "other").rename(data / "test" / "PNEUMONIA")


def other_held_out_exams(data):
    """Every held-out exam is noise, and its boxes lie elsewhere."""
    listing = list_exams(data)
    exams = read_exams(listing, reading.decode_once(listing.paths, 16, data.parent / "known", name="x", progress=False))
    noise = np.random.default_rng(0)
    for index in split(exams, [exam.exam_id for exam in exams], 0)["held_out"]:
        path = exams[index].path
        tiny_detection.write_dicom(
            path, noise.integers(0, 256, (tiny_detection.HEIGHT, tiny_detection.WIDTH), np.uint8)
        )
        table = [line.split(",") for line in (data / LABELS).read_text().splitlines()]
        moved = [[row[0], "1", "2", "9", "8", "1"] if row[0] == path.stem and row[5] == "1" else row for row in table]
        assert (data / IMAGES / f"{path.stem}.dcm").exists()
        (data / LABELS).write_text("\n".join(map(",".join, moved)) + "\n")


OTHERS = {"classification": other_test_images, "detection": other_held_out_exams}


def test_what_is_held_out_decides_nothing_but_the_report(script, data, whole, folder, without_pictures):
    """Not weights nor epoch, not threshold, temperature nor box size: all are the same to the last bit."""
    other = shutil.copytree(data, folder / "data")
    OTHERS[script.name.rpartition("_")[2]](other)
    one, two = whole.config, script.settings(other, folder)
    script.train(two)
    for name in script.checkpoints:
        states = [script.load(config.output_dir.parent / name) for config in (one, two)]
        for state in states:
            for name_of in ("data", "test_report"):  # the hashes of all exams, and what the report says
                state.pop(name_of, None)
        assert_same_state(*states, where=name)
    logs = [training_run.read_records(config.output_dir / "metrics.jsonl") for config in (one, two)]
    assert_same_state(*logs, where="metrics.jsonl")
    reports = [(config.output_dir.parent / script.report).read_text() for config in (one, two)]
    scores = [{**json.loads(text), "provenance": None, "set": None} for text in reports]
    assert scores[0] != scores[1]


def test_the_rule_for_boxes_is_that_of_the_validation_exams(detection, processor):
    finished, data = detection
    kept = Detector.load(finished.config.model_file, processor)
    found = kept.predict(data.images.images[data.validation], processor)[0]
    expected, _ = choose_rule(found, data.truths(data.validation))
    assert (kept.rule.gate_power, kept.rule.shrink) == (expected.gate_power, expected.shrink)
    assert kept.rule.threshold == pytest.approx(expected.threshold, rel=1e-4)


def test_validation_scores_of_boxes_come_from_all_answers_at_once(detection, processor, monkeypatch):
    finished, data = detection
    state = checkpoints.load(finished.config.output_dir / "last.pth", task=train_detection.TASK)
    network = train_detection.construct(train_detection.Architecture.of(state, finished.config.output_dir))
    train_state = train_detection.make_train_state(finished.config, network, 4, processor)
    train_state.restore(state)
    assert len(data.validation) >= 4
    whole = train_detection.validate(train_state, data, finished.config, processor)
    monkeypatch.setattr(train_detection, "_BATCH", 3)
    parts = train_detection.validate(train_state, data, finished.config, processor)
    names = [name for name in whole if "loss" not in name]  # torchvision's losses are means over the boxes of a batch
    assert {"val_ap", "val_ap50", "val_rsna_score", "val_image_auc", "val_image_head_auc"} <= {*names}
    for name in [*names, "val_loss_image"]:
        assert parts[name] == pytest.approx(whole[name], abs=1e-4), name


def test_exams_with_the_same_content_stay_in_one_part(detection, folder, processor):
    finished, data = detection
    other = shutil.copytree(finished.config.data_dir, folder / "data")
    pairs = [(data.train[0], data.held_out[0]), (data.train[1], data.validation[0])]
    for known, copy in pairs:
        source, target = (other / IMAGES / data.exams[index].path.name for index in (known, copy))
        shutil.copy(source, target)
    found = load_data(replace(finished.config, data_dir=other, output_dir=folder / "run"), processor)
    parts = [{*part.tolist()} for part in (found.train, found.validation, found.held_out)]
    assert sum(map(len, parts)) == len(data.exams)
    assert all(any({known, copy} <= part for part in parts) for known, copy in pairs)


def test_no_patient_and_no_picture_is_on_two_sides_of_a_classification(trained, folder, processor):
    config = replace(trained.config, output_dir=folder)
    data = train_classification.load_data(config, processor)
    assert {*data.train} | {*data.validation} == {*range(len(data.listing))}
    for facts in (data.listing.patients, data.hashes):
        assert not {facts[index] for index in data.train} & {facts[index] for index in data.validation}


# ------------------------------------------------------------------------------------------------- shuffled labels


def test_a_good_model_is_worth_nothing_on_shuffled_labels(trained, detection, processor):
    """Scoring looks at no more than the answers and the labels that it is given."""
    chance = np.random.default_rng(0)
    paths = sorted((trained.config.data_dir / "train").rglob("*.jpeg"))
    images = np.stack([reading.read(path).square(36) for path in paths])
    labels = np.array([int(path.parent.name == "PNEUMONIA") for path in paths])
    classifier = Classifier.load(trained.config.model_file, processor)
    probabilities = classifier.probabilities(images, processor)
    right, wrong = (
        evaluate_classifier(probabilities, some, [path.name for path in paths], 0.5)["scores"]["roc_auc"]
        for some in (labels, chance.permutation(labels))
    )
    assert right["value"] > 0.9 and wrong["low"] < 0.5 < wrong["high"] < right["value"]

    finished, data = detection
    every = np.arange(len(data.exams))
    found = Detector.load(finished.config.model_file, processor).predict(data.images.images, processor)[0]
    truths = data.truths(every)
    shuffled = [truths[index] for index in chance.permutation(every)]
    patients = [exam.patient for exam in data.exams]
    right, wrong = (
        box_metrics.evaluate_detections(found.boxes, found.gated(1.0), some, patients, 0.5, resamples=200)["scores"][
            "image_auc"
        ]
        for some in (truths, shuffled)
    )
    assert right["value"] > 0.9 and wrong["low"] < 0.5 < wrong["high"] < right["value"]


@pytest.mark.slow
def test_boxes_on_the_wrong_exams_teach_nothing(folder):
    """The counterpart of ``test_shuffled_labels_teach_nothing`` for the detector: exams have each other's boxes."""
    data = tiny_detection.write_rsna(folder / "data", 320)
    (data / CLASS_INFO).unlink()
    header, *rows = [line.split(",") for line in (data / LABELS).read_text().splitlines()]
    exams = list(dict.fromkeys(row[0] for row in rows))
    other = dict(zip(exams, np.random.default_rng(0).permutation(exams), strict=True))
    (data / LABELS).write_text("\n".join(map(",".join, [header, *([other[row[0]], *row[1:]] for row in rows)])) + "\n")
    config = tiny_detection.settings(data, folder, epochs=3, light_augmentation_epochs=1)
    tiny_detection.train(config)
    auc = json.loads((config.output_dir / "held_out_report.json").read_text())["all"]["scores"]["image_auc"]
    assert auc["low"] < 0.5 < auc["high"] and auc["high"] - auc["low"] < 0.7
