"""The physics of the synthetic chests against worked numbers, and what a finding changes in a picture."""

from dataclasses import replace

import numpy as np
import pytest

from phantom import anatomy, chance, cohort, disease, organs, tubes, view_exposure
from phantom.chance import Chance
from phantom.picture import Findings, render
from phantom.view_exposure import View

FLAT = View(shape=(64, 64), pitch=1.0, origin=(32.0, 32.0))


def test_a_ray_through_the_middle_of_a_solid_tube_passes_its_diameter():
    straight = tubes.along([[-20, 0, 0], [0, 0, 0], [20, 0, 0]], 5.0)
    drawn = tubes.splat([tubes.cloud(straight, FLAT)], FLAT.shape)
    profile = drawn[:, 20:44].mean(1)
    assert profile[32] == pytest.approx(10, rel=0.03)
    assert profile[36] == pytest.approx(2 * np.sqrt(25 - 16), rel=0.1)  # chord four pixels off the axis
    assert profile.sum() == pytest.approx(np.pi * 25, rel=0.02)  # area of the cross-section
    assert profile[25] == 0
    assert np.ptp(drawn[32, 20:44]) < 0.08 * profile[32], "points and pixels do not beat"


def test_posing_by_worked_numbers():
    point = np.array([10.0, 120.0, 30.0])  # 30 mm in front of the axis, at the height of the beam
    from_front, from_behind = (replace(FLAT, from_front=front).pose(point) for front in (True, False))
    assert from_front[0] == pytest.approx(10 * (1 + 30 / 1100))
    assert from_behind[0] == pytest.approx(10 * (1 - 30 / 1800))
    turned = replace(FLAT, rotation=0.1).pose(np.array([0.0, 120.0, 30.0]))
    assert turned[0] == pytest.approx(30 * np.sin(0.1) * (1 - 30 / 1800))  # the front goes to the patient's left
    assert replace(FLAT, tilt=0.1).pose(point)[1] == pytest.approx(120 - 30 * np.tan(0.1))  # and up


def test_a_box_is_corner_plus_size_in_pixels_of_the_picture():
    lung = np.full((40, 50), 100.0)
    parts = organs.Organs(*(np.zeros((40, 50)),) * 3, lung, *(np.zeros((40, 50)),) * 2)
    share = np.zeros((40, 50))
    share[10:20, 5:35] = 0.8
    # Softened by one pixel of the grid, the first pixel outside a straight edge holds .31 of the peak: just visible.
    assert disease.box(share, parts, 2, (80, 100)) == (8, 18, 64, 24)
    assert disease.box(share, parts, 2, (35, 100)) == (8, 18, 64, 17)  # cut off where the picture ends


SHOT = view_exposure.Exposure(1e12, 0.0, 0.0, 0.0, dark=0.0, bright=0.0, curve=0.0, gamma=1.0)
WIDE = View(shape=(128, 128), pitch=2.0, origin=(64.0, 10.0))


def test_without_scatter_and_noise_grey_is_linear_in_thickness():
    thickness = np.tile(np.linspace(1, 3, 128), (128, 1))
    shown = view_exposure.expose(thickness, WIDE, SHOT, np.random.default_rng(0)).astype(float)
    inside = shown[64, (shown[64] > 20) & (shown[64] < 235)]
    assert np.diff(shown[64]).min() >= 0, "what absorbs more is brighter"
    assert np.ptp(np.diff(inside)) <= 1, "Beer-Lambert, read out as a logarithm"


def case(child, seed, kind=None, shape=(176, 200)):
    draw = Chance((seed,))
    body = anatomy.draw(draw.rng, child=child)
    view = chance.draw_view(draw, body, shape, from_front=child)
    shot = chance.draw_exposure(draw, from_front=child)
    opacities = chance.draw_opacities(draw, kind) if kind else ()
    return body, view, shot, Findings(opacities)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    films, exams = cohort.plan_images(3, 60), cohort.plan_exams(3, 12)
    assert films == cohort.plan_images(3, 60) and exams == cohort.plan_exams(3, 12)
    assert films != cohort.plan_images(4, 60) and exams != cohort.plan_exams(4, 12)
    first, again, other = (cohort.render_image(films[40], seed, 160) for seed in (3, 3, 4))
    assert np.array_equal(first[0].pixels, again[0].pixels) and first[0].boxes == again[0].boxes
    assert first[0].pixels.shape != other[0].pixels.shape or not np.array_equal(first[0].pixels, other[0].pixels)
    same, equal = (cohort.render_exam(exams[5], 3, 160) for _ in range(2))
    assert np.array_equal(same[0].pixels, equal[0].pixels) and same[1] == equal[1]


