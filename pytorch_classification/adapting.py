"""A finished model's operating point, set anew for other images: by their labels, or by how many of them are ill."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import checkpoints
from cxr.metrics import Array
from cxr.origin import AT_OPERATING_POINT
from pytorch_classification import image_metrics, style
from pytorch_classification.calibration import Measure, fit_temperature, operating_point
from pytorch_classification.data_load import CLASSES, patients_of_each_class
from pytorch_classification.model import TASK, to_probability

LEAST_PATIENTS = 20  # of each class: one of them is a twentieth of the sensitivity


def require_patients(labels: NDArray[np.int64], groups: Sequence[str], measure: Measure) -> None:
    """Raise ValueError unless there are 20 patients of each class."""
    for name, patients in zip(CLASSES, patients_of_each_class(labels, groups), strict=True):
        if len(patients) < LEAST_PATIENTS:
            raise ValueError(
                f"--set-{measure} needs images of at least {LEAST_PATIENTS} patients of each class, found "
                f"{len(patients)} with {name}"
            )


def set_by_labels(log_odds: Array, labels: NDArray[np.int64], measure: Measure, target: float) -> tuple[float, float]:
    """Temperature, and the threshold at which ``measure`` is at or above ``target`` on these images.

    Args:
        log_odds: [N], before calibration.
        labels: [N], 1 is PNEUMONIA.
    """
    temperature = fit_temperature(log_odds, labels)
    threshold = operating_point(to_probability(log_odds, temperature), labels, target, measure)
    return temperature, threshold


def cross_fitted(
    log_odds: Array,
    labels: NDArray[np.int64],
    groups: Sequence[str],
    measure: Measure,
    target: float,
    *,
    prevalence: float,
    seed: int,
) -> dict[str, Any]:
    """How an operating point that is set so does on patients whom it was not set on, as ``evaluate_classifier`` says.

    Each fifth of the patients is judged by temperature and threshold of the other four fifths.

    Args:
        log_odds: [N], before calibration.
        groups: [N], the patient of each image.
        seed: of the folds.
    """
    probabilities, thresholds = np.zeros(len(labels)), np.zeros(len(labels))
    for others, held_out in style.folds(labels, groups, seed):
        temperature, thresholds[held_out] = set_by_labels(log_odds[others], labels[others], measure, target)
        probabilities[held_out] = to_probability(log_odds[held_out], temperature)
    return image_metrics.evaluate_classifier(probabilities, labels, groups, thresholds, prevalence=prevalence)


def set_by_prevalence(probabilities: Array, prevalence: float, sensitivity: float, specificity: float) -> float:
    """The threshold at which as large a share of these images is called PNEUMONIA as should be at this ``prevalence``.

    The share follows from ``sensitivity`` and ``specificity`` on validation; the threshold is that quantile of the
    scores at hand, half-way between two of them. Where all scores have moved and kept their order, the operating point
    moves with them (Roschewitz et al. 2023, doi:10.1038/s41467-023-42396-y). It is as right as the prevalence.
    """
    share = prevalence * sensitivity + (1 - prevalence) * (1 - specificity)
    ranked = np.sort(probabilities)[::-1]
    called = min(max(round(share * len(ranked)), 1), len(ranked) - 1)
    return float((ranked[called - 1] + ranked[called]) / 2)


def measured(state: dict[str, Any], path: Path) -> tuple[float, float]:
    """Sensitivity and specificity on validation, as training wrote them.

    Raises:
        ValueError: the model file ``path`` does not say.
    """
    try:
        found = state["validation"]["val"]
        return found["sensitivity"], found["specificity"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: does not say its sensitivity and specificity on validation; train anew") from error


def untouched(path: Path) -> dict[str, Any]:
    """What the model file holds.

    Raises:
        ValueError: its operating point was set after training already.
    """
    state = checkpoints.load(path, task=TASK)
    if state.get("adapted"):
        raise ValueError(f"{path}: its operating point was set after training already; start from the file of training")
    return state


def save(
    path: Path, state: dict[str, Any], text: str, prediction: dict[str, float], validation: dict[str, Any] | None = None
) -> str:
    """The model ``state`` with another operating point, which every answer of it will tell.

    Args:
        text: how it was set; the date is added.
        prediction: the new ``threshold``, and ``temperature`` where it changes too.
        validation: what was measured with them, by the name of the images; without it the scores of training stay that
            do not depend on the operating point.

    Returns:
        What answers will say.
    """
    if validation is None:
        validation = {
            name: {key: value for key, value in scores.items() if key not in AT_OPERATING_POINT}
            for name, scores in state["validation"].items()
        }
    text = f"{text}, {datetime.now(timezone.utc).date().isoformat()}"
    adapted = {"text": text, "before": {name: state.get(name) for name in ("prediction", "validation")}}
    new: dict[str, Any] = {"prediction": state["prediction"] | prediction, "validation": validation, "adapted": adapted}
    checkpoints.save(path, **(state | new))
    return text
