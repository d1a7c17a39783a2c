from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_detection import anything_goes

from cxr import checkpoints
from cxr.prediction import Box
from cxr.runtime import Runtime
from pytorch_detection import inference
from pytorch_detection.detector import Detector, Rule, choose_gate, choose_rule
from pytorch_detection.inference import RawDetections, as_input, downweight_nested_boxes, find_boxes, fuse
from pytorch_detection.model import TASK, Architecture, construct

SIZE = 64
SMALL = Architecture("resnet18", SIZE, frozen=False, image_head=True)


@pytest.fixture(scope="module")
def network():
    """A network with random weights that predicts boxes; to be read only."""
    torch.manual_seed(0)
    made = construct(SMALL)
    with torch.no_grad():
        made.roi_heads.box_predictor.bbox_pred.weight.mul_(20)  # boxes that differ from their proposals
    return made.eval()


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
    # (.9 * 10 + .3 * 14) / 1.2 = 11, (.9 + .3) / 2 = .6; a box of one view keeps its place and half its score
    assert torch.allclose(found["boxes"], torch.tensor([[0, 0, 10, 11.0], [40, 40, 50, 50], [20, 20, 30, 30]]))
    assert torch.allclose(found["scores"], torch.tensor([0.6, 0.25, 0.2]))
    assert found["image_probability"] == pytest.approx(0.6)
    assert found["labels"].tolist() == [1, 1, 1]


NESTED = {
    "a smaller one within": ([[0, 0, 40, 40], [5, 5, 15, 15], [50, 0, 60, 20]], [0.9, 0.6, 0.5], [0.9, 0.5, 0.3]),
    "a larger one around": ([[5, 5, 15, 15], [0, 0, 40, 40], [50, 0, 60, 20]], [0.9, 0.6, 0.5], [0.9, 0.5, 0.3]),
    "most of it within": ([[0, 0, 40, 40], [35, 0, 41, 20]], [0.8, 0.4], [0.8, 0.2]),
    "two thirds of it within": ([[0, 0, 40, 40], [36, 0, 42, 20]], [0.8, 0.4], [0.8, 0.4]),
    "in two at once": ([[0, 0, 40, 40], [20, 20, 60, 60], [22, 22, 32, 32]], [0.9, 0.8, 0.4], [0.9, 0.8, 0.2]),
    "of equal score": ([[0, 0, 40, 40], [5, 5, 15, 15]], [0.7, 0.7], [0.7, 0.7]),
    "none": ([], [], []),
}


@pytest.mark.parametrize(("boxes", "scores", "wanted"), NESTED.values(), ids=NESTED)
def test_of_nested_boxes_the_lower_score_is_halved(boxes, scores, wanted):
    found = downweight_nested_boxes(detection(boxes, scores))
    np.testing.assert_allclose(found["scores"], wanted, rtol=1e-6)
    assert found["boxes"].shape == (len(boxes), 4) and found["labels"].shape == (len(boxes),)
    halved = dict(zip(map(tuple, found["boxes"].tolist()), found["scores"].tolist(), strict=True))
    assert all(halved[tuple(box)] <= score + 1e-6 for box, score in zip(boxes, scores, strict=True))


def test_with_flip_tta_an_image_and_its_mirror_image_have_mirrored_boxes(network, processor, monkeypatch):
    squares = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    mirrored = np.ascontiguousarray(squares[:, :, ::-1])
    one, other = (find_boxes([network], some, np.arange(3), True, processor) for some in (squares, mirrored))
    for boxes, scores, turned, their_scores in zip(one.boxes, one.scores, other.boxes, other.scores, strict=True):
        back = np.stack([SIZE - turned[:, 2], turned[:, 1], SIZE - turned[:, 0], turned[:, 3]], axis=1)
        order, their_order = np.lexsort(boxes.T.round(2)), np.lexsort(back.T.round(2))
        np.testing.assert_allclose(boxes[order], back[their_order], atol=1e-2)
        np.testing.assert_allclose(scores[order], their_scores[their_order], atol=1e-4)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)


def test_the_boxes_of_an_ensemble_are_fused(network, processor):
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


def test_boxes_are_those_of_the_images_at_the_indices_in_order(network, processor, monkeypatch):
    monkeypatch.setattr(inference, "_BATCH", 2)
    squares = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
    found = find_boxes([network], squares, np.array([4, 0, 2]), False, processor)
    for place, index in enumerate([4, 0, 2]):
        alone = find_boxes([network], squares, np.array([index]), False, processor)
        np.testing.assert_allclose(found.boxes[place], alone.boxes[0], atol=1e-3)
        np.testing.assert_allclose(found.probability[place], alone.probability[0], atol=1e-5)


def test_the_detections_of_several_processes_are_put_in_order(monkeypatch):
    def detections(numbers):
        return RawDetections(
            [np.full((n, 4), n) for n in numbers], [np.full(n, n / 10) for n in numbers], np.array(numbers) / 10
        )

    # five images among three processes: 0 and 3, 1 and 4, 2
    parts = [detections([0, 3]), detections([1, 4]), detections([2])]
    monkeypatch.setattr(inference.runtime, "gather_objects", lambda _value, _run: parts)
    found = parts[1].gathered(Runtime(torch.device("cpu"), False, rank=1, world_size=3))
    assert [len(boxes) for boxes in found.boxes] == [0, 1, 2, 3, 4] == [len(scores) for scores in found.scores]
    assert found.probability.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]


