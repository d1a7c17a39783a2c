"""ResNet-18 on one grey channel with one output, the log-odds of PNEUMONIA."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights
from torchvision.models.resnet import BasicBlock

from cxr import checkpoints, runtime
from cxr.backbone import State, downloaded, fold_input_planes, grey_layer, standardized, tensors, weights_file
from cxr.runtime import to_device

TASK = "classification"
_BATCH = 128  # images at once without gradients


class GreyResNet18(ResNet):
    """torchvision's ResNet-18 (He et al. 2016, doi:10.1109/CVPR.2016.90) for one grey channel and one output.

    Input float32 [B, 1, S, S] in any linear scale, which is standardised; output [B, 1].
    """

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=1)
        self.conv1 = grey_layer(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds of PNEUMONIA."""
        return super().forward(standardized(x))


def build(weights: str) -> nn.Module:
    """A ``GreyResNet18`` in training mode.

    Args:
        weights: ``imagenet`` (downloaded by torchvision), ``none`` for random ones, or a file: a checkpoint of this
            project, or a ResNet-18 state dict with one or three input planes; its last layer is used if it fits.

    Raises:
        ConnectionError: the ImageNet weights cannot be downloaded.
        FileNotFoundError, ValueError: no such file, or not the weights of a ResNet-18.
    """
    model = GreyResNet18()
    if weights == "none":
        return model
    if weights == "imagenet":
        source, state = "the ImageNet weights", downloaded(ResNet18_Weights.IMAGENET1K_V1, "ImageNet")
    else:
        source, state = weights, weights_in(checkpoints.read(weights_file(weights, "imagenet or none")), weights)
    first, last = state.get("conv1.weight"), state.get("fc.weight")
    if first is None or first.ndim != 4 or first.shape[1] not in (1, 3):
        found = "none" if first is None else list(first.shape)
        raise ValueError(f"{source}: not the weights of a ResNet-18, conv1.weight is {found}, not [64, 3, 7, 7]")
    state = state | {"conv1.weight": fold_input_planes(first)}  # no change if there is one plane
    if last is None or last.shape != model.fc.weight.shape:  # of another task
        state |= {"fc.weight": model.fc.weight.data, "fc.bias": model.fc.bias.data}
    fill(model, state, source)
    return model


def fill(model: nn.Module, state: State, source: str) -> None:
    """Load the weights ``state``; ValueError names their ``source`` if they are not of a ResNet-18."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{source}: not the weights of a ResNet-18 ({first})") from error


def weights_in(state: Any, source: str) -> State:
    """The weights in a file: those of a checkpoint of this task, otherwise the whole content."""
    is_ours = isinstance(state, dict) and state.get("task") == TASK
    return tensors(state.get("model") if is_ours else state, source)


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: NDArray[np.uint8],
    indices: NDArray[np.int64],
    size: int,
    flip_tta: bool,
    run: runtime.Runtime,
) -> NDArray[np.float64]:
    """Log-odds of PNEUMONIA float64 [len(indices)] of stored squares uint8 [N, S', S'].

    Every process computes a part of the images and returns the log-odds of all. ``flip_tta`` averages the log-odds of
    an image and its mirror image.
    """
    model.eval()
    mine = runtime.shard(indices, run)
    batches: list[Tensor] = []
    for first in range(0, len(mine), _BATCH):
        stored = to_device(images[mine[first : first + _BATCH]], run.device)
        inputs = as_input(stored, size).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            logits = model(inputs).float()
            if flip_tta:
                logits = (logits + model(inputs.flip(3)).float()) / 2
        batches.append(logits[:, 0])
    rows = torch.cat(batches).double().cpu().numpy() if batches else np.zeros(0)
    return runtime.gather(rows, run)


def as_input(images: Tensor, size: int) -> Tensor:
    """Stored uint8 [B, S', S'] as float32 [B, 1, size, size] in 0..1, the network's input outside training."""
    grey = images.unsqueeze(1).float().div_(255)
    return torch.nn.functional.interpolate(grey, size=(size, size), mode="bilinear", antialias=True)


def to_probability(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Log-odds to probability at a temperature, without overflow."""
    return np.exp(-np.logaddexp(0, -logits / temperature))
