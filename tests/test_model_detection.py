from collections import OrderedDict
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torchvision
from tiny_detection import LOSS_PARTS, write_classifier
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from cxr import checkpoints
from cxr.backbone import standardized
from pytorch_detection import model as model_module
from pytorch_detection.model import TASK, Architecture, build, construct

SIZE = 64
SMALL = Architecture("resnet18", SIZE, frozen=False, image_head=True)


@pytest.fixture(scope="module")
def network():
    """A network with random weights that gives out boxes; to be read only."""
    torch.manual_seed(0)
    made = construct(SMALL)
    with torch.no_grad():
        made.roi_heads.box_predictor.bbox_pred.weight.mul_(20)  # boxes that differ from their proposals
    return made.eval()


@pytest.fixture
def images():
    return torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def targets(*numbers):
    """One target for each argument, a list of boxes."""
    boxes = [torch.tensor(some, dtype=torch.float32).reshape(-1, 4) for some in numbers]
    unknown = torch.tensor(torch.nan)
    return [{"boxes": some, "labels": torch.ones(len(some), dtype=torch.int64), "abnormal": unknown} for some in boxes]


TWO_OF_THREE = targets([[5, 5, 30, 50]], [], [[5, 5, 30, 50], [34, 10, 60, 44]])


def same_tensors(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# ------------------------------------------------------------------------------------------------------- the network


def test_training_gives_five_losses_that_reach_every_parameter(images):
    torch.manual_seed(0)
    made = construct(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        losses = made(images, TWO_OF_THREE)
    assert set(losses) == set(LOSS_PARTS)
    assert all(part.dtype == torch.float32 and part.isfinite() and part >= 0 for part in losses.values())
    sum(losses.values()).backward()
    # Several processes wait for the gradient of every parameter, and would wait for ever.
    assert [name for name, p in made.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in made.parameters())


def test_the_image_loss_is_the_cross_entropy_of_having_any_box_and_of_being_abnormal(images):
    made = construct(SMALL)
    half = [
        {**target, "abnormal": torch.tensor(value)}
        for target, value in zip(TWO_OF_THREE, (1, 0, torch.nan), strict=True)
    ]
    with torch.no_grad():
        made.image_head.weight.zero_()
        made.image_head.bias.copy_(torch.tensor([np.log(4), np.log(9)]))  # probabilities .8 and .9
        alone = made(images, TWO_OF_THREE)["loss_image"].item()
        both = made(images, half)["loss_image"].item()
    assert alone == pytest.approx(-(np.log(0.8) + np.log(0.2) + np.log(0.8)) / 3)
    assert both - alone == pytest.approx(
        -(np.log(0.9) + np.log(0.1)) / 3
    )  # divided by all three: a mean over the batch
    assert made.eval()(images)[0]["image_probability"].item() == pytest.approx(0.8)


def test_without_an_image_head_there_is_no_image_loss_and_every_probability_is_1(images):
    made = construct(replace(SMALL, image_head=False))
    assert set(made(images, TWO_OF_THREE)) == set(LOSS_PARTS) - {"loss_image"}
    assert made.eval()(images)[0]["image_probability"] == 1
    assert not any(name.startswith("image_head") for name in made.state_dict())


def test_torchvisions_transform_would_change_nothing(network, images):
    """torchvision's whole detector, whose transform neither resizes nor normalises, gives the same boxes."""
    theirs = model_module._resnet18(SIZE).eval()
    theirs.backbone.body.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    theirs.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("image_head.")})
    theirs.transform = GeneralizedRCNNTransform(SIZE, SIZE, [0.0], [1.0])
    with torch.inference_mode():
        expected = theirs(list(standardized(images)))
        found = network(images)
    for one, other in zip(found, expected, strict=True):
        assert len(one["boxes"]) > 3
        for name in ("boxes", "scores", "labels"):
            assert torch.allclose(one[name], other[name], atol=1e-4), name


def test_outputs_of_the_heads_are_float32_under_autocast(network, images):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = network(images)[0]
    assert {value.dtype for name, value in found.items() if name != "labels"} == {torch.float32}
    whole = found["boxes"].bfloat16().float()
    assert not torch.equal(whole, found["boxes"])  # finer than bfloat16


def test_validation_gives_the_detections_of_evaluation_and_losses_and_changes_nothing(network, images):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        expected = network(images)
        torch.manual_seed(5)
        losses, found = network.losses_and_detections(images, TWO_OF_THREE)
        torch.manual_seed(5)
        again, _ = network.losses_and_detections(images, TWO_OF_THREE)
    for one, other in zip(found, expected, strict=True):
        same_tensors(one, other)
    same_tensors(losses, again)
    assert set(losses) == set(LOSS_PARTS)
    same_tensors(dict(network.state_dict()), before)
    assert not any(module.training for module in network.modules())


def test_a_frozen_network_keeps_its_first_layers_and_its_statistics(images):
    made = construct(replace(SMALL, frozen=True))
    body = dict(made.backbone.body.named_parameters())
    assert {name.partition(".")[0] for name, p in body.items() if not p.requires_grad} == {"conv1", "layer1"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.backbone.body.modules())
    before = {name: value.clone() for name, value in made.named_buffers()}
    sum(made(images, TWO_OF_THREE).values()).backward()
    same_tensors(dict(made.named_buffers()), before)
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


