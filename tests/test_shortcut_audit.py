"""The shortcut audit as a user runs it, on files with a shortcut planted in them."""

import json

import numpy as np
import pytest
from evaluation_files import lines_of
from PIL import Image
from tiny_classification import write_chest_xray

from pytorch_classification.classifier import Classifier
from studies import shortcut_audit

MARKED = 3  # images of the first class that carry the marker of the second


def write_images(folder, classes=("CLEAR", "ILL"), patients=22):
    """``folder`` with two classes of ``patients`` each; the second has a bright corner, as have 3 images of the first."""
    random = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(patients):
            image = np.full((64, 80), random.uniform(90, 150)) + random.normal(0, 12, (64, 80))
            if label == 1 or number < MARKED:
                image[4:10, 4:10] = 250
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{name}-{number}.png")
    return folder


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    """The tiny data set with enough patients for an audit; read only."""
    return write_chest_xray(tmp_path_factory.mktemp("chests") / "chest_xray", {"train": 44, "test": 44})


@pytest.mark.filterwarnings("ignore:the patient of")
def test_a_planted_marker_is_found_and_the_images_it_misleads_on_come_first(tmp_path, command):
    images = write_images(tmp_path / "images")
    done = command(shortcut_audit.main, "--data-dir", images, "--output-dir", tmp_path / "out", "--device", "cpu")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "shortcut_audit.json").read_text())
    auc = {name: score["value"] for name, score in report["roc_auc"].items()}
    assert auc["corners"] > 0.9
    assert auc["all of the picture"] > 0.9
    assert auc["image size"] == 0.5
    assert report["classes"] == ["CLEAR", "ILL"]
    assert report["contradicting"] == {"CLEAR": MARKED, "ILL": 0}
    assert f"{MARKED} of 22 CLEAR and 0 of 22 ILL" in done.out
    assert "corners" in done.out
    rows = lines_of(tmp_path / "out" / "shortcut_audit.csv")
    assert len(rows) == 44
    assert {row["path"].rpartition("-")[2] for row in rows[:MARKED]} == {"0.png", "1.png", "2.png"}
    assert [row["style_contradicts"] for row in rows] == ["1"] * MARKED + ["0"] * (44 - MARKED)
    for name in ("shortcut_audit.png", "shortcut_audit_images.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width == 1440


def test_a_model_is_scored_by_class_and_style(tmp_path, command, chests, trained, processor):
    model = trained.config.model_file
    done = command(
        shortcut_audit.main,
        *("--data-dir", chests / "test", "--train-dir", chests / "train", "--model", model, "--device", "cpu"),
        *("--output-dir", tmp_path / "out"),
    )
    assert done.code == 0, done.err
    rows = lines_of(tmp_path / "out" / "shortcut_audit.csv")
    classifier = Classifier.load(model, processor)
    report = json.loads((tmp_path / "out" / "shortcut_audit.json").read_text())["model"]
    groups = report["groups"]
    for name, positive in (("sensitivity", True), ("specificity", False)):
        for group, wanted in (("all", "01"), ("agrees", "0"), ("contradicts", "1")):
            among = [row for row in rows if (row["class"] == "PNEUMONIA") is positive]
            among = [row for row in among if row["style_contradicts"] in wanted]
            right = [(float(row["model_probability"]) >= classifier.threshold) is positive for row in among]
            assert groups[name][group]["images"] == len(among)
            if among:
                assert groups[name][group]["value"] == pytest.approx(np.mean(right))
    assert "style contradicts the class" in done.out
    assert "worst group" in done.out
