"""How the boxes that a network finds are scored, scaled and selected, and how that is chosen on validation images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cxr.metrics import Array
from pytorch_detection import box_metrics
from pytorch_detection.box_matching import match
from pytorch_detection.inference import Found

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
