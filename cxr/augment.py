"""Augmentation of batches on their device. Random numbers are drawn per image, from the given generator.

Images are float32 [B, 1, S, S] in 0..1.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """float32 [count] on the generator's device."""
    return torch.empty(count, device=generator.device).uniform_(low, high, generator=generator)


def bernoulli_mask(count: int, prob: float, generator: torch.Generator) -> Tensor:
    """Bool [count, 1, 1, 1], True with probability ``prob``."""
    return per_image(uniform(count, 0, 1, generator) < prob)


def per_image(values: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1], which broadcasts over images."""
    return values[:, None, None, None]


def random_affine(
    count: int,
    generator: torch.Generator,
    *,
    rotation_degrees: float,
    zoom: float,
    stretch: float,
    shear: float,
    shift: float,
    flip: float,
) -> Tensor:
    """float32 [count, 2, 3], affine maps from output to input in coordinates from -1 to 1 over the image.

    Args:
        rotation_degrees, shear, shift: maximum in both directions; a shift of 1 is half the image.
        zoom: maximum of the natural logarithm of the scale. stretch: the same of height relative to width.
        flip: probability of a horizontal flip.
    """
    angle = uniform(count, -rotation_degrees, rotation_degrees, generator) * (math.pi / 180)
    width = torch.exp(uniform(count, -zoom, zoom, generator))
    height = width * torch.exp(uniform(count, -stretch, stretch, generator))
    slant = uniform(count, -shear, shear, generator)
    side = 1 - 2 * (uniform(count, 0, 1, generator) < flip).float()
    shift_x, shift_y = uniform(count, -shift, shift, generator), uniform(count, -shift, shift, generator)
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([cos * width * side, slant - sin * height, shift_x], dim=1)
    row_y = torch.stack([sin * width * side, cos * height, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def random_crop(
    count: int,
    generator: torch.Generator,
    *,
    smallest_area: float,
    stretch: float,
    rotation_degrees: float,
    shear: float,
    flip: float,
) -> Tensor:
    """Random crops (Szegedy et al. 2015, arXiv:1409.4842, section 6) as affine maps, as ``random_affine``.

    They keep a network from relying on the outline of the chest or the border of the image.

    Args:
        smallest_area: minimum area of a crop; 1 is the whole image.
        stretch: maximum of the natural logarithm of width relative to height.
        rotation_degrees, shear, flip: as for ``random_affine``.
    """
    area = uniform(count, smallest_area, 1, generator)
    aspect = torch.exp(uniform(count, -stretch, stretch, generator))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    centre_x = uniform(count, -1, 1, generator) * (1 - width)
    centre_y = uniform(count, -1, 1, generator) * (1 - height)
    angle = uniform(count, -rotation_degrees, rotation_degrees, generator) * (math.pi / 180)
    slant = uniform(count, -shear, shear, generator)
    side = 1 - 2 * (uniform(count, 0, 1, generator) < flip).float()
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([cos * width * side, (slant - sin) * height, centre_x], dim=1)
    row_y = torch.stack([sin * width * side, cos * height, centre_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def warp(images: Tensor, matrices: Tensor, size: int) -> Tensor:
    """``images`` resampled by ``matrices`` (output to input) to [B, 1, size, size]; 0 outside the input."""
    grid = functional.affine_grid(matrices, [len(images), 1, size, size], align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def identity_curves(count: int, device: torch.device) -> Tensor:
    """Tone curves, float32 [count, 256]: for each image the brightness in 0..1 of each stored grey level.

    Tone augmentation changes these 256 numbers instead of the pixels.
    """
    return torch.linspace(0, 1, 256, device=device).repeat(count, 1)


def apply_curves(stored: Tensor, curves: Tensor) -> Tensor:
    """Stored uint8 [B, S, S] as float32 [B, 1, S, S] by the tone ``curves`` [B, 256]."""
    levels = stored.flatten(1).long()
    return curves.gather(1, levels).view(len(stored), 1, *stored.shape[1:])


def match_histograms(curves: Tensor, stored: Tensor, generator: torch.Generator, *, prob: float) -> Tensor:
    """With probability ``prob``, move an image part of the way to the histogram of another image of the batch.

    Exposure and processing then no longer depend on the source, and so not on the class.
    """
    count = len(stored)
    darker = cumulative_histograms(stored)
    partner = torch.randperm(count, generator=generator, device=generator.device)
    level = matching_levels(darker, darker[partner])
    part = uniform(count, 0, 1, generator)[:, None] * (uniform(count, 0, 1, generator) < prob)[:, None]
    return curves + (curves[partner].gather(1, level) - curves) * part


def cumulative_histograms(stored: Tensor) -> Tensor:
    """float32 [B, 256]: for each grey level of uint8 [B, S, S] the fraction of darker pixels (mid-ranks)."""
    sample = stored[:, ::2, ::2].flatten(1).long()  # a quarter of the pixels is enough
    ones = torch.ones(sample.shape, device=stored.device)
    counts = torch.zeros(len(stored), 256, device=stored.device).scatter_add_(1, sample, ones)
    return (counts.cumsum(dim=1) - counts / 2) / sample.shape[1]


def matching_levels(darker: Tensor, darker_there: Tensor) -> Tensor:
    """int64 [B, 256]: for each grey level the one of the same rank in the other image's ``cumulative_histograms``."""
    return torch.searchsorted(darker_there.contiguous(), darker).clamp(max=255)


