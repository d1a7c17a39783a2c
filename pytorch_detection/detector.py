"""A finished detector: how boxes are scored and selected, and the file that holds all that prediction needs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cxr import checkpoints, model_file, prediction, runtime
from cxr.backbone import tensors
from cxr.messages import quoted
from cxr.metrics import Array
from cxr.model_file import UNSAVED, ModelProvenance
from cxr.out_of_distribution import FeatureDistance, features
from pytorch_detection import box_metrics
from pytorch_detection.box_metrics import match
from pytorch_detection.inference import Found, find_boxes
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

    def apply(self, found: Found) -> tuple[list[Array], list[Array]]:
        """All boxes, shrunk, and their gated scores; the threshold is left to the caller."""
        return [shrink(boxes, self.shrink) for boxes in found.boxes], found.gated(self.gate_power)


def choose_rule(found: Found, truths: Sequence[ArrayLike]) -> tuple[Rule, float]:
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


def choose_gate(found: Found, truths: Sequence[ArrayLike]) -> float:
    """The power among ``GATE_POWERS`` with the highest AP50; the lowest of those that do equally well."""
    weights = np.ones((1, len(truths)))

    def ap50(power: float) -> float:
        matches = match(found.boxes, found.gated(power), truths)
        return float(box_metrics.average_precisions(matches, weights)["ap50"][0])

    return max(GATE_POWERS, key=ap50)


@dataclass(frozen=True)
class Detector:
    """A finished model with everything that prediction needs; ``save`` and ``load`` are its file.

    Attributes:
        networks: one or several of the same architecture, whose boxes are fused; the first tells what is unlike.
        flip_average: whether the mirror image is evaluated too.
        rule: how boxes are scored, scaled and selected.
        likeness: what training's images look like to the network; None in files from before it was kept.
        known: the keys of ``known_images`` of what was learnt from or chosen by; None as above.
        origin: what the file says of itself.
    """

    networks: tuple[GreyFasterRCNN, ...]
    flip_average: bool
    rule: Rule
    likeness: FeatureDistance | None = None
    known: frozenset[str] | None = None
    origin: ModelProvenance = UNSAVED

    @property
    def size(self) -> int:
        """Side in pixels of the square the network sees."""
        return self.networks[0].architecture.size

    def record(self) -> dict[str, Any]:
        """How many networks answer and by which rule, for a report."""
        return {"networks": len(self.networks), "rule": asdict(self.rule)}

    def save(self, path: Path, **record: Any) -> None:
        """Write the model file, with ``record`` (plain values) for a later reader."""
        settings = {"flip_average": self.flip_average, "rule": asdict(self.rule)}
        first, *others = self.networks
        checkpoints.save(
            path,
            task=TASK,
            model=first.state_dict(),
            members=[other.state_dict() for other in others],
            architecture=asdict(first.architecture),
            prediction=settings,
            likeness=None if self.likeness is None else self.likeness.plain(),
            known_images=model_file.pack_keys(self.known),
            **record,
        )

    @classmethod
    def load(cls, path: Path, run: runtime.Runtime) -> "Detector":
        """The model file at ``path``, its networks in evaluation mode on the run's device.

        Raises:
            FileNotFoundError, ValueError: no file, or not a finished detection model.
        """
        state = checkpoints.load(path, task=TASK)
        if "prediction" not in state:
            raise ValueError(
                f"{path}: from a training, without the operating point that prediction needs; the finished model is "
                "pneumonia_fasterrcnn.pth, unless --model-file named another"
            )
        settings = _settings(state["prediction"], path)
        others: Any = state.get("members", [])  # none in files from before there could be several
        if not isinstance(others, list):
            raise ValueError(f"{path}: expected a list of further networks, found {quoted(others)}; train anew")
        networks = tuple(load_model({**state, "model": each}, path, run) for each in [state.get("model"), *others])
        likeness = FeatureDistance.of(state.get("likeness"), path)
        known = model_file.unpack_keys(state.get("known_images"))
        return cls(networks, **settings, likeness=likeness, known=known, origin=ModelProvenance.of(state, path))

    @classmethod
    def of_user(cls, path: Path, run: runtime.Runtime, threshold: float | None) -> "Detector":
        """The model that a user names, with another ``threshold`` than its own if there is one.

        Raises:
            FileNotFoundError, ValueError: as ``load``; says how to get a model where there is none.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"no model at {path.resolve()}; train one with `python pytorch_detection/train_detection.py` or name "
                "one with --model"
            )
        detector = cls.load(path, run)
        if detector.likeness is None:
            prediction.warn_without_likeness(path)
        if threshold is None:
            return detector
        rule, origin = replace(detector.rule, threshold=threshold), detector.origin.with_manual_threshold()
        return replace(detector, rule=rule, origin=origin)

    def find(self, images: NDArray[np.uint8], run: runtime.Runtime) -> Found:
        """Boxes in squares uint8 [N, size, size].

        Always in float32, so that every machine and batch gives the same answer.
        """
        return self.look(images, run)[0]

    def look(
        self, images: NDArray[np.uint8], run: runtime.Runtime, indices: NDArray[np.int64] | None = None
    ) -> tuple[Found, list[Array]]:
        """What ``find`` gives, at ``indices`` or all; of each stage of the backbone what ``FeatureDistance`` judges by."""
        exact = replace(run, bf16=False)
        which = np.arange(len(images)) if indices is None else indices
        with features(self.networks[0].backbone.body) as seen:
            found = find_boxes(self.networks, images, which, self.flip_average, exact)
        return found, seen.rows(2 if self.flip_average else 1, run)


def _settings(found: Any, path: Path) -> dict[str, Any]:
    """``found`` with rules as rules if prediction can work with it; a model file may come from anywhere."""
    rule: Any = found.get("rule") if isinstance(found, dict) else None
    if not isinstance(rule, dict) or found.keys() != {"flip_average", "rule"}:
        raise ValueError(
            f"{path}: expected the prediction settings flip_average and rule, as this version writes them to "
            f"pneumonia_fasterrcnn.pth, found {quoted(found)}; train anew"
        )
    sound = (
        type(found["flip_average"]) is bool
        and {name: type(value) for name, value in rule.items()} == dict.fromkeys(_RULE, float)
        and 0 <= rule["gate_power"] < float("inf")
        and 0 < rule["shrink"] < float("inf")
        and 0 <= rule["threshold"] <= 1
    )
    if not sound:
        raise ValueError(f"{path}: prediction settings that no training writes: {quoted(found)}")
    return {"flip_average": found["flip_average"], "rule": Rule(**rule)}


_RULE = tuple(field.name for field in fields(Rule))


def load_model(state: dict[str, Any], path: Path, run: runtime.Runtime) -> GreyFasterRCNN:
    """The network of a checkpoint at ``path``, in evaluation mode on the run's device.

    Raises:
        ValueError: the tensors are not those of the architecture that the checkpoint names, or not finite numbers,
            from which no box would come and every chest would seem clear.
    """
    weights = tensors(state.get("model"), path)
    if not all(tensor.sum().isfinite() for tensor in weights.values()):
        raise ValueError(f"{path}: weights that are not finite numbers; train anew")
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
