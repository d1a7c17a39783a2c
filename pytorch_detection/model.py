"""Faster R-CNN on one grey channel that also says how likely an opacity is anywhere in the image."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
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

from cxr.backbone import grey_layer, standardized
from cxr.messages import quoted
from pytorch_detection.settings import LARGEST_SIZE, SMALLEST_SIZE, Backbone

TASK = "detection"

Target = dict[str, Tensor]
Losses = dict[str, Tensor]
Detection = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What has to be known to build the network that a state dict belongs to.

    Attributes:
        size: side in pixels of the square the network sees.
        frozen: whether the first layers stay as they were trained on photographs, and batch normalisation with them.
        image_head: whether there are outputs for the whole image.
    """

    backbone: Backbone
    size: int
    frozen: bool
    image_head: bool

    @classmethod
    def of(cls, state: dict[str, Any], path: Path) -> "Architecture":
        """What the checkpoint ``state`` read from ``path`` says, which may come from anywhere.

        Raises:
            ValueError: nothing, or what no training writes.
        """
        found = state.get("architecture")
        kinds = {"backbone": str, "size": int, "frozen": bool, "image_head": bool}
        if (
            not isinstance(found, dict)
            or {name: type(value) for name, value in found.items()} != kinds
            or found["backbone"] not in get_args(Backbone)
            or not SMALLEST_SIZE <= found["size"] <= LARGEST_SIZE
        ):
            raise ValueError(f"{path}: expected an architecture with {', '.join(kinds)}, found {quoted(found)}")
        return cls(**found)


class GreyFasterRCNN(nn.Module):
    """Faster R-CNN (Ren et al. 2015, arXiv:1506.01497) with feature pyramid for float32 [B, 1, S, S] in any grey scale.

    Its parts are torchvision's, under the same names. torchvision's own entrance is left out, which would resize and
    copy every image once more: all images here are squares of one size. Every image is brought to mean 0 and standard
    deviation 1, and what comes out of the heads is float32 under autocast too: in bfloat16 a coordinate of 384 pixels
    has steps of two.
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
        """In training mode the losses, in evaluation mode the detections.

        Args:
            images: float32 [B, 1, S, S].
            targets: for each image ``boxes`` float32 [N, 4] xyxy in pixels of the square, ``labels`` int64 [N] all
                1; N may be 0. With an image head also ``abnormal`` float32 []: 0, 1, or NaN where it is not known.
                Needed in training mode.

        Returns:
            ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier``, ``loss_box_reg``, and ``loss_image`` where
            there is an image head; or for each image ``boxes`` float32 [n, 4] xyxy, ``scores`` float32 [n] descending,
            ``labels``, and ``image_probability`` float32 [].
        """
        pyramid, log_odds = self._features(images)
        if self.training:
            assert targets is not None
            return self._losses(images, pyramid, log_odds, targets)
        return self._detections(images, pyramid, log_odds)

    def losses_and_detections(self, images: Tensor, targets: Sequence[Target]) -> tuple[Losses, list[Detection]]:
        """Both of ``forward`` in evaluation mode, for one pass through the backbone, which is most of the work.

        The losses come from the heads' way of training: proposals and anchors are drawn from torch's global random
        stream. Nothing that is learnt changes, running statistics neither.
        """
        pyramid, log_odds = self._features(images)
        detections = self._detections(images, pyramid, log_odds)
        with _sampling(self.rpn, self.roi_heads):
            return self._losses(images, pyramid, log_odds, targets), detections

    def _features(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Feature pyramid, and the log-odds [B, 2] that the image shows an opacity, and anything abnormal."""
        levels: dict[str, Tensor] = self.backbone.body(standardized(images))
        pyramid = {name: level.float() for name, level in self.backbone.fpn(levels).items()}
        if self.image_head is None:
            return pyramid, None
        deepest = list(levels.values())[-1]
        return pyramid, self.image_head(deepest.mean((2, 3))).float()

    def _losses(
        self, images: Tensor, pyramid: dict[str, Tensor], log_odds: Tensor | None, targets: Sequence[Target]
    ) -> Losses:
        squares = _squares(images)
        proposals, of_proposals = self.rpn(squares, pyramid, targets)
        _, of_boxes = self.roi_heads(pyramid, proposals, squares.image_sizes, targets)
        if log_odds is None:
            return {**of_proposals, **of_boxes}
        return {**of_proposals, **of_boxes, "loss_image": image_loss(log_odds, targets)}

    def _detections(self, images: Tensor, pyramid: dict[str, Tensor], log_odds: Tensor | None) -> list[Detection]:
        squares = _squares(images)
        proposals, _ = self.rpn(squares, pyramid)
        found, _ = self.roi_heads(pyramid, proposals, squares.image_sizes)
        probabilities = torch.ones(len(images), device=images.device) if log_odds is None else log_odds[:, 0].sigmoid()
        return [
            {**one, "image_probability": probability} for one, probability in zip(found, probabilities, strict=True)
        ]


