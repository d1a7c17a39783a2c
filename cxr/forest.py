"""A forest plot: scores with their intervals, one row for all images and one for each subgroup."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.metrics import interval_text
from cxr.pictures import BLUE, GREY, VERMILLION, WIDTH, fit, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _MARGIN = 0.3, 1.25  # inches
_LABEL = 2.6  # inches for the names of the rows


def forest_plot(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], scores: Mapping[str, str], path: Path, *, title: str
) -> None:
    """One panel for each of ``scores``, one line for each of ``rows``: value, interval, and the first row dotted.

    Args:
        rows: name -> scores, each with ``value``, ``low`` and ``high`` as ``metrics.bootstrap`` gives them; the first
            is all images, by which the others are seen.
        scores: key in a row -> name of the panel.
        title: which images, how many.
    """
    first = next(iter(rows.values()))
    with picture(path, (WIDTH, _MARGIN + _ROW * len(rows))) as figure:
        figure.suptitle(fit(title, WIDTH))
        figure.supxlabel("95% interval by patient", fontsize=11)
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, (key, name) in zip(panels, scores.items(), strict=True):
            if first[key]["value"] is not None:
                axes.axvline(first[key]["value"], color=GREY, linestyle=":", linewidth=1)
            for place, row in enumerate(rows.values()):
                draw_score(axes, place, row[key], *((BLUE, "o") if place else (VERMILLION, "D")))
            axes.set_title(fit(name, WIDTH / len(scores) - 0.8))
        panels[0].set_yticks(range(len(rows)), [fit(name, _LABEL) for name in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)


def draw_score(axes: "Axes", place: int, score: Mapping[str, Any], colour: str, mark: str) -> None:
    """A score as a mark, its interval as a bar and its value as text, on the line ``place``."""
    text = interval_text({"value": score["value"], "low": None})
    axes.text(1.02, place, text, va="center", fontsize=9, transform=axes.get_yaxis_transform())
    if score["value"] is not None:
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=1.5)
        axes.plot(score["value"], place, color=colour, marker=mark, markersize=6)
