"""Curves of a detector's scores, and boxes on radiographs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.metrics import Array
from cxr.plots import (
    BLUE,
    CAPTION_LINE,
    CAPTION_SIZE,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    YELLOW,
    aspect,
    drawable,
    image_panels,
    placeholder,
    saved_figure,
    shorten,
    thumbnail,
    unit_square,
    wrap,
    wrap_caption,
)
from pytorch_detection.box_metrics import matched, overlaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVERLAY_TALLEST = 4.5  # inches; a README shows such a picture beside another
_LABEL_SIZE = 9  # points
_LETTER, _LINE = 0.6 * _LABEL_SIZE / 72, 1.7 * _LABEL_SIZE / 72  # inches that a label takes, with its background
_NO_BOX = "no true box, or none predicted"
# Colour, line style and width of each kind of box.
_BOX_STYLES: dict[str, tuple[str, Any, float]] = {
    "found": (YELLOW, (0, (4, 3)), 1.5),
    "missed": (PURPLE, (0, (2, 1.5)), 2.5),
    "hit": (SKY, "-", 2.0),
    "false": (ORANGE, "-", 2.0),
    "predicted": (ORANGE, "-", 2.0),
}


def froc(
    rates: Array,
    sensitivity: Array,
    path: Path,
    *,
    points: Mapping[float, float],
    band: tuple[Array, Array, Array] | None,
    threshold: float,
    at_threshold: tuple[float, float] | None,
    title: str,
) -> None:
    """FROC: sensitivity for boxes against false positives per image, from 1/8 to 8 on a log scale.

    Args:
        rates: [K], false positives per image as the score threshold falls.
        sensitivity: [K], in 0..1.
        points: false positives per image -> sensitivity, marked and written out.
        band: false positives per image [B], and the lower and the upper end of the interval of sensitivity there.
        threshold: named beside ``at_threshold``.
        at_threshold: false positives per image and sensitivity there.
        title: which images, how many, from which IoU on a box is a hit.
    """
    order = np.lexsort((sensitivity, rates))
    ticks = [2.0**power for power in range(-3, 4)]
    with saved_figure(path, (6.4, 4.6)) as figure:
        axes = figure.subplots()
        if not np.isfinite(sensitivity).any():
            placeholder(axes, _NO_BOX)
        if band is not None:
            axes.fill_between(*band, color=BLUE, alpha=0.15, linewidth=0, label="95% interval by patient")
        # A log scale has no 0: the sensitivity at 0 is drawn from the left edge on, the last one up to the right edge.
        x = np.append(np.maximum(rates[order], ticks[0] / 2), 2 * ticks[-1])
        y = sensitivity[order]
        axes.plot(x, np.append(y, y[-1:] if y.size else np.nan), color=BLUE, drawstyle="steps-post")
        marker: dict[str, Any] = {"markeredgecolor": "white", "markersize": 8, "clip_on": False, "zorder": 3}
        for rate, value in points.items():
            axes.plot(rate, value, "o", color=BLUE, **marker)
            axes.annotate(f"{value:.2f}", (rate, value), (6, -15 if value > 0.1 else 8), textcoords="offset points")
        left, right = ticks[0] / 1.15, ticks[-1] * 1.4
        if at_threshold is not None:
            rate, value = at_threshold
            label = f"threshold {threshold:.3f}: sensitivity {value:.2f} at {rate:.2f} false positives per image"
            axes.plot(np.clip(rate, left, right), value, "D", color=VERMILLION, label=label, **marker)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.set(xlim=(left, right), ylim=(-0.01, 1.02), title=wrap(title, 5.6))
        axes.set(xlabel="false positives per image", ylabel="sensitivity (fraction of true boxes found)")
        _legend_below(axes)


def precision_recall(
    recall: Array,
    precision: Array,
    path: Path,
    *,
    label: str,
    point: tuple[float, float] | None,
    point_label: str,
    title: str,
) -> None:
    """Precision against recall of boxes.

    Args:
        recall: [K], in 0..1; NaN where there is no true box.
        precision: [K], likewise.
        label: of the curve.
        point: recall and precision that are marked.
        point_label: of the marked point.
        title: which images, how many, from which IoU on a box is a hit.
    """
    with saved_figure(path, (6.0, 6.6)) as figure:
        axes = figure.subplots()
        unit_square(axes)
        axes.set(xlabel="recall (fraction of true boxes found)", ylabel="precision", title=wrap(title, 5.0))
        if not np.isfinite(recall).any():
            placeholder(axes, _NO_BOX)
            return
        axes.plot(recall, precision, color=BLUE, label=drawable(label))
        if point is not None:
            name = wrap(point_label, 5.0)
            axes.plot(*point, "D", color=VERMILLION, markeredgecolor="white", markersize=8, zorder=3, label=name)
        _legend_below(axes)


def _legend_below(axes: "Axes") -> None:
    """Curves fill the panel, and a legend inside would hide one."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))


