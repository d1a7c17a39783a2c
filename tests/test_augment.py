import math

import pytest
import torch

from cxr import augment

STILL = {"rotation_degrees": 0, "zoom": 0, "stretch": 0, "shear": 0, "shift": 0, "flip": 0}


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, size=16, seed=1):
    return torch.rand(count, 1, size, size, generator=drawn(seed))


def stored_pictures(count, size=32, seed=1):
    """uint8 [count, size, size], each with a distribution of grey levels of its own."""
    exponents = torch.linspace(0.6, 1.6, count)[:, None, None]
    return (torch.rand(count, size, size, generator=drawn(seed)) ** exponents * 255).to(torch.uint8)


def point(size, row, column):
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1
    return image


def matrix(*rows):
    return torch.tensor([rows], dtype=torch.float32)


@pytest.fixture
def highest(monkeypatch):
    """Every draw gives the upper end of its range."""
    monkeypatch.setattr(augment, "uniform", lambda count, low, high, generator: torch.full((count,), float(high)))


CROP = {"smallest_area": 0.08, "stretch": 0.3, "rotation_degrees": 0, "shear": 0, "flip": 0}


def test_crops_lie_inside_the_image_and_their_areas_and_shapes_are_as_asked():
    matrices = augment.random_crop(2000, drawn(), **CROP)
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    centres = matrices[:, :, 2]
    assert ((centres.abs() + torch.stack([width, height], dim=1)) <= 1 + 1e-6).all()
    area = width * height
    assert 0.08 <= area.min() < 0.1 and 0.9 < area.max() <= 1
    assert 0.5 < area.mean() < 0.56  # evenly between .08 and 1, a little less where a side would not fit
    assert (width / height).log().abs().max() <= 0.3 + 1e-5


def test_a_crop_of_the_upper_right_quarter_enlarges_it(monkeypatch):
    """Area .25, as wide as high, centre as far right and up as it can lie."""
    ends = iter([0.25, 0, 1, -1, 0, 0, 1])
    monkeypatch.setattr(augment, "uniform", lambda count, *_: torch.full((count,), float(next(ends))))
    image = pictures(1)
    seen = augment.warp(image, augment.random_crop(1, drawn(), **CROP), 8)
    assert torch.allclose(seen, image[:, :, :8, 8:], atol=1e-6)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ({}, ((1, 0, 0), (0, 1, 0))),
        ({"flip": 2}, ((-1, 0, 0), (0, 1, 0))),
        ({"zoom": math.log(2)}, ((2, 0, 0), (0, 2, 0))),
        ({"stretch": math.log(3)}, ((1, 0, 0), (0, 3, 0))),
        ({"shear": 0.2}, ((1, 0.2, 0), (0, 1, 0))),
        ({"shift": 0.1}, ((1, 0, 0.1), (0, 1, 0.1))),
    ],
)
def test_maps_worked_at_the_upper_end_of_each_range(highest, ranges, expected):
    assert torch.allclose(augment.random_affine(1, drawn(), **{**STILL, **ranges}), matrix(*expected))


def test_a_quarter_turn_takes_the_upper_right_to_the_upper_left(highest):
    """The input at (x, y) is seen at (y, -x): (0.625, -0.625) at (-0.625, -0.625)."""
    matrices = augment.random_affine(1, drawn(), **{**STILL, "rotation_degrees": 90})
    assert torch.allclose(matrices, matrix((0, -1, 0), (1, 0, 0)), atol=1e-6)
    turned = augment.warp(point(8, row=1, column=6), matrices, 8)
    assert torch.allclose(turned, point(8, row=1, column=1), atol=1e-5)


def swapped(stored, monkeypatch, part):
    """``match_histograms`` between two images, every image chosen, by ``part``; and the curves as they were."""
    values = iter([part, 0.0])  # how far to go, then the draw that chooses
    monkeypatch.setattr(augment, "uniform", lambda count, *_: torch.full((count,), next(values)))
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count - 1, -1, -1))
    curves = augment.identity_curves(len(stored), stored.device)
    return augment.match_histograms(curves, stored, drawn(), prob=1), curves


def test_swapped_tones_worked_by_hand(monkeypatch):
    """Half the pixels 10, half 240, against half 50, half 200: the darker half becomes 50, the brighter 200."""
    stored = torch.tensor([[10, 240], [50, 200]], dtype=torch.uint8).repeat_interleave(2, dim=1)
    stored = stored[:, None, :].expand(2, 4, 4).contiguous()
    curves, _ = swapped(stored, monkeypatch, 1.0)
    assert (curves[0, [10, 240]] * 255).tolist() == pytest.approx([50, 200], abs=1e-4)
    assert (curves[1, [50, 200]] * 255).tolist() == pytest.approx([10, 240], abs=1e-4)


def test_tone_worked_at_the_upper_end_of_each_range(highest):
    curves = torch.tensor([[0.0, 0.25, 0.5, 1.0]])
    still = {"gamma": 0, "contrast": 0, "brightness": 0}
    doubled = math.log(2)

    def varied(**ranges):
        return augment.jitter_tone(curves, drawn(), **{**still, **ranges})[0].tolist()

    assert varied() == [0, 0.25, 0.5, 1]
    assert varied(gamma=doubled) == pytest.approx([0, 0.0625, 0.25, 1])
    assert varied(contrast=doubled) == pytest.approx([-0.5, 0, 0.5, 1.5])
    assert varied(brightness=0.1) == pytest.approx([0.1, 0.35, 0.6, 1.1])


