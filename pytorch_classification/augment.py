"""How radiographs go wrong on their way: noise, blur, compression, other exposure, tighter collimation.

A sound classifier loses little by them. After Hendrycks and Dietterich 2019, arXiv:1903.12261, for what befalls chest
radiographs, in two strengths each.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


def _noise(share: float, image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Gaussian noise with a standard deviation of ``share`` of the grey range."""
    grey = np.asarray(image, np.float32)
    noise = random.normal(0, 255 * share, grey.shape)
    return Image.fromarray(np.clip(np.rint(grey + noise), 0, 255).astype(np.uint8))


def _blur(pixels: float, image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(pixels))


def _jpeg(quality: int, image: Image.Image, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    with Image.open(file) as found:
        return found.copy()


def _gamma(power: float, image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.point([round(255 * (level / 255) ** power) for level in range(256)])


def _centre(share: float, image: Image.Image, _: np.random.Generator) -> Image.Image:
    """The central ``share`` of each side, drawn as large as the whole."""
    side = image.width
    edge = side * (1 - share) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, (edge, edge, side - edge, side - edge))


# Noise is in percent of the grey range, blur in pixels of the squares that are corrupted.
CORRUPTIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "noise of 5 %": partial(_noise, 0.05),
    "noise of 10 %": partial(_noise, 0.1),
    "blur of 1 pixel": partial(_blur, 1),
    "blur of 2 pixels": partial(_blur, 2),
    "JPEG of quality 30": partial(_jpeg, 30),
    "JPEG of quality 10": partial(_jpeg, 10),
    "gamma 0.7, brighter": partial(_gamma, 0.7),
    "gamma 1.4, darker": partial(_gamma, 1.4),
    "the central 90 %": partial(_centre, 0.9),
    "the central 80 %": partial(_centre, 0.8),
}


def corrupted(images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each corruption's name and ``images`` uint8 [N, S, S] with it."""
    for name, corrupt in CORRUPTIONS.items():
        random = np.random.default_rng(0)
        yield name, np.stack([np.asarray(corrupt(Image.fromarray(image), random)) for image in images])
