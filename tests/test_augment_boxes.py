import math

import pytest
import torch

from cxr.augment import random_affine, warp
from pytorch_detection.training_data import join_halves, move_boxes

PLAIN = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def matrix(rows):
    return torch.tensor(rows, dtype=torch.float32)[None]


def moved(box, rows, size=100, least_kept=0.4):
    (found,) = move_boxes([torch.tensor([box], dtype=torch.float32)], matrix(rows), size, least_kept=least_kept)
    return found


# Each matrix leads from the output back to the input, in coordinates that run from -1 to 1 over 100 pixels.
WORKED = {
    "nothing": ([[1, 0, 0], [0, 1, 0]], [10, 20, 40, 60], [10, 20, 40, 60]),
    "the output looks 10 pixels further right": ([[1, 0, 0.2], [0, 1, 0]], [10, 20, 40, 60], [0, 20, 30, 60]),
    "the output looks 10 pixels further up": ([[1, 0, 0], [0, 1, -0.2]], [10, 20, 40, 60], [10, 30, 40, 70]),
    "left is right": ([[-1, 0, 0], [0, 1, 0]], [10, 20, 40, 60], [60, 20, 90, 60]),
    "half of the input fills the output": ([[0.5, 0, 0], [0, 0.5, 0]], [30, 40, 50, 70], [10, 30, 50, 90]),
    "twice as wide alone": ([[0.5, 0, 0], [0, 1, 0]], [30, 40, 50, 70], [10, 40, 50, 70]),
    # x' = y and y' = -x in the matrix's coordinates: what lay right of the centre comes to lie above it.
    "a quarter turn": ([[0, -1, 0], [1, 0, 0]], [60, 45, 90, 55], [45, 10, 55, 40]),
    "cut at the left edge": ([[1, 0, 0.4], [0, 1, 0]], [10, 20, 40, 60], [0, 20, 20, 60]),
}


@pytest.mark.parametrize(("rows", "box", "expected"), WORKED.values(), ids=WORKED)
def test_a_box_goes_where_the_numbers_say(rows, box, expected):
    assert torch.allclose(moved(box, rows), torch.tensor([expected], dtype=torch.float32), atol=1e-4)


def test_a_box_bounds_the_turned_ellipse_within_it():
    angle = math.radians(30)
    rows = [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]]
    halves = [
        math.hypot(20 * math.cos(angle), 10 * math.sin(angle)),
        math.hypot(20 * math.sin(angle), 10 * math.cos(angle)),
    ]
    expected = [50 - halves[0], 50 - halves[1], 50 + halves[0], 50 + halves[1]]
    assert torch.allclose(moved([30, 40, 70, 60], rows), torch.tensor([expected]), atol=1e-4)


@pytest.mark.parametrize(("least_kept", "count"), [(0.39, 1), (0.41, 0), (0.0, 1), (1.0, 0)])
def test_a_box_that_keeps_too_little_of_its_area_is_dropped(least_kept, count):
    shifted = [[1, 0, 0.4], [0, 1, 0]]  # 20 pixels to the left
    found = moved([8, 20, 28, 60], shifted, least_kept=least_kept)  # keeps 8 of 20 columns
    assert found.shape == (count, 4)


def test_each_image_moves_its_own_boxes_and_none_stays_none():
    boxes = [
        torch.tensor([[10.0, 20, 40, 60], [50, 50, 70, 90]]),
        torch.zeros(0, 4),
        torch.tensor([[10.0, 20, 40, 60]]),
    ]
    flip = torch.tensor([[-1.0, 0, 0], [0, 1, 0]])
    found = move_boxes(boxes, torch.stack([flip, flip, PLAIN]), 100, least_kept=0.4)
    expected = [[[60, 20, 90, 60], [30, 50, 50, 90]], [], [[10, 20, 40, 60]]]
    for some, numbers in zip(found, expected, strict=True):
        assert some.dtype == torch.float32 and some.shape == (len(numbers), 4)
        assert torch.allclose(some, torch.tensor(numbers, dtype=torch.float32).reshape(-1, 4), atol=1e-4)


