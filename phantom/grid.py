"""Coarse grids: smooth chance patterns, doubling to full resolution, and wide blurs."""

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
