"""Where the lungs lie: a small network that has learnt it from synthetic chests alone (train_lung_finder.py)."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import Tensor, nn
from torch.nn import functional

from cxr.files import write_atomically

WEIGHTS = Path(__file__).with_suffix(".npz")
SIZE = 64  # pixels along each side of what the network sees, and of the mask
_WIDTHS = (16, 32, 64, 96)
_BATCH = 128

# What is taken for lungs: heart and spine lie between them, so they never fill their hull. Of real chests 2 to 6 in
# 1,000 fail one of these, of parts of photographs 99 in 100 do.
_LEAST_AREA, _LEAST_CERTAINTY, _MOST_FILLED = 0.04, 0.8, 0.75
_SMALLER_PART = 0.15  # of the larger lung; what is smaller is a speck


@dataclass(frozen=True)
class LungFields:
    """The lungs of N square images.

    Attributes:
        lungs: bool [N, 64, 64], both lungs without heart and mediastinum, over the whole of each image; empty where
            none were found.
        fields: bool [N, 64, 64], the convex hull of both, which takes in the heart and what is white beside it.
        found: bool [N]; False for what is no chest, or one that shows no lungs.
    """

    lungs: NDArray[np.bool_]
    fields: NDArray[np.bool_]
    found: NDArray[np.bool_]


class LungNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28) of 0.4 million weights.

    Takes float32 [B, 1, S, S] in any linear scale, S a multiple of 16, and gives the log-odds [B, 1, S, S] that a pixel
    lies in a lung. It works at half of that resolution and less, and enlarges its answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(_convolutions(*pair, stride=2) for pair in pairwise((1, *_WIDTHS)))
        self.up = nn.ModuleList(_convolutions(below + beside, beside, stride=1) for beside, below in pairwise(_WIDTHS))
        self.last = nn.Conv2d(_WIDTHS[0], 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds of lung."""
        deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
        x = (x - mean) / (deviation + 0.02)
        levels: list[Tensor] = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        for block, beside in zip(reversed(self.up), levels[-2::-1], strict=True):
            x = block(torch.cat([_doubled(x), beside], dim=1))
        return _doubled(self.last(x))


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _convolutions(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def find_lungs(images: NDArray[np.uint8]) -> LungFields:
    """The lung fields of ``images``, uint8 [N, S, S], bone white, squashed to squares; about 3 ms each on one core."""
    probabilities = lung_probability(load(WEIGHTS), images)
    lungs, fields = (np.zeros(probabilities.shape, np.bool_) for _ in range(2))
    for probability, likely, field in zip(probabilities, lungs, fields, strict=True):
        likely[:] = _clean(probability)
        field[:] = _field(probability, likely)
    found = np.array([field.any() for field in fields], np.bool_)
    lungs &= found[:, None, None]
    return LungFields(lungs, fields, found)


@torch.inference_mode()
def lung_probability(network: LungNet, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 64, 64]: mean over each image and its mirror image of the probability that a pixel lies in a lung."""
    answers = [np.zeros((0, SIZE, SIZE), np.float32)]
    for first in range(0, len(images), _BATCH):
        whole = torch.from_numpy(images[first : first + _BATCH])[:, None].float() / 255
        seen = functional.interpolate(whole, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        both = torch.sigmoid(network(seen)) + torch.sigmoid(network(seen.flip(3))).flip(3)
        answers.append((both[:, 0] / 2).numpy())
    return np.concatenate(answers)


def save(network: nn.Module, path: Path) -> None:
    """The weights as an .npz of float16, 0.8 MB."""
    state = network.state_dict()
    # Any: without allow_pickle, which an old numpy takes for one more array, the names could be that to a type checker.
    arrays: dict[str, Any] = {name: value.half().numpy() for name, value in state.items() if value.is_floating_point()}
    write_atomically(path, lambda file: np.savez(file, **arrays))


@cache
def load(path: Path) -> LungNet:
    """The network that ``save`` wrote to ``path``, read once in a process."""
    network = LungNet()
    with np.load(path, allow_pickle=False) as arrays:
        state = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
    network.load_state_dict(network.state_dict() | state)
    return network.eval().to(memory_format=torch.channels_last)


def _clean(probability: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The two largest parts of what is likely lung, without holes."""
    parts, count = cast(tuple[NDArray[np.int32], int], ndimage.label(probability > 0.5))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    kept = [part + 1 for part in np.argsort(-sizes)[:2] if sizes[part] >= _SMALLER_PART * sizes.max()]
    return cast(NDArray[np.bool_], ndimage.binary_fill_holes(np.isin(parts, kept)))


def _field(probability: NDArray[np.float32], lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex hull of what passes for ``lungs``, empty where they do not."""
    if lungs.mean() < _LEAST_AREA or probability[lungs].mean() < _LEAST_CERTAINTY:
        return np.zeros_like(lungs)
    field = _convex_hull(lungs)
    return field if lungs.sum() <= _MOST_FILLED * field.sum() else np.zeros_like(lungs)


def _convex_hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    sides = ConvexHull(np.argwhere(mask)).equations  # unit normals outward, then the distance
    places = np.indices(mask.shape).reshape(2, -1)
    return (sides[:, :2] @ places + sides[:, 2:] < 1e-6).all(axis=0).reshape(mask.shape)