# ----------------------------------------------------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def photographs():
    """torchvision's ResNet-18 with random weights, three planes, statistics that differ, and a thousand classes."""
    torch.manual_seed(2)
    network = torchvision.models.resnet18(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def test_a_downloaded_backbone_computes_grey_as_three_equal_planes(photographs, monkeypatch, images):
    weights = torchvision.models.ResNet18_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **_: OrderedDict(photographs.state_dict()))
    made = build("imagenet", "resnet18", SIZE, image_head=True).eval()
    assert made.architecture.frozen
    with torch.no_grad():
        found = made.backbone.body(images)["2"]
        three = images.expand(-1, 3, -1, -1)
        for name, layer in photographs.named_children():
            if name not in ("avgpool", "fc"):
                three = layer(three)
    assert torch.allclose(found, three, rtol=1e-3, atol=1e-4)


def test_a_classifier_gives_backbone_and_image_head(tmp_path, processor):
    write_classifier(tmp_path / "classifier.pth")
    given = checkpoints.load(tmp_path / "classifier.pth", task="classification")["model"]
    made = build(str(tmp_path / "classifier.pth"), "resnet18", SIZE, image_head=True)
    found = made.state_dict()
    assert not made.architecture.frozen
    for name, value in given.items():
        if name.startswith("fc."):
            assert torch.equal(found[name.replace("fc.", "image_head.")], torch.cat([value, value])), name
        else:
            assert torch.equal(found[f"backbone.body.{name}"], value), name
    assert build(str(tmp_path / "classifier.pth"), "resnet18", SIZE, image_head=False).image_head is None


def test_a_detector_is_loaded_whole(network, tmp_path):
    path = tmp_path / "best.pth"
    checkpoints.save(path, task=TASK, architecture=asdict(SMALL), model=network.state_dict())
    same_tensors(dict(build(str(path), "resnet18", 128, image_head=True).state_dict()), dict(network.state_dict()))
    without = build(str(path), "resnet18", SIZE, image_head=False)
    assert torch.equal(without.rpn.head.cls_logits.weight, network.rpn.head.cls_logits.weight)


def test_a_whole_detector_of_torchvision_keeps_a_fresh_predictor(tmp_path):
    theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    torch.save(theirs.state_dict(), tmp_path / "coco.pth")
    found = build(str(tmp_path / "coco.pth"), "resnet50_v2", SIZE, image_head=True)
    state, given = found.state_dict(), theirs.state_dict()
    assert found.architecture.frozen
    assert any(isinstance(module, nn.BatchNorm2d) for module in found.backbone.body.modules())  # as torchvision does
    assert torch.equal(state["rpn.head.bbox_pred.weight"], given["rpn.head.bbox_pred.weight"])
    assert torch.equal(state["roi_heads.box_head.5.weight"], given["roi_heads.box_head.5.weight"])
    assert torch.equal(state["backbone.body.conv1.weight"], given["backbone.body.conv1.weight"].sum(1, keepdim=True))
    assert state["roi_heads.box_predictor.cls_score.weight"].shape == (2, 1024)  # 91 classes before


WRONG = {
    "another depth": (lambda: torchvision.models.resnet34(weights=None).state_dict(), "not the weights of resnet18"),
    "a layer missing": (
        lambda: {
            name: value
            for name, value in torchvision.models.resnet18(weights=None).state_dict().items()
            if name != "layer1.0.conv1.weight"
        },
        r"layer1\.0\.conv1\.weight is missing",
    ),
    "a detector without weights": (
        lambda: {"format": 1, "task": TASK, "architecture": asdict(SMALL)},
        "expected a checkpoint",
    ),
    "a detector without architecture": (lambda: {"format": 1, "task": TASK}, "expected an architecture .* found None"),
    "a detector with another backbone": (
        lambda: {"format": 1, "task": TASK, "architecture": asdict(replace(SMALL, backbone="resnet50_v2"))},
        "weights of --backbone resnet50_v2, not resnet18",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_other_files_are_refused_by_name(content, message, tmp_path):
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth: .*{message}"):
        build(str(tmp_path / "other.pth"), "resnet18", SIZE, image_head=True)


MISFITS = {
    "classifier": ("classifier.pth", "resnet50_v2", "weights of --backbone resnet18, not resnet50_v2"),
    "coco": ("coco", "resnet18", "--weights coco for --backbone resnet50_v2 alone, and imagenet for both"),
    "synthetic": ("synthetic", "resnet50_v2", r"synthetic_start\.pth: weights of --backbone resnet18, not resnet50_v2"),
}


@pytest.mark.parametrize(("weights", "backbone", "message"), MISFITS.values(), ids=MISFITS)
def test_weights_of_another_backbone_are_refused(weights, backbone, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classifier(tmp_path / "classifier.pth")
    with pytest.raises(ValueError, match=message):
        build(weights, backbone, SIZE, image_head=True)