# Means of 4 x 4 parts of two pictures: a platform or a NumPy that draws other pictures shows here.
FILM_MEANS = [
    [27.02, 112.88, 145.06, 51.47],
    [53.7, 65.74, 84.87, 78.95],
    [29.49, 77.65, 118.68, 45.02],
    [52.67, 155.35, 188.9, 72.95],
]
EXAM_MEANS = [
    [93.17, 162.89, 158.58, 86.57],
    [140.46, 129.07, 124.48, 137.05],
    [139.48, 182.21, 193.64, 140.14],
    [134.65, 207.4, 210.1, 140.0],
]


def parts(pixels):
    side = pixels.shape[0] // 4, pixels.shape[1] // 4
    return pixels[: 4 * side[0], : 4 * side[1]].reshape(4, side[0], 4, side[1]).mean((1, 3))


def test_the_pictures_are_those_that_were_first_drawn():
    film, exam = cohort.plan_images(0, 60)[-1], cohort.plan_exams(0, 4)[0]
    np.testing.assert_allclose(parts(cohort.render_image(film, 0, 160)[0].pixels), FILM_MEANS, atol=0.06)
    np.testing.assert_allclose(parts(cohort.render_exam(exam, 0, 160)[0].pixels), EXAM_MEANS, atol=0.06)


@pytest.mark.parametrize("child", [True, False])
@pytest.mark.parametrize("kind", ["lobar", "patchy", "interstitial"])
def test_an_opacity_is_brighter_than_the_same_chest_without_it_and_lies_in_its_lung(child, kind):
    for seed, shape in ((0, (176, 200)), (1, (176, 200)), (2, (384, 367))):  # a fine grid and a coarse one
        body, view, shot, findings = case(child, seed, kind, shape)
        seed_words = (seed, 1, 1, 1)
        ill = render(body, view, shot, findings, seed_words)
        well = render(body, view, shot, Findings(), seed_words)
        assert not well.boxes and len(ill.boxes) == len(findings.opacities)
        added = ill.pixels.astype(float) - well.pixels
        lungs = organs.organs(body, view, (0.0, 0.0))
        for opacity, (x, y, width, height) in zip(findings.opacities, ill.boxes, strict=True):
            assert added[y : y + height, x : x + width].mean() > np.median(added) + 5
            own = (lungs.lung > 1) & (lungs.x * opacity.side > 0)
            rows_seen, columns_seen = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            assert columns_seen[0] - 2 <= x and x + width <= columns_seen[-1] + 3
            assert rows_seen[0] - 2 <= y and y + height <= rows_seen[-1] + 3
            assert own[y : y + height, x : x + width].mean() > 0.6


def test_the_opacity_takes_the_side_it_is_given():
    body, view, shot, _ = case(True, 5)
    for side in (-1, 1):
        findings = Findings((disease.Opacity("lobar", side, "middle", 0.4, 0.8),))
        (x, _, width, _) = render(body, view, shot, findings, (5, 1)).boxes[0]
        middle = view.origin[0] + view.midline(np.array(100.0)) / view.pitch
        assert (x + width / 2 - middle) * side > 0, "the patient's right is on the left of the picture"


@pytest.mark.parametrize(
    "findings",
    [
        Findings(effusion=(40.0, 40.0)),
        Findings(heart=1.4),
        Findings(nodules=((-80.0, 100.0, 11.0),)),
        Findings(scars=((-60.0, 60.0, -95.0, 75.0),)),
        Findings(crowding=1.4),
        Findings(leads=True),
        Findings(tubes=True),
        Findings(marker=("R", 0.05, 0.1, 14.0)),
    ],
    ids=lambda findings: next(name for name, value in vars(findings).items() if value != getattr(Findings(), name)),
)
def test_every_other_finding_shows_and_has_no_box(findings):
    body, view, shot, _ = case(False, 7)
    shown, bare = render(body, view, shot, findings, (7, 1)), render(body, view, shot, Findings(), (7, 1))
    assert shown.boxes == ()
    assert (shown.pixels.astype(float) - bare.pixels).max() > 8
