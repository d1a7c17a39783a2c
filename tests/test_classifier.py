from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cxr import checkpoints
from cxr.runtime import Runtime
from pytorch_classification import model as model_module
from pytorch_classification.classifier import Classifier
from pytorch_classification.model import TASK


@pytest.fixture
def squares():
    return np.random.default_rng(0).integers(0, 256, size=(5, 36, 36), dtype=np.uint8)


@pytest.fixture
def classifier(trained, processor):
    return Classifier.load(trained.config.model_file, processor)


def same_tensors(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_what_is_saved_is_loaded(tmp_path, processor, squares, classifier):
    written = Classifier(classifier.model, 32, 36, False, 1.5, 0.25, classifier.feature_distance)
    written.save(tmp_path / "model.pth", epoch=3)
    read = Classifier.load(tmp_path / "model.pth", processor)
    assert (read.size, read.store_size, read.flip_tta, read.temperature, read.threshold) == (32, 36, False, 1.5, 0.25)
    same_tensors(dict(read.model.state_dict()), dict(written.model.state_dict()))
    assert np.array_equal(read.probabilities(squares, processor), written.probabilities(squares, processor))
    assert not read.model.training
    assert checkpoints.load(tmp_path / "model.pth", task=TASK)["epoch"] == 3


def test_a_model_file_takes_half_the_space_and_computes_in_float32(trained, processor, squares):
    path = trained.config.model_file
    assert path.stat().st_size < 24.5e6  # 11.2 million weights; 1.4 MB for the feature distance
    kept = checkpoints.load(path, task=TASK)["model"]
    found = Classifier.load(path, processor).model.state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    for name, value in kept.items():
        assert value.dtype == (torch.float16 if value.ndim > 1 else found[name].dtype)
        assert torch.equal(found[name], value.to(found[name].dtype)), name


def edited(path, folder, **changes):
    """A copy of a model file with other contents; a value of None takes the key away."""
    state = checkpoints.read(path) | changes
    torch.save({name: value for name, value in state.items() if value is not None}, folder / "edited.pth")
    return folder / "edited.pth"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": None}, "a training checkpoint, not a finished model"),
        ({"model": {}}, "not the weights of a ResNet-18"),
        ({"task": "detection"}, "a checkpoint of the task 'detection'"),
        ({"format": 99}, "checkpoint format 99"),
    ],
)
def test_files_that_are_not_a_finished_classifier_are_refused(trained, processor, tmp_path, changes, message):
    path = edited(trained.config.model_file, tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        Classifier.load(path, processor)
    assert str(path) in str(caught.value)


def test_a_last_layer_of_another_size_is_refused_and_not_replaced_at_random(trained, processor, tmp_path):
    weights = dict(checkpoints.read(trained.config.model_file)["model"]) | {"fc.weight": torch.zeros(1000, 512)}
    with pytest.raises(ValueError, match="not the weights of a ResNet-18"):
        Classifier.load(edited(trained.config.model_file, tmp_path, model=weights), processor)


def test_corrupted_weights_give_an_error_and_not_the_class_normal(trained, processor, tmp_path, squares):
    weights = dict(checkpoints.read(trained.config.model_file)["model"]) | {"fc.bias": torch.tensor([torch.nan])}
    corrupted = Classifier.load(edited(trained.config.model_file, tmp_path, model=weights), processor)
    with pytest.raises(ValueError, match="non-finite output: corrupted weights"):
        corrupted.probabilities(squares, processor)


def test_predictions_do_not_depend_on_the_batch(classifier, processor, monkeypatch):
    squares = np.random.default_rng(1).integers(0, 256, size=(9, 36, 36), dtype=np.uint8)
    whole = classifier.probabilities(squares, processor)
    single = np.concatenate([classifier.probabilities(square[None], processor) for square in squares])
    monkeypatch.setattr(model_module, "_BATCH", 4)
    parts = classifier.probabilities(squares, processor)
    backwards = classifier.probabilities(squares[::-1], processor)[::-1]
    assert whole.shape == (9,) and whole.dtype == np.float64 and len({*whole.round(6)}) > 1
    for other in (single, parts, backwards):
        assert np.abs(other - whole).max() < 1e-4
    assert classifier.probabilities(squares[:0], processor).shape == (0,)


def test_each_of_several_processes_computes_its_share(classifier, squares, monkeypatch, processor):
    whole = classifier.log_odds(squares, processor)
    shares = [Runtime(processor.device, False, rank, 2) for rank in (0, 1)]
    monkeypatch.setattr(model_module.runtime, "gather", lambda rows, _run: rows)
    for run in shares:
        assert np.allclose(classifier.log_odds(squares, run), whole[run.rank :: 2], atol=1e-5)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_grad_cam_is_a_map_in_0_to_1_whatever_the_caller_computes_in(classifier, processor, squares, mode):
    classifier = replace(classifier, grad_cam_scale=None)
    with mode():
        maps = classifier.predict(squares, processor, grad_cam=True).grad_cam
    assert maps.shape == (5, 32, 32) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    assert all(heat.max() > 0.99 or heat.max() == 0 for heat in maps)  # each is scaled by its own peak
    assert np.allclose(maps[2], classifier.predict(squares[2:3], processor, grad_cam=True).grad_cam[0], atol=1e-3)


def test_the_pass_with_grad_cam_gives_the_same_predictions(classifier, processor, squares):
    drawn, plain = (classifier.predict(squares, processor, grad_cam=flag) for flag in (True, False))
    np.testing.assert_allclose(drawn.probability, plain.probability, rtol=0, atol=1e-6)
    assert np.array_equal(drawn.out_of_distribution, plain.out_of_distribution) and plain.grad_cam is None
    assert replace(classifier, feature_distance=None).predict(squares, processor).out_of_distribution is None


def test_grad_cam_is_drawn_on_one_scale_and_its_peak_stays_where_it_is(classifier, processor, squares):
    strength = classifier.grad_cam_strength(squares, processor)
    own, scaled = (
        replace(classifier, grad_cam_scale=scale).predict(squares, processor, grad_cam=True).grad_cam
        for scale in (None, float(np.median(strength)))
    )
    expected = np.minimum(strength / np.median(strength), 1)
    assert np.ptp(expected) > 0 and np.allclose(scaled.max(axis=(1, 2)), expected * own.max(axis=(1, 2)), atol=1e-3)
    shown = np.flatnonzero(own.max(axis=(1, 2)))
    assert len(shown) and all(scaled[i].argmax() == own[i].argmax() for i in shown)


def test_grad_cam_points_at_what_the_output_depends_on(processor):
    """A network that counts bright pixels in the left half of its last map, and a picture bright there."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer2 = nn.Sequential(nn.AvgPool2d(8))
            self.layer3, self.layer4 = nn.Sequential(nn.Identity()), nn.Identity()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images):
            return self.layer4(self.layer3(self.layer2(images * self.scale)))[..., :2].mean(dim=(2, 3))

    picture = np.zeros((1, 32, 32), np.uint8)
    picture[:, 8:16, 8:16] = 255
    (heat,) = Classifier(Half(), 32, 32, False, 1.0, 0.5).predict(picture, processor, grad_cam=True).grad_cam
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 8 <= row < 16 and 8 <= column < 16
