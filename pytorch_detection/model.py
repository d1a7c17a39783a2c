"""Faster R-CNN for one-channel images with an image-level head, and its initial weights."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models import ResNet18_Weights, ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import (
    FasterRCNN,
    FastRCNNPredictor,
    TwoMLPHead,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from cxr import checkpoints
from cxr.backbone import State, downloaded, fold_input_planes, grey_layer, standardized, tensors, weights_file
from cxr.messages import quoted
from pytorch_detection.settings import SYNTHETIC_FILE, Backbone

TASK = "detection"

Target = dict[str, Tensor]
Losses = dict[str, Tensor]
Detection = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What is needed to build the network of a state dict.

    Attributes:
        size: input size, the side of the square in pixels.
        frozen: whether the first layers keep the weights of the photographs, and batch normalisation its statistics.
        image_head: whether there are outputs for the whole image.
    """

    backbone: Backbone
    size: int
    frozen: bool
    image_head: bool

    @classmethod
    def of(cls, state: dict[str, Any], path: Path) -> "Architecture":
        """The architecture in the checkpoint ``state`` read from ``path``.

        Raises:
            ValueError: there is none, or one that this version does not have.
        """
        found = state.get("architecture")
        names = [field.name for field in fields(cls)]
        if not isinstance(found, dict) or {*found} != {*names} or found["backbone"] not in get_args(Backbone):
            raise ValueError(f"{path}: expected an architecture with {', '.join(names)}, found {quoted(found)}")
        return cls(**found)


