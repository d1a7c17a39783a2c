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
from cxr.runtime import Runtime
from pytorch_detection import inference
from pytorch_detection import model as model_module
from pytorch_detection.detector import Detector, Rule, choose_gate, choose_rule
from pytorch_detection.inference import Found, as_input, downweight_nested_boxes, find_boxes, fuse
from pytorch_detection.model import TASK, Architecture, construct
from pytorch_detection.weights import build

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


def test_images_without_any_box_have_losses_too(images):
    made = construct(SMALL)
    losses = made(images, targets([], [], []))
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0 and losses["loss_rpn_box_reg"] == 0
    assert losses["loss_objectness"] > 0 and all(part.isfinite() for part in losses.values())
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


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


def test_without_an_image_head_there_is_no_image_loss_and_the_image_says_nothing(images):
    made = construct(replace(SMALL, image_head=False))
    assert set(made(images, TWO_OF_THREE)) == set(LOSS_PARTS) - {"loss_image"}
    assert made.eval()(images)[0]["image_probability"] == 1
    assert not any(name.startswith("image_head") for name in made.state_dict())


def test_the_entrance_that_is_left_out_would_have_changed_nothing(network, images):
    """torchvision's own way in, told to resize nothing and to normalise nothing, finds the same boxes."""
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


def test_what_comes_out_of_the_heads_is_float32_under_autocast(network, images):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = network(images)[0]
    assert {value.dtype for name, value in found.items() if name != "labels"} == {torch.float32}
    whole = found["boxes"].bfloat16().float()
    assert not torch.equal(whole, found["boxes"])  # finer than bfloat16 could say


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


def test_validation_losses_are_those_of_training(images):
    torch.manual_seed(0)
    made = construct(replace(SMALL, frozen=True))  # without running statistics both modes compute alike
    with torch.no_grad():
        torch.manual_seed(5)
        expected = made(images, TWO_OF_THREE)
        torch.manual_seed(5)
        found, _ = made.eval().losses_and_detections(images, TWO_OF_THREE)
    same_tensors(found, expected)


def test_anchors_are_parts_of_the_image():
    small, large = (construct(replace(SMALL, size=size)).rpn.anchor_generator for size in (64, 512))
    for few, many in zip(small.sizes, large.sizes, strict=True):
        assert [round(size / 8) for size in many] == pytest.approx(few, abs=1)
    assert large.sizes[1] == (95, 125)  # .186 and .244 of 512


