"""The ResNet parts that both networks share: one-channel first layer, input normalisation, initial weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

State = dict[str, Tensor]


def grey_layer(first: nn.Conv2d) -> nn.Conv2d:
    """The first layer of a ResNet for one input channel instead of three, initialised as torchvision does."""
    grey = nn.Conv2d(1, first.out_channels, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(grey.weight, mode="fan_out", nonlinearity="relu")
    return grey


def standardized(images: Tensor) -> Tensor:
    """[B, 1, S, S] with mean 0 and standard deviation 1 in each image; a uniform image becomes 0.

    It removes exposure and window, which depend on the source and not on the patient.
    """
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) / (deviation + 0.03)


def fold_input_planes(weight: Tensor) -> Tensor:
    """[64, 3, 7, 7] to [64, 1, 7, 7]: the same output for a grey image as for its three equal RGB channels."""
    return weight.sum(dim=1, keepdim=True)


def downloaded(weights: WeightsEnum, name: str) -> State:
    """The state dict that torchvision publishes as ``weights``, called the ``name`` weights in a message.

    Raises:
        ConnectionError: the download failed.
    """
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong hash
        raise ConnectionError(
            f"the {name} weights cannot be downloaded ({error}); train from scratch with --weights none, or give a "
            "downloaded file with --weights FILE"
        ) from error


def weights_file(weights: str, known: str) -> Path:
    """``weights``, which is none of the ``known`` words, as a path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"--weights: no file {path.resolve()}, nor is it {known}")
    return path


def tensors(found: Any, source: object) -> State:
    """The state dict ``found``, or the one under ``state_dict`` in it; else raises ValueError, which names ``source``.

    ``module.`` before each key, of a network saved under DataParallel, goes.
    """
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(type(k) is str and isinstance(v, Tensor) for k, v in found.items()):
        raise ValueError(f"{source}: expected a checkpoint of this project or a state dict")
    return {name.removeprefix("module."): value for name, value in found.items()}
