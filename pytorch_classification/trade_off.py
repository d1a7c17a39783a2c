"""A table of thresholds: what each would have made of some images, sensitivity against specificity."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.metrics import Array, bootstrap, interval_text
from pytorch_classification.calibration import Measure, operating_point
from pytorch_classification.image_metrics import Counted, aligned, bound, counted, predictive_values, rates

# Thresholds that reach these shares of one class, to see what becomes of the other.
_TARGETS = (0.99, 0.975, 0.95, 0.9, 0.8)
_MEASURES: tuple[Measure, ...] = ("sensitivity", "specificity")


def trade_off(
    probabilities: Array,
    labels: NDArray[np.int64],
    groups: Sequence[str],
    threshold: float,
    prevalence: float,
    *,
    resamples: int = 500,
) -> dict[str, Any]:
    """What a dozen thresholds would have made of these images, in ascending order.

    They are ``threshold``, one half, and those that reach a sensitivity or a specificity of .8 to .99 here, as far as
    there are images of both classes. One chosen by this table looks better in it than it is.

    Args:
        probabilities, labels, groups, resamples: as for ``evaluate_classifier``.
        threshold: the model's.
        prevalence: at which the predictive values are stated too.

    Returns:
        ``prevalence`` and ``rows``: each with ``threshold``, ``reason`` (``model``, ``half``, ``sensitivity 0.95``) and
        the scores ``sensitivity``, ``specificity``, ``ppv``, ``npv``, ``ppv_there``, ``npv_there``.
    """
    truth = labels == 1
    reasons = {threshold: "model"}
    reasons.setdefault(0.5, "half")
    if truth.any() and not truth.all():
        for measure in _MEASURES:
            for target in _TARGETS:
                cut = operating_point(probabilities, labels, target, measure)
                reasons.setdefault(cut, f"{measure} {target:g}")
    rows: list[dict[str, Any]] = []
    for cut in sorted(reasons):
        of = counted(truth, probabilities >= cut)
        found = bootstrap(partial(_at_threshold, of, prevalence), groups, resamples=resamples)
        bound(found, of, groups)
        rows.append({"threshold": float(cut), "reason": reasons[cut], **found})
    return {"prevalence": prevalence, "rows": rows}


def _at_threshold(of: Counted, prevalence: float, weights: Array) -> dict[str, Array]:
    found = rates(of, weights)
    del found["accuracy"]
    ppv, npv = predictive_values(found["sensitivity"], found["specificity"], prevalence)
    return {**found, "ppv_there": ppv, "npv_there": npv}


def format_trade_off(table: Mapping[str, Any]) -> str:
    """What ``trade_off`` returned, for the terminal."""
    there, names = f"{table['prevalence']:.0%}", {"model": "the model's", "half": ""}
    header = ["threshold", "", "sensitivity", "specificity", "PPV", "NPV", f"PPV at {there}", f"NPV at {there}"]
    rows = [
        [
            f"{row['threshold']:.4f}",
            names.get(row["reason"], str(row["reason"])),
            *(interval_text(row[name]) for name in ("sensitivity", "specificity")),
            *(interval_text({**row[name], "low": None}) for name in ("ppv", "npv", "ppv_there", "npv_there")),
        ]
        for row in table["rows"]
    ]
    return aligned([header, *rows])
