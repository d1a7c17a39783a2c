"""The picture of a shortcut audit: how well classes are told without lungs, and what a model makes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.pictures import BLUE, GREY, VERMILLION, WIDTH, fit, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scores(
    told: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]] | None,
    path: Path,
    *,
    title: str,
) -> None:
    """ROC AUC of each probe with its interval and, of a model, its scores where the style agrees and contradicts.

    Args:
        told: name of a probe -> ROC AUC with ``value``, ``low``, ``high``.
        groups: as ``style.group_scores`` returns them; None draws the probes alone.
        title: which images, how many.
    """
    with picture(path, (WIDTH, 4.2)) as figure:
        figure.suptitle(fit(title, WIDTH))
        panels = figure.subplots(1, 1 if groups is None else 2, squeeze=False)[0]
        _dots(panels[0], {name: (score, BLUE, "o") for name, score in told.items()})
        panels[0].axvline(0.5, color=GREY, linestyle=":", label="chance")
        panels[0].set(title="told without lungs", xlabel="ROC AUC", xlim=(None, 1.01))
        panels[0].legend(loc="lower left")
        if groups is not None:
            looks = {"all": (GREY, "s"), "agrees": (BLUE, "o"), "contradicts": (VERMILLION, "D")}
            shown = {
                f"{name}\n{group}" if group == "all" else f"{name}\nstyle {group}": (score, *looks[group])
                for name, of in groups.items()
                for group, score in of.items()
            }
            _dots(panels[1], shown)
            panels[1].set(title="the model at its operating point", xlabel="share that is right", xlim=(None, 1.01))


def _dots(axes: "Axes", rows: Mapping[str, tuple[Mapping[str, Any], str, str]]) -> None:
    """One line for each score: its value as a mark, its interval as a bar, both as text; the first row is on top."""
    for place, (score, colour, mark) in enumerate(rows.values()):
        text = "no image" if score["value"] is None else f"{score['value']:.3f}"
        axes.text(1.01, place, text, va="center", transform=axes.get_yaxis_transform())
        if score["value"] is None:
            continue
        axes.plot(score["value"], place, color=colour, marker=mark, markersize=7)
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place, place], color=colour)
    axes.set_yticks(range(len(rows)), [fit(name, 2.0) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
