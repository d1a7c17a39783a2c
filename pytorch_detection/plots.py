"""The curves of a detector's scores, and boxes on radiographs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    drawable,
    fit,
    gallery,
    picture,
    say,
    small,
    tallness,
    thumbnail,
    unit_square,
    wrapped,
)
from pytorch_detection.box_metrics import matched, overlaps

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


if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVERLAY_TALLEST = 4.5  # inches; a README shows such a picture beside another


def detection_grid(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[ArrayLike],
    predictions: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    titles: Sequence[str],
    path: Path,
    *,
    hit_iou: float = 0.5,
    caption: str = "",
) -> None:
    """Radiographs with true boxes (dashed: found or missed) and predicted ones (solid, with score: a hit or false).

    Args:
        images: N of uint8 [H, W].
        truths: N of boxes [T, 4], xyxy in pixels of the image; T may be 0.
        predictions: N of boxes [P, 4], likewise.
        scores: N of [P] in 0..1. Boxes are matched from the highest score down, each true box at most once.
        titles: N, a line or two each.
        hit_iou: intersection over union above which a prediction hits.
        caption: small, below: which images, and how they were chosen.
    """
    columns = min(3, len(images))
    rows = -(-len(images) // columns)
    across = WIDTH / columns
    tall = max(tallness(image) for image in images)
    below, lines = small(caption, WIDTH), 1 + max(title.count("\n") for title in titles)
    height = rows * (across * tall + 0.05 + 0.2 * lines) + 0.4 + CAPTION_LINE * len(below.splitlines())
    with picture(path, (WIDTH, height), layout="compressed") as figure:
        panels = gallery(figure, rows, columns, len(images))
        for axes, image, truth, predicted, sureness, title in zip(
            panels, images, truths, predictions, scores, titles, strict=True
        ):
            true_boxes, boxes, values = _boxes(truth), _boxes(predicted), np.asarray(sureness, np.float64)
            shown, scale = _shown(axes, image, 560)
            found, hits = matched(boxes, values, true_boxes, hit_iou)
            labels = _Labels(shown, across)
            for box, value, hit in sorted(zip(boxes * scale, values, hits, strict=True), key=lambda item: -item[1]):
                mark = "\N{CHECK MARK}" if hit else "\N{BALLOT X}"
                _draw_box(axes, box, "hit" if hit else "false", f"{mark} {value:.2f}", labels)
            for box, was_found in zip(true_boxes * scale, found, strict=True):
                _draw_box(axes, box, "found" if was_found else "missed", "" if was_found else "missed", labels)
            axes.set_title(fit(title, across - 0.4))  # names of digits are wider than other texts
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
        caption: small, below.
    """
    tall = tallness(image)
    width, height = min(OVERLAY_TALLEST, max(2.5, OVERLAY_TALLEST / tall)), OVERLAY_TALLEST * min(tall, 1)
    text, below = wrapped(title, width), small(caption, width)
    size = (width, height + 0.4 + 0.2 * text.count("\n") + CAPTION_LINE * len(below.splitlines()))
    with picture(path, size, layout="compressed", finer=1.6) as figure:
        (axes,) = gallery(figure, 1, 1, 1)
        shown, scale = _shown(axes, image, 1120)
        axes.set_title(text)
        figure.supxlabel(below, fontsize=CAPTION_SIZE)
        found, values = _boxes(boxes), np.asarray(scores, np.float64)
        labels = _Labels(shown, width)
        for box, value in sorted(zip(found * scale, values, strict=True), key=lambda item: -item[1]):
            _draw_box(axes, box, "predicted", f"{value:.2f}", labels)


# Colour, line style and width of each kind of box.
_BOX_STYLES: dict[str, tuple[str, Any, float]] = {
    "found": (YELLOW, (0, (4, 3)), 1.5),
    "missed": (PURPLE, (0, (2, 1.5)), 2.5),
    "hit": (SKY, "-", 2.0),
    "false": (ORANGE, "-", 2.0),
    "predicted": (ORANGE, "-", 2.0),
}


