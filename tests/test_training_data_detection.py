import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_detection
import torch
from tiny_detection import settings, write_rsna

from cxr.augment import random_affine, warp
from pytorch_detection import training_data
from pytorch_detection.rsna_dataset import IMAGES
from pytorch_detection.training_data import (
    augmented,
    batch_of,
    epoch_order,
    join_halves,
    joined_labels,
    labelled,
    load_data,
    move_boxes,
)


@pytest.fixture(scope="module")
def data(finished, tmp_path_factory, processor):
    """The data of the finished training, to be read only."""
    return load_data(replace(finished.config, output_dir=tmp_path_factory.mktemp("again")), processor)


# ---------------------------------------------------------------------------------------------------- split and batches


def test_no_patient_is_in_two_splits(data):
    splits = [data.of(indices) for indices in (data.train, data.validation, data.held_out)]
    assert sum(map(len, splits)) == tiny_detection.EXAMS
    train, validation, held_out = ({exam.patient for exam in split} for split in splits)
    assert not train & validation and not train & held_out and not validation & held_out
    assert all(any(exam.boxes_xyxy for exam in split) for split in splits)


def test_content_boxes_and_split_of_each_image_are_among_the_facts(data):
    first = data.exams[0]
    others = (
        replace(data, hashes=["0" * 64, *data.hashes[1:]]),
        replace(data, exams=[replace(first, boxes_xyxy=((1.0, 2.0, 3.0, 4.0),)), *data.exams[1:]]),
        replace(data, train=data.validation, validation=data.train),
    )
    changed = [{name for name, fact in other.facts().items() if data.facts()[name] != fact} for other in others]
    assert changed[:2] == [{f"{IMAGES}/{first.path.name}"}] * 2
    assert changed[2] == {f"{IMAGES}/{data.exams[i].path.name}" for i in (*data.train, *data.validation)}


def test_unreadable_images_can_be_skipped(folder, processor):
    data = write_rsna(folder / "dataset_det")
    config = settings(data, folder, skip_bad=True)
    whole = load_data(config, processor)
    broken = data / IMAGES / f"{whole.exams[int(whole.train[0])].exam_id}.dcm"
    broken.write_bytes(broken.read_bytes()[:-3000])
    with pytest.warns(UserWarning, match="1 unreadable images are left out"):
        found = load_data(config, processor)
    assert found.train.tolist() == whole.train[1:].tolist()
    assert found.validation.tolist() == whole.validation.tolist()


def test_a_batch_holds_the_squares_and_boxes_of_its_exams(data, processor):
    indices = data.train[[3, 0]]
    stored, targets = batch_of(data, indices, processor)
    assert stored.shape == (2, 64, 64) and stored.dtype == torch.uint8
    assert np.array_equal(stored.numpy(), data.images.images[indices])
    for target, truth in zip(targets, data.truths(indices), strict=True):
        assert np.array_equal(target["boxes"].numpy(), truth) and target["labels"].tolist() == [1] * len(truth)
    assert [target["abnormal"].item() for target in targets] == [
        float(data.exams[index].finding != "Normal") for index in indices
    ]


class TestEpochOrder:
    EXAMS = tuple(SimpleNamespace(boxes_xyxy=("box",) * (number % 5 == 0)) for number in range(100))
    DATA = SimpleNamespace(exams=EXAMS, train=np.arange(10, 100))  # 18 with opacity, 72 without

    @pytest.mark.parametrize(("ratio", "negatives"), [(0, 0), (0.5, 9), (1, 18), (3.5, 63), (4, 72), (50, 72)])
    def test_every_positive_and_so_many_negatives_for_each(self, ratio, negatives):
        found = epoch_order(self.DATA, 0, 0, ratio)
        assert len(set(found)) == len(found) and set(found) <= set(self.DATA.train)
        assert sum(index % 5 == 0 for index in found) == 18
        assert sum(index % 5 != 0 for index in found) == negatives

    def test_seed_and_epoch_decide(self):
        def order(seed, epoch):
            return epoch_order(self.DATA, seed, epoch, 1.0).tolist()

        assert order(1, 2) == order(1, 2)
        assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
        assert len({index for epoch in range(30) for index in order(0, epoch)}) == 90  # sooner or later each exam


# ---------------------------------------------------------------------------------------------------------- augmentation