@pytest.mark.parametrize("turned", [0, 15])
def test_boxes_stay_on_what_they_bound(turned):
    """The picture is the judge: ellipses are drawn, warped, and bounded again."""
    size, count = 200, 12
    generator = torch.Generator().manual_seed(3)
    matrices = random_affine(
        count,
        generator,
        rotation_degrees=turned,
        zoom=0.25,
        stretch=0.15,
        shear=0.1 * bool(turned),
        shift=0.15,
        flip=0.5,
    )
    boxes = torch.tensor([[60.0, 50, 110, 120]]).repeat(count, 1)
    axis = torch.arange(size) + 0.5
    ellipse = ((axis[None, :] - 85) / 25) ** 2 + ((axis[:, None] - 85) / 35) ** 2 < 1
    images = warp(ellipse.float().repeat(count, 1, 1, 1), matrices, size)
    found = move_boxes(list(boxes[:, None]), matrices, size, least_kept=0.4)
    for image, some in zip(images[:, 0] > 0.5, found, strict=True):
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        seen = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
        assert (some - seen).abs().max() < 2  # a pixel for the drawing and one for the warping


class TestJoinHalves:
    SIZE = 100

    def joined(self, boxes, share=1.0, least_kept=0.4, seed=0):
        images = torch.arange(1, len(boxes) + 1).float()[:, None, None, None].expand(-1, 1, self.SIZE, self.SIZE)
        boxes = [torch.tensor(some, dtype=torch.float32).reshape(-1, 4) for some in boxes]
        images, boxes, source = join_halves(
            images, boxes, torch.Generator().manual_seed(seed), share=share, least_kept=least_kept
        )
        assert images[:, 0, 0, -1].tolist() == (source + 1).tolist()
        return images, boxes

    def test_each_half_brings_the_boxes_that_lie_in_it(self):
        left, right = [5, 10, 40, 60], [60, 20, 95, 80]
        images, boxes = self.joined([[[number, *left[1:]], right] for number in range(8)])
        assert len({tuple(some[0].tolist()) for some in boxes}) == 8  # every image keeps a left half: its own
        for number, (image, some) in enumerate(zip(images, boxes, strict=True)):
            assert some.tolist() == [[number, *left[1:]], right]
            assert (image[0, :, :40] == number + 1).all()
            assert len(image[0, :, 60:].unique()) == 1
        assert images[:, 0, 0, -1].sort().values.tolist() == list(range(1, 9))  # each right half is used once
        assert images[:, 0, 0, -1].tolist() != list(range(1, 9))

    def test_boxes_come_from_where_the_pixels_come_from(self):
        images, boxes = self.joined([[], [[60, 20, 95, 80]], [], [[60, 30, 95, 80]]])
        for image, some in zip(images, boxes, strict=True):
            source = int(image[0, 0, -1]) - 1
            assert some.tolist() == {1: [[60, 20, 95, 80]], 3: [[60, 30, 95, 80]]}.get(source, [])

    def test_a_box_across_the_seam_is_cut_in_two(self):
        first, second = self.joined([[[40, 0, 60, 9]]])[1][0].tolist()  # the only image joins with itself
        assert 46 <= first[2] <= 54
        assert first == [40, 0, first[2], 9] and second == [first[2], 0, 60, 9]

    def test_what_keeps_too_little_of_its_width_is_dropped(self):
        ((left, top, seam, bottom),) = self.joined([[[20, 0, 60, 9]]])[1][0].tolist()
        assert (left, top, bottom) == (20, 0, 9) and 46 <= seam <= 54

    def test_without_a_share_nothing_changes(self):
        images, boxes = self.joined([[[5, 10, 40, 60]], []], share=0.0)
        assert [len(some) for some in boxes] == [1, 0] and images[:, 0, 0, -1].tolist() == [1, 2]

    def test_the_seam_is_soft_and_half_of_the_images_are_joined(self):
        images, _ = self.joined([[]] * 400, share=0.5)
        whole = (images[:, 0, 0, :] == images[:, 0, 0, :1]).all(dim=1)
        assert 0.4 < whole.float().mean() < 0.6
        steps = images[:, 0, 0, :].diff(dim=1).abs()
        jump = (images[:, 0, 0, -1] - images[:, 0, 0, 0]).abs()
        assert (steps.amax(dim=1) <= 0.26 * jump + 1e-3).all()