def image_loss(log_odds: Tensor, targets: Sequence[Target]) -> Tensor:
    """Cross-entropy of both answers [B, 2] to an image, each a mean over the batch, added.

    That a chest without opacity is abnormal in another way is worth learning: it is what opacities are mistaken for.
    """
    shown = torch.tensor([float(len(target["boxes"]) > 0) for target in targets], device=log_odds.device)
    wanted = torch.stack([shown, torch.stack([target["abnormal"] for target in targets])], dim=1)
    known = ~wanted.isnan()
    losses = functional.binary_cross_entropy_with_logits(log_odds, wanted.nan_to_num(0), reduction="none")
    return (losses * known).sum() / len(targets)


def _in_float(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """A forward hook: every tensor of ``outputs``, two tensors or two lists of them, in float32."""
    return tuple(part.float() if isinstance(part, Tensor) else [level.float() for level in part] for part in outputs)


def _squares(images: Tensor) -> ImageList:
    """``images`` with their sizes, as torchvision's parts ask for them."""
    height, width = images.shape[-2:]
    return ImageList(images, [(height, width)] * len(images))


@contextmanager
def _sampling(*heads: nn.Module) -> Generator[None, None, None]:
    """``heads`` compute losses, as in training; the layers inside them stay in evaluation mode."""
    for head in heads:
        head.training = True
    try:
        yield
    finally:
        for head in heads:
            head.training = False


# ------------------------------------------------------------------------------------------------------------- parts


# Chests hold few opacities and large ones: at most 4 boxes, .04 to .5 of the image's side. Fewer proposals and samples
# than COCO's crowds need cost nothing in quality and halve the time outside the backbone.
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
# Anchors of the pyramid P3 (stride 8) to P5 as parts of the side of the image. Two sizes and three upright ratios on
# each cover 85 % of the boxes of 319 exams with IoU .7, and all but 1 % with .5. torchvision's P2 (stride 4) would be
# for boxes under .04, which there are none of, and costs more than the other levels together.
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
    # COCO's 224 of 800 pixels: a median box spans 12 cells of P3, the largest 12 of P4. The 7 x 7 bins need that many:
    # RSNA's score counts hits up to IoU .75.
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


# What torchvision leaves as it is when it fine-tunes: all but the last three stages.
_FIRST_LAYERS = ("conv1.", "bn1.", "layer1.")


def construct(architecture: Architecture) -> GreyFasterRCNN:
    """The network with random weights, in training mode.

    ``resnet18`` is cut for radiographs from scratch. ``resnet50_v2`` keeps the shapes, levels and anchors of
    torchvision's own detector, which COCO's weights were trained with.
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
        if architecture.backbone == "resnet18":  # torchvision fine-tunes the other with its batch normalisation
            _freeze_normalisation(body)
    return GreyFasterRCNN(parts, architecture)


def _freeze_normalisation(module: nn.Module) -> None:
    """Put constants in the place of every batch normalisation: small batches of large images give poor statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, child.eps))
        else:
            _freeze_normalisation(child)
