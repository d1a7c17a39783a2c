"""The bundled weights on synthetic exams that were not among their training exams, and the script that makes them."""

from dataclasses import asdict

import numpy as np
import pytest
import tiny_detection
import torch

from cxr import checkpoints
from cxr.training_run import with_average
from phantom import cohort
from pytorch_detection import box_metrics, pretrain_detection
from pytorch_detection import model as model_module
from pytorch_detection.inference import find_boxes
from pytorch_detection.model import TASK, build
from pytorch_detection.pretrain_detection import PretrainConfig
from pytorch_detection.settings import SYNTHETIC_FILE, TrainConfig

OTHER_SEED = 77  # not that of the training exams


@pytest.fixture(scope="module")
def drawn():
    """24 exams, of which some show opacities: uint8 [24, S, S] and their boxes."""
    size = PretrainConfig.size
    exams = cohort.plan_exams(OTHER_SEED, 24)
    pictures = [cohort.render_exam(exam, OTHER_SEED, size)[0] for exam in exams]
    return np.stack([one.pixels for one in pictures]), [
        np.array([(x, y, x + width, y + height) for x, y, width, height in one.boxes], np.float32).reshape(-1, 4)
        for one in pictures
    ]


def test_the_bundled_weights_detect_opacities_in_synthetic_radiographs(drawn, processor):
    images, truths = drawn
    assert sum(len(boxes) for boxes in truths) >= 8
    network = build("synthetic", "resnet18", PretrainConfig.size, image_head=True)
    found = find_boxes([network], images, np.arange(len(images)), False, processor)
    scores = box_metrics.score_detections(found.boxes, found.gated(1.0), truths)
    assert scores["ap50"] > 0.6 and scores["image_auc"] > 0.9


def test_the_bundled_weights_are_a_network_alone_that_trains_whole_and_the_default():
    state = checkpoints.load(SYNTHETIC_FILE, task=TASK)
    assert set(state) == {"format", "task", "architecture", "model"}  # no path, no rule to predict with
    assert SYNTHETIC_FILE.stat().st_size < 30 * 2**20
    made = build(TrainConfig.weights, TrainConfig.backbone, 384, image_head=False)
    assert asdict(made.architecture) == state["architecture"] | {"size": 384, "image_head": False}
    assert all(parameter.requires_grad for parameter in made.parameters())
    kernel = made.state_dict()["rpn.head.conv.0.0.weight"]
    assert kernel.dtype == torch.float32 and torch.equal(kernel, state["model"]["rpn.head.conv.0.0.weight"].float())


def test_the_script_writes_the_initial_weights_of_a_training_and_resumes(
    command, tmp_path, monkeypatch, without_pictures
):
    file = tmp_path / "start.pth"
    words = ["--weights-file", file, "--output-dir", tmp_path / "made", "--exams", 60, "--size", 128]
    words += ["--device", "cpu", "--precision", "fp32", "--epochs", 1]
    with tiny_detection.few_samples():
        ended = command(pretrain_detection.main, *words)
    assert ended.code == 0, ended.err
    assert "epoch   1/1" in ended.out and f"wrote {file}" in ended.out
    monkeypatch.setattr(model_module, "SYNTHETIC_FILE", file)
    began = build("synthetic", "resnet18", 128, image_head=True).state_dict()
    last = with_average(checkpoints.load(tmp_path / "made" / "training" / "last.pth", task=TASK))["model"]
    for name, value in last.items():
        assert torch.equal(began[name], value.half().float() if value.ndim > 1 else value), name
    file.unlink()
    again = command(pretrain_detection.main, *words)
    assert "already trained: epoch 1 of 1" in again.out and file.is_file()
    other = command(pretrain_detection.main, *words[:-1], 2)
    assert other.code == 2 and "epochs" in other.err


def test_an_invalid_place_for_the_weights_is_refused_before_the_training(command, tmp_path):
    for place in (tmp_path, tmp_path / "nowhere" / "start.pth"):
        ended = command(pretrain_detection.main, "--weights-file", place, "--output-dir", tmp_path / "made")
        assert ended.code == 2 and f"--weights-file {place}: expected a file in an existing folder" in ended.err
    assert not (tmp_path / "made").exists()
