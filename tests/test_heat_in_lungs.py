"""How much of Grad-CAM lies in the lung field: worked numbers, what is left out, and a classifier that looks there."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from phantom.wide import take_wide
from pytorch_classification import heat_in_lungs
from pytorch_classification.lung_finder import SIZE, find_lungs


def left_half():
    field = np.zeros((1, SIZE, SIZE), np.bool_)
    field[:, :, : SIZE // 2] = True
    return field


def test_the_share_is_that_of_the_sum_and_not_of_the_pixels():
    heat = np.zeros((1, 96, 96), np.float32)
    heat[0, 10, 10], heat[0, 10, 80], heat[0, 50, 80] = 0.6, 0.1, 0.1
    (inside,), (even,) = heat_in_lungs.inside_field(heat, left_half())
    assert inside == pytest.approx(0.75)
    assert even == pytest.approx(0.5)


def test_without_lungs_or_without_heat_there_is_no_share():
    fields = np.concatenate([left_half(), np.zeros((1, SIZE, SIZE), np.bool_)])
    inside, even = heat_in_lungs.inside_field(np.stack([np.zeros((8, 8)), np.ones((8, 8))]).astype(np.float32), fields)
    assert np.isnan(inside).all() and even[0] == 0.5 and np.isnan(even[1])


def test_groups_are_means_over_their_images_and_what_is_left_out_is_counted():
    inside, even = np.array([0.9, 0.5, 0.1, np.nan, np.nan]), np.array([0.4, 0.6, 0.5, 0.5, np.nan])
    ill = np.array([True, True, False, True, True])
    groups = {"all": np.ones(5, np.bool_), "ill": ill, "nobody": np.zeros(5, np.bool_)}
    report = heat_in_lungs.by_group(inside, even, groups, ["a", "b", "c", "d", "e"])
    assert (report["images"], report["no_lungs"], report["no_heat"]) == (5, 1, 1)
    assert {name: of["images"] for name, of in report["groups"].items()} == {"all": 3, "ill": 2, "nobody": 0}
    assert report["groups"]["all"]["inside"]["value"] == pytest.approx(0.5)
    assert report["groups"]["ill"]["inside"]["value"] == pytest.approx(0.7)
    assert report["groups"]["ill"]["inside"]["low"] == pytest.approx(0.5)
    assert report["groups"]["ill"]["even"] == pytest.approx(0.5)
    assert report["groups"]["nobody"]["even"] is None
    lines = heat_in_lungs.formatted(report).splitlines()
    assert lines[2].split() == ["ill", "0.700", "(0.500-0.900)", "0.500", "2"]
    assert "undefined" in lines[3]
    assert lines[4] == ("left out: 1 of 5 images in which no lungs were found, 1 in which nothing speaks for PNEUMONIA")


def test_a_classifier_that_looks_at_the_lungs_is_told_from_one_that_looks_beside_them():
    chests = [Image.fromarray(take_wide(number, seed=99, width=192).pixels).resize((96, 96)) for number in range(3)]
    images = np.stack([np.asarray(chest) for chest in chests] + [np.zeros((96, 96), np.uint8)])
    fields = find_lungs(images).fields

    def shares(heat):
        return heat_in_lungs.shares(SimpleNamespace(explain=lambda part, run: heat[: len(part)]), images, None)

    beside = (~fields).astype(np.float32)
    beside[3] = 1
    (inside, even), (outside, same) = shares(fields.astype(np.float32)), shares(beside)
    assert np.isnan(even).tolist() == np.isnan(same).tolist() == [False, False, False, True]
    np.testing.assert_allclose(inside[:3], 1)
    np.testing.assert_allclose(outside[:3], 0)
    assert np.isnan(outside[3])
