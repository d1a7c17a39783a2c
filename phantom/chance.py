"""Chance: how a patient is placed and exposed, and what the picture shows of disease, devices and nothing at all."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from phantom.anatomy import SIDES, Anatomy
from phantom.disease import Kind, Opacity, Zone
from phantom.picture import Findings
from phantom.view_exposure import Exposure, View

Condition = Literal["normal", "abnormal", "pneumonia"]


class Chance:
    """A generator with the few distributions that pictures are drawn from."""

    def __init__(self, seed: Sequence[int]) -> None:
        self.rng = np.random.default_rng(seed)

    def about(self, mean: float, spread: float) -> float:
        """A normal number, cut off at two spreads."""
        return mean + spread * float(np.clip(self.rng.standard_normal(), -2, 2))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


def draw_view(chance: Chance, body: Anatomy, shape: tuple[int, int], *, from_front: bool) -> View:
    """A positioning: children and the bedridden are turned, tilted and breathe in less than those who stand."""
    height, width = shape
    field = chance.about(335, 14) if body.child else chance.about(375, 15)  # adult mm across
    pitch = max(field / width, chance.about(305 if body.child else 272, 14) / height)
    top = chance.about(30, 8) if body.child else chance.about(46, 9)
    return View(
        shape=shape,
        pitch=pitch,
        origin=(width / 2 + chance.about(0, 11) / pitch, top / pitch),
        from_front=from_front,
        rotation=chance.about(0, 0.06 if from_front else 0.03),
        tilt=chance.about(0.12, 0.05) if body.child else chance.about(0.06 if from_front else 0, 0.03),
        lean=chance.about(0, 0.035),
        lift=abs(chance.about(0, 9)) + (7 if from_front else 0) + (chance.between(8, 20) if chance.maybe(0.15) else 0),
    )


def draw_exposure(chance: Chance, *, from_front: bool) -> Exposure:
    """A shot and its display. All spreads are wide: no console setting may tell who is ill."""
    return Exposure(
        quanta=float(np.exp(chance.about(9.6, 0.8))),
        scatter=chance.about(0.55, 0.15) if from_front else chance.about(0.32, 0.1),
        blur=chance.between(0.06, 0.22),
        sharpening=max(0.0, chance.about(0.3, 0.3)),
        dark=chance.about(0.30, 0.13),
        bright=chance.about(0.14, 0.08),
        curve=chance.about(0.45, 0.25),
        gamma=float(np.exp(chance.about(-0.1, 0.18))),
    )


def draw_opacities(chance: Chance, kind: Kind) -> tuple[Opacity, ...]:
    """Pneumonia in one lung or both."""
    zones: list[Zone] = ["upper", "middle", "lower"]
    both = chance.maybe(0.85 if kind == "interstitial" else 0.35)
    sides = SIDES if both else (SIDES[chance.rng.integers(2)],)
    severities = {"lobar": (0.45, 0.9), "patchy": (0.45, 0.85), "interstitial": (0.45, 0.75)}
    return tuple(
        Opacity(
            kind,
            side,
            zones[chance.rng.choice(3, p=[0.25, 0.3, 0.45])],
            extent=chance.between(0.28, 0.52),
            severity=chance.between(*severities[kind]),
        )
        for side in sides
    )


def draw_findings(
    chance: Chance, body: Anatomy, condition: Condition, opacities: tuple[Opacity, ...], *, from_front: bool
) -> Findings:
    """What one picture shows. Devices, crowded vessels and large hearts come with every condition.

    Args:
        opacities: pneumonia of this patient; none unless ``condition`` is that.
    """
    effusion, heart = [0.0, 0.0], 1.0
    nodules: list[tuple[float, float, float]] = []
    scars: list[tuple[float, float, float, float]] = []
    if condition == "abnormal":
        wanted = int(chance.rng.integers(1, 3))
    else:  # in children nothing but pneumonia may tell the classes apart
        wanted = int(condition == "pneumonia" and not body.child and chance.maybe(0.25))
    for what in chance.rng.permutation(4)[:wanted]:
        side = SIDES[chance.rng.integers(2)]
        x, y = side * chance.between(55, 0.72 * body.half_width), chance.between(40, 0.8 * body.dome)
        if what == 0:
            heart = chance.between(1.25, 1.45)
        elif what == 1:
            effusion[max(side, 0)] = chance.between(18, 42)
        elif what == 2:
            nodules.append((x, y, chance.between(5, 11)))
        else:
            scars += [
                (x, y + 7 * line, x + side * chance.between(12, 40), y + 7 * line + chance.about(0, 14))
                for line in range(int(chance.rng.integers(1, 4)))
            ]
    return Findings(
        opacities=opacities,
        effusion=(effusion[0], effusion[1]),
        heart=heart,
        crowding=chance.between(1.15, 1.4) if chance.maybe(0.3) else chance.between(0.9, 1.1),
        nodules=tuple(nodules),
        scars=tuple(scars),
        leads=chance.maybe(0.4 if from_front else 0.05) and chance.maybe(0.6),
        tubes=chance.maybe(0.25 if from_front else 0.02) and not body.child,
        marker=_marker(chance) if chance.maybe(0.92) else None,
    )


def _marker(chance: Chance) -> tuple[str, float, float, float]:
    right = chance.maybe(0.7)
    place = chance.between(0.02, 0.09) if right else chance.between(0.86, 0.93)
    return "R" if right else "L", place, chance.between(0.04, 0.4), chance.between(9, 15)
