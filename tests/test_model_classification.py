"""ResNet-18 on one grey channel, weights from files, and log-odds of stored squares."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from cxr import checkpoints
from cxr.training_run import no_decay_groups
from pytorch_classification import model as model_module
from pytorch_classification.model import TASK, GreyResNet18, build, predict_logits, standardized, to_probability


@pytest.fixture(scope="module")
def resnet():
    """torchvision's own network, with the three planes and the thousand classes of ImageNet."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    for module in network.modules():  # statistics that differ from plane to plane, as after training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def features(network, images):
    """All of a ResNet but its last layer."""
    for name, layer in network.named_children():
        if name != "fc":
            images = layer(images)
    return images.flatten(1)


def same_tensors(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_one_folded_plane_gives_what_three_equal_planes_give(resnet, monkeypatch):
    monkeypatch.setattr(model_module, "downloaded", lambda *_args: OrderedDict(resnet.state_dict()))
    folded = build("imagenet").eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = features(resnet, grey.expand(-1, 3, -1, -1))
        found = features(folded, grey)
        output = folded(grey)
        assert torch.allclose(output, folded.fc(features(folded, standardized(grey))), atol=1e-6)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert output.shape == (2, 1)


def test_weight_decay_falls_on_kernels_only():
    network = GreyResNet18()
    kernels, vectors = no_decay_groups(network, 0.05)
    assert (kernels["weight_decay"], vectors["weight_decay"]) == (0.05, 0.0)
    assert len(kernels["params"]) == 21 and all(p.ndim in (2, 4) for p in kernels["params"])  # 20 convolutions and fc
    assert len(vectors["params"]) == 41 and all(
        p.ndim == 1 for p in vectors["params"]
    )  # 2 of 20 normalisations, fc.bias


def test_own_checkpoints_and_own_model_file_are_taken_whole(trained):
    config = trained.config
    for path in (config.output_dir / "best.pth", config.model_file):
        same_tensors(dict(build(str(path)).state_dict()), dict(checkpoints.load(path, task=TASK)["model"]))


def test_a_plain_state_dict_gives_its_body_and_keeps_a_fresh_last_layer(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    torch.manual_seed(7)
    fresh = build("none").state_dict()
    torch.manual_seed(7)
    found = build(str(tmp_path / "resnet18.pth")).state_dict()
    expected = dict(resnet.state_dict())
    expected["conv1.weight"] = expected["conv1.weight"].sum(dim=1, keepdim=True)
    expected |= {name: fresh[name] for name in ("fc.weight", "fc.bias")}
    same_tensors(dict(found), expected)


OTHERS = {
    "another depth": lambda body: torchvision.models.resnet34(weights=None).state_dict(),
    "a first layer of another size": lambda body: body | {"conv1.weight": torch.zeros(64, 1, 3, 3)},
    "a first layer of five planes": lambda body: body | {"conv1.weight": torch.zeros(64, 5, 7, 7)},
    "a layer missing": lambda body: {name: value for name, value in body.items() if name != "layer1.0.conv1.weight"},
    "no last bias": lambda body: {name: value for name, value in body.items() if name != "fc.bias"},
    "not a dictionary": lambda body: [torch.zeros(2)],
    "a checkpoint without weights": lambda body: {"format": 1, "task": TASK},
    "a checkpoint of detection": lambda body: {"format": 1, "task": "detection", "model": body},
}


@pytest.mark.parametrize("what", OTHERS)
def test_weights_that_do_not_fit_are_refused_with_their_file(tmp_path, what):
    path = tmp_path / "weights.pth"
    torch.save(OTHERS[what](dict(GreyResNet18().state_dict())), path)
    with pytest.raises(ValueError, match=r"ResNet-18|state dict") as caught:
        build(str(path))
    assert str(caught.value).startswith(str(path)) and len(str(caught.value).splitlines()) == 1


def test_flip_tta_is_the_mean_of_the_log_odds_of_both_sides(processor):
    torch.manual_seed(0)
    network = build("none").eval()
    squares = np.random.default_rng(0).integers(0, 256, size=(5, 36, 36), dtype=np.uint8)
    indices = np.arange(len(squares))

    def predict(images, flip_tta):
        return predict_logits(network, images, indices, 32, flip_tta, processor)

    mirrored = np.ascontiguousarray(squares[:, :, ::-1])
    expected = (predict(squares, False) + predict(mirrored, False)) / 2
    assert np.abs(predict(squares, False) - predict(mirrored, False)).max() > 1e-3
    assert np.allclose(predict(squares, True), expected, atol=1e-4)
    assert np.allclose(predict(squares, True), predict(mirrored, True), atol=1e-4)


def test_log_odds_become_probabilities_at_a_temperature():
    assert to_probability(np.array([0.0, np.log(3), -2 * np.log(3)]), 1.0) == pytest.approx([0.5, 0.75, 0.1])
    assert to_probability(np.array([2 * np.log(3)]), 2.0) == pytest.approx([0.75])
    extreme = to_probability(np.array([-1e6, -800.0, 800.0, 1e6]), 0.05)  # no overflow: warnings are errors here
    assert extreme.tolist() == [0, 0, 1, 1]