def jitter_tone(
    curves: Tensor, generator: torch.Generator, *, gamma: float, contrast: float, brightness: float
) -> Tensor:
    """Exposure and film curve: gamma, contrast about mid-grey, brightness; not clipped to 0..1.

    ``gamma`` and ``contrast`` are maxima of the natural logarithm of the exponent and of the factor.
    """
    count = len(curves)
    power = torch.exp(uniform(count, -gamma, gamma, generator))[:, None]
    factor = torch.exp(uniform(count, -contrast, contrast, generator))[:, None]
    constant = uniform(count, -brightness, brightness, generator)[:, None]
    return (curves**power - 0.5) * factor + 0.5 + constant


def jitter_sharpness(
    images: Tensor, generator: torch.Generator, *, sigma: float, blur_prob: float, sharpen_prob: float
) -> Tensor:
    """Detector and processing: Gaussian blur of up to ``sigma`` pixels, or sharpening by an unsharp mask."""
    count = len(images)
    draw = uniform(count, 0, 1, generator)
    smooth = _gaussian(images, uniform(count, 0.3, sigma, generator))
    amount = uniform(count, 0.2, 1.5, generator)
    weight = torch.where(draw < blur_prob, torch.ones_like(amount), torch.zeros_like(amount))
    weight = torch.where(draw > 1 - sharpen_prob, -amount, weight)
    return images + (smooth - images) * per_image(weight)


def random_convolution(images: Tensor, generator: torch.Generator, *, prob: float) -> Tensor:
    """With probability ``prob``, blend in a random 3 x 3 convolution (RandConv), which changes texture, not shape.

    Xu et al. 2021, arXiv:2007.13003. The filtered image has mean .5 and standard deviation .25; its weight in the blend
    is drawn from 0..1.
    """
    count = len(images)
    kernels = torch.empty(count, 1, 3, 3, device=images.device).normal_(0, 1 / 3, generator=generator)
    padded = functional.pad(images.transpose(0, 1), (1, 1, 1, 1), mode="replicate")
    filtered = functional.conv2d(padded, kernels, groups=count).transpose(0, 1)
    deviation, mean = torch.std_mean(filtered, dim=(1, 2, 3), keepdim=True)
    filtered = (filtered - mean) / (deviation + 0.03) * 0.25 + 0.5
    part = per_image(uniform(count, 0, 1, generator)) * bernoulli_mask(count, prob, generator)
    return images + (filtered - images) * part


def _gaussian(images: Tensor, sigmas: Tensor) -> Tensor:
    """Each image blurred by its own sigma in pixels, separably, with a kernel of 9 x 9."""
    count, radius = len(images), 4
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigmas[:, None] ** 2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    planes = images.transpose(0, 1)  # [1, B, S, S]: one group of the convolution for each image
    planes = functional.pad(planes, (radius, radius, 0, 0), mode="replicate")
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=count)
    planes = functional.pad(planes, (0, 0, radius, radius), mode="replicate")
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=count)
    return planes.transpose(0, 1)


def swap_borders(images: Tensor, generator: torch.Generator, *, prob: float, inner: float) -> Tensor:
    """With probability ``prob``, swap an image's border for that of another image of the batch.

    Side markers, text, borders and collimation differ by source and so by class. The image is kept in a soft-edged
    rounded rectangle of ``inner`` to 1 of the width and of the height.
    """
    count = len(images)
    centres = (uniform(count, -0.08, 0.08, generator), uniform(count, -0.08, 0.08, generator))
    halves = (uniform(count, inner, 1, generator), uniform(count, inner, 1, generator))
    edges = torch.exp(uniform(count, 1, 3, generator))
    partner = torch.randperm(count, generator=generator, device=generator.device)
    framed = blend_borders(images, images[partner], centres, halves, edges)
    return torch.where(bernoulli_mask(count, prob, generator), framed, images)


def blend_borders(
    images: Tensor, others: Tensor, centres: tuple[Tensor, Tensor], halves: tuple[Tensor, Tensor], edges: Tensor
) -> Tensor:
    """``images`` within a rounded rectangle and ``others`` around it.

    Args:
        centres, halves: [B] each, x and y of the rectangle's centre and its half width and height, in coordinates that
            run from -1 to 1 over the image.
        edges: [B], hardness of the border.
    """
    axis = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    across = (axis[None, None, None, :] - per_image(centres[0])).abs() / per_image(halves[0])
    down = (axis[None, None, :, None] - per_image(centres[1])).abs() / per_image(halves[1])
    kept = torch.sigmoid((1 - across**4 - down**4) * per_image(edges))
    return images * kept + others * (1 - kept)


def erase(images: Tensor, generator: torch.Generator, *, prob: float, smallest: float, largest: float) -> Tensor:
    """With probability ``prob``, cover one uniform rectangle, sides ``smallest`` to ``largest`` of the image's."""
    count, size = len(images), images.shape[-1]
    position = (torch.arange(size, device=images.device) + 0.5) / size
    centre_x, centre_y = uniform(count, 0, 1, generator), uniform(count, 0, 1, generator)
    width, height = uniform(count, smallest, largest, generator), uniform(count, smallest, largest, generator)
    inside_x = (position[None, None, None, :] - per_image(centre_x)).abs() < per_image(width / 2)
    inside_y = (position[None, None, :, None] - per_image(centre_y)).abs() < per_image(height / 2)
    grey = per_image(uniform(count, 0, 1, generator))
    return torch.where(inside_x & inside_y & bernoulli_mask(count, prob, generator), grey, images)
