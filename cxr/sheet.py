"""A sheet of pictures: rows of small ones under headings, each with a caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.pictures import DPI, GREY, WIDTH, fit, picture

COLUMNS = 6  # images beside each other
_ACROSS, _TALL = WIDTH / COLUMNS, 1.85  # inches of an image with its caption and the space around
_HEADING, _CAPTIONS, _WORD, _SPACE = 0.36, 0.3, 0.4, 0.06
_CAPTION = 1.9  # as wide as titles of so many inches, in small letters


@dataclass(frozen=True)
class Block:
    """Images under one heading, each uint8 [H, W] or [H, W, 3] with a caption of a line or two; there may be none."""

    heading: str
    images: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]

    @property
    def inches(self) -> float:
        """Its height on the sheet; where there is no image, room for a word."""
        return _HEADING + (-(-len(self.images) // COLUMNS) * _TALL if self.images else _WORD)


def sheet(blocks: Sequence[Block], path: Path, *, note: str) -> None:
    """Images in blocks, one under the other, to the PNG file ``path``; ``note`` stands under the last.

    Laid out by hand, pixel for pixel: with axes of its own for each image a sheet takes three times as long.
    """
    tall = sum(block.inches for block in blocks) + _HEADING
    with picture(path, (WIDTH, tall), layout="none") as figure:
        top = tall
        for block in blocks:
            heading = fit(block.heading, WIDTH - 0.4)
            figure.text(_SPACE / WIDTH, (top - _SPACE) / tall, heading, va="top", fontsize=12, fontweight="bold")
            if not block.images:
                figure.text(0.5, (top - _HEADING) / tall, "no such image", ha="center", va="top", color=GREY)
            for number, (image, caption) in enumerate(zip(block.images, block.captions, strict=True)):
                row, column = divmod(number, COLUMNS)
                left, above = column * _ACROSS + _SPACE, top - _HEADING - row * _TALL
                figure.text(left / WIDTH, above / tall, fit(caption, _CAPTION), va="top", fontsize=8, linespacing=1.1)
                shown = Image.fromarray(image)
                shown = shown.resize(_fitting(shown.size))
                below = round((above - _CAPTIONS) * DPI) - shown.height
                figure.figimage(np.asarray(shown), round(left * DPI), below, cmap="gray", vmin=0, vmax=255)
            top -= block.inches
        figure.text(_SPACE / WIDTH, 2 * _SPACE / tall, fit(note, WIDTH - 0.4), fontsize=10)


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels of an image of ``size`` that fills its place."""
    width, height = size
    scale = min((_ACROSS - 2 * _SPACE) * DPI / width, (_TALL - _CAPTIONS - 2 * _SPACE) * DPI / height)
    return max(1, int(width * scale)), max(1, int(height * scale))
