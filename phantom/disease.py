"""Pneumonia as drawn: air in part of a lung gives way to fluid, and the box of what then shows is known."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from phantom.anatomy import smooth
from phantom.organs import Organs
from phantom.view_exposure import Array, texture

LUNG_DENSITY = 0.2  # of water: air, blood and walls together
FILLED_DENSITY = 0.95  # all air replaced by fluid and cells
# A box reaches to where an opacity has fallen to this share of its own peak.
EDGE = 0.3

Kind = Literal["lobar", "patchy", "interstitial"]
Zone = Literal["upper", "middle", "lower"]
_SPAN = {"upper": (0.12, 0.42), "middle": (0.38, 0.68), "lower": (0.62, 0.95)}


@dataclass(frozen=True)
class Opacity:
    """Pneumonia in one lung.

    side: -1 the right lung (left in the picture), 1 the left.
    extent: size relative to the lung, about 0.25 to 0.6.
    severity: share of the air that is gone in the middle of it, 0..1.
    """

    kind: Kind
    side: int
    zone: Zone
    extent: float
    severity: float


def involvement(opacity: Opacity, organs: Organs, rng: np.random.Generator) -> Array:
    """Share of the air that is gone, 0..1 [h, w]; shape and edge are drawn by chance."""
    own = organs.lung * (organs.x * opacity.side > 0)
    well_filled = own > 0.45 * own.max()
    rows, columns = np.nonzero(well_filled)
    top, bottom = np.quantile(rows, [0.01, 0.99])
    low, high = (top + part * (bottom - top) for part in _SPAN[opacity.zone])
    choice = np.flatnonzero((rows >= low) & (rows <= high))
    pick = choice[rng.integers(len(choice))]
    cx, cy = float(organs.x[rows[pick], columns[pick]]), float(organs.y[rows[pick], 0])
    pitch = float(organs.y[1, 0] - organs.y[0, 0])
    wide = float(np.ptp(organs.x[rows, columns]))
    tall = float(np.ptp(organs.y[rows, 0]))
    cell = 2 ** int(np.clip(np.round(np.log2(22 / pitch)), 1, 5))
    pattern = texture(rng, own.shape, cell, 0.45)
    if opacity.kind == "interstitial":
        share = _interstitial(organs, pattern, cy, wide, rng)
    elif opacity.kind == "patchy":
        share = _patchy(organs, pattern, (cx, cy), opacity.extent * np.sqrt(wide * tall), rng)
    else:
        share = _lobar(organs, pattern, (cx, cy), (opacity.extent * wide, 0.75 * opacity.extent * tall), rng)
    return opacity.severity * share * smooth((organs.x * opacity.side - 6) / 24)  # lungs do not meet in the middle


def _lobar(
    organs: Organs, pattern: Array, centre: tuple[float, float], reach: tuple[float, float], rng: np.random.Generator
) -> Array:
    """Filled from the middle outward, ill-defined, often cut off straight by a fissure."""
    across, down = organs.x - centre[0], organs.y - centre[1]
    stretch = rng.uniform(0.85, 1.2)
    far = np.sqrt((across / (reach[0] * stretch)) ** 2 + (down / (reach[1] / stretch)) ** 2)
    share = smooth((1.2 - far + 0.22 * pattern) / 0.95) * (1 + 0.14 * pattern)
    if rng.random() < 0.4:
        slope = rng.normal(0, 0.12)
        side = 1.0 if rng.random() < 0.5 else -1.0
        share = share * smooth((side * (down - slope * across) + 0.35 * reach[1]) / 7)
    return np.clip(share, 0, 1)


def _patchy(
    organs: Organs, pattern: Array, centre: tuple[float, float], reach: float, rng: np.random.Generator
) -> Array:
    """Several fluffy patches that run into one another."""
    total = np.zeros(organs.lung.shape)
    count = int(rng.integers(4, 8))
    for turn, radius, away in zip(
        rng.uniform(0, 2 * np.pi, count),
        reach * rng.uniform(0.28, 0.5, count),
        reach * rng.uniform(0.1, 0.75, count),
        strict=True,
    ):
        across = organs.x - centre[0] - away * np.cos(turn)
        down = organs.y - centre[1] - 1.15 * away * np.sin(turn)
        total += np.exp(-(across**2 + down**2) / (0.9 * radius**2))
    return np.clip(total * (0.85 + 0.4 * pattern), 0, 1)


def _interstitial(organs: Organs, pattern: Array, height: float, wide: float, rng: np.random.Generator) -> Array:
    """Haze with a net of streaks, strongest between the hilum and ``height``."""
    far = np.sqrt(((np.abs(organs.x) - 45) / (0.75 * wide)) ** 2 + ((organs.y - 0.5 * (height + 125)) / 75) ** 2)
    net = np.maximum(1 - 2.2 * np.abs(pattern), 0)
    finer = np.maximum(1 - 1.6 * np.abs(texture(rng, pattern.shape, 8, 0.5)), 0)
    return np.clip(smooth((1.25 - far) / 0.8) * (0.42 + 0.24 * net + 0.26 * finer + 0.06 * pattern), 0, 1)


def box(share: Array, organs: Organs, step: int, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Visible extent of one opacity as x, y, width, height in whole pixels of the picture.

    Args:
        share: what ``involvement`` gave.
        step: pixels of the picture per pixel of the grid.
        shape: height and width of the picture.
    """
    added = gaussian_filter(share * organs.lung, 1.0)
    seen = added > EDGE * added.max()
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    left, top = int(columns[0]) * step, int(rows[0]) * step
    right, bottom = min((int(columns[-1]) + 1) * step, shape[1]), min((int(rows[-1]) + 1) * step, shape[0])
    return left, top, right - left, bottom - top
