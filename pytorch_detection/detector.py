"""A finished detector: how boxes are scored and selected, and the file with all that prediction needs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cxr import checkpoints, model_file, runtime
from cxr.backbone import tensors
from cxr.metrics import Array
from cxr.model_file import UNSAVED, ModelProvenance
from cxr.out_of_distribution import FeatureDistance, features
from cxr.prediction import Box
from pytorch_detection import box_metrics
from pytorch_detection.box_metrics import match
from pytorch_detection.inference import RawDetections, find_boxes, in_original
from pytorch_detection.model import TASK, Architecture, GreyFasterRCNN, construct

SHRINK_FACTORS = (1.0, 0.95, 0.9, 0.875, 0.85)
GATE_POWERS = (0.0, 0.5, 1.0)


def shrink(boxes: ArrayLike, factor: float) -> Array:
    """Boxes [n, 4] xyxy about the same centres, with ``factor`` times their width and height.

    The challenge's winners scaled boxes to 87.5 %: a test box was what several readers agreed on, and so smaller.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    centres = np.tile((corners[:, :2] + corners[:, 2:]) / 2, 2)
    return centres + factor * (corners - centres)


@dataclass(frozen=True)
class Rule:
    """How the boxes that were found are scored, scaled and selected; chosen on validation images.

    Attributes:
        gate_power: a box scores its own score times the image's probability to this power; 0 leaves it as it is.
        shrink: the factor for width and height.
        threshold: on that score; boxes below it are not reported.
    """

    gate_power: float
    shrink: float
    threshold: float

    def apply(self, found: RawDetections) -> tuple[list[Array], list[Array]]:
        """All boxes, shrunk, and their gated scores; the threshold is left to the caller."""
        return [shrink(boxes, self.shrink) for boxes in found.boxes], found.gated(self.gate_power)


def choose_rule(found: RawDetections, truths: Sequence[ArrayLike]) -> tuple[Rule, float]:
    """The rule for ``found`` and the RSNA score that it has on these images.

    The gate is chosen by AP50, which depends on every box and not on a threshold; the rest by the RSNA score.

    Args:
        found: on validation images.
        truths: N of [m, 4] xyxy in pixels of the square.

    Raises:
        ValueError: as ``box_metrics.choose_threshold``.
    """
    gate_power = choose_gate(found, truths)
    rules: list[tuple[Rule, float]] = []
    for factor in SHRINK_FACTORS:
        boxes = [shrink(some, factor) for some in found.boxes]
        threshold, score = box_metrics.choose_threshold(match(boxes, found.gated(gate_power), truths))
        rules.append((Rule(gate_power, factor, threshold), score))
    return max(rules, key=lambda rule: rule[1])


def choose_gate(found: RawDetections, truths: Sequence[ArrayLike]) -> float:
    """The power among ``GATE_POWERS`` with the highest AP50; the lowest of those that do equally well."""
    weights = np.ones((1, len(truths)))

    def ap50(power: float) -> float:
        matches = match(found.boxes, found.gated(power), truths)
        return float(box_metrics.average_precisions(matches, weights)["ap50"][0])

    return max(GATE_POWERS, key=ap50)


class DetectionResult(NamedTuple):
    """What is reported for one image.

    Attributes:
        boxes: at or above the threshold, highest score first; in pixels of the original image.
        highest_score: of any box, also below the threshold; 0 without a box.
        out_of_distribution: None where the model file cannot state it.
    """

    boxes: tuple[Box, ...]
    highest_score: float
    out_of_distribution: bool | None


