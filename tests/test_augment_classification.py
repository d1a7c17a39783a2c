"""Augmentation of training images, and corruptions of the strength that their names state."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_classification import chest

from cxr import augment
from pytorch_classification.augment import CORRUPTIONS, augmented, corrupted


def stored(count):
    """One square, ``count`` times."""
    square = np.array(Image.fromarray(chest(0, 0)).resize((36, 36)))
    return torch.from_numpy(np.stack([square] * count))


def sample(count, seed=0, crop_prob=0.5):
    generator = torch.Generator().manual_seed(seed)
    return augmented(stored(count), 32, generator, crop_prob=crop_prob, style_mix_prob=0.5, randconv_prob=0.3)


def test_augmentation_varies_each_image_and_repeats_for_a_generator():
    images = [sample(6, seed) for seed in (0, 0, 1)]
    assert images[0].shape == (6, 1, 32, 32) and images[0].dtype == torch.float32 and images[0].isfinite().all()
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    assert all(not torch.equal(images[0][0], other) for other in images[0][1:])


def test_random_crops_are_as_frequent_as_asked(monkeypatch):
    """A crop is enlarged: neighbouring pixels of the input move apart."""
    seen = []
    monkeypatch.setattr(augment, "warp", lambda images, matrices, size: seen.append(matrices) or images[..., :32, :32])
    for prob in (0, 0.5, 1):
        sample(1000, crop_prob=prob)
    areas = [torch.linalg.det(matrices[:, :, :2]).abs() for matrices in seen]
    least_of_whole = math.exp(-2 * 0.2 - 0.12) * 0.9
    small = [(area < least_of_whole).float().mean().item() for area in areas]
    assert small[0] == 0 and small[2] > 0.4 and small[1] == pytest.approx(small[2] / 2, abs=0.06)


@pytest.fixture(scope="module")
def squares():
    """A grey slope, and an even grey."""
    slope = np.tile(np.linspace(0, 250, 64).astype(np.uint8), (64, 1))
    return np.stack([slope, np.full((64, 64), 128, np.uint8)])


@pytest.fixture(scope="module")
def found(squares):
    return dict(corrupted(squares))


def test_each_corruption_changes_the_images_and_keeps_their_form(squares, found):
    assert [*found] == [*CORRUPTIONS]
    for name, images in found.items():
        assert images.shape == squares.shape and images.dtype == np.uint8, name
        assert not np.array_equal(images[0], squares[0]), name


@pytest.mark.parametrize("percent", [5, 10])
def test_noise_has_the_deviation_that_its_name_says(found, percent):
    noise = found[f"noise of {percent} %"][1].astype(float) - 128
    assert noise.std() == pytest.approx(2.55 * percent, rel=0.05) and abs(noise.mean()) < 1


def test_gamma_moves_the_middle_and_keeps_black_and_white(found):
    assert found["gamma 0.7, brighter"][1, 0, 0] == round(255 * (128 / 255) ** 0.7) > 128
    assert found["gamma 1.4, darker"][1, 0, 0] == round(255 * (128 / 255) ** 1.4) < 128
    for name in ("gamma 0.7, brighter", "gamma 1.4, darker"):
        assert found[name][0, 0, 0] == 0 and found[name][0].max() >= 248


@pytest.mark.parametrize("percent", [90, 80])
def test_a_crop_shows_the_centre_alone(found, percent):
    slope = found[f"the central {percent} %"][0, 32]
    edge = 250 * (1 - percent / 100) / 2
    assert slope[0] == pytest.approx(edge, abs=3) and slope[-1] == pytest.approx(250 - edge, abs=3)