@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_a_blur_spreads_a_point_by_its_sigma_both_ways_and_loses_nothing(sigma):
    blurred = augment._gaussian(point(21, 10, 12), torch.tensor([sigma]))[0, 0]
    offsets = torch.arange(21.0)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    for sums, centre in ((blurred.sum(dim=0), 12), (blurred.sum(dim=1), 10)):
        assert (sums * offsets).sum().item() == pytest.approx(centre, abs=1e-4)
        assert (sums * (offsets - centre) ** 2).sum().item() == pytest.approx(sigma**2, rel=0.03)
    assert torch.allclose(blurred[10 - 3, 12], blurred[10, 12 + 3], atol=1e-7)  # as far down as across


def test_a_random_filter_worked_by_hand(monkeypatch):
    """One weight to the left: the picture moves by a pixel, and has mean .5 and deviation .25 / (1 + .03 / its own)."""
    images = pictures(2)

    def to_the_left(kernels, *_arguments, **_options):
        return kernels.zero_().index_put_((torch.arange(2), *torch.tensor([[0], [1], [0]])), torch.ones(2))

    monkeypatch.setattr(torch.Tensor, "normal_", to_the_left)
    monkeypatch.setattr(augment, "uniform", lambda count, low, high, _generator: torch.full((count,), 0.25))
    seen = augment.random_convolution(images, drawn(), prob=1)
    moved = torch.cat([images[..., :1], images[..., :-1]], dim=-1)
    deviation, mean = torch.std_mean(moved, dim=(1, 2, 3), keepdim=True)
    filtered = (moved - mean) / (deviation + 0.03) * 0.25 + 0.5
    assert torch.allclose(seen, 0.75 * images + 0.25 * filtered, atol=1e-6)


def frame_weights(count, size, **options):
    """[i, j, row, column]: how much of image j is in result i; exchanging frames is linear in the images."""
    rows = []
    for j in range(count):
        images = torch.zeros(count, 1, size, size)
        images[j] = 1
        rows.append(augment.swap_borders(images, drawn(3), **options)[:, 0])
    return torch.stack(rows, dim=1)


def test_a_swapped_frame_keeps_the_middle_and_surrounds_it_with_one_other_image():
    """Worked bounds: in the middle sigmoid(e) = 0.94 of the image stays, in a corner sigmoid(e (1 - 2 * 0.92^4)) = 0.24."""
    weights = frame_weights(12, 33, prob=1, inner=0.72)
    own = torch.stack([weights[i, i] for i in range(12)])
    assert torch.allclose(weights.sum(dim=1), torch.ones(12, 33, 33), atol=1e-6)
    assert (own[:, 16, 16] > 0.93).all()
    others = (weights.flatten(2).amax(dim=2) > 1e-6).sum(dim=1) - 1
    assert others.max() == 1
    exchanged = others == 1  # the partner may be the image itself
    assert exchanged.sum() >= 9
    corners = own[exchanged][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() < 0.24
    assert len({tuple(shape.flatten().tolist()) for shape in own[exchanged]}) == exchanged.sum()  # each its own shape


def test_an_erased_part_is_one_even_rectangle_within_its_bounds():
    size, smallest, largest = 40, 0.1, 0.35
    images = torch.full((300, 1, size, size), -1.0)
    seen = augment.erase(images, drawn(), prob=1, smallest=smallest, largest=largest)
    sides = []
    for image in seen[:, 0]:
        covered = image != -1
        rows, columns = covered.any(dim=1).nonzero().flatten(), covered.any(dim=0).nonzero().flatten()
        if len(rows) == 0:
            continue  # wholly beyond the edge but for less than a pixel
        part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (part == part[0, 0]).all()
        assert 0 <= part[0, 0] <= 1
        assert covered.sum() == part.numel()
        for inside in (rows, columns):
            assert len(inside) <= largest * size + 1
            if inside[0] > 0 and inside[-1] < size - 1:  # not cut by the edge
                assert len(inside) >= smallest * size - 1
                sides.append(len(inside))
    assert min(sides) <= 5
    assert max(sides) >= 13
    assert len(torch.unique(seen)) > 250  # each image its own grey


# ---------------------------------------------------------------------------------------------------------- all of them

STEPS = {
    "random_affine": lambda g, s: augment.warp(
        pictures(6),
        augment.random_affine(6, g, rotation_degrees=9, zoom=0.1, stretch=0.1, shear=0.1, shift=0.1, flip=s),
        14,
    ),
    "match_histograms": lambda g, s: augment.match_histograms(
        augment.identity_curves(6, g.device), stored_pictures(6), g, prob=s
    ),
    "jitter_tone": lambda g, s: augment.jitter_tone(
        augment.identity_curves(6, g.device), g, gamma=s / 2, contrast=s / 2, brightness=s / 10
    ),
    "jitter_sharpness": lambda g, s: augment.jitter_sharpness(
        pictures(6), g, sigma=1.6, blur_prob=s / 2, sharpen_prob=s / 2
    ),
    "random_convolution": lambda g, s: augment.random_convolution(pictures(6), g, prob=s),
    "swap_borders": lambda g, s: augment.swap_borders(pictures(6), g, prob=s, inner=0.7),
    "erase": lambda g, s: augment.erase(pictures(6), g, prob=s, smallest=0.2, largest=0.4),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_generator_decides_everything_and_probability_0_changes_nothing(name):
    before = torch.get_rng_state()
    first, again, other = STEPS[name](drawn(5), 1), STEPS[name](drawn(5), 1), STEPS[name](drawn(6), 1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dtype == torch.float32 and first.isfinite().all()
    if name not in ("random_affine", "random_crop"):
        unchanged = augment.identity_curves(6, torch.device("cpu")) if first.ndim == 2 else pictures(6)
        assert torch.allclose(STEPS[name](drawn(), 0), unchanged, atol=1e-7)