_LABEL_SIZE = 9  # points
_LETTER, _LINE = 0.6 * _LABEL_SIZE / 72, 1.7 * _LABEL_SIZE / 72  # inches that a label takes, with its background


class _Labels:
    """Finds a corner for each label of a picture, so that labels do not cover each other where that can be helped.

    Args:
        size: of the shown image, height and width in its pixels.
        across: inches that its width takes.
    """

    def __init__(self, size: tuple[int, int], across: float) -> None:
        self._limit = np.array([size[1], size[0]], np.float64)
        self._inch = size[1] / across
        self._taken: list[NDArray[np.float64]] = []

    def place(self, box: NDArray[np.float64], label: str) -> tuple[float, float, bool, bool]:
        """The corner x, y of ``box`` [4] xyxy in the image, and whether the text goes right from it, and down.

        It is the upper corner with more room beside it, else the one whose label is the least covered.
        """
        left, top, right, bottom = (float(edge) for edge in box)
        rightwards = (left + right) / 2 < self._limit[0] / 2
        extent = np.array([len(label) * _LETTER, _LINE]) * self._inch
        ways = [(rightwards, True), (rightwards, False), (not rightwards, True), (not rightwards, False)]
        areas: list[NDArray[np.float64]] = []
        for onwards, down in ways:
            corner = np.clip([left if onwards else right, top if down else bottom], 0, self._limit)
            other = corner + extent * np.where([onwards, down], 1, -1)
            areas.append(np.concatenate([np.minimum(corner, other), np.maximum(corner, other)]))
        chosen = int(overlaps(areas, self._taken).sum(axis=1).argmin())
        area, (onwards, down) = areas[chosen], ways[chosen]
        self._taken.append(area)
        return float(area[0 if onwards else 2]), float(area[1 if down else 3]), onwards, down


def _draw_box(axes: "Axes", box: NDArray[np.float64], kind: str, label: str, labels: _Labels) -> None:
    """A box [4] xyxy in pixels of the shown image, above those that come later; the label stays inside the image."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    colour, style, width = _BOX_STYLES[kind]
    left, top, right, bottom = (float(edge) for edge in box)
    outline = [Stroke(linewidth=width + 1.5, foreground="black", alpha=0.6), Normal()]
    above = 1 / (2 + len(axes.patches))
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5),  # a pixel's centre is at whole numbers here, its edges half a pixel off
            right - left,
            bottom - top,
            fill=False,
            edgecolor=colour,
            linestyle=style,
            linewidth=width,
            path_effects=outline,
            zorder=1 + above,
        )
    )
    if not label:
        return
    x, y, rightwards, down = labels.place(box, label)
    axes.annotate(
        label,
        (x - 0.5, y - 0.5),
        xytext=(3 if rightwards else -3, -3 if down else 3),
        textcoords="offset points",
        annotation_clip=False,
        ha="left" if rightwards else "right",
        va="top" if down else "bottom",
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
    handles: list[Any] = []
    for kind, name in names.items():
        colour, style, width = _BOX_STYLES[kind]
        handles.append(Patch(fill=False, edgecolor=colour, linestyle=style, linewidth=width, label=name))
    return handles


def _shown(axes: "Axes", image: NDArray[np.uint8], longest: int) -> tuple[tuple[int, int], float]:
    """Show an image reduced to at most ``longest`` pixels a side; its size (height, width) there, and the scale."""
    small = thumbnail(image, longest)
    axes.imshow(small, cmap="gray", vmin=0, vmax=255)
    return (small.shape[0], small.shape[1]), max(small.shape) / max(image.shape)


def _boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def number_of_boxes(count: int, threshold: float) -> str:
    """For a title."""
    return f"{count or 'no'} {'box' if count < 2 else 'boxes'} at or above {threshold:.3f}"
