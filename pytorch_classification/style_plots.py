"""The pictures of a shortcut audit: how well classes are told without lungs, and images in the style of the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxr.pictures import BLUE, GREY, VERMILLION, WIDTH, fit, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 6  # images beside each other on a sheet
_TALL = 1.85  # inches of a row of images with their captions
_HEADING = 0.4


@dataclass(frozen=True)
class Block:
    """Images under one heading, each uint8 [S, S] with a caption of a line or two; there may be none."""

    heading: str
    images: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]

    @property
    def rows(self) -> int:
        """Rows of images on the sheet; one, for a word, where there is none."""
        return max(1, -(-len(self.images) // COLUMNS))


def sheet(blocks: Sequence[Block], path: Path, *, note: str) -> None:
    """Images in blocks, one under the other, to the PNG file ``path``; ``note`` stands under the last."""
    heights = [block.rows * _TALL + _HEADING for block in blocks]
    heights[-1] += _HEADING
    with picture(path, (WIDTH, sum(heights))) as figure:
        parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
        parts[-1].supxlabel(fit(note, WIDTH - 0.4), x=0.01, ha="left", fontsize=10)
        for part, block in zip(parts, blocks, strict=True):
            part.suptitle(fit(block.heading, WIDTH - 0.4), x=0.01, ha="left", fontweight="bold")
            panels: list[Axes] = list(part.subplots(block.rows, COLUMNS, squeeze=False).flat)
            for axes in panels:
                axes.set_axis_off()
            if not block.images:
                part.text(0.5, 0.4, "no such image", ha="center", color=GREY)
            for axes, image, caption in zip(panels, block.images, block.captions, strict=False):
                axes.imshow(image, cmap="gray", vmin=0, vmax=255)
                axes.set_title(fit(caption, 1.9), fontsize=8)


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
        path: PNG to write.
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