class GreyFasterRCNN(nn.Module):
    """Faster R-CNN (Ren et al. 2015, arXiv:1506.01497) with a feature pyramid for float32 [B, 1, S, S].

    The submodules are torchvision's, under the same names, without its ``transform``, which would resize and copy every
    image once more. Each image is standardized to mean 0 and standard deviation 1. The heads' outputs are float32 under
    autocast too: in bfloat16 a coordinate near 384 pixels has steps of two.
    """

    def __init__(self, parts: FasterRCNN, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = cast(BackboneWithFPN, parts.backbone)
        self.rpn = cast(RegionProposalNetwork, parts.rpn)
        self.roi_heads = cast(RoIHeads, parts.roi_heads)
        lateral: Any = self.backbone.fpn.inner_blocks[-1]
        self.image_head = nn.Linear(lateral[0].in_channels, 2) if architecture.image_head else None
        for part in (self.rpn.head, self.roi_heads.box_predictor):
            part.register_forward_hook(_in_float)

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Any:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: float32 [B, 1, S, S].
            targets: for each image ``boxes`` float32 [N, 4] xyxy in pixels of the square, ``labels`` int64 [N] all
                1; N may be 0. With an image head also ``abnormal`` float32 []: 0, 1, or NaN where unknown. Needed in
                training mode.

        Returns:
            ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier``, ``loss_box_reg``, and with an image head
            ``loss_image``; or for each image ``boxes`` float32 [n, 4] xyxy, ``scores`` float32 [n] descending,
            ``labels``, and ``image_probability`` float32 [].
        """
        pyramid, log_odds = self._features(images)
        if self.training:
            assert targets is not None
            return self._losses(images, pyramid, log_odds, targets)
        return self._detections(images, pyramid, log_odds)

    def losses_and_detections(self, images: Tensor, targets: Sequence[Target]) -> tuple[Losses, list[Detection]]:
        """Both results of ``forward`` in evaluation mode from one pass through the backbone, most of the computation.

        For the losses the heads sample proposals and anchors as in training, from torch's global random generator.
        Weights and running statistics do not change.
        """
        pyramid, log_odds = self._features(images)
        detections = self._detections(images, pyramid, log_odds)
        heads = (self.rpn, self.roi_heads)
        try:
            for head in heads:
                head.training = True  # of the head alone: the layers inside it stay in evaluation mode
            return self._losses(images, pyramid, log_odds, targets), detections
        finally:
            for head in heads:
                head.training = False

    def _features(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Feature pyramid, and the log-odds [B, 2] of an opacity and of any abnormality in the image."""
        levels: dict[str, Tensor] = self.backbone.body(standardized(images))
        pyramid = {name: level.float() for name, level in self.backbone.fpn(levels).items()}
        if self.image_head is None:
            return pyramid, None
        deepest = list(levels.values())[-1]
        return pyramid, self.image_head(deepest.mean((2, 3))).float()

    def _losses(
        self, images: Tensor, pyramid: dict[str, Tensor], log_odds: Tensor | None, targets: Sequence[Target]
    ) -> Losses:
        image_list = _image_list(images)
        proposals, rpn_losses = self.rpn(image_list, pyramid, targets)
        _, roi_losses = self.roi_heads(pyramid, proposals, image_list.image_sizes, targets)
        if log_odds is None:
            return {**rpn_losses, **roi_losses}
        return {**rpn_losses, **roi_losses, "loss_image": image_loss(log_odds, targets)}

    def _detections(self, images: Tensor, pyramid: dict[str, Tensor], log_odds: Tensor | None) -> list[Detection]:
        image_list = _image_list(images)
        proposals, _ = self.rpn(image_list, pyramid)
        found, _ = self.roi_heads(pyramid, proposals, image_list.image_sizes)
        probabilities = torch.ones(len(images), device=images.device) if log_odds is None else log_odds[:, 0].sigmoid()
        return [
            {**one, "image_probability": probability} for one, probability in zip(found, probabilities, strict=True)
        ]


def image_loss(log_odds: Tensor, targets: Sequence[Target]) -> Tensor:
    """Sum of the binary cross-entropies of both image-level outputs [B, 2], each a mean over the batch.

    The second output, any abnormality, helps because other abnormalities are what opacities are confused with.
    """
    has_box = torch.tensor([float(len(target["boxes"]) > 0) for target in targets], device=log_odds.device)
    labels = torch.stack([has_box, torch.stack([target["abnormal"] for target in targets])], dim=1)
    known = ~labels.isnan()
    losses = functional.binary_cross_entropy_with_logits(log_odds, labels.nan_to_num(0), reduction="none")
    return (losses * known).sum() / len(targets)


def _in_float(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """Forward hook: ``outputs``, two tensors or two lists of tensors, in float32."""
    return tuple(part.float() if isinstance(part, Tensor) else [level.float() for level in part] for part in outputs)


def _image_list(images: Tensor) -> ImageList:
    """``images`` with their sizes, the input of torchvision's heads."""
    height, width = images.shape[-2:]
    return ImageList(images, [(height, width)] * len(images))


# ------------------------------------------------------------------------------------------------------ architecture


# Radiographs have few and large opacities: at most 4 boxes, .04 to .5 of the image's side. Fewer proposals and samples
# than for COCO cost no accuracy and halve the time outside the backbone.
FEW_BOXES: dict[str, Any] = {
    "rpn_pre_nms_top_n_train": 500,
    "rpn_pre_nms_top_n_test": 300,
    "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 100,
    "rpn_batch_size_per_image": 128,
    "box_batch_size_per_image": 64,
    "box_detections_per_img": 20,
    "box_score_thresh": 0.01,
    "box_nms_thresh": 0.4,
}
# Anchors on the pyramid levels P3 (stride 8) to P5 as fractions of the image's side. Two sizes and three ratios on each
# cover 85 % of the boxes of 319 exams with IoU .7, and all but 1 % with .5. torchvision's P2 (stride 4) would serve
# boxes under .04, of which there are none, and costs more than the other levels together.
_ANCHOR_SIZES = ((0.098, 0.137), (0.186, 0.244), (0.313, 0.41))
_ANCHOR_RATIOS = (0.75, 1.3, 2.2)  # height to width
_PYRAMID_CHANNELS = 128
_BOX_FEATURES = 256


def _resnet18(size: int) -> FasterRCNN:
    body = models.resnet18(weights=None)
    backbone = BackboneWithFPN(
        body, {"layer2": "0", "layer3": "1", "layer4": "2"}, [128, 256, 512], out_channels=_PYRAMID_CHANNELS
    )
    backbone.fpn.extra_blocks = None  # P6: the largest box still spans five cells of P5
    sizes = tuple(tuple(round(part * size) for part in level) for level in _ANCHOR_SIZES)
    # As for COCO 224 of 800 pixels: a median box spans 12 cells of P3, the largest 12 of P4. The 7 x 7 bins need that
    # many: the RSNA score counts hits up to IoU .75.
    pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2, canonical_scale=round(0.28 * size))
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, (_ANCHOR_RATIOS,) * len(sizes)),
        rpn_head=RPNHead(_PYRAMID_CHANNELS, 2 * len(_ANCHOR_RATIOS)),
        box_roi_pool=pool,
        box_head=TwoMLPHead(_PYRAMID_CHANNELS * 49, _BOX_FEATURES),
        box_predictor=FastRCNNPredictor(_BOX_FEATURES, 2),
        **FEW_BOXES,
    )


# The layers that torchvision freezes when it fine-tunes: all but the last three stages.
_FIRST_LAYERS = ("conv1.", "bn1.", "layer1.")


