"""The lung finder: what it finds on chests it has not learnt from, what it refuses, and that its training teaches."""

import functools
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

import train_lung_finder
from phantom.wide import take_wide
from pytorch_classification import lung_augment
from pytorch_classification.lung_finder import SIZE, find_lungs, load, lung_probability


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def square(picture, size=128):
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def chests():
    """Of another seed than those that the network has learnt from."""
    return [take_wide(number, seed=99, width=192) for number in range(12)]


@pytest.fixture(scope="module")
def images(chests):
    return np.stack([square(chest.pixels) for chest in chests])


def intersection_over_union(one, other):
    return (one & other).sum() / (one | other).sum()


# --- what is found


def test_finds_the_lungs_of_chests_it_has_not_learnt_from(chests, images):
    fields = find_lungs(images)
    true = [square(np.uint8(255) * chest.lungs, SIZE) > 127 for chest in chests]
    assert fields.found.all()
    assert np.mean([intersection_over_union(*pair) for pair in zip(fields.lungs, true, strict=True)]) > 0.8


def test_the_field_holds_both_lungs_and_what_lies_between_them(images):
    fields = find_lungs(images)
    assert (fields.fields | ~fields.lungs).all()
    for lungs, field in zip(fields.lungs, fields.fields, strict=True):
        rows, columns = np.nonzero(lungs)
        assert field[int(rows.mean()), int(columns.mean())]
        assert not field[: rows.min()].any()
        assert not field[:, columns.max() + 1 :].any()


def test_images_of_another_size_have_the_same_lungs(chests):
    small, large = (find_lungs(np.stack([square(chests[0].pixels, size)])) for size in (96, 192))
    assert intersection_over_union(small.lungs, large.lungs) > 0.9


def test_the_mirror_image_has_the_mirrored_lungs(images):
    np.testing.assert_array_equal(find_lungs(images[:, :, ::-1].copy()).lungs, find_lungs(images).lungs[:, :, ::-1])


@pytest.mark.parametrize("change", [lambda grey: 0.4 * grey, lambda grey: 90 + 0.3 * grey])
def test_a_dimmer_or_flatter_picture_has_the_same_lungs(images, change):
    changed = change(images.astype(np.float64)).astype(np.uint8)
    assert intersection_over_union(find_lungs(changed).lungs, find_lungs(images).lungs) > 0.93


# --- what is no chest


def photographs():
    return [square(np.array(Image.fromarray(photo).convert("L"))) for photo in load_sample_images().images]


NO_CHESTS = {
    "black": lambda: [np.zeros((128, 128), np.uint8)],
    "white": lambda: [np.full((128, 128), 255, np.uint8)],
    "a gradient": lambda: [np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))],
    "noise": lambda: list(np.random.default_rng(0).integers(0, 256, (5, 128, 128), dtype=np.uint8)),
    "photographs": photographs,
}


@pytest.mark.parametrize("what", NO_CHESTS)
def test_finds_no_lungs_where_there_are_none(what):
    images = np.stack(NO_CHESTS[what]())
    fields = find_lungs(images)
    assert not fields.found.any()
    assert not fields.lungs.any()
    assert not fields.fields.any()


# --- what it learns from


def test_moving_a_chest_moves_its_lungs_alike():
    lungs = torch.zeros(12, 1, 128, 128)
    lungs[:, :, 30:100, 20:60] = lungs[:, :, 30:100, 70:110] = 1
    moved, mask = lung_augment._move(lungs, lungs, 64, generator())
    assert (mask > 0).any()
    torch.testing.assert_close(moved[mask > 0], mask[mask > 0])


def test_a_lesson_has_chests_with_lungs_and_other_pictures_without(chests, images):
    lungs = torch.from_numpy(np.stack([square(np.uint8(255) * chest.lungs) for chest in chests]))
    x, y = lung_augment.disguise(torch.from_numpy(images), lungs, 64, generator())
    assert x.shape == y.shape == (12, 1, 64, 64)
    assert 0 <= x.min() < 0.1 < 0.9 < x.max() <= 1
    shown = y.flatten(1).mean(1)
    assert (shown[:2] == 0).all()  # .14 of 12
    assert (shown[2:] > 0.01).sum() >= 8


# --- training


@pytest.fixture(scope="module")
def drawn_once():
    """Trainings on the same chests, which take longer to draw than to learn from."""
    with patch.object(train_lung_finder, "take_wide", functools.cache(take_wide)):
        yield


def train(command, file, chests, epochs):
    sizes = ("--chests", chests, "--held-back", 10, "--epochs", epochs)
    how = ("--workers", 1, "--device", "cpu", "--precision", "fp32")  # auto goes by a measurement, which may differ
    ended = command(train_lung_finder.main, "--weights-file", file, *sizes, *how)
    assert ended.code == 0, ended.err
    assert f"wrote {file}" in ended.out
    return file


def test_training_learns_and_writes_the_weights(command, tmp_path, chests, images, drawn_once):
    file = train(command, tmp_path / "lungs.npz", 64, 6)
    assert file.stat().st_size <= 2**20
    true = np.stack([square(np.uint8(255) * chest.lungs, SIZE) > 127 for chest in chests])
    assert roc_auc_score(true.ravel(), lung_probability(load(file), images).ravel()) > 0.75


def test_training_again_gives_the_same_weights(command, tmp_path, drawn_once):
    one, other = (np.load(train(command, tmp_path / f"{number}.npz", 32, 1)) for number in (1, 2))
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