def detection_grid(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[Array],
    predictions: Sequence[Array],
    scores: Sequence[Array],
    titles: Sequence[str],
    path: Path,
    *,
    hit_iou: float,
    caption: str,
) -> None:
    """Radiographs with true boxes (dashed: found or missed) and predicted ones (solid, with score: hit or false).

    Args:
        images: N of uint8 [H, W].
        truths: N of boxes [T, 4], xyxy in pixels of the image; T may be 0.
        predictions: N of boxes [P, 4], likewise.
        scores: N of [P] in 0..1. Boxes are matched from the highest score down, each true box at most once.
        titles: N, a line or two each.
        hit_iou: a predicted box with a higher IoU is a hit.
        caption: below, in small letters: which images, and how they were chosen.
    """
    columns = min(3, len(images))
    rows = -(-len(images) // columns)
    across = WIDTH / columns
    tall = max(aspect(image) for image in images)
    below, lines = wrap_caption(caption, WIDTH), 1 + max(title.count("\n") for title in titles)
    height = rows * (across * tall + 0.05 + 0.2 * lines) + 0.4 + CAPTION_LINE * len(below.splitlines())
    with saved_figure(path, (WIDTH, height), layout="compressed") as figure:
        panels = image_panels(figure, rows, columns, len(images))
        for axes, image, truth, boxes, values, title in zip(
            panels, images, truths, predictions, scores, titles, strict=True
        ):
            labels, scale = _show(axes, image, 560, across)
            found, hits = matched(boxes, values, truth, hit_iou)
            for box, value, hit in sorted(zip(boxes * scale, values, hits, strict=True), key=lambda item: -item[1]):
                mark = "\N{CHECK MARK}" if hit else "\N{BALLOT X}"
                _draw_box(axes, box, "hit" if hit else "false", f"{mark} {value:.2f}", labels)
            for box, is_found in zip(truth * scale, found, strict=True):
                _draw_box(axes, box, "found" if is_found else "missed", "" if is_found else "missed", labels)
            axes.set_title(shorten(title, across - 0.4))  # names of digits are wider than other texts
        figure.legend(handles=_box_legend(hit_iou), loc="outside upper center", ncols=4)
        figure.supxlabel(below, fontsize=CAPTION_SIZE)


def detection_overlay(
    image: NDArray[np.uint8], boxes: ArrayLike, scores: ArrayLike, path: Path, *, title: str = "", caption: str = ""
) -> None:
    """One radiograph with predicted boxes and their scores.

    Args:
        image: uint8 [H, W] at any resolution.
        boxes: [P, 4], xyxy in pixels of ``image``; P may be 0.
        scores: [P] in 0..1.
        title: a line or two.
        caption: below, in small letters.
    """
    tall = aspect(image)
    width, height = min(OVERLAY_TALLEST, max(2.5, OVERLAY_TALLEST / tall)), OVERLAY_TALLEST * min(tall, 1)
    text, below = wrap(title, width), wrap_caption(caption, width)
    size = (width, height + 0.4 + 0.2 * text.count("\n") + CAPTION_LINE * len(below.splitlines()))
    with saved_figure(path, size, layout="compressed", scale=1.6) as figure:
        (axes,) = image_panels(figure, 1, 1, 1)
        labels, scale = _show(axes, image, 1120, width)
        axes.set_title(text)
        figure.supxlabel(below, fontsize=CAPTION_SIZE)
        corners, values = np.asarray(boxes, np.float64).reshape(-1, 4) * scale, np.asarray(scores, np.float64)
        for box, value in sorted(zip(corners, values, strict=True), key=lambda item: -item[1]):
            _draw_box(axes, box, "predicted", f"{value:.2f}", labels)


class _Labels:
    """Places labels at corners of their boxes, so that they do not cover each other where that can be avoided.

    Args:
        size: of the shown image, height and width in its pixels.
        across: inches that its width takes.
    """

    def __init__(self, size: tuple[int, int], across: float) -> None:
        self._limit = np.array([size[1], size[0]], np.float64)
        self._inch = size[1] / across
        self._taken: list[Array] = []

    def place(self, box: Array, label: str) -> tuple[Array, NDArray[np.int64]]:
        """The corner (x, y) of ``box`` [4] xyxy where the text begins, and its directions from there: 1 or -1 each.

        It is the upper corner with more room beside it, else the one whose label is the least covered.
        """
        inwards = 1 if box[0] + box[2] < self._limit[0] else -1
        directions = np.array([(inwards, 1), (inwards, -1), (-inwards, 1), (-inwards, -1)])
        corners = np.clip(np.where(directions > 0, box[:2], box[2:]), 0, self._limit)
        ends = corners + directions * np.array([len(label) * _LETTER, _LINE]) * self._inch
        areas = np.hstack([np.minimum(corners, ends), np.maximum(corners, ends)])
        chosen = int(overlaps(areas, self._taken).sum(axis=1).argmin())
        self._taken.append(areas[chosen])
        return corners[chosen], directions[chosen]


def _show(axes: "Axes", image: NDArray[np.uint8], longest: int, across: float) -> tuple[_Labels, float]:
    """Show an image reduced to at most ``longest`` pixels a side, ``across`` inches wide; its labels, and the scale."""
    reduced = thumbnail(image, longest)
    axes.imshow(reduced, cmap="gray", vmin=0, vmax=255)
    return _Labels((reduced.shape[0], reduced.shape[1]), across), max(reduced.shape) / max(image.shape)


def _draw_box(axes: "Axes", box: Array, kind: str, label: str, labels: _Labels) -> None:
    """A box [4] xyxy in pixels of the shown image, above those that come later; the label stays inside the image."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    colour, style, width = _BOX_STYLES[kind]
    outline = [Stroke(linewidth=width + 1.5, foreground="black", alpha=0.6), Normal()]
    above = 1 / (2 + len(axes.patches))
    # A pixel's centre is at whole numbers here, its edges half a pixel off.
    left, top, right, bottom = (float(edge) - 0.5 for edge in box)
    line: dict[str, Any] = {"edgecolor": colour, "linestyle": style, "linewidth": width, "path_effects": outline}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, zorder=1 + above, **line))
    if not label:
        return
    (x, y), (right, down) = (pair.tolist() for pair in labels.place(box, label))
    axes.annotate(
        label,
        (x - 0.5, y - 0.5),
        xytext=(3 * right, -3 * down),
        textcoords="offset points",
        annotation_clip=False,
        ha="left" if right > 0 else "right",
        va="top" if down > 0 else "bottom",
        fontsize=_LABEL_SIZE,
        color="black",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": 0.9},
        zorder=3 + above,
    )


def _box_legend(hit_iou: float) -> list[Any]:
    from matplotlib.patches import Patch

    names = {
        "found": "true box, found",
        "missed": "true box, missed",
        "hit": f"\N{CHECK MARK} prediction, hit (IoU above {hit_iou:g})",
        "false": "\N{BALLOT X} prediction, false",
    }
    styles = [(name, *_BOX_STYLES[kind]) for kind, name in names.items()]
    return [Patch(fill=False, label=name, ec=colour, ls=style, lw=width) for name, colour, style, width in styles]


def number_of_boxes(count: int, threshold: float) -> str:
    """For a title."""
    return f"{count or 'no'} {'box' if count < 2 else 'boxes'} at or above {threshold:.3f}"