@pytest.mark.parametrize(("part", "stride"), [(0.04, 8), (0.25, 8), (0.4, 16), (0.5, 16)])
def test_a_box_is_pooled_from_more_cells_than_bins(part, stride):
    made = construct(replace(SMALL, size=384))
    pool = made.roi_heads.box_roi_pool
    pool({str(level): torch.zeros(1, 128, 384 // 2**power, 384 // 2**power) for level, power in enumerate((3, 4, 5))},
         [torch.zeros(0, 4)], [(384, 384)])  # fmt: skip
    side = part * 384
    (level,) = pool.map_levels([torch.tensor([[0, 0, side, side]])])
    assert 8 * 2**level == stride and (side / stride > 7 or stride == 8)


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


def test_a_downloaded_backbone_sees_grey_as_three_equal_planes(photographs, monkeypatch, images):
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


def test_a_classifier_of_ours_gives_backbone_and_image_head(tmp_path, processor):
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


def test_a_detector_of_ours_is_taken_whole(network, tmp_path):
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
    "a first layer that is a vector": (
        lambda: torchvision.models.resnet18(weights=None).state_dict() | {"conv1.weight": torch.zeros(64)},
        "not the weights of resnet18",
    ),
    "a classifier without weights": (lambda: {"format": 1, "task": "classification"}, "expected a checkpoint"),
    "a detector without weights": (
        lambda: {"format": 1, "task": TASK, "architecture": asdict(SMALL)},
        "expected a checkpoint",
    ),
    "a detector without architecture": (lambda: {"format": 1, "task": TASK}, "expected an architecture .* found None"),
    "a detector of another size": (
        lambda: {"format": 1, "task": TASK, "architecture": asdict(replace(SMALL, size=10**6))},
        "expected an architecture",
    ),
    "a detector with another backbone": (
        lambda: {"format": 1, "task": TASK, "architecture": asdict(replace(SMALL, backbone="resnet50_v2"))},
        "a detector with --backbone resnet50_v2, not resnet18",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_other_files_are_refused_by_name(content, message, tmp_path):
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth: .*{message}"):
        build(str(tmp_path / "other.pth"), "resnet18", SIZE, image_head=True)


def test_a_classifier_fits_no_other_backbone(tmp_path):
    write_classifier(tmp_path / "classifier.pth")
    with pytest.raises(
        ValueError, match="a classifier, which is a ResNet-18; expected --backbone resnet18, not resnet50"
    ):
        build(str(tmp_path / "classifier.pth"), "resnet50_v2", SIZE, image_head=True)


def test_coco_has_no_resnet18():
    with pytest.raises(ValueError, match=r"it has COCO's for --backbone resnet50_v2, and --weights imagenet for both"):
        build("coco", "resnet18", SIZE, image_head=True)


# ---------------------------------------------------------------------------------------------------- finding boxes


def detection(boxes, scores, probability=1.0):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.ones(len(scores), dtype=torch.int64),
        "image_probability": torch.tensor(probability),
    }


def test_two_views_are_fused_by_their_scores():
    one = detection([[0, 0, 10, 10], [40, 40, 50, 50]], [0.9, 0.5], 0.8)
    other = detection([[0, 0, 10, 14], [20, 20, 30, 30]], [0.3, 0.4], 0.4)
    found = fuse([one, other])
    # (.9 * 10 + .3 * 14) / 1.2 = 11, (.9 + .3) / 2 = .6; what one view alone saw keeps its place and half its score
    assert torch.allclose(found["boxes"], torch.tensor([[0, 0, 10, 11.0], [40, 40, 50, 50], [20, 20, 30, 30]]))
    assert torch.allclose(found["scores"], torch.tensor([0.6, 0.25, 0.2]))
    assert found["image_probability"] == pytest.approx(0.6)
    assert found["labels"].tolist() == [1, 1, 1]


def test_views_without_boxes_fuse_to_none():
    found = fuse([detection([], [], 0.2), detection([], [], 0.4)])
    assert found["boxes"].shape == (0, 4) and found["image_probability"] == pytest.approx(0.3)


def test_a_fused_score_never_exceeds_the_views():
    crowd = detection([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]], [1.0, 1.0, 1.0])
    assert fuse([crowd, crowd])["scores"].tolist() == [1.0]


NESTED = {
    "a smaller one within": ([[0, 0, 40, 40], [5, 5, 15, 15], [50, 0, 60, 20]], [0.9, 0.6, 0.5], [0.9, 0.5, 0.3]),
    "a larger one around": ([[5, 5, 15, 15], [0, 0, 40, 40], [50, 0, 60, 20]], [0.9, 0.6, 0.5], [0.9, 0.5, 0.3]),
    "most of it within": ([[0, 0, 40, 40], [35, 0, 41, 20]], [0.8, 0.4], [0.8, 0.2]),
    "two thirds of it within": ([[0, 0, 40, 40], [36, 0, 42, 20]], [0.8, 0.4], [0.8, 0.4]),
    "in two at once": ([[0, 0, 40, 40], [20, 20, 60, 60], [22, 22, 32, 32]], [0.9, 0.8, 0.4], [0.9, 0.8, 0.2]),
    "as sure as the other": ([[0, 0, 40, 40], [5, 5, 15, 15]], [0.7, 0.7], [0.7, 0.7]),
    "none": ([], [], []),
}


@pytest.mark.parametrize(("boxes", "scores", "wanted"), NESTED.values(), ids=NESTED)
def test_of_boxes_in_boxes_the_less_sure_has_half_its_score(boxes, scores, wanted):
    found = downweight_nested_boxes(detection(boxes, scores))
    np.testing.assert_allclose(found["scores"], wanted, rtol=1e-6)
    assert found["boxes"].shape == (len(boxes), 4) and found["labels"].shape == (len(boxes),)
    halved = dict(zip(map(tuple, found["boxes"].tolist()), found["scores"].tolist(), strict=True))
    assert all(halved[tuple(box)] <= score + 1e-6 for box, score in zip(boxes, scores, strict=True))


def test_with_flip_average_an_image_and_its_mirror_image_have_mirrored_boxes(network, processor, monkeypatch):
    squares = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    mirrored = np.ascontiguousarray(squares[:, :, ::-1])
    one, other = (find_boxes([network], some, np.arange(3), True, processor) for some in (squares, mirrored))
    for boxes, scores, turned, their_scores in zip(one.boxes, one.scores, other.boxes, other.scores, strict=True):
        back = np.stack([SIZE - turned[:, 2], turned[:, 1], SIZE - turned[:, 0], turned[:, 3]], axis=1)
        order, their_order = np.lexsort(boxes.T.round(2)), np.lexsort(back.T.round(2))
        np.testing.assert_allclose(boxes[order], back[their_order], atol=1e-2)
        np.testing.assert_allclose(scores[order], their_scores[their_order], atol=1e-4)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)


