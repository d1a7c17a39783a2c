"""Where a detector's weights come from: torchvision, a file of this project, or chance."""

from pathlib import Path
from typing import Any

import torch
from torchvision.models import ResNet18_Weights, ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

from cxr import checkpoints
from cxr.backbone import State, downloaded, fold_input_planes, tensors, weights_file
from pytorch_detection.model import TASK, Architecture, GreyFasterRCNN, construct
from pytorch_detection.settings import SYNTHETIC_FILE, Backbone

_IMAGENET: dict[Backbone, Any] = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet50_v2": ResNet50_Weights.IMAGENET1K_V1,
}
_CLASSIFICATION = "classification"  # the task of a classifier's checkpoint
_BODY = "backbone.body."
_FITTED = ("roi_heads.box_predictor.", "image_head.")  # left as they are where a file has none, or for other classes


def build(weights: str, backbone: Backbone, size: int, *, image_head: bool) -> GreyFasterRCNN:
    """A detector in training mode.

    Args:
        weights: ``synthetic`` for those of ``pretrain_detection.py``, ``coco`` or ``imagenet`` (downloaded by
            torchvision), ``none`` for random ones, or a file: a checkpoint of a detector or of a classifier of this
            project (whose ResNet-18 becomes the backbone, and whose last layer the image head), or a state dict of
            torchvision's network, whole or backbone.

    Raises:
        ConnectionError: weights cannot be downloaded.
        FileNotFoundError, ValueError: no such file, or not the weights of such a network.
    """
    if weights == "none":
        return construct(Architecture(backbone, size, frozen=False, image_head=image_head))
    if weights in ("coco", "imagenet"):
        state, frozen, source = _downloaded(weights, backbone), True, f"the {weights} weights"
    else:
        path = (
            _shipped(backbone) if weights == "synthetic" else weights_file(weights, "synthetic, coco, imagenet or none")
        )
        state, frozen = _from_file(path, backbone)
        source = str(path)
    model = construct(Architecture(backbone, size, frozen, image_head))
    _load(model, state, source)
    return model


def _shipped(backbone: Backbone) -> Path:
    """The file that ``pretrain_detection.py`` wrote, if it is there and fits."""
    if backbone != "resnet18":
        raise ValueError(f"--weights synthetic: a ResNet-18; {backbone} begins with coco, imagenet, none or a file")
    if not SYNTHETIC_FILE.is_file():
        raise FileNotFoundError(
            f"--weights synthetic: no file {SYNTHETIC_FILE}, which comes with the repository; git checkout brings it "
            "back, or begin with --weights none"
        )
    return SYNTHETIC_FILE


def _downloaded(weights: str, backbone: Backbone) -> State:
    if weights == "coco" and backbone == "resnet18":
        raise ValueError(
            "--weights coco --backbone resnet18: torchvision has no such weights; it has COCO's for "
            "--backbone resnet50_v2, and --weights imagenet for both"
        )
    published: Any = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1 if weights == "coco" else _IMAGENET[backbone]
    return downloaded(published, f"{weights} {backbone}")


def _from_file(path: Path, backbone: Backbone) -> tuple[State, bool]:
    """The tensors in the file, and whether a network that starts from them is to keep its first layers."""
    found: Any = checkpoints.read(path)
    task = found.get("task") if isinstance(found, dict) else None
    if task == TASK:
        made = Architecture.of(found, path)
        if made.backbone != backbone:
            raise ValueError(f"{path}: a detector with --backbone {made.backbone}, not {backbone}")
        return tensors(found.get("model"), path), made.frozen
    if task == _CLASSIFICATION:
        if backbone != "resnet18":
            raise ValueError(
                f"{path}: a classifier, which is a ResNet-18; expected --backbone resnet18, not {backbone}"
            )
        return tensors(found.get("model"), path), False
    return tensors(found, path), True


def _load(model: GreyFasterRCNN, state: State, source: str) -> None:
    """Put ``state`` in ``model``: of the whole network, or of its backbone alone."""
    whole = any(name.startswith(_BODY) for name in state)
    if not whole:
        state = _as_body(state, model.architecture.image_head)
    own = model.state_dict()
    first = _BODY + "conv1.weight"
    if first in state and state[first].ndim == 4 and state[first].shape[1] == 3:
        state = state | {first: fold_input_planes(state[first])}
    fits = {
        name: value
        for name, value in state.items()
        if not name.startswith(_FITTED) or (name in own and own[name].shape == value.shape)
    }
    try:
        missing, unknown = model.load_state_dict(fits, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{source}: not the weights of {model.architecture.backbone} ({reason})") from error
    optional = _FITTED if whole else tuple(name for name in own if not name.startswith(_BODY))
    missing = [name for name in missing if not name.startswith(optional)]
    if missing or unknown:
        wrong = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not part of it"
        raise ValueError(f"{source}: not the weights of {model.architecture.backbone} ({wrong})")


def _as_body(state: State, image_head: bool) -> State:
    """The tensors of a classifying network under the names that they have in a detector."""
    last = {name: value for name, value in state.items() if name.startswith("fc.")}
    body = {_BODY + name: value for name, value in state.items() if name not in last}
    if image_head and "fc.weight" in last and last["fc.weight"].shape[0] == 1:
        # Pneumonia is the nearest thing to both of its questions.
        body |= {name.replace("fc.", "image_head."): torch.cat([value, value]) for name, value in last.items()}
    return body
