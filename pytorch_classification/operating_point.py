"""From log-odds to decisions: temperature scaling, thresholds, and an operating point for other images."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr import checkpoints, patients
from cxr.messages import aligned
from cxr.metrics import Array, bootstrap, checked, interval_text
from cxr.model_file import AT_OPERATING_POINT
from pytorch_classification import image_metrics
from pytorch_classification.data_load import CLASSES, patients_of_each_class
from pytorch_classification.image_metrics import (
    Counted,
    add_wilson_intervals,
    counted,
    predictive_values,
    rates,
)
from pytorch_classification.model import TASK, to_probability

Measure: TypeAlias = Literal["sensitivity", "specificity"]
_MEASURES: tuple[Measure, ...] = ("sensitivity", "specificity")
# Beyond these the logits are no classifier's: all alike, or worse than chance.
TEMPERATURE_LIMITS = (0.05, 20.0)
LEAST_PATIENTS = 20  # of each class: one of them is a twentieth of the sensitivity
_TARGETS = (0.99, 0.975, 0.95, 0.9, 0.8)  # of the sensitivities and specificities in the table of thresholds


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature for which ``sigmoid(logit / temperature)`` has the smallest log loss on these images.

    The labels are smoothed as Platt proposed, to (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images. Otherwise a
    perfectly separated validation set would give a temperature of 0, that is certainty.

    There is no bias term: it would carry the prevalence of the data set (74 % in Kaggle's train/, 62 % in its test/)
    into every probability, and it would not change decisions, which the operating point makes.

    Args:
        logits: [N], log-odds of PNEUMONIA.
        labels: [N], 1 is PNEUMONIA.

    Returns:
        A number within ``TEMPERATURE_LIMITS``; above 1 the logits were overconfident.

    Raises:
        ValueError: a logit is not finite.

    Guo et al. 2017, arXiv:1706.04599; Platt 1999, "Probabilistic outputs for support vector machines", section 2.2.
    """
    scores, truth = checked(logits, labels)
    positives = truth.sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (truth.size - positives + 2))
    coldest, hottest = TEMPERATURE_LIMITS
    # The log loss is convex in 1 / temperature: its slope changes sign once. 60 halvings reach the last bit.
    low, high = 1 / hottest, 1 / coldest
    for _ in range(60):
        middle = (low + high) / 2
        probability = 0.5 * (1 + np.tanh(0.5 * middle * scores))  # the sigmoid, without overflow
        slope = np.mean((probability - target) * scores)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(2 / (low + high))


def threshold_for(
    probabilities: ArrayLike, labels: ArrayLike, target: float, measure: Measure = "sensitivity"
) -> float:
    """The highest threshold whose sensitivity, or the lowest whose specificity, is at or above ``target`` here.

    ``probability >= threshold`` is PNEUMONIA. The threshold is half-way between the last score that must be on its side
    and the next one beyond (0 or 1 without one), so that the last digit of a score, which differs between machines and
    batch sizes, changes no decision. Both classes must be present.
    """
    scores, truth = checked(probabilities, labels)
    if measure == "sensitivity":
        last = _last_needed(np.sort(scores[truth])[::-1], target)
        beyond = float(scores[scores < last].max(initial=0.0))
    else:
        last = _last_needed(np.sort(scores[~truth]), target)
        beyond = float(scores[scores > last].min(initial=1.0))
    middle = (last + beyond) / 2
    # Two neighbouring floats have no middle; a score of the threshold is positive.
    return middle if min(last, beyond) < middle else max(last, beyond)


def _last_needed(scores: Array, target: float) -> float:
    """Of the scores of one class, the most certain first, the one with which ``target`` is reached."""
    # k / n against the target, not k against n * target: .07 * 100 is 7.000000000000001, which would need an 8th.
    return float(scores[np.argmax(np.arange(1, scores.size + 1) / scores.size >= target)])


def trade_off(
    probabilities: Array,
    labels: NDArray[np.int64],
    groups: Sequence[str],
    threshold: float,
    prevalence: float,
    *,
    resamples: int = 500,
) -> dict[str, Any]:
    """Scores of a dozen thresholds on these images: ``threshold``, one half, and those that reach ``_TARGETS``.

    A threshold chosen by this table scores higher on these images than on others.

    Args:
        probabilities, labels, groups, resamples: as for ``evaluate_classifier``.
        threshold: the model's.
        prevalence: at which the predictive values are stated too.

    Returns:
        ``prevalence`` and ``rows`` in ascending order: each with ``threshold``, ``reason`` (``model``, ``half``,
        ``sensitivity 0.95``) and intervals of ``sensitivity``, ``specificity``, ``ppv``, ``npv``,
        ``ppv_at_prevalence``, ``npv_at_prevalence``.
    """
    truth = labels == 1
    reasons = {threshold: "model"}
    reasons.setdefault(0.5, "half")
    for measure in _MEASURES if truth.any() and not truth.all() else ():
        for target in _TARGETS:
            reasons.setdefault(threshold_for(probabilities, labels, target, measure), f"{measure} {target:g}")
    rows: list[dict[str, Any]] = []
    for cut in sorted(reasons):
        counts = counted(truth, probabilities >= cut)
        found = bootstrap(partial(_at_threshold, counts, prevalence), groups, resamples=resamples)
        add_wilson_intervals(found, counts, groups)
        rows.append({"threshold": float(cut), "reason": reasons[cut], **found})
    return {"prevalence": prevalence, "rows": rows}