def test_what_several_networks_find_is_fused(network, processor):
    torch.manual_seed(1)
    other = construct(SMALL).eval()
    squares = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    with torch.inference_mode():
        alone = [one(as_input(torch.from_numpy(squares))) for one in (network, other)]
    found = find_boxes([network, other], squares, np.arange(3), False, processor)
    for row, views in enumerate(zip(*alone, strict=True)):
        wanted = downweight_nested_boxes(fuse(views))
        np.testing.assert_allclose(found.boxes[row], wanted["boxes"], atol=1e-3)
        np.testing.assert_allclose(found.scores[row], wanted["scores"], atol=1e-5)
    both = torch.stack([torch.stack([one["image_probability"] for one in some]) for some in alone])
    np.testing.assert_allclose(found.probability, both.mean(0), atol=1e-5)


def test_every_image_is_asked_once_and_in_order(network, processor, monkeypatch):
    monkeypatch.setattr(inference, "_BATCH", 2)
    squares = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
    found = find_boxes([network], squares, np.array([4, 0, 2]), False, processor)
    for place, index in enumerate([4, 0, 2]):
        alone = find_boxes([network], squares, np.array([index]), False, processor)
        np.testing.assert_allclose(found.boxes[place], alone.boxes[0], atol=1e-3)
        np.testing.assert_allclose(found.probability[place], alone.probability[0], atol=1e-5)


def test_the_answers_of_several_processes_are_put_in_order(monkeypatch):
    def answers(numbers):
        return Found(
            [np.full((n, 4), n) for n in numbers], [np.full(n, n / 10) for n in numbers], np.array(numbers) / 10
        )

    # five images among three processes: 0 and 3, 1 and 4, 2
    parts = [answers([0, 3]), answers([1, 4]), answers([2])]
    monkeypatch.setattr(inference.runtime, "gather_objects", lambda _value, _run: parts)
    found = parts[1].gathered(Runtime(torch.device("cpu"), False, rank=1, world_size=3))
    assert [len(boxes) for boxes in found.boxes] == [0, 1, 2, 3, 4] == [len(scores) for scores in found.scores]
    assert found.probability.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]


# ---------------------------------------------------------------------------------------------------------- rules

BOX = np.array([[10.0, 10, 30, 50]])


def test_the_gate_multiplies_scores_by_the_image():
    found = Found([BOX, BOX], [np.array([0.8]), np.array([0.5])], np.array([0.25, 1.0]))
    assert [scores.tolist() for scores in found.gated(0.0)] == [[0.8], [0.5]]
    assert [scores.tolist() for scores in found.gated(0.5)] == [[0.4], [0.5]]
    assert [scores.tolist() for scores in found.gated(1.0)] == [[0.2], [0.5]]


def test_a_rule_shrinks_about_the_centre_and_keeps_every_box():
    found = Found([BOX], [np.array([0.01])], np.array([0.5]))
    boxes, scores = Rule(1.0, 0.5, 0.9).apply(found)
    assert boxes[0].tolist() == [[15.0, 20.0, 25.0, 40.0]] and scores[0].tolist() == [0.005]


