"""Chests of a wider range than any hospital's, each with its lung field: what teaches a network where lungs lie.

A cohort looks like its hospital. Here nothing need be likely: small and large bodies, shallow breaths, white lungs,
bellies, heads and arms in view, any positioning.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phantom import anatomy, chance
from phantom.anatomy import SIDES, Anatomy
from phantom.chance import Chance
from phantom.disease import Kind, Opacity, Zone
from phantom.organs import cavity, organs
from phantom.picture import Findings, render
from phantom.view import View

WIDE = 3  # second word of every seed, after those of the cohorts
LEAST_AIR, LEAST_SHARE = 20.0, 0.55  # mm of lung along the ray, and of the way through the rib cage


@dataclass(frozen=True)
class WideChest:
    """pixels: uint8 [H, W], bone white. lungs: bool [H, W], both lung fields, whether they hold air or fluid."""

    pixels: NDArray[np.uint8]
    lungs: NDArray[np.bool_]


def take_wide(number: int, seed: int, width: int) -> WideChest:
    """The chest of this ``number``, ``width`` pixels wide."""
    dice = Chance((seed, WIDE, number))
    body = _body(dice)
    height = round(width / np.exp(dice.between(-0.2, 0.5)))
    view = _view(dice, body, (height, width))
    shot = replace(
        chance.draw_exposure(dice, from_front=view.from_front),
        dark=dice.between(0, 0.6),
        bright=dice.between(-0.1, 0.5),
        sharpening=dice.between(0, 1.2),
        gamma=float(np.exp(dice.between(-0.5, 0.5))),
    )
    seeds = (seed, WIDE, number)
    lungs = lung_field(body, view)
    return WideChest(render(body, view, shot, _findings(dice, body, lungs), seeds).pixels, lungs)


def lung_field(body: Anatomy, view: View) -> NDArray[np.bool_]:
    """Where both lungs would hold air, were they well, and neither heart nor diaphragm hides them, [H, W]."""
    parts = organs(body, view, (0.0, 0.0))
    return parts.lung > np.maximum(LEAST_AIR, LEAST_SHARE * cavity(body, parts.x, parts.y))


def _body(dice: Chance) -> Anatomy:
    body = anatomy.draw(dice.rng, child=dice.maybe(0.5))
    return replace(
        body,
        half_width=body.half_width * dice.between(0.8, 1.15),
        half_depth=body.half_depth * dice.between(0.85, 1.2),
        dome=body.dome * dice.between(0.72, 1.15),
        wall=body.wall * dice.between(0.5, 3.0),
        heart=body.heart * dice.between(0.75, 1.5),
        slope=body.slope * dice.between(0.8, 1.2),
        pulled=dice.about(0, 6),
        collarbone=dice.about(0, 9),
        arms=int(dice.rng.integers(0, 3)),
    )


def _view(dice: Chance, body: Anatomy, shape: tuple[int, int]) -> View:
    height, width = shape
    pitch = max(dice.between(290, 540) / width, dice.between(240, 430) / height)
    return View(
        shape=shape,
        pitch=pitch,
        origin=(width / 2 + dice.about(0, 25) / pitch, dice.between(5, 120) / pitch),
        from_front=dice.maybe(0.6),
        rotation=dice.about(0, 0.1),
        tilt=dice.about(0.08, 0.08),
        lean=dice.about(0, 0.06),
        lift=dice.between(0, 45) if dice.maybe(0.4) else abs(dice.about(0, 9)),
    )


def _findings(dice: Chance, body: Anatomy, lungs: NDArray[np.bool_]) -> Findings:
    zones: list[Zone] = ["upper", "middle", "lower"]
    kinds: list[Kind] = ["lobar", "patchy", "interstitial"]
    middle = lungs.shape[1] // 2
    seen = [
        side for side, half in zip(SIDES, (lungs[:, :middle], lungs[:, middle:]), strict=True) if half.mean() > 0.05
    ]
    opacities = tuple(
        Opacity(
            kinds[dice.rng.integers(3)],
            side,
            zones[dice.rng.integers(3)],
            extent=dice.between(0.3, 1.2),
            severity=dice.between(0.4, 1.0),
        )
        for side in seen
        if dice.maybe(0.45)
    )
    usual = chance.draw_findings(
        dice, body, "abnormal" if dice.maybe(0.5) else "normal", (), from_front=dice.maybe(0.5)
    )
    effusion = tuple(dice.between(15, 130) if dice.maybe(0.2) else 0.0 for _ in SIDES)
    # The heart is the body's own, so that the lungs are known without the findings.
    return replace(usual, opacities=opacities, effusion=(effusion[0], effusion[1]), heart=1.0, tubes=dice.maybe(0.3))