@dataclass(frozen=True)
class Detector:
    """A finished model with everything that prediction needs; ``save`` and ``load`` are its file.

    Attributes:
        networks: one, or an ensemble of the same architecture, whose boxes are fused.
        flip_tta: whether the boxes of the mirror image are fused with those of the image.
        rule: how boxes are scored, scaled and selected.
        feature_distance: of an image from the training images, by the first network; None in files from before it was
            kept.
        training_images: keys of the images it was trained or selected on (``cxr.model_file``); None as above.
    """

    networks: tuple[GreyFasterRCNN, ...]
    flip_tta: bool
    rule: Rule
    feature_distance: FeatureDistance | None = None
    training_images: frozenset[str] | None = None
    provenance: ModelProvenance = UNSAVED

    @property
    def size(self) -> int:
        """Side in pixels of the network's input."""
        return self.networks[0].architecture.size

    @property
    def threshold(self) -> float:
        """Score from which on a box is reported."""
        return self.rule.threshold

    def record(self) -> dict[str, Any]:
        """Ensemble size and rule, for a report."""
        return {"networks": len(self.networks), "rule": asdict(self.rule)}

    def save(self, path: Path, **record: Any) -> None:
        """Write the model file, with ``record`` (plain values) for a later reader; kernels in float16."""
        first, *others = self.networks
        checkpoints.save(
            path,
            task=TASK,
            model=checkpoints.with_half_kernels(first.state_dict()),
            members=[checkpoints.with_half_kernels(other.state_dict()) for other in others],
            architecture=asdict(first.architecture),
            prediction={"flip_average": self.flip_tta, "rule": asdict(self.rule)},
            likeness=None if self.feature_distance is None else self.feature_distance.plain(),
            known_images=model_file.pack_keys(self.training_images),
            **record,
        )

    @classmethod
    def load(cls, path: Path, run: runtime.Runtime, threshold: float | None = None) -> "Detector":
        """The model file at ``path``, its networks in evaluation mode on the run's device.

        Args:
            path: of the model file.
            run: where it computes.
            threshold: in place of the file's.

        Raises:
            FileNotFoundError, ValueError: no file, or not a finished detection model.
        """
        state = model_file.load(path, TASK)
        rule, provenance = Rule(**state["prediction"]["rule"]), ModelProvenance.of(state, path)
        if threshold is not None:
            rule, provenance = replace(rule, threshold=threshold), provenance.with_manual_threshold()
        # There are no members in files from before ensembles.
        weights = [state.get("model"), *state.get("members", [])]
        return cls(
            tuple(load_network({**state, "model": each}, path, run) for each in weights),
            state["prediction"]["flip_average"],
            rule,
            FeatureDistance.of(state.get("likeness"), path),
            model_file.unpack_keys(state.get("known_images")),
            provenance,
        )

    def predict(
        self, images: NDArray[np.uint8], run: runtime.Runtime, indices: NDArray[np.int64] | None = None
    ) -> tuple[RawDetections, list[Array]]:
        """Boxes and pooled features (as ``out_of_distribution.Features.rows``) of squares uint8 [N, size, size].

        Of all, or of those at ``indices``. Always in float32, so that results on every machine agree.
        """
        exact = replace(run, bf16=False)
        rows = np.arange(len(images)) if indices is None else indices
        with features(self.networks[0].backbone.body) as collected:
            found = find_boxes(self.networks, images, rows, self.flip_tta, exact)
        return found, collected.rows(2 if self.flip_tta else 1, run)

    def detect(
        self, images: NDArray[np.uint8], sizes: Sequence[tuple[int, int]], run: runtime.Runtime
    ) -> list[DetectionResult]:
        """What is reported for each of the squares uint8 [N, size, size].

        Args:
            images: the squares.
            sizes: height and width of each original image in pixels.
            run: where it computes.
        """
        raw, rows = self.predict(images, run)
        distance = self.feature_distance
        is_ood = [None] * len(images) if distance is None else distance.is_ood(rows).tolist()
        results: list[DetectionResult] = []
        for size, flag, boxes, scores in zip(sizes, is_ood, *self.rule.apply(raw), strict=True):
            left, top, right, bottom = in_original(boxes, self.size, size).T
            found = np.stack([left, top, right - left, bottom - top, scores], axis=1)
            order = [index for index in np.argsort(-scores, kind="stable") if scores[index] >= self.threshold]
            reported = tuple(Box(*found[index].tolist()) for index in order)
            results.append(DetectionResult(reported, float(scores.max(initial=0.0)), flag))
        return results


def load_network(state: dict[str, Any], path: Path, run: runtime.Runtime) -> GreyFasterRCNN:
    """The network of a checkpoint at ``path``, in evaluation mode on the run's device.

    Raises:
        ValueError: the tensors are not those of the architecture that the checkpoint names, or not finite: no box would
            come of them, and every chest would seem clear.
    """
    weights = tensors(state.get("model"), path)
    if not all(tensor.sum().isfinite() for tensor in weights.values()):
        raise ValueError(f"{path}: non-finite weights: corrupted; train the model anew")
    architecture = Architecture.of(state, path)
    with torch.device("meta"):  # memory and random numbers for weights to be replaced at once would take as long again
        model = construct(architecture)
    meta = model.rpn.anchor_generator
    model.rpn.anchor_generator = AnchorGenerator(meta.sizes, meta.aspect_ratios)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not the weights of its own architecture ({reason})") from error
    # In float32, also where somebody has halved the file.
    return model.to(run.device, torch.float32).to(memory_format=torch.channels_last).eval()
