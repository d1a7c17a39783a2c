"""Radiographs beside themselves under Grad-CAM: where a classifier looks.

Throughout: an image is uint8 [H, W] at any resolution, and its heat map floats [h, w] in 0..1, stretched over it. A
title has a line or two, the caption stands below in small letters. With ``common_scale`` 1 is the same strength in all
heat maps, and else the strongest in each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxr.pictures import (
    CAPTION_LINE,
    CAPTION_SIZE,
    VERMILLION,
    WIDTH,
    fit,
    gallery,
    picture,
    small,
    tallness,
    thumbnail,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERLAY_WIDTH = 6.0  # inches; a README shows such a picture beside another


def grad_cam_grid(
    images: Sequence[NDArray[np.uint8]],
    heatmaps: Sequence[NDArray[np.floating[Any]]],
    titles: Sequence[str],
    path: Path,
    *,
    correct: Sequence[bool],
    caption: str,
    common_scale: bool,
) -> None:
    """Radiographs, each beside itself under its heat map; correct answers are ticked, wrong ones crossed and framed."""
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    across = WIDTH / columns
    tall = max(tallness(image) for image in images)
    below = small(caption, WIDTH)
    size = (WIDTH, rows * (across / 2 * tall + 0.45) + 0.75 + CAPTION_LINE * len(below.splitlines()))
    with picture(path, size, layout="compressed") as figure:
        panels = gallery(figure, rows, columns, len(images))
        for axes, image, heatmap, title, right in zip(panels, images, heatmaps, titles, correct, strict=True):
            axes.imshow(_beside(thumbnail(image, 400), heatmap))
            colour, mark = ("black", "\N{CHECK MARK}") if right else (VERMILLION, "\N{BALLOT X}")
            axes.set_title(f"{mark} {fit(title, across - 0.2)}", color=colour)
            if not right:
                axes.spines[:].set(visible=True, color=VERMILLION, linewidth=3)
        _heat_bar(figure, panels, common_scale)
        figure.supxlabel(below, fontsize=CAPTION_SIZE)


def grad_cam_overlay(
    image: NDArray[np.uint8],
    heatmap: NDArray[np.floating[Any]],
    title: str,
    path: Path,
    *,
    caption: str,
    common_scale: bool,
) -> None:
    """One radiograph beside itself under its heat map, in the proportions of the original."""
    shown = thumbnail(image, 1024)
    text, below = wrapped(title, OVERLAY_WIDTH), small(caption, OVERLAY_WIDTH)
    lines = 1.1 + 0.2 * text.count("\n") + CAPTION_LINE * len(below.splitlines())
    size = (OVERLAY_WIDTH, OVERLAY_WIDTH / 2 * tallness(image) + lines)
    with picture(path, size, layout="compressed", finer=1.5) as figure:
        (axes,) = gallery(figure, 1, 1, 1)
        axes.imshow(_beside(shown, heatmap))
        axes.set_title(text)
        _heat_bar(figure, [axes], common_scale)
        figure.supxlabel(below, fontsize=CAPTION_SIZE)


def _beside(image: NDArray[np.uint8], heatmap: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The image [H, W], a white gap, and the image under its heat map, as RGB."""
    height, width = image.shape
    gap = np.full((height, max(1, width // 60), 3), 255, np.uint8)
    return np.concatenate([np.repeat(image[..., None], 3, axis=2), gap, _heated(image, heatmap)], axis=1)


def _heated(image: NDArray[np.uint8], heatmap: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The image [H, W] under its heat map as RGB; no heat is clear, so that the anatomy below stays in sight."""
    import matplotlib
    from PIL import Image

    heat = np.asarray(heatmap, np.float32)
    height, width = image.shape
    wide = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    opacity = _opacity(wide)[..., None]
    colours = matplotlib.colormaps["inferno"](wide)[..., :3] * 255
    return np.round((1 - opacity) * image[..., None] + opacity * colours).astype(np.uint8)


def _opacity(heat: NDArray[Any]) -> NDArray[Any]:
    return 0.6 * np.sqrt(heat)


def _heat_bar(figure: "Figure", panels: Sequence["Axes"], common_scale: bool) -> None:
    """The colours as they look over mid grey, which is what a heat map lies on."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    heat = np.linspace(0, 1, 256)
    opacity = _opacity(heat)[:, None]
    colours = ListedColormap((1 - opacity) * 0.5 + opacity * matplotlib.colormaps["inferno"](heat)[:, :3])
    most = "validation's clearest" if common_scale else "strongest in this image"
    place: dict[str, Any] = {"location": "bottom", "shrink": 0.7, "aspect": 50, "panchor": False}
    bar = figure.colorbar(ScalarMappable(cmap=colours), ax=list(panels), **place)
    bar.set_label(f"Grad-CAM: evidence for PNEUMONIA (1: {most})")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