def same(box, count):
    """Targets of ``count`` images with the same box."""
    return labelled([torch.tensor(box).reshape(-1, 4)] * count, torch.ones(count))


@pytest.mark.parametrize("light", [False, True])
def test_boxes_follow_their_opacities_through_augmentation(light, monkeypatch):
    monkeypatch.setattr(training_data, "join_halves", lambda images, boxes, *_, **__: (images, boxes, torch.arange(32)))
    stored = torch.full((32, 64, 64), 60, dtype=torch.uint8)
    stored[:, 20:44, 16:36] = 200
    images, targets = augmented(stored, same([16.0, 20, 36, 44], 32), torch.Generator().manual_seed(0), light)
    boxes = [target["boxes"] for target in targets]
    assert images.shape == (32, 1, 64, 64) and images.dtype == torch.float32
    for image, found in zip(images[:, 0], boxes, strict=True):
        bright = image > (image.max() + image.median()) / 2
        assert (found - bounds(bright)).abs().max() < 4  # the corners of a rotated box lie outside its ellipse
    moves = torch.cat(boxes).std(0)
    assert (moves < 12).all() and (moves > 0.5).all() if light else (moves > 2).all()
    assert (images.amax((1, 2, 3)).std() < 0.02) == light  # light augmentation leaves the tone


