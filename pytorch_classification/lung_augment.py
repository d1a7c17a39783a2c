"""Synthetic chests made as unlike one another as films are, so that a network which knows them knows real ones too.

Everything works on whole batches; every random number comes from the generator given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cxr.augment import chosen, erase, per_image, random_affine, uniform, vary_sharpness

_NO_CHESTS = 0.2  # share of each batch


def disguise(images: Tensor, lungs: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One lesson: chests in disguise, and among them what is no chest, whose mask is empty.

    Args:
        images, lungs: uint8 [B, S, S]; a lung is 255.
        size: of what is returned, in pixels.

    Returns:
        float32 [B, 1, size, size], both from 0 to 1.
    """
    count, none = len(images), round(_NO_CHESTS * len(images))
    x, y = _move(images[:, None].float() / 255, lungs[:, None].float() / 255, size, generator)
    x = _whiten(x, y, generator)
    x[:none] = torch.where(chosen(none, 0.3, generator), _shuffle(x[:none], generator), leaves(none, size, generator))
    y[:none] = 0
    x = _vary_tone(x, generator)
    x = vary_sharpness(x, generator, sigma=2, share_blurred=0.35, share_sharpened=0.3)
    x = x + torch.randn(x.shape, generator=generator) * per_image(0.12 * uniform(count, 0, 1, generator) ** 3)
    x = _write(x, generator)
    for share in (0.3, 0.15):
        x = erase(x, generator, share=share, smallest=0.03, largest=0.35)
    x, seen = _collimate(x, generator)
    return x.clamp(0, 1), y * seen