# ---------------------------------------------------------------------------------------------------------- rules

BOX = np.array([[10.0, 10, 30, 50]])


def test_the_gate_multiplies_scores_by_the_image():
    found = RawDetections([BOX, BOX], [np.array([0.8]), np.array([0.5])], np.array([0.25, 1.0]))
    assert [scores.tolist() for scores in found.gated(0.0)] == [[0.8], [0.5]]
    assert [scores.tolist() for scores in found.gated(0.5)] == [[0.4], [0.5]]
    assert [scores.tolist() for scores in found.gated(1.0)] == [[0.2], [0.5]]


def test_a_rule_shrinks_about_the_centre_and_keeps_every_box():
    found = RawDetections([BOX], [np.array([0.01])], np.array([0.5]))
    boxes, scores = Rule(1.0, 0.5, 0.9).apply(found)
    assert boxes[0].tolist() == [[15.0, 20.0, 25.0, 40.0]] and scores[0].tolist() == [0.005]


def test_the_gate_is_chosen_where_images_are_classified_better_than_boxes():
    truths = [BOX, BOX, np.zeros((0, 4)), np.zeros((0, 4))]
    scores = [np.array([0.6]), np.array([0.7]), np.array([0.8]), np.array([0.9])]
    found = RawDetections([BOX] * 4, scores, np.array([0.9, 0.9, 0.1, 0.1]))
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
    rule, score = choose_rule(RawDetections(large, [np.array([0.9])] * 8, np.ones(8)), truths)
    assert rule.shrink < 1 and score == pytest.approx(1.0)
    rule, _ = choose_rule(RawDetections(truths, [np.array([0.9])] * 8, np.ones(8)), truths)
    assert rule.shrink == 1.0


def reported(processor, monkeypatch, raw, rule, size):
    """What a detector with ``rule`` reports of an image of ``size`` once its network has found ``raw``."""
    detector = Detector((SimpleNamespace(architecture=SimpleNamespace(size=100)),), False, rule)
    monkeypatch.setattr(Detector, "predict", lambda *_arguments: (raw, []))
    (result,) = detector.detect(np.zeros((1, 100, 100), np.uint8), [size], processor)
    return result


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ([10.0, 20, 30, 60], (50, 400), (40.0, 10.0, 80.0, 20.0)),
        ([-10.0, 90, 30, 130], (100, 200), (0.0, 90.0, 60.0, 10.0)),  # clipped at the image's border
    ],
)
def test_boxes_are_in_pixels_of_the_original_image(box, size, expected, processor, monkeypatch):
    raw = RawDetections([np.array([box])], [np.array([0.5])], np.array([1.0]))
    result = reported(processor, monkeypatch, raw, Rule(0.0, 1.0, 0.1), size)
    assert result == ((Box(*expected, 0.5),), 0.5, None)


def test_boxes_are_gated_shrunk_and_sorted(processor, monkeypatch):
    boxes = np.array([[10.0, 20, 30, 60], [50, 50, 90, 90], [0, 0, 10, 10]])
    raw = RawDetections([boxes], [np.array([0.4, 0.8, 0.1])], np.array([0.25]))
    result = reported(processor, monkeypatch, raw, Rule(0.5, 0.5, 0.2), (100, 100))
    assert result.boxes == (Box(60.0, 60.0, 20.0, 20.0, 0.4), Box(15.0, 30.0, 10.0, 20.0, 0.2))  # .8 and .4 times .5
    assert result.highest_score == 0.4


# ----------------------------------------------------------------------------------------------------------- the file


def test_a_detector_is_saved_and_loaded(network, processor, tmp_path):
    squares = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
    torch.manual_seed(1)
    networks = (network, construct(SMALL).eval())
    for one in networks:  # as the file keeps them
        one.load_state_dict(checkpoints.with_half_kernels(one.state_dict()))
    made = Detector(networks, True, Rule(0.5, 0.9, 0.25), anything_goes())
    made.save(tmp_path / "model.pth", epoch=3)
    found = Detector.load(tmp_path / "model.pth", processor)
    assert (found.flip_tta, found.rule) == (True, made.rule)
    assert found.size == SIZE and not any(one.training for one in found.networks)
    pairs = (detector.predict(squares, processor)[0].boxes for detector in (found, made))
    for one, other in zip(*pairs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert checkpoints.load(tmp_path / "model.pth", task=TASK)["epoch"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": None}, "a training checkpoint, not a finished model"),
        ({"architecture": {**asdict(SMALL), "image_head": False}}, "not the weights of its own architecture"),
        ({"model": {"image_head.bias": torch.full((2,), torch.nan)}}, "non-finite weights"),
        ({"task": "classification"}, "a checkpoint of the task 'classification'"),
    ],
    ids=["training checkpoint", "another network", "corrupted weights", "another task"],
)
def test_files_that_are_not_a_finished_detector_are_refused(changes, message, network, processor, tmp_path):
    path = tmp_path / "some.pth"
    Detector((network,), True, Rule(0.5, 0.9, 0.25), anything_goes()).save(path)
    state = checkpoints.read(path) | changes
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    with pytest.raises(ValueError, match=rf"some\.pth: .*{message}"):
        Detector.load(path, processor)
