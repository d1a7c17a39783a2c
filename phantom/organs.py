"""Body, lungs, heart, diaphragm and spine as thickness along the ray: what is wide and smooth, on a coarse grid."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from phantom.anatomy import SIDES, Anatomy, smooth
from phantom.view_exposure import Array, View

LEFT_DOME_LOWER = 9.0


@dataclass(frozen=True)
class Organs:
    """Path lengths in adult mm, [h, w] on the coarse grid of x [h, w] (from the body's axis) and y [h, 1].

    body: everything inside the skin. lung: air-bearing lung within it. gas: bowel and stomach gas within it.
    spine: vertebral bone, added on top of ``body``.
    """

    x: Array
    y: Array
    body: Array
    lung: Array
    gas: Array
    spine: Array


def root(t: Array) -> Array:
    """Square root, 0 below 0: half the chord of a circle."""
    return np.sqrt(np.maximum(t, 0))


def organs(body: Anatomy, view: View, effusion: tuple[float, float]) -> Organs:
    """Lay out the wide parts for one view.

    Args:
        effusion: how high fluid stands in the right and the left costophrenic angle, mm above its bottom; 0 is none.
    """
    x, y = view.grid()
    lung = np.maximum(cavity(body, x, y) - _mediastinum(body, view, x, y) - _domes(body, view, x, y), 0)
    for side, height in zip(SIDES, effusion, strict=True):
        if height > 0:
            lung = lung * (1 - _meniscus(body, view, side * x, y, side, height))
    return Organs(x, y, _body(body, x, y), lung, _gas(body, view, x, y), _spine(body, view, x, y))


def dome_top(body: Anatomy, view: View, side: int) -> float:
    """Height of one half of the diaphragm."""
    return body.dome + (LEFT_DOME_LOWER if side > 0 else 0.0) - view.lift


def _body(body: Anatomy, x: Array, y: Array) -> Array:
    """Trunk, neck, shoulders and arms, run into one another, and the chin of a child."""
    aside = np.abs(x)
    width = body.width(y)
    trunk_width = width + body.wall + 3 + 8 * smooth((y - 120) / 150)
    trunk = 2 * (body.depth(y) + 0.6 * body.wall + 4) * root(1 - np.square(np.square(aside / trunk_width)))
    if body.female and not body.child:
        for side in SIDES:
            below = np.where(y < 185, 95.0, 52.0)
            breast = np.maximum(1 - ((x - side * 78) / 72) ** 2 - ((y - 185) / below) ** 2, 0)
            trunk = trunk + body.wall * np.sqrt(breast)
    bulk = np.exp(-(((aside - width - 15) / 20) ** 2)) * (aside < trunk_width + 30)
    trunk = trunk + 58 * bulk * smooth((210 - y) / 150) * smooth((y + 10) / 60)  # muscle round the armpit
    neck = 112 * np.maximum(1 - (aside / (58 + 30 * np.exp(np.minimum(y + 12, 40) / 22))) ** 2, 0)
    neck = neck * smooth((60 - y) / 80)
    reach = 165.0 if body.child else 185.0
    slope = np.clip((aside - 48) / (reach - 48), 0, 1.3)
    top = -80 + 64 * np.sqrt(slope) * (0.55 + 0.45 * slope) - 130 * smooth((74 - aside) / 40)
    shoulder = (
        (172 - 50 * smooth((70 - aside) / 50) * smooth((-10 - y) / 50))
        * root(np.clip((y - top) / 60, 0, 1))
        * smooth((150 - y) / 110)
    )
    shoulder = shoulder * root(1 - np.square(np.square(aside / (reach + 34))))
    parts = (trunk, neck, shoulder, _arms(body, aside, y, reach))
    whole = np.sqrt(np.sqrt(sum((part * part) ** 2 for part in parts)))
    if body.child:
        whole = whole + 165 * root(1 - (x / 88) ** 2 - ((y + 122) / 70) ** 2)
    return whole


def _arms(body: Anatomy, aside: Array, y: Array, reach: float) -> Array:
    if body.arms == 0:
        centre = np.interp(y, [0, 40, 300], [reach - 4, reach + 3, reach + 24])
        return 88 * root(1 - ((aside - centre) / 44) ** 2) * smooth((y + 8) / 40)
    end = -72.0 if body.arms == 1 else 60.0
    centre = np.interp(aside, [120, 180, 330], [20, 16, end])
    return 78 * root(1 - ((y - centre) / 40) ** 2) * smooth((aside - 120) / 45)


def cavity(body: Anatomy, x: Array, y: Array) -> Array:
    """The inside of the rib cage; its top is two rounded apices."""
    aside = np.abs(x)
    apex = np.minimum(14 * ((aside - 58) / 42) ** 2 * (aside < 120), 40) - 2
    u = np.clip((y - apex) / 150, 0, 1)
    across = (aside / body.width(y)) ** 2
    wide = root(1 - across * np.sqrt(across))
    return 2 * body.depth(y) * wide * np.sqrt(root(1 - (1 - u) ** 2)) * smooth((305 - y) / 45)


def _mediastinum(body: Anatomy, view: View, x: Array, y: Array) -> Array:
    """Heart and great vessels, from the curves of their right and left borders."""
    size = body.heart * (1 + 0.0035 * view.lift) * float(view.enlargement(30.0))
    u = np.clip((y + 0.5 * view.lift - 100) / 112, 0, 1.6)  # 0 at the pulmonary trunk, 1 at the apex of the heart
    ventricle = np.sin(np.minimum(u, 1) * np.pi / 2) ** 1.35 * root(1 - np.clip((u - 1) / 0.42, 0, 1) ** 2) ** 0.6
    atrium = np.sin(np.clip((u + 0.12) / 1.25, 0, 1) * np.pi) ** 0.9
    knob = body.knob
    right = np.interp(y, [-60, 0, 30, 60, 95, 130, 300], [17, 17, 17, 21, 25, 21, 20])
    left = np.interp(
        y,
        [-60, 0, 30, 50, 66, 84, 100, 118, 140, 300],
        [17, 17, 17, 19 + 6 * knob, 21 + 13 * knob, 21 + 9 * knob, 21, 28, 25, 22],
    )
    blur = 4.5 / view.pitch
    right, left = (gaussian_filter1d(border, blur, axis=0, mode="nearest") for border in (right, left))
    shift = view.sideways(30.0) * np.minimum(u, 1)
    right = np.maximum(right + 24 * size * atrium - shift, 12)
    left = np.maximum(left + 62 * size * ventricle + shift, 12)
    middle = x - view.sideways(5.0)
    across = np.minimum(np.abs(middle) / np.where(middle < 0, right, left), 1)
    great = 1.1 * body.depth(y)
    thick = np.minimum(great + (125 * size - great) * smooth(1.3 * u), 1.72 * body.depth(y))
    return thick * np.sqrt(1 - across**2)


def _domes(body: Anatomy, view: View, x: Array, y: Array) -> Array:
    """What lies under the diaphragm: two half ellipsoids going over into the belly."""
    domes = np.zeros(x.shape)
    for side in SIDES:
        out = (x - 72 * side) * side
        reach = np.where(out < 0, 110, body.half_width - 65)
        above = np.minimum((y - dome_top(body, view, side) - 74) / 74, 0)
        np.maximum(domes, 2.7 * body.half_depth * root(1 - (out / reach) ** 2 - above**2), out=domes)
    return domes


def _meniscus(body: Anatomy, view: View, out: Array, y: Array, side: int, height: float) -> Array:
    """How much of the lung fluid displaces at the bottom of one side, higher towards the wall."""
    level = dome_top(body, view, side) + 50 - height
    wall = np.maximum(out / body.width(y), 0)
    return smooth((y - level + 34 * (wall - 0.62)) / 14) * smooth((wall - 0.25) / 0.3)


def _gas(body: Anatomy, view: View, x: Array, y: Array) -> Array:
    total = np.zeros(x.shape)
    for centre, under, half_width, half_height in body.gas:
        middle = dome_top(body, view, 1) + under
        bubble = 1 - ((x - centre) / half_width) ** 2 - ((y - middle) / half_height) ** 2
        total += 1.6 * half_width * root(bubble)
    return total


def _spine(body: Anatomy, view: View, x: Array, y: Array) -> Array:
    """Bodies of the vertebrae with dense edges and plates, brighter than the discs, and their processes."""
    bone = np.zeros(x.shape)
    near = np.flatnonzero((np.abs(x) < 45).any(0))
    if not len(near):
        return bone
    columns = slice(near[0], near[-1] + 1)
    x = x[:, columns] - body.pulled * np.sin(y / 70)
    middle = np.abs(x - view.sideways(-35.0))
    place = (y / body.spacing) % 1
    phase = np.abs(place - 0.5)
    solid = smooth((phase - 0.36) / -0.10 + 0.5)
    half = np.interp(y, [-80, 0, 120, 320], [13, 15, 16, 21]) - 1.5 * solid  # waisted
    inside = root(1 - (middle / half) ** 2)
    rim = _bump(middle, 0.92 * half, 1.5)
    bodies = 2 * half * inside * (0.09 + 0.11 * solid) + 2.2 * solid * rim
    bodies += 3.2 * _bump(phase, 0.40, 0.045) * np.sqrt(inside)
    pedicles = 2.6 * _bump(middle, 0.62 * half, 2.6) * _bump(place, 0.36, 0.13)
    wings = 2.4 * _bump(place, 0.3, 0.12) * smooth((middle - half + 3) / 4) * smooth((34 - middle) / 8)
    behind = np.abs(x - view.sideways(-75.0))
    spinous = 2.8 * _bump(behind, 0.0, 2.6) * _bump(place, 0.78, 0.17)
    bone[:, columns] = bodies + pedicles + wings + spinous
    return bone


def _bump(value: Array, centre: Array | float, width: float) -> Array:
    return np.exp(-(((value - centre) / width) ** 2))