def _at_threshold(counts: Counted, prevalence: float, weights: Array) -> dict[str, Array]:
    found = rates(counts, weights)
    del found["accuracy"]
    ppv, npv = predictive_values(found["sensitivity"], found["specificity"], prevalence)
    return {**found, "ppv_at_prevalence": ppv, "npv_at_prevalence": npv}


def format_trade_off(table: Mapping[str, Any]) -> str:
    """What ``trade_off`` returned, for the terminal."""
    share, names = f"{table['prevalence']:.0%}", {"model": "the model's", "half": ""}
    header = ["threshold", "", "sensitivity", "specificity", "PPV", "NPV", f"PPV at {share}", f"NPV at {share}"]
    values = ("ppv", "npv", "ppv_at_prevalence", "npv_at_prevalence")
    rows = [
        [
            f"{row['threshold']:.4f}",
            names.get(row["reason"], str(row["reason"])),
            *(interval_text(row[name]) for name in _MEASURES),
            *(interval_text({**row[name], "low": None}) for name in values),
        ]
        for row in table["rows"]
    ]
    return aligned([header, *rows])


def require_patients(labels: NDArray[np.int64], groups: Sequence[str], measure: Measure) -> None:
    """Raise ValueError unless there are 20 patients of each class."""
    for name, of_class in zip(CLASSES, patients_of_each_class(labels, groups), strict=True):
        if len(of_class) < LEAST_PATIENTS:
            raise ValueError(
                f"--set-{measure} needs images of at least {LEAST_PATIENTS} patients of each class, found "
                f"{len(of_class)} with {name}"
            )


def set_by_labels(log_odds: Array, labels: NDArray[np.int64], measure: Measure, target: float) -> tuple[float, float]:
    """Temperature, and the threshold at which ``measure`` is at or above ``target`` on these images.

    Args:
        log_odds: [N], before calibration.
        labels: [N], 1 is PNEUMONIA.
    """
    temperature = fit_temperature(log_odds, labels)
    return temperature, threshold_for(to_probability(log_odds, temperature), labels, target, measure)


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
    """``evaluate_classifier`` with each fifth of the patients at temperature and threshold of the other four fifths.

    Args:
        log_odds: [N], before calibration.
        groups: [N], the patient of each image.
        seed: of the folds.
    """
    probabilities, thresholds = np.zeros(len(labels)), np.zeros(len(labels))
    for others, held_out in patients.folds(labels, groups, seed):
        temperature, thresholds[held_out] = set_by_labels(log_odds[others], labels[others], measure, target)
        probabilities[held_out] = to_probability(log_odds[held_out], temperature)
    return image_metrics.evaluate_classifier(probabilities, labels, groups, thresholds, prevalence=prevalence)


def set_by_prevalence(probabilities: Array, prevalence: float, sensitivity: float, specificity: float) -> float:
    """The threshold at which as large a share of these images is positive as is expected at this ``prevalence``.

    The share follows from ``sensitivity`` and ``specificity`` on validation; the threshold is that quantile of these
    scores, half-way between two of them. Where all scores have shifted and kept their order, the operating point shifts
    with them (Roschewitz et al. 2023, doi:10.1038/s41467-023-42396-y). If the prevalence is wrong, so is the threshold.
    """
    share = prevalence * sensitivity + (1 - prevalence) * (1 - specificity)
    ranked = np.sort(probabilities)[::-1]
    positives = min(max(round(share * len(ranked)), 1), len(ranked) - 1)
    return float((ranked[positives - 1] + ranked[positives]) / 2)


def validation_rates(state: dict[str, Any], path: Path) -> tuple[float, float]:
    """Sensitivity and specificity on validation, as training wrote them.

    Raises:
        ValueError: the model file ``path`` does not state them.
    """
    try:
        found = state["validation"]["val"]
        return found["sensitivity"], found["specificity"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: does not state sensitivity and specificity on validation; train anew") from error


def require_original_threshold(path: Path) -> dict[str, Any]:
    """The content of the model file.

    Raises:
        ValueError: its operating point was already changed after training.
    """
    state = checkpoints.load(path, task=TASK)
    if state.get("adapted"):
        raise ValueError(f"{path}: its operating point was already changed; start from the model that training wrote")
    return state


def save_with_threshold(
    path: Path, state: dict[str, Any], text: str, prediction: dict[str, float], validation: dict[str, Any] | None = None
) -> str:
    """Write the model ``state`` with another operating point, which is stated with every prediction.

    Args:
        text: how it was set; the date is added.
        prediction: the new ``threshold``, and ``temperature`` where it changes too.
        validation: scores measured with them, by the name of the images; without it those of training are kept that
            do not depend on the operating point.

    Returns:
        The text with its date.
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
