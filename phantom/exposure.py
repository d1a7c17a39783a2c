"""From attenuation to grey: Beer-Lambert, scatter, quantum noise, detector blur, and the display curve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phantom.grid import Array, wide_blur
from phantom.view import View

BLOCK = 16  # both sides of a picture in the making are multiples of this
SCATTER_REACH = 45.0  # adult mm, standard deviation of where scattered quanta land


@dataclass(frozen=True)
class Exposure:
    """One shot and how the console shows it.

    quanta: per pixel where nothing is in the way.
    scatter: scattered quanta per direct one, on average.
    blur: weight of each direct neighbour in the detector, 0 to 0.25.
    sharpening: how much of what is finer than about 10 mm is added again.
    dark, bright: how far the display range goes beyond lung and heart, as a fraction of it.
    curve: 0 is a straight display curve, 1 bends like film.
    gamma: above 1 darkens.
    """

    quanta: float
    scatter: float
    blur: float
    sharpening: float
    dark: float
    bright: float
    curve: float
    gamma: float


def expose(attenuation: Array, view: View, shot: Exposure, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Attenuation (natural log, [H, W], multiples of ``BLOCK``) to grey, uint8 [H, W], bone white."""
    direct = np.exp(-np.maximum(attenuation, 0))
    quanta = direct + shot.scatter * wide_blur(direct, SCATTER_REACH / view.pitch, BLOCK)
    quanta += np.sqrt(quanta / shot.quanta) * rng.standard_normal(quanta.shape)
    reading = -np.log(np.maximum(_neighbours(quanta, shot.blur), 1e-5))
    if shot.sharpening:
        reading += shot.sharpening * (reading - wide_blur(reading, 10 / view.pitch, BLOCK))
    return _display(reading, view, shot)


def _neighbours(image: Array, weight: float) -> Array:
    """Spread of light in the detector: [w, 1 - 2w, w] along both axes."""
    tall = (1 - 2 * weight) * image
    tall[1:] += weight * image[:-1]
    tall[:-1] += weight * image[1:]
    wide = (1 - 2 * weight) * tall
    wide[:, 1:] += weight * tall[:, :-1]
    wide[:, :-1] += weight * tall[:, 1:]
    return wide


def _display(reading: Array, view: View, shot: Exposure) -> NDArray[np.uint8]:
    """Choose the range as a console does, from the chest alone, and bend it like film."""
    height, width = view.shape
    column, row = view.origin
    top, bottom = int(max(row + 12 / view.pitch, 0)), int(min(row + 290 / view.pitch, height))
    left, right = int(max(column - 128 / view.pitch, 0)), int(min(column + 128 / view.pitch, width))
    low, high = np.quantile(reading[top:bottom:5, left:right:5], [0.03, 0.98])
    low, high = low - shot.dark * (high - low), high + shot.bright * (high - low)
    steps = 4096  # a detector's twelve bits; the curve itself is a table
    t = np.linspace(0, 1, steps)
    table = ((1 - shot.curve) * t + shot.curve * t * t * (3 - 2 * t)) ** shot.gamma
    index = np.clip((reading - low) * ((steps - 1) / (high - low)) + 0.5, 0, steps - 1).astype(np.int64)
    return np.round(255 * table).astype(np.uint8)[index]
