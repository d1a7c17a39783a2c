"""A sheet of pictures: rows of small ones under headings, each with a caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxr.pictures import GREY, WIDTH, fit, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 6  # images beside each other
_TALL = 1.85  # inches of a row of images with their captions
_HEADING = 0.4


@dataclass(frozen=True)
class Block:
    """Images under one heading, each uint8 [H, W] or [H, W, 3] with a caption of a line or two; there may be none."""

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