def _hills(count: int, cells: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth chance [count, 1, size, size] of mean 0 and spread about 1, ``cells`` hills and valleys across."""
    coarse = torch.randn(count, 1, cells, cells, generator=generator)
    return functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)


def _move(images: Tensor, lungs: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, turn, shear, stretch, bend, and cut out .3 to 1 of the area or look beyond the film."""
    count = len(images)
    matrices = random_affine(count, generator, rotation_degrees=18, zoom=0, stretch=0.22, shear=0.15, shift=0, flip=0.5)
    side = uniform(count, 0.55, 1.25, generator)
    matrices[:, :, :2] *= side[:, None, None]
    room = (1 - side).clamp(min=0) + 0.12
    matrices[:, :, 2] = torch.stack([uniform(count, -1, 1, generator) * room for _ in range(2)], dim=1)
    grid = functional.affine_grid(matrices, [count, 1, size, size], align_corners=False)
    bend = torch.cat([_hills(count, 4, size, generator) for _ in range(2)], dim=1).permute(0, 2, 3, 1)
    grid = grid + bend * per_image(uniform(count, 0, 0.06, generator))
    within = (grid.abs() <= 1).all(dim=-1)[:, None]
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    kind = uniform(count, 0, 1, generator)
    beyond = torch.where(kind < 0.6, 0.0, torch.where(kind < 0.7, 1.0, uniform(count, 0, 1, generator)))
    moved = torch.where(within | chosen(count, 0.3, generator), moved, per_image(beyond))
    return moved, functional.grid_sample(lungs, grid, align_corners=False) * within


def _whiten(images: Tensor, lungs: Tensor, generator: torch.Generator) -> Tensor:
    """Fill part of the lungs of half of the chests with what is as white as the rest: in clouds, or from below."""
    count, size = len(images), images.shape[-1]
    axis = torch.linspace(0, 1, size)
    level = torch.maximum(images, per_image(uniform(count, 0.45, 1, generator)))
    hills = _hills(count, 5, size, generator) - per_image(uniform(count, -0.8, 1.2, generator))
    side = torch.where(chosen(count, 0.5, generator), axis, 1 - axis) + per_image(uniform(count, -0.2, 0.8, generator))
    below = (axis[:, None] - per_image(uniform(count, 0.3, 0.9, generator))) * 6 + 0.3 * hills
    below = torch.minimum(below, (side - 0.5) * 12)  # one lung, or both
    reach = torch.sigmoid(6 * torch.where(chosen(count, 0.5, generator), hills, below))
    soft = functional.avg_pool2d(lungs, 3, stride=1, padding=1) * per_image(uniform(count, 0.2, 1, generator) ** 0.5)
    return torch.where(chosen(count, 0.5, generator), images + (level - images) * reach * soft, images)


def _vary_tone(images: Tensor, generator: torch.Generator) -> Tensor:
    """Any rising grey scale, shading, too much or too little exposure, and local contrast in place of the grey."""
    count, size = len(images), images.shape[-1]
    x = _rising(images, generator) ** per_image(torch.exp(uniform(count, -0.7, 0.7, generator)))
    x = x * per_image(torch.exp(uniform(count, -0.5, 0.6, generator))) + per_image(
        uniform(count, -0.25, 0.25, generator)
    )
    x = (x + _hills(count, 3, size, generator) * per_image(uniform(count, 0, 0.15, generator))).clamp(0, 1)
    around = functional.avg_pool2d(x, 2 * (size // 8) + 1, stride=1, padding=size // 8, count_include_pad=False)
    local = (0.5 + (x - around) * per_image(uniform(count, 0.8, 2.5, generator))).clamp(0, 1)
    return torch.where(chosen(count, 0.2, generator), local, x)


def _rising(images: Tensor, generator: torch.Generator, steps: int = 8) -> Tensor:
    """Each image through a curve of its own from 0 to 1 that never falls."""
    rises = torch.rand(len(images), steps, generator=generator) ** 2 + 0.03
    curve = functional.pad(rises.cumsum(dim=1) / rises.sum(dim=1, keepdim=True), (1, 0))
    straight = torch.linspace(0, 1, steps + 1)
    curve = straight + (curve - straight) * uniform(len(images), 0, 1, generator)[:, None]
    place = images.flatten(1).clamp(0, 1) * steps
    below = place.floor().clamp(max=steps - 1).long()
    low, high = curve.gather(1, below), curve.gather(1, below + 1)
    return (low + (high - low) * (place - below)).view_as(images)


def _write(images: Tensor, generator: torch.Generator) -> Tensor:
    """Lines of text and marks: patches of white or grey specks, anywhere, on half of the images."""
    count, size = len(images), images.shape[-1]
    column, row = torch.arange(size), torch.arange(size)[:, None]
    for _ in range(3):
        left, top = (uniform(count, -0.1, 0.95, generator) * size for _ in range(2))
        width, height = uniform(count, 2, 0.3 * size, generator), uniform(count, 2, 0.14 * size, generator)
        inside = (column >= per_image(left)) & (column < per_image(left + width))
        inside = inside & (row >= per_image(top)) & (row < per_image(top + height))
        specks = torch.rand(images.shape, generator=generator) < 0.6
        grey = torch.where(uniform(count, 0, 1, generator) < 0.7, 1.0, uniform(count, 0, 1, generator))
        images = torch.where(inside & specks & chosen(count, 0.2, generator), per_image(grey), images)
    return images


def _collimate(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cover what lies beyond slanting edges of some images; and what is still seen, 0 or 1 of the same shape."""
    count, size = len(images), images.shape[-1]
    axis = (torch.arange(size) + 0.5) / size
    across, down = axis[None, None, None, :], axis[None, None, :, None]
    slant = per_image(uniform(count, -0.08, 0.08, generator))
    across, down = across + slant * (down - 0.5), down - slant * (across - 0.5)
    left, top, right, bottom = (per_image(uniform(count, -0.1, 0.22, generator).clamp(min=0)) for _ in range(4))
    covered = (across < left) | (across > 1 - right) | (down < top) | (down > 1 - bottom)
    covered = covered & chosen(count, 0.3, generator)
    dark = uniform(count, 0, 1, generator) < 0.75
    grey = torch.where(dark, uniform(count, 0, 0.1, generator), uniform(count, 0, 1, generator))
    return torch.where(covered, per_image(grey), images), (~covered).float()


# --------------------------------------------------------------------------------------------------- what is no chest


def leaves(count: int, size: int, generator: torch.Generator, most: int = 40) -> Tensor:
    """Pictures of nothing, [count, 1, size, size]: shapes of all sizes before one another on an even or cloudy ground.

    Their edges and greys are spread as in photographs (dead leaves, Lee et al. 2001, doi:10.1023/A:1011109015675), some
    shapes are striped or have a rim; with thin shapes or none they look like plots, clouds or noise.
    """
    clouds = sum(_hills(count, cells, size, generator) / cells for cells in (3, 6, 12, 24, size))
    ground = per_image(uniform(count, 0, 1, generator))
    images = ground + clouds * per_image(uniform(count, 0, 1.5, generator)) * chosen(count, 0.6, generator)
    axis = (torch.arange(size) + 0.5) / size
    shapes, thin = uniform(count, 0, 1, generator) ** 2 * most, chosen(count, 0.25, generator)
    for index in range(most):
        across, down = _turned(axis, count, generator)
        long = per_image(0.02 / uniform(count, 0.03, 1, generator))  # the more, the smaller
        short = torch.where(thin, 0.012, long * per_image(uniform(count, 0.2, 1, generator)))
        oval = (across / long) ** 2 + (down / short) ** 2 < 1
        straight = (across.abs() < long) & (down.abs() < short)
        inside = torch.where(chosen(count, 0.5, generator), oval, straight)
        grey = per_image(uniform(count, -0.2, 1.2, generator)) + across * per_image(uniform(count, -1, 1, generator))
        stripes = torch.sin(across * per_image(uniform(count, 20, 150, generator)) + 40 * down**2)
        grey = grey + stripes * per_image(uniform(count, 0, 0.4, generator)) * chosen(count, 0.3, generator)
        rim = (across / long) ** 2 + (down / short) ** 2 > per_image(uniform(count, 0.5, 1, generator))
        grey = torch.where(rim & chosen(count, 0.3, generator), per_image(uniform(count, 0, 1.2, generator)), grey)
        images = torch.where(inside & (per_image(shapes) > index), grey, images)
    return images.clamp(0, 1)


def _turned(axis: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coordinates [count, 1, S, S] from a place of chance along an axis of chance, every other one upright."""
    x = axis[None, None, None, :] - per_image(uniform(count, 0, 1, generator))
    y = axis[None, None, :, None] - per_image(uniform(count, 0, 1, generator))
    angle = per_image(uniform(count, 0, torch.pi, generator)) * chosen(count, 0.5, generator)
    return x * torch.cos(angle) + y * torch.sin(angle), y * torch.cos(angle) - x * torch.sin(angle)


def _shuffle(images: Tensor, generator: torch.Generator, tiles: int = 4) -> Tensor:
    """The same tiles in another order: a chest's edges and greys, but no chest."""
    side = images.shape[-1] // tiles
    shuffled = torch.empty_like(images)
    places: Sequence[int] = torch.randperm(tiles * tiles, generator=generator).tolist()
    for to, start in enumerate(places):
        (row, column), (from_row, from_column) = divmod(to, tiles), divmod(start, tiles)
        shuffled[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = images[
            :, :, from_row * side : (from_row + 1) * side, from_column * side : (from_column + 1) * side
        ]
    return shuffled
