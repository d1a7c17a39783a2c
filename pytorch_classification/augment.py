"""Augmentation of the training images, and corruptions that test how robust a classifier is.

The corruptions follow Hendrycks and Dietterich 2019, arXiv:1903.12261, with those that occur on chest radiographs
(noise, blur, compression, exposure, tighter collimation), in two strengths each.
"""

import io
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from cxr import augment


def augmented(
    stored: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    crop_prob: float,
    style_mix_prob: float,
    randconv_prob: float,
) -> Tensor:
    """Training samples float32 [B, 1, size, size] of ``stored`` uint8 [B, S', S'].

    Tone, sharpness and border differ between sources and, in Kaggle's set, between the classes. They are varied and
    mixed between images so that a network cannot use them in place of the lungs. A random crop hides the outline and
    the border; the other samples show the whole image, as prediction does (benchmarks/RECIPES.md).
    """
    count = len(stored)
    curves = augment.identity_curves(count, stored.device)
    curves = augment.match_histograms(curves, stored, generator, prob=style_mix_prob)
    curves = augment.jitter_tone(curves, generator, gamma=0.5, contrast=0.4, brightness=0.15)
    images = augment.apply_curves(stored, curves)
    whole = augment.random_affine(
        count, generator, rotation_degrees=12, zoom=0.2, stretch=0.12, shear=0.1, shift=0.12, flip=0.5
    )
    crop = augment.random_crop(
        count, generator, smallest_area=0.08, stretch=math.log(4 / 3), rotation_degrees=12, shear=0.1, flip=0.5
    )
    matrices = torch.where(augment.bernoulli_mask(count, crop_prob, generator)[:, 0], crop, whole)
    images = augment.warp(images, matrices, size)
    images = augment.random_convolution(images, generator, prob=randconv_prob)
    images = augment.swap_borders(images, generator, prob=style_mix_prob, inner=0.72)
    images = augment.jitter_sharpness(images, generator, sigma=1.6, blur_prob=0.4, sharpen_prob=0.2)
    return augment.erase(images, generator, prob=0.4, smallest=0.1, largest=0.35)


def _noise(deviation: float, image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Gaussian noise; its standard ``deviation`` is a fraction of the grey range."""
    grey = np.asarray(image, np.float32)
    noise = random.normal(0, 255 * deviation, grey.shape)
    return Image.fromarray(np.clip(np.rint(grey + noise), 0, 255).astype(np.uint8))


def _blur(sigma_pixels: float, image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma_pixels))


def _jpeg(quality: int, image: Image.Image, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return decoded.copy()


def _gamma(exponent: float, image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.point([round(255 * (level / 255) ** exponent) for level in range(256)])


def _centre_crop(fraction: float, image: Image.Image, _: np.random.Generator) -> Image.Image:
    """The central ``fraction`` of each side, resized to the whole."""
    side = image.width
    edge = side * (1 - fraction) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, (edge, edge, side - edge, side - edge))


# Noise in percent of the grey range, blur in pixels of the squares that are corrupted.
CORRUPTIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "noise of 5 %": partial(_noise, 0.05),
    "noise of 10 %": partial(_noise, 0.1),
    "blur of 1 pixel": partial(_blur, 1),
    "blur of 2 pixels": partial(_blur, 2),
    "JPEG of quality 30": partial(_jpeg, 30),
    "JPEG of quality 10": partial(_jpeg, 10),
    "gamma 0.7, brighter": partial(_gamma, 0.7),
    "gamma 1.4, darker": partial(_gamma, 1.4),
    "the central 90 %": partial(_centre_crop, 0.9),
    "the central 80 %": partial(_centre_crop, 0.8),
}


def corrupted(images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each corruption's name and ``images`` uint8 [N, S, S] with it."""
    for name, corrupt in CORRUPTIONS.items():
        random = np.random.default_rng(0)
        yield name, np.stack([np.asarray(corrupt(Image.fromarray(image), random)) for image in images])