def construct(architecture: Architecture) -> GreyFasterRCNN:
    """The network with random weights, in training mode.

    ``resnet18`` has levels and anchors for radiographs. ``resnet50_v2`` keeps the shapes, levels and anchors of
    torchvision's detector, with which the COCO weights were trained.
    """
    if architecture.backbone == "resnet18":
        parts = _resnet18(architecture.size)
    else:
        parts = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=2, **FEW_BOXES)
    body: Any = parts.backbone.body
    body.conv1 = grey_layer(body.conv1)
    if architecture.frozen:
        for layer, parameter in body.named_parameters():
            parameter.requires_grad_(not layer.startswith(_FIRST_LAYERS))
        if architecture.backbone == "resnet18":  # torchvision fine-tunes its v2 detector with trainable statistics
            _freeze_normalisation(body)
    return GreyFasterRCNN(parts, architecture)


def _freeze_normalisation(module: nn.Module) -> None:
    """Replace every batch normalisation by constants: small batches of large images give poor statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, child.eps))
        else:
            _freeze_normalisation(child)


# --------------------------------------------------------------------------------------------------- initial weights


_PUBLISHED: dict[tuple[str, Backbone], Any] = {
    ("imagenet", "resnet18"): ResNet18_Weights.IMAGENET1K_V1,
    ("imagenet", "resnet50_v2"): ResNet50_Weights.IMAGENET1K_V1,
    ("coco", "resnet50_v2"): FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}
_BODY = "backbone.body."
_HEADS = ("roi_heads.box_predictor.", "image_head.")  # stay random where a file has none, or for other classes


def build(weights: str, backbone: Backbone, size: int, *, image_head: bool) -> GreyFasterRCNN:
    """A detector in training mode.

    Args:
        weights: ``synthetic`` for those of ``pretrain_detection.py``, ``coco`` or ``imagenet`` (downloaded by
            torchvision), ``none`` for random ones, or a file: a checkpoint of a detector or a classifier of this
            project (whose ResNet-18 becomes the backbone, and whose last layer the image head), or a state dict of
            torchvision's detector or classifier.

    Raises:
        ConnectionError: the download failed.
        FileNotFoundError, ValueError: no such file, or not the weights of such a network.
    """
    if weights == "none":
        return construct(Architecture(backbone, size, frozen=False, image_head=image_head))
    if weights in ("coco", "imagenet"):
        if (weights, backbone) not in _PUBLISHED:
            raise ValueError("torchvision has --weights coco for --backbone resnet50_v2 alone, and imagenet for both")
        state, frozen = downloaded(_PUBLISHED[weights, backbone], f"{weights} {backbone}"), True
        source = f"the {weights} weights"
    else:
        named = str(SYNTHETIC_FILE) if weights == "synthetic" else weights
        path = weights_file(named, "synthetic, coco, imagenet or none")
        state, frozen = _from_file(path, backbone)
        source = str(path)
    model = construct(Architecture(backbone, size, frozen, image_head))
    _load(model, state, source)
    return model


def _from_file(path: Path, backbone: Backbone) -> tuple[State, bool]:
    """The tensors in the file, and whether training keeps the first layers frozen."""
    found: Any = checkpoints.read(path)
    task = found.get("task") if isinstance(found, dict) else None
    if task is None:  # torchvision's
        return tensors(found, path), True
    its_backbone, frozen = "resnet18", False  # of a classifier
    if task == TASK:
        architecture = Architecture.of(found, path)
        its_backbone, frozen = architecture.backbone, architecture.frozen
    if its_backbone != backbone:
        raise ValueError(f"{path}: weights of --backbone {its_backbone}, not {backbone}; expected other --weights")
    return tensors(found.get("model"), path), frozen


def _load(model: GreyFasterRCNN, state: State, source: str) -> None:
    """Load ``state``, of a whole detector or of a classifying ResNet, into ``model``."""
    is_detector = any(name.startswith(_BODY) for name in state)
    if not is_detector:
        state = _as_body(state, model.architecture.image_head)
    own = model.state_dict()
    first = _BODY + "conv1.weight"
    if first in state and state[first].shape[1] == 3:
        state = state | {first: fold_input_planes(state[first])}
    fitting = {
        name: value
        for name, value in state.items()
        if not name.startswith(_HEADS) or (name in own and own[name].shape == value.shape)
    }
    try:
        missing, unknown = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{source}: not the weights of {model.architecture.backbone} ({reason})") from error
    missing = [name for name in missing if not name.startswith(_HEADS) and (is_detector or name.startswith(_BODY))]
    if missing or unknown:
        wrong = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not part of it"
        raise ValueError(f"{source}: not the weights of {model.architecture.backbone} ({wrong})")


def _as_body(state: State, image_head: bool) -> State:
    """The tensors of a classifying ResNet under their names in a detector."""
    last = {name: value for name, value in state.items() if name.startswith("fc.")}
    body = {_BODY + name: value for name, value in state.items() if name not in last}
    if image_head and "fc.weight" in last and last["fc.weight"].shape[0] == 1:
        # Pneumonia is the nearest class to both outputs.
        body |= {name.replace("fc.", "image_head."): torch.cat([value, value]) for name, value in last.items()}
    return body
