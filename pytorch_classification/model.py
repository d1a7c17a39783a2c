"""ResNet-18 on one grey channel with one output, the log-odds of PNEUMONIA."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from cxr import checkpoints

TASK = "classification"

State = dict[str, Tensor]


def build(weights: str) -> nn.Module:
    """ResNet-18 (He et al. 2016, doi:10.1109/CVPR.2016.90): float32 [B, 1, S, S] to [B, 1].

    Args:
        weights: ``imagenet`` (downloaded by torchvision), ``none`` for random ones, or a file: a checkpoint of this
            project or a ResNet-18 state dict with one or three input planes, whose last layer is used when it fits.

    Raises:
        ConnectionError: the ImageNet weights cannot be had.
        FileNotFoundError, ValueError: no such file, or not the weights of a ResNet-18.
    """
    model = resnet18(weights=None, num_classes=1)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does its own
    if weights != "none":
        source = "the ImageNet weights" if weights == "imagenet" else weights
        _load(model, _imagenet() if weights == "imagenet" else _from_file(Path(weights)), source)
    return model


def fold_input_planes(weight: Tensor) -> Tensor:
    """[64, 3, 7, 7] to [64, 1, 7, 7]: gives for a grey image what the three planes give for it three times over."""
    return weight.sum(dim=1, keepdim=True)


def _load(model: nn.Module, state: State, source: str) -> None:
    state = dict(state)
    if "conv1.weight" not in state:
        raise ValueError(f"{source}: not the weights of a ResNet-18, conv1.weight is missing")
    state["conv1.weight"] = fold_input_planes(state["conv1.weight"])  # leaves one plane as it is
    own = model.state_dict()
    if state["fc.weight"].shape != own["fc.weight"].shape if "fc.weight" in state else True:
        state |= {name: own[name] for name in ("fc.weight", "fc.bias")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{source}: not the weights of a ResNet-18 ({first})") from error


def _imagenet() -> State:
    try:
        return dict(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash of the download is wrong
        raise ConnectionError(
            f"the ImageNet weights cannot be downloaded ({error}); train from scratch with --weights none, or give a "
            "downloaded file with --weights FILE"
        ) from error


def _from_file(path: Path) -> State:
    state: Any = checkpoints.read(path)
    if isinstance(state, dict) and state.get("task") == TASK:
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a classification checkpoint or a dictionary of a ResNet-18's tensors")
    return state


def count_parameters(model: nn.Module) -> int:
    """Numbers that training moves."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def grad_cam_layer(model: nn.Module) -> nn.Module:
    """The last block of convolutions, whose activations Grad-CAM weighs."""
    layer = model.get_submodule("layer4")
    assert isinstance(layer, nn.Sequential)
    return layer[-1]


def no_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: weight decay for matrices and kernels, none for biases and normalisation (1-d tensors)."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def as_input(images: Tensor, size: int) -> Tensor:
    """Stored uint8 [B, S', S'] as the float32 [B, 1, size, size] in 0..1 that evaluation and prediction look at."""
    grey = images.unsqueeze(1).float().div_(255)
    return torch.nn.functional.interpolate(grey, size=(size, size), mode="bilinear", antialias=True)