def test_the_gate_is_chosen_where_images_are_told_apart_better_than_boxes():
    truths = [BOX, BOX, np.zeros((0, 4)), np.zeros((0, 4))]
    scores = [np.array([0.6]), np.array([0.7]), np.array([0.8]), np.array([0.9])]
    found = Found([BOX] * 4, scores, np.array([0.9, 0.9, 0.1, 0.1]))
    assert choose_gate(found, truths) > 0
    rule, score = choose_rule(found, truths)
    assert rule.gate_power == choose_gate(found, truths) and score == pytest.approx(1.0)
    kept = [scores >= rule.threshold for scores in found.gated(rule.gate_power)]
    assert [some.tolist() for some in kept] == [[True], [True], [False], [False]]
    misled = replace(found, probability=np.array([0.1, 0.1, 0.9, 0.9]), scores=scores[::-1])
    assert choose_gate(misled, truths) == 0


def test_boxes_are_shrunk_where_they_are_too_large():
    truths = [np.array([[10.0, 10, 30, 50]])] * 8
    large = [np.array([[8.24, 6.47, 31.76, 53.53]])] * 8  # 1 / .85 of the truth: IoU .72, a miss at .75
    rule, score = choose_rule(Found(large, [np.array([0.9])] * 8, np.ones(8)), truths)
    assert rule.shrink < 1 and score == pytest.approx(1.0)
    rule, _ = choose_rule(Found(truths, [np.array([0.9])] * 8, np.ones(8)), truths)
    assert rule.shrink == 1.0


# ----------------------------------------------------------------------------------------------------------- the file


def test_a_detector_is_saved_and_loaded(network, processor, tmp_path):
    squares = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
    torch.manual_seed(1)
    made = Detector((network, construct(SMALL).eval()), True, Rule(0.5, 0.9, 0.25))
    made.save(tmp_path / "model.pth", epoch=3)
    found = Detector.load(tmp_path / "model.pth", processor)
    assert (found.flip_average, found.rule) == (True, made.rule)
    assert found.size == SIZE and not any(one.training for one in found.networks)
    for one, other in zip(found.find(squares, processor).boxes, made.find(squares, processor).boxes, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert checkpoints.load(tmp_path / "model.pth", task=TASK)["epoch"] == 3


def changed(state, name, value):
    state[name] = value


SOUND = {"flip_average": False, "rule": asdict(Rule(1.0, 0.9, 0.5))}
BROKEN = {
    "an unfinished training": (
        lambda s: s.pop("prediction"),
        "from a training, .*; the finished model is pneumonia_fasterrcnn",
    ),
    "settings that are none": (lambda s: changed(s, "prediction", 3), "expected the prediction settings"),
    "settings that lack one": (lambda s: s["prediction"].pop("rule"), "expected the prediction settings"),
    "no rule": (lambda s: changed(s["prediction"], "rule", None), "expected the prediction settings"),
    "a rule of text": (lambda s: changed(s["prediction"]["rule"], "threshold", "0.5"), "that no training writes"),
    "a threshold above 1": (lambda s: changed(s["prediction"]["rule"], "threshold", 2.0), "that no training writes"),
    "boxes shrunk to nothing": (lambda s: changed(s["prediction"]["rule"], "shrink", 0.0), "that no training writes"),
    "settings of an earlier version": (
        lambda s: s["prediction"].update(combined=None, classifier=""),
        "as this version writes them to pneumonia_fasterrcnn.pth, found .*; train anew",
    ),
    "an unknown backbone": (lambda s: changed(s["architecture"], "backbone", "vgg"), "expected an architecture"),
    "further networks that are none": (lambda s: changed(s, "members", {}), "expected a list of further networks"),
    "a further network without weights": (lambda s: changed(s, "members", [{}]), "not the weights of its own"),
    "weights of another network": (
        lambda s: changed(s["architecture"], "image_head", False),
        "not the weights of its own architecture",
    ),
    "weights that are not finite": (
        lambda s: s["model"]["image_head.bias"].fill_(float("nan")),
        "weights that are not finite numbers",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_model_files_that_no_training_writes_are_refused(damage, message, network, processor, tmp_path):
    state = {
        "architecture": asdict(SMALL),
        "prediction": {**SOUND, "rule": dict(SOUND["rule"])},
        "model": {name: value.clone() for name, value in network.state_dict().items()},
    }
    damage(state)
    checkpoints.save(tmp_path / "some.pth", task=TASK, **state)
    with pytest.raises(ValueError, match=rf"some\.pth: .*{message}"):
        Detector.load(tmp_path / "some.pth", processor)