def bounds(mask):
    """The box [1, 4] xyxy around the True pixels of ``mask``."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])


@pytest.mark.parametrize("light", [False, True])
def test_images_are_joined_from_two_patients_until_the_final_epochs(light):
    stored = torch.full((32, 64, 64), 60, dtype=torch.uint8)
    _, targets = augmented(stored, same([10.0, 20, 25, 44], 32), torch.Generator().manual_seed(0), light)
    assert ({len(target["boxes"]) for target in targets} == {1}) == light


def test_labels_of_joined_images():
    normal, ill, unknown = 0.0, 1.0, math.nan
    abnormal = torch.tensor([normal, normal, ill, ill, unknown, ill])
    source = torch.tensor([1, 2, 0, 3, 0, 4])  # the fourth is not joined
    none, one = torch.zeros(0, 4), torch.ones(1, 4)
    found = joined_labels(abnormal, source, [none, none, one, none, none, none])
    expected = torch.tensor([normal, unknown, ill, ill, unknown, unknown])
    assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1))


def moved(box, rows, size=100, least_kept=0.4):
    matrix = torch.tensor(rows, dtype=torch.float32)[None]
    (found,) = move_boxes([torch.tensor([box], dtype=torch.float32)], matrix, size, least_kept=least_kept)
    return found


# Each matrix maps from the output to the input, in coordinates from -1 to 1 over 100 pixels.
WORKED = {
    "identity": ([[1, 0, 0], [0, 1, 0]], [10, 20, 40, 60], [10, 20, 40, 60]),
    "10 pixels to the left": ([[1, 0, 0.2], [0, 1, 0]], [10, 20, 40, 60], [0, 20, 30, 60]),
    "10 pixels down": ([[1, 0, 0], [0, 1, -0.2]], [10, 20, 40, 60], [10, 30, 40, 70]),
    "flip": ([[-1, 0, 0], [0, 1, 0]], [10, 20, 40, 60], [60, 20, 90, 60]),
    "twice as large": ([[0.5, 0, 0], [0, 0.5, 0]], [30, 40, 50, 70], [10, 30, 50, 90]),
    "twice as wide": ([[0.5, 0, 0], [0, 1, 0]], [30, 40, 50, 70], [10, 40, 50, 70]),
    # x' = y and y' = -x in the matrix's coordinates: from right of the centre to above it.
    "90 degrees": ([[0, -1, 0], [1, 0, 0]], [60, 45, 90, 55], [45, 10, 55, 40]),
    "cut at the left edge": ([[1, 0, 0.4], [0, 1, 0]], [10, 20, 40, 60], [0, 20, 20, 60]),
}


@pytest.mark.parametrize(("rows", "box", "expected"), WORKED.values(), ids=WORKED)
def test_worked_examples_of_moved_boxes(rows, box, expected):
    assert torch.allclose(moved(box, rows), torch.tensor([expected], dtype=torch.float32), atol=1e-4)


def test_a_box_bounds_the_rotated_ellipse_within_it():
    angle = math.radians(30)
    rows = [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]]
    half_width = math.hypot(20 * math.cos(angle), 10 * math.sin(angle))
    half_height = math.hypot(20 * math.sin(angle), 10 * math.cos(angle))
    expected = [50 - half_width, 50 - half_height, 50 + half_width, 50 + half_height]
    assert torch.allclose(moved([30, 40, 70, 60], rows), torch.tensor([expected]), atol=1e-4)


@pytest.mark.parametrize(("least_kept", "count"), [(0.39, 1), (0.41, 0), (0.0, 1), (1.0, 0)])
def test_a_box_that_keeps_too_little_of_its_area_is_dropped(least_kept, count):
    shifted = [[1, 0, 0.4], [0, 1, 0]]  # 20 pixels to the left
    found = moved([8, 20, 28, 60], shifted, least_kept=least_kept)  # keeps 8 of 20 columns
    assert found.shape == (count, 4)


@pytest.mark.parametrize("degrees", [0, 15])
def test_boxes_bound_drawn_and_warped_ellipses(degrees):
    size, count = 200, 12
    matrices = random_affine(
        count,
        torch.Generator().manual_seed(3),
        rotation_degrees=degrees,
        zoom=0.25,
        stretch=0.15,
        shear=0.1 * bool(degrees),
        shift=0.15,
        flip=0.5,
    )
    boxes = torch.tensor([[60.0, 50, 110, 120]]).repeat(count, 1)
    axis = torch.arange(size) + 0.5
    ellipse = ((axis[None, :] - 85) / 25) ** 2 + ((axis[:, None] - 85) / 35) ** 2 < 1
    images = warp(ellipse.float().repeat(count, 1, 1, 1), matrices, size)
    found = move_boxes(list(boxes[:, None]), matrices, size, least_kept=0.4)
    for image, some in zip(images[:, 0] > 0.5, found, strict=True):
        assert (some - bounds(image)).abs().max() < 2  # a pixel for drawing and one for warping


class TestJoinHalves:
    SIZE = 100

    def joined(self, boxes, prob=1.0):
        images = torch.arange(1, len(boxes) + 1).float()[:, None, None, None].expand(-1, 1, self.SIZE, self.SIZE)
        boxes = [torch.tensor(some, dtype=torch.float32).reshape(-1, 4) for some in boxes]
        images, boxes, source = join_halves(images, boxes, torch.Generator().manual_seed(0), prob=prob, least_kept=0.4)
        assert images[:, 0, 0, -1].tolist() == (source + 1).tolist()
        return images, boxes

    def test_each_half_brings_its_boxes(self):
        left, right = [5, 10, 40, 60], [60, 20, 95, 80]
        images, boxes = self.joined([[[number, *left[1:]], right] for number in range(8)])
        assert len({tuple(some[0].tolist()) for some in boxes}) == 8  # every image keeps its own left half
        for number, (image, some) in enumerate(zip(images, boxes, strict=True)):
            assert some.tolist() == [[number, *left[1:]], right]
            assert (image[0, :, :40] == number + 1).all()
            assert len(image[0, :, 60:].unique()) == 1
        assert images[:, 0, 0, -1].sort().values.tolist() == list(range(1, 9))  # each right half is used once
        assert images[:, 0, 0, -1].tolist() != list(range(1, 9))

    def test_boxes_and_pixels_have_the_same_source(self):
        images, boxes = self.joined([[], [[60, 20, 95, 80]], [], [[60, 30, 95, 80]]])
        for image, some in zip(images, boxes, strict=True):
            source = int(image[0, 0, -1]) - 1
            assert some.tolist() == {1: [[60, 20, 95, 80]], 3: [[60, 30, 95, 80]]}.get(source, [])

    def test_a_box_across_the_seam_is_cut_in_two_and_a_narrow_rest_is_dropped(self):
        first, second = self.joined([[[40, 0, 60, 9]]])[1][0].tolist()  # the only image is joined with itself
        assert 46 <= first[2] <= 54
        assert first == [40, 0, first[2], 9] and second == [first[2], 0, 60, 9]
        ((left, top, seam, bottom),) = self.joined([[[20, 0, 60, 9]]])[1][0].tolist()
        assert (left, top, bottom) == (20, 0, 9) and 46 <= seam <= 54
