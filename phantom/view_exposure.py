"""From millimetres in the chest to grey levels: smooth random patterns, positioning, exposure and display."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.floating[Any]]


def double(coarse: Array) -> Array:
    """[h, w] to [2h, 2w] without steps: every new pixel is three parts its own block and one part the nearest next."""
    tall = np.empty((2 * coarse.shape[0], coarse.shape[1]))
    own, next_to = 0.75 * coarse, 0.25 * coarse
    np.add(own[1:], next_to[:-1], out=tall[2::2])
    np.add(own[:-1], next_to[1:], out=tall[1:-1:2])
    tall[0], tall[-1] = coarse[0], coarse[-1]
    wide = np.empty((tall.shape[0], 2 * tall.shape[1]))
    own, next_to = 0.75 * tall, 0.25 * tall
    np.add(own[:, 1:], next_to[:, :-1], out=wide[:, 2::2])
    np.add(own[:, :-1], next_to[:, 1:], out=wide[:, 1:-1:2])
    wide[:, 0], wide[:, -1] = tall[:, 0], tall[:, -1]
    return wide


def enlarge(coarse: Array, times: int) -> Array:
    """``double`` until ``times`` (a power of two) as large."""
    while times > 1:
        coarse, times = double(coarse), times // 2
    return coarse


def wide_blur(image: Array, sigma: float, block: int) -> Array:
    """A Gaussian blur of many pixels, worked out on blocks; both sides of ``image`` are multiples of ``block``."""
    height, width = image.shape
    coarse = image.reshape(height // block, block, width // block, block).mean((1, 3))
    return enlarge(gaussian_filter(coarse, sigma / block, mode="nearest", truncate=3.0), block)


def texture(rng: np.random.Generator, shape: tuple[int, int], cell: int, rough: float = 0.6) -> Array:
    """Smooth chance pattern of mean about 0 and spread about 1; its largest patches are ``cell`` pixels wide.

    Args:
        cell: a power of two. rough: weight of each finer octave relative to the one before.
    """
    height, width = shape
    pattern = rng.standard_normal((-(-height // cell) + 2, -(-width // cell) + 2))
    weight, total, left = 1.0, 1.0, cell
    while left > 1:
        pattern, weight, left = double(pattern), weight * rough, left // 2
        pattern += weight * rng.standard_normal(pattern.shape)
        total += weight**2
    return pattern[cell : cell + height, cell : cell + width] * (1.3 / np.sqrt(total))


LEVEL_OF_BEAM = 120.0  # adult mm below the apices, about the seventh thoracic vertebra


@dataclass(frozen=True)
class View:
    """One positioning. Lengths in adult millimetres, angles in radians.

    shape: (height, width) in pixels.
    pitch: adult millimetres per pixel.
    origin: (column, row) in pixels where the midline meets the level of the lung apices.
    from_front: AP: what lies in front is further from the detector, hence larger.
    rotation: about the body's axis; positive brings what lies in front to the patient's left.
    tilt: leaning back (lordotic); what lies in front moves up.
    lean: sideways, millimetres per millimetre.
    lift: how much higher the diaphragm stands than at full inspiration.
    """

    shape: tuple[int, int]
    pitch: float
    origin: tuple[float, float]
    from_front: bool = False
    rotation: float = 0.0
    tilt: float = 0.0
    lean: float = 0.0
    lift: float = 0.0

    def enlargement(self, depth: Array | float) -> Array | float:
        """Of what lies ``depth`` mm before the middle: tube to detector 1.1 m from the front, 1.8 m from the back."""
        return 1 + depth * (1 / 1100 if self.from_front else -1 / 1800)

    def sideways(self, depth: float) -> float:
        """How far rotation moves what lies ``depth`` mm in front of the body's axis."""
        return depth * float(np.sin(self.rotation))

    def midline(self, y: Array) -> Array:
        """Where the body's axis lies at height ``y``."""
        return self.lean * (y - LEVEL_OF_BEAM)

    def pose(self, points: Array) -> Array:
        """Points [..., 3] of the chest, turned, tilted and enlarged; the last coordinate is left as it was."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        large = self.enlargement(z)
        down = LEVEL_OF_BEAM + (y - LEVEL_OF_BEAM) * large - z * np.tan(self.tilt)
        across = (x * np.cos(self.rotation) + z * np.sin(self.rotation)) * large + self.midline(down)
        return np.stack([across, down, z], -1)

    def pixel(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Columns and rows of posed places; whole numbers are pixel centres."""
        return x / self.pitch + self.origin[0], y / self.pitch + self.origin[1]

    def coarser(self, step: int) -> "View":
        """The same picture in blocks of ``step`` x ``step`` pixels."""
        column, row = ((place + 0.5) / step - 0.5 for place in self.origin)
        height, width = self.shape
        return replace(self, shape=(height // step, width // step), pitch=self.pitch * step, origin=(column, row))

    def grid(self) -> tuple[Array, Array]:
        """Centres of the pixels: x [H, W] from the body's axis, y [H, 1]."""
        y = ((np.arange(self.shape[0]) - self.origin[1]) * self.pitch)[:, None]
        x = ((np.arange(self.shape[1]) - self.origin[0]) * self.pitch)[None]
        return x - self.midline(y), y


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
