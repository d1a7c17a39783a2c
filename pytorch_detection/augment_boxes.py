"""Augmentation that moves boxes with their images, on whole batches; random numbers come from the generator given."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr.augment import chosen, per_image, uniform


def move_boxes(boxes: Sequence[Tensor], matrices: Tensor, size: int, *, least_kept: float) -> list[Tensor]:
    """Where ``warp`` with the same ``matrices`` puts the boxes of a batch of squares of ``size`` pixels.

    A box stands for the ellipse within it, which is what an opacity fills: after a rotation or shear the new box bounds
    the moved ellipse. One around the moved corners would grow by 7 % of the height for each 4 degrees (Kalra et al.
    2021, doi:10.1109/ICCV48922.2021.00348). Without rotation and shear there is no difference.

    Args:
        boxes: for each image float32 [N, 4] xyxy in pixels; N may be 0.
        matrices: [B, 2, 3], from output to input, as ``random_affine`` makes them.
        size: side of the image before and after.
        least_kept: a box of which less than this share of the area stays inside the image is dropped.

    Returns:
        For each image float32 [M, 4] xyxy, clipped to the image; M is N less what was dropped.
    """
    counts = torch.tensor([len(some) for some in boxes], device=matrices.device)
    image = torch.repeat_interleave(torch.arange(len(boxes), device=matrices.device), counts)
    corners = torch.cat([*boxes]) * (2 / size) - 1  # in the matrices' coordinates, from -1 to 1 over the image
    centres, halves = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    forward = torch.linalg.inv(matrices[:, :, :2])[image]  # from input to output
    centres = (forward @ (centres - matrices[image, :, 2])[..., None]).squeeze(-1)
    halves = (forward * halves[:, None, :]).square().sum(-1).sqrt()
    moved = (torch.cat([centres - halves, centres + halves], dim=1) + 1) * (size / 2)
    clipped = moved.clamp(0, size)
    kept = _areas(clipped) >= least_kept * _areas(moved)
    return [clipped[kept & (image == index)] for index in range(len(boxes))]


def join_halves(
    images: Tensor, boxes: Sequence[Tensor], generator: torch.Generator, *, share: float, least_kept: float
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Give ``share`` of the images the right half of another image of the batch, with its boxes.

    Chests lie alike and each lung has its own opacities, so a few hundred exams make many thousand pairs of lungs (as
    in CutMix, Yun et al. 2019, arXiv:1905.04899). The halves meet near the middle and fade into each other.

    Args:
        images: float32 [B, 1, S, S].
        boxes: for each image float32 [N, 4] xyxy in pixels; N may be 0.
        least_kept: a box of which less than this share of the width stays in its half is dropped.

    Returns:
        Images and boxes of the same forms, and int64 [B]: the place in the batch that each right half comes from.
    """
    count, size = len(images), images.shape[-1]
    seam = uniform(count, 0.46, 0.54, generator) * size
    position = torch.arange(size, device=images.device) + 0.5
    joined = chosen(count, share, generator)
    right = torch.where(joined, ((position - per_image(seam)) / (0.04 * size) + 0.5).clamp(0, 1), 0)
    partner = torch.randperm(count, generator=generator, device=generator.device)
    together: list[Tensor] = []
    for own, other, is_joined, edge in zip(
        boxes, partner.tolist(), joined.flatten().tolist(), seam.tolist(), strict=True
    ):
        if not is_joined:
            together.append(own)
            continue
        wholes = own, boxes[other]
        halves = [whole.clone() for whole in wholes]
        halves[0][:, 2].clamp_(max=edge)
        halves[1][:, 0].clamp_(min=edge)
        kept = [half[_widths(half) >= least_kept * _widths(whole)] for half, whole in zip(halves, wholes, strict=True)]
        together.append(torch.cat(kept))
    source = torch.where(joined.flatten(), partner, torch.arange(count, device=images.device))
    return images * (1 - right) + images[partner] * right, together, source


def _widths(boxes: Tensor) -> Tensor:
    return boxes[:, 2] - boxes[:, 0]


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
