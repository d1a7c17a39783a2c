"""The curves of a detector's scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cxr.pictures import BLUE, VERMILLION, drawable, picture, say, unit_square, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def froc(
    false_positives_per_image: ArrayLike,
    sensitivity: ArrayLike,
    path: Path,
    *,
    points: Mapping[float, float] | None = None,
    band: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    threshold: float = 0.0,
    at_threshold: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """Sensitivity for boxes against false positives per image, from 1/8 to 8 on a log scale.

    Args:
        false_positives_per_image: [K], as the score cut falls.
        sensitivity: [K], in 0..1.
        points: false positives per image -> sensitivity, marked and written out.
        band: false positives per image [B], and the lower and the upper end of the interval of sensitivity there.
        threshold: named beside ``at_threshold``.
        at_threshold: false positives per image and sensitivity there.
        title: which images, how many, from which IoU on a box is found.
    """
    rates, found = np.asarray(false_positives_per_image, np.float64), np.asarray(sensitivity, np.float64)
    order = np.lexsort((found, rates))
    ticks = [2.0**power for power in range(-3, 4)]
    with picture(path, (6.4, 4.6)) as figure:
        axes = figure.subplots()
        if not np.isfinite(found).any():
            say(axes, "no true box, or none predicted")
        if band is not None:
            axes.fill_between(*band, color=BLUE, alpha=0.15, linewidth=0, label="95% interval by patient")
        # A log scale has no 0: what is found there holds from the left edge on. What is found last holds to the right.
        x = np.append(np.maximum(rates[order], ticks[0] / 2), 2 * ticks[-1])
        y = found[order]
        axes.plot(x, np.append(y, y[-1:] if y.size else np.nan), color=BLUE, drawstyle="steps-post")
        marker: dict[str, Any] = {"markeredgecolor": "white", "markersize": 8, "clip_on": False, "zorder": 3}
        for rate, value in (points or {}).items():
            axes.plot(rate, value, "o", color=BLUE, **marker)
            axes.annotate(f"{value:.2f}", (rate, value), (6, -15 if value > 0.1 else 8), textcoords="offset points")
        left, right = ticks[0] / 1.15, ticks[-1] * 1.4
        if at_threshold is not None:
            rate, value = at_threshold
            label = f"threshold {threshold:.3f}: sensitivity {value:.2f} at {rate:.2f} false positives per image"
            axes.plot(np.clip(rate, left, right), value, "D", color=VERMILLION, label=label, **marker)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.set(xlim=(left, right), ylim=(-0.01, 1.02), title=wrapped(title, 5.6))
        axes.set(xlabel="false positives per image", ylabel="sensitivity (share of true boxes found)")
        _legend_below(axes)


def precision_recall(
    recall: ArrayLike,
    precision: ArrayLike,
    path: Path,
    *,
    label: str = "",
    point: tuple[float, float] | None = None,
    point_label: str = "",
    title: str = "",
) -> None:
    """Precision against recall of boxes.

    Args:
        recall: [K], in 0..1; nothing is drawn where there is no true box.
        precision: [K], likewise.
        label: of the curve.
        point: recall and precision that are marked.
        point_label: what is there.
        title: which images, how many, from which IoU on a box is found.
    """
    with picture(path, (6.0, 6.6)) as figure:
        axes = figure.subplots()
        unit_square(axes)
        axes.set(xlabel="recall (share of true boxes found)", ylabel="precision", title=wrapped(title, 5.0))
        if not np.isfinite(np.asarray(recall, np.float64)).any():
            say(axes, "no true box, or none predicted")
            return
        axes.plot(recall, precision, color=BLUE, label=drawable(label))
        if point is not None:
            name = wrapped(point_label, 5.0)
            axes.plot(*point, "D", color=VERMILLION, markeredgecolor="white", markersize=8, zorder=3, label=name)
        _legend_below(axes)


def _legend_below(axes: "Axes") -> None:
    """Curves fill the panel, and a legend inside would hide one."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
