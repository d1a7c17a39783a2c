"""Records and arrays to PNG files: curves of a run, scores of a classifier or a detector, and pictures with findings.

Nothing here keeps state or needs a display: each function draws on a ``Figure`` of its own (never pyplot) and writes
its file whole or not at all. Colours are Okabe and Ito's, which colour-blind readers tell apart, and what a colour says
is also said by a line style, a mark or a word. Text stays readable where a README shows a picture 800 pixels wide.
"""

import io
import textwrap
import unicodedata
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
WIDTH = 9.0  # inches; 1440 pixels, which a README shows at 800 with 11 pt as about 12 pixels
OVERLAY_WIDTH, OVERLAY_TALLEST = 6.0, 4.5  # inches at most; a README shows two such pictures side by side
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#666666"
_LETTERS_PER_INCH = 11  # of a title; file names of wide letters still fit
_LINES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (ORANGE, (0, (5, 1))),
    (SKY, (0, (1, 1))),
)
_DARK_BLUES = 0.71  # of the colour map: from here on white text has the better contrast
# Taken where installed, for the characters that matplotlib's own DejaVu Sans lacks.
_EAST_ASIAN_FONTS = ("Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "NanumGothic", "Noto Sans CJK KR")
_MISSING = "\N{WHITE SQUARE}"


# --- how training went -----------------------------------------------------------------------------------------------


def loss_curves(
    records: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    best_epoch: int | None,
    scores: Mapping[str, str],
    parts: Mapping[str, str] | None = None,
) -> None:
    """Loss and validation scores by epoch, with the epoch whose weights were kept.

    Args:
        records: lines of metrics.jsonl with ``epoch`` (the first is 1), ``train_loss``, ``val_loss`` and what is named
            below. A missing, None or non-finite value leaves a gap.
        path: PNG to write.
        best_epoch: marked in every panel; None marks nothing.
        scores: key of a record -> name in the legend, for the panel of scores.
        parts: name of a part of the loss -> name in the legend. A second row of panels shows ``train_`` and ``val_``
            plus that name, one panel each.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("no epochs to draw: metrics.jsonl holds no record yet")
    panels: list[tuple[str, str, Mapping[str, str]]] = [
        ("Loss", "loss", {"train_loss": "training", "val_loss": "validation"}),
        ("Validation scores", "score", scores),
    ]
    if parts:
        for prefix, name in (("train_", "training"), ("val_", "validation")):
            panels.append((f"Parts of the {name} loss", "loss", {prefix + key: text for key, text in parts.items()}))
    with _picture(path, (WIDTH, 2.2 * len(panels))) as figure:
        for axes, (title, unit, series) in zip(figure.subplots(len(panels) // 2, 2).flat, panels, strict=True):
            _by_epoch(axes, records, series, best_epoch)
            axes.set(title=title, xlabel="epoch", ylabel=unit)


def _by_epoch(
    axes: "Axes", records: Sequence[Mapping[str, Any]], series: Mapping[str, str], best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in records]
    for index, (key, label) in enumerate(series.items()):
        colour, style = _LINES[index % len(_LINES)]
        found = [record.get(key) for record in records]
        values = np.array([np.nan if value is None else value for value in found], np.float64)
        values[~np.isfinite(values)] = np.nan
        if np.isfinite(values).any():
            axes.plot(epochs, values, linestyle=style, color=colour, marker="o", markersize=3, label=_drawable(label))
    if axes.lines:
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        # Below the panel: curves of scores fill it, and a legend inside would hide one.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    else:
        _say(axes, "not recorded")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


# --- how a classifier does -------------------------------------------------------------------------------------------


def confusion_matrix(matrix: ArrayLike, classes: Sequence[str], path: Path, *, title: str = "") -> None:
    """Counts, and the share of each true class, of what was called what.

    Args:
        matrix: whole numbers [C, C]; rows are the truth, columns what was called.
        classes: C names.
        path: PNG to write.
        title: which images, how many, at which threshold.
    """
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    with _picture(path, (5.6, 4.8)) as figure:
        axes = figure.subplots()
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > _DARK_BLUES else "black"
            text = f"{count:,}\n{shares[row, column]:.1%}" if totals[row, 0] else "no image"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=15)
        names = [_fit(name, 2.0) for name in classes]
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="called", ylabel="truth", title=_fit(title, 4.4))
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the true class", format="{x:.0%}")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def roc_and_precision_recall(
    labels: ArrayLike,
    probabilities: ArrayLike,
    threshold: float,
    path: Path,
    *,
    groups: Sequence[object] | NDArray[Any] | None = None,
    title: str = "",
) -> None:
    """Both curves with the operating point on them.

    Args:
        labels: [N], 0 or 1.
        probabilities: [N].
        threshold: an image is called positive where its probability is at or above it.
        path: PNG to write.
        groups: [N], the patient of each image; draws pointwise 95 % bands over resamples of patients.
        title: which images, how many.
    """
    truth, scores = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float64)
    with _picture(path, (WIDTH, 4.8)) as figure:
        roc, recall = figure.subplots(1, 2)
        figure.suptitle(_fit(title, WIDTH))
        roc.set(title="ROC", xlabel="1 - specificity (false-positive rate)", ylabel="sensitivity")
        recall.set(title="Precision and recall", xlabel="recall (sensitivity)", ylabel="precision (PPV)")
        for axes in (roc, recall):
            _unit_square(axes)
        if truth.all() or not truth.any():
            _say(roc, "undefined: one class alone")
            _say(recall, "undefined: one class alone")
            return
        called, share = scores >= threshold, float(truth.mean())
        sensitivity, false_rate = called[truth].mean(), called[~truth].mean()
        roc.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
        recall.axhline(share, color=GREY, linestyle=":", label=f"chance ({share:.0%} positive)")
        if groups is not None:
            _bands(roc, recall, truth, scores, groups)
        false_rates, found, precision = _curves(truth, scores)
        roc.plot(false_rates, found, color=BLUE, label=f"AUC {metrics.roc_auc(scores, truth):.3f}")
        average = metrics.average_precision(scores, truth)
        recall.plot(found, precision, color=BLUE, drawstyle="steps-pre", label=f"average precision {average:.3f}")
        point = {"color": VERMILLION, "marker": "o", "markersize": 9, "linestyle": "none", "markeredgecolor": "white"}
        label = f"threshold {threshold:.3g}: sensitivity {sensitivity:.3f},\n"
        roc.plot(false_rate, sensitivity, **point, label=f"{label}specificity {1 - false_rate:.3f}")
        if called.any():
            ppv = truth[called].mean()
            recall.plot(sensitivity, ppv, **point, label=f"{label}precision {ppv:.3f}")
        roc.legend(loc="lower right")
        recall.legend(loc="lower left")


def _curves(truth: NDArray[np.bool_], scores: NDArray[np.float64], weights: Any = None) -> tuple[Any, Any, Any]:
    """False-positive rate, sensitivity and precision as the threshold falls, from where nothing is called."""
    positives, negatives = metrics.by_score(scores, truth, weights)
    found, wrong = positives.cumsum(-1), negatives.cumsum(-1)
    precision = np.where(found + wrong > 0, found / np.maximum(found + wrong, 1), 1.0)
    start = [(0, 0)] * (found.ndim - 1) + [(1, 0)]
    sensitivity, false_rate = found / found[..., -1:], wrong / wrong[..., -1:]
    return np.pad(false_rate, start), np.pad(sensitivity, start), np.pad(precision, start, mode="edge")


def _bands(
    roc: "Axes",
    recall: "Axes",
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    groups: Sequence[object] | NDArray[Any],
) -> None:
    weights = metrics.cluster_resamples(groups, 500, seed=0)
    usable = [row for row in weights if row[truth].any() and row[~truth].any()]
    if not usable:
        return
    false_rates, sensitivities, precisions = _curves(truth, scores, np.array(usable))
    grid = np.linspace(0, 1, 201)
    for axes, along, across in ((roc, false_rates, sensitivities), (recall, sensitivities, precisions)):
        curves = [np.interp(grid, *curve) for curve in zip(along, across, strict=True)]
        low, high = np.percentile(curves, [2.5, 97.5], axis=0)
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95% band, by patient")


def reliability(
    labels: ArrayLike, probabilities: ArrayLike, path: Path, *, before: ArrayLike | None = None, title: str = ""
) -> None:
    """Share of positives against mean probability in 15 bins of equal width, and how many images each bin holds.

    Args:
        labels: [N], 0 or 1.
        probabilities: [N], calibrated; with Wilson's 95 % interval for each bin.
        path: PNG to write.
        before: [N], the probabilities before temperature scaling.
        title: which images, how many.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    truth, scores = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float64)
    with _picture(path, (6.4, 6.6)) as figure:
        diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        diagram.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
        if before is not None:
            raw = np.asarray(before, np.float64)
            centres, shares, _, _ = _bins(truth, raw)
            label = f"before: {_calibration(truth, raw)}"
            diagram.plot(centres, shares, "D", color=GREY, markerfacecolor="none", label=label)
        centres, shares, bars, images = _bins(truth, scores)
        label = _calibration(truth, scores) if before is None else f"after: {_calibration(truth, scores)}"
        diagram.errorbar(centres, shares, bars, color=BLUE, marker="o", linewidth=1.5, elinewidth=1, label=label)
        diagram.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        diagram.set(ylabel="share that is PNEUMONIA", title=_fit(title, 5.4))
        edges = np.arange(metrics.CALIBRATION_BINS) / metrics.CALIBRATION_BINS
        counts.bar(edges, images, width=1 / metrics.CALIBRATION_BINS, align="edge", color=BLUE, edgecolor="white")
        counts.set(yscale="log", ylim=(0.7, None), xlabel="probability of PNEUMONIA", ylabel="images")
        counts.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        counts.yaxis.set_minor_formatter(NullFormatter())
        # Below: bins of a good classifier stand in the upper left corner too.
        figure.legend(*diagram.get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=1)


def _bins(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean score, share of positives and length of its bars [2, B] of the B bins in use; images in each of all bins."""
    bins = metrics.calibration_bin(scores)
    used = np.unique(bins)
    shares = np.array([truth[bins == index].mean() for index in used])
    bounds = [metrics.wilson_interval(int(truth[bins == index].sum()), int((bins == index).sum())) for index in used]
    centres = np.array([scores[bins == index].mean() for index in used])
    bars = np.abs(np.array(bounds).T - shares)
    return centres, shares, bars, np.bincount(bins, minlength=metrics.CALIBRATION_BINS)


def _calibration(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> str:
    return f"ECE {metrics.calibration_error(scores, truth):.3f}, Brier {np.mean((scores - truth) ** 2):.3f}"


# --- where a classifier looks ----------------------------------------------------------------------------------------


def grad_cam_grid(
    images: Sequence[NDArray[np.uint8]],
    heatmaps: Sequence[NDArray[np.floating[Any]]],
    titles: Sequence[str],
    path: Path,
    *,
    correct: Sequence[bool],
) -> None:
    """Radiographs, each beside itself under its heat map; right answers are ticked, wrong ones crossed and framed.

    Args:
        images: N of uint8 [H, W].
        heatmaps: N of floats [h, w] in 0..1, stretched over the image.
        titles: N, a line or two each.
        path: PNG to write.
        correct: N.

    Raises:
        ValueError: nothing to draw, lengths differ, or an array is not as described.
    """
    _require_same_length(images=images, heatmaps=heatmaps, titles=titles, correct=correct)
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    across = WIDTH / columns
    tall = max(_tallness(image) for image in images)
    size = (WIDTH, rows * (across / 2 * tall + 0.45) + 0.75)
    with _picture(path, size, layout="compressed") as figure:
        panels = _gallery(figure, rows, columns, len(images))
        for axes, image, heatmap, title, right in zip(panels, images, heatmaps, titles, correct, strict=True):
            axes.imshow(_beside(_thumbnail(image, 400), heatmap))
            colour, mark = ("black", "\N{CHECK MARK}") if right else (VERMILLION, "\N{BALLOT X}")
            axes.set_title(f"{mark} {_fit(title, across - 0.2)}", color=colour)
            if not right:
                axes.spines[:].set(visible=True, color=VERMILLION, linewidth=3)
        _heat_bar(figure, panels)


def grad_cam_overlay(image: NDArray[np.uint8], heatmap: NDArray[np.floating[Any]], title: str, path: Path) -> None:
    """One radiograph beside itself under its heat map, in the proportions of the original.

    Args:
        image: uint8 [H, W] at any resolution.
        heatmap: floats [h, w] in 0..1, stretched over the image.
        title: a line or two.
        path: PNG to write.

    Raises:
        ValueError: an array is not as described.
    """
    shown = _thumbnail(image, 1024)
    text = _wrapped(title, OVERLAY_WIDTH)
    size = (OVERLAY_WIDTH, OVERLAY_WIDTH / 2 * _tallness(image) + 1.1 + 0.2 * text.count("\n"))
    with _picture(path, size, layout="compressed", finer=1.5) as figure:
        (axes,) = _gallery(figure, 1, 1, 1)
        axes.imshow(_beside(shown, heatmap))
        axes.set_title(text)
        _heat_bar(figure, [axes])


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
    if heat.ndim != 2 or not (np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1):
        raise ValueError(f"expected a heat map [h, w] in 0..1, found shape {heat.shape}, {heat.min()} to {heat.max()}")
    height, width = image.shape
    wide = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    opacity = _opacity(wide)[..., None]
    colours = matplotlib.colormaps["inferno"](wide)[..., :3] * 255
    return np.round((1 - opacity) * image[..., None] + opacity * colours).astype(np.uint8)


def _opacity(heat: NDArray[Any]) -> NDArray[Any]:
    return 0.6 * np.sqrt(heat)


def _heat_bar(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """The colours as they look over mid grey, which is what a heat map lies on."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    heat = np.linspace(0, 1, 256)
    opacity = _opacity(heat)[:, None]
    colours = ListedColormap((1 - opacity) * 0.5 + opacity * matplotlib.colormaps["inferno"](heat)[:, :3])
    label = "Grad-CAM: what speaks for PNEUMONIA (1: most in this image)"
    place: dict[str, Any] = {"location": "bottom", "shrink": 0.7, "aspect": 50, "panchor": False}
    bar = figure.colorbar(ScalarMappable(cmap=colours), ax=list(panels), **place)
    bar.set_label(label)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


# --- what a detector finds -------------------------------------------------------------------------------------------


def detection_grid(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[ArrayLike],
    predictions: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    titles: Sequence[str],
    path: Path,
    *,
    hit_iou: float = 0.4,
) -> None:
    """Radiographs with true boxes (dashed: found or missed) and predicted ones (solid, with score: a hit or false).

    Args:
        images: N of uint8 [H, W].
        truths: N of boxes [T, 4], xyxy in pixels of the image; T may be 0.
        predictions: N of boxes [P, 4], likewise.
        scores: N of [P] in 0..1. Boxes are matched from the highest score down, each true box at most once.
        titles: N, a line or two each.
        path: PNG to write.
        hit_iou: intersection over union from which a prediction hits; the RSNA score counts from .4.

    Raises:
        ValueError: nothing to draw, lengths differ, or an array is not as described.
    """
    _require_same_length(images=images, truths=truths, predictions=predictions, scores=scores, titles=titles)
    columns = min(3, len(images))
    rows = -(-len(images) // columns)
    across = WIDTH / columns
    tall = max(_tallness(image) for image in images)
    with _picture(path, (WIDTH, rows * (across * tall + 0.25) + 0.4), layout="compressed") as figure:
        panels = _gallery(figure, rows, columns, len(images))
        for axes, image, truth, predicted, sureness, title in zip(
            panels, images, truths, predictions, scores, titles, strict=True
        ):
            true_boxes, (boxes, values) = _boxes(truth), _scored_boxes(predicted, sureness)
            shown, scale = _shown(axes, image, 560)
            found, hits = _matches(true_boxes, boxes, values, hit_iou)
            for box, was_found in zip(true_boxes * scale, found, strict=True):
                _draw_box(axes, box, "found" if was_found else "missed", "" if was_found else "missed", shown)
            for box, value, hit in sorted(zip(boxes * scale, values, hits, strict=True), key=lambda item: item[1]):
                mark = "\N{CHECK MARK}" if hit else "\N{BALLOT X}"
                _draw_box(axes, box, "hit" if hit else "false", f"{mark} {value:.2f}", shown)
            axes.set_title(_fit(title, across - 0.2))
        figure.legend(handles=_box_legend(hit_iou), loc="outside lower center", ncols=4)


def detection_overlay(
    image: NDArray[np.uint8], boxes: ArrayLike, scores: ArrayLike, path: Path, *, title: str = ""
) -> None:
    """One radiograph with predicted boxes and their scores.

    Args:
        image: uint8 [H, W] at any resolution.
        boxes: [P, 4], xyxy in pixels of ``image``; P may be 0.
        scores: [P] in 0..1.
        path: PNG to write.
        title: a line or two.

    Raises:
        ValueError: an array is not as described.
    """
    tall = _tallness(image)
    width, height = min(OVERLAY_TALLEST, max(2.5, OVERLAY_TALLEST / tall)), OVERLAY_TALLEST * min(tall, 1)
    text = _wrapped(title, width)
    size = (width, height + 0.4 + 0.2 * text.count("\n"))
    with _picture(path, size, layout="compressed", finer=1.6) as figure:
        (axes,) = _gallery(figure, 1, 1, 1)
        shown, scale = _shown(axes, image, 1120)
        axes.set_title(text)
        found, values = _scored_boxes(boxes, scores)
        for box, value in sorted(zip(found * scale, values, strict=True), key=lambda item: item[1]):
            _draw_box(axes, box, "predicted", f"{value:.2f}", shown)


# Colour, line style and width of each kind of box.
_BOX_STYLES: dict[str, tuple[str, Any, float]] = {
    "found": (YELLOW, (0, (4, 3)), 1.5),
    "missed": (PURPLE, (0, (2, 1.5)), 2.5),
    "hit": (SKY, "-", 2.0),
    "false": (ORANGE, "-", 2.0),
    "predicted": (ORANGE, "-", 2.0),
}


def _draw_box(axes: "Axes", box: NDArray[np.float64], kind: str, label: str, size: tuple[int, int]) -> None:
    """A box [4] xyxy in pixels of the shown image of ``size`` (height, width); the label stays inside the image."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    colour, style, width = _BOX_STYLES[kind]
    left, top, right, bottom = (float(edge) for edge in box)
    outline = [Stroke(linewidth=width + 1.5, foreground="black", alpha=0.6), Normal()]
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
        )
    )
    if not label:
        return
    # Predictions are labelled in the upper corner and missed boxes in the lower, so that the two seldom meet.
    height, full_width = size
    to_the_right, upper = (left + right) / 2 < full_width / 2, kind != "missed"
    x, y = np.clip([left if to_the_right else right, top if upper else bottom], 0, [full_width, height]) - 0.5
    axes.annotate(
        label,
        (x, y),
        xytext=(3 if to_the_right else -3, -3 if upper else 3),
        textcoords="offset points",
        annotation_clip=False,
        ha="left" if to_the_right else "right",
        va="top" if upper else "bottom",
        fontsize=9,
        color="black",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": 0.9},
    )


def _box_legend(hit_iou: float) -> list[Any]:
    from matplotlib.patches import Patch

    names = {
        "found": "true box, found",
        "missed": "true box, missed",
        "hit": f"\N{CHECK MARK} prediction, hit (IoU {hit_iou:g} or more)",
        "false": "\N{BALLOT X} prediction, false",
    }
    handles: list[Any] = []
    for kind, name in names.items():
        colour, style, width = _BOX_STYLES[kind]
        handles.append(Patch(fill=False, edgecolor=colour, linestyle=style, linewidth=width, label=name))
    return handles


def _matches(
    truths: NDArray[np.float64], boxes: NDArray[np.float64], scores: NDArray[np.float64], hit_iou: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which true boxes [T] were found and which predictions [P] hit, the surest prediction choosing first."""
    found, hits = np.zeros(len(truths), np.bool_), np.zeros(len(boxes), np.bool_)
    corners = np.minimum(truths[:, None, 2:], boxes[:, 2:]) - np.maximum(truths[:, None, :2], boxes[:, :2])
    shared = corners.clip(0).prod(-1)
    areas = [(group[:, 2:] - group[:, :2]).prod(-1) for group in (truths, boxes)]
    overlap = shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)
    for index in np.argsort(-scores, kind="stable"):
        free = np.where(found, -1.0, overlap[:, index])
        if free.size and free.max() >= hit_iou:
            found[free.argmax()] = hits[index] = True
    return found, hits


def froc(
    false_positives_per_image: ArrayLike,
    sensitivity: ArrayLike,
    path: Path,
    *,
    points: Mapping[float, float] | None = None,
    title: str = "",
) -> None:
    """Sensitivity for boxes against false positives per image, from 1/8 to 8 on a log scale.

    Args:
        false_positives_per_image: [K], as the score cut falls.
        sensitivity: [K], in 0..1.
        path: PNG to write.
        points: false positives per image -> sensitivity, marked and written out.
        title: which images, how many.
    """
    rates, found = np.asarray(false_positives_per_image, np.float64), np.asarray(sensitivity, np.float64)
    order = np.lexsort((found, rates))
    ticks = [2.0**power for power in range(-3, 4)]
    with _picture(path, (6.4, 4.6)) as figure:
        axes = figure.subplots()
        # A log scale has no 0: what is found there holds from the left edge on. What is found last holds to the right.
        x = np.append(np.maximum(rates[order], ticks[0] / 2), 2 * ticks[-1])
        y = found[order]
        axes.plot(x, np.append(y, y[-1:] if y.size else np.nan), color=BLUE, drawstyle="steps-post")
        marker: dict[str, Any] = {
            "color": VERMILLION,
            "markeredgecolor": "white",
            "markersize": 8,
            "clip_on": False,
            "zorder": 3,
        }
        for rate, value in (points or {}).items():
            axes.plot(rate, value, "o", **marker)
            axes.annotate(f"{value:.2f}", (rate, value), (6, -15), textcoords="offset points")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.set(xlim=(ticks[0] / 1.15, ticks[-1] * 1.4), ylim=(0, 1.02), title=_fit(title, 5.6))
        axes.set(xlabel="false positives per image", ylabel="sensitivity (share of true boxes found)")


def precision_recall(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path, *, title: str = "") -> None:
    """Precision against recall of boxes.

    Args:
        curves: name in the legend -> recall [K] and precision [K], both in 0..1.
        path: PNG to write.
        title: which images, how many.
    """
    with _picture(path, (6.0, 6.0)) as figure:
        axes = figure.subplots()
        for index, (label, (recall, precision)) in enumerate(curves.items()):
            colour, style = _LINES[index % len(_LINES)]
            axes.plot(recall, precision, color=colour, linestyle=style, label=_drawable(label))
        _unit_square(axes)
        axes.set(xlabel="recall", ylabel="precision", title=_fit(title, 5.4))
        if curves:
            axes.legend()
        else:
            _say(axes, "no curve")


# --- parts of pictures -----------------------------------------------------------------------------------------------


@contextmanager
def _picture(
    path: Path, size: tuple[float, float], layout: Any = "constrained", finer: float = 1.0
) -> "Generator[Figure, None, None]":
    """An empty figure of ``size`` inches (width, height); it becomes the file ``path`` when the block ends well.

    It has ``DPI`` times ``finer`` pixels an inch.

    The user's own matplotlib settings are set aside while it is drawn: the same data gives the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    from cxr import checkpoints

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": list(_families()),
                "font.size": 11,
                "axes.titlesize": 11.5,
                "figure.titlesize": 12,
                "legend.fontsize": 10,
                "legend.framealpha": 0.85,
                "legend.edgecolor": "none",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "figure.constrained_layout.w_pad": 0.08,
                "figure.constrained_layout.h_pad": 0.08,
                "axes.axisbelow": True,
                "grid.color": "#e5e5e5",
                "lines.linewidth": 2,
                "text.parse_math": False,  # a dollar sign in a file name is a dollar sign
            }
        )
        figure = Figure(figsize=size, dpi=DPI * finer, layout=layout)
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    checkpoints.write_atomically(path, lambda file: file.write(content.getvalue()))


@cache
def _families() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _EAST_ASIAN_FONTS if name in installed))


@cache
def _characters() -> frozenset[int]:
    """The code points that the fonts in use can draw."""
    from matplotlib import font_manager

    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in _families()]
    return frozenset(code for font in fonts for code in font.get_charmap())


def _drawable(text: str) -> str:
    """The text with a white square for what no font here can draw; line breaks stay.

    macOS lists Korean file names as separate letters (NFD), which fonts draw apart: compose them first.
    """
    drawn: list[str] = []
    for sign in unicodedata.normalize("NFC", text):
        if sign == "\n" or (sign.isprintable() and ord(sign) in _characters()):
            drawn.append(sign)
        else:
            drawn.append(" " if sign.isspace() else _MISSING)
    return "".join(drawn)


def _fit(text: str, inches: float) -> str:
    """Drawable text whose lines lose their middle where they are longer than ``inches`` of a title."""
    return "\n".join(_shortened(line, int(inches * _LETTERS_PER_INCH)) for line in _drawable(text).split("\n"))


def _wrapped(text: str, inches: float) -> str:
    """As ``_fit``, but a line that is too long is first broken between words, into parts about alike."""
    widest = int(inches * _LETTERS_PER_INCH)
    parts: list[str] = []
    for line in text.split("\n"):
        wrapped = partial(textwrap.wrap, line, break_long_words=False, break_on_hyphens=False)
        fewest = len(wrapped(widest))
        parts += next(found for width in range(1, widest + 1) if len(found := wrapped(width)) <= fewest)
    return _fit("\n".join(parts), inches)


def _shortened(line: str, width: int) -> str:
    widths = [2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in line]
    if sum(widths) <= width:
        return line
    head = int(np.searchsorted(np.cumsum(widths), width // 2, side="right"))
    tail = int(np.searchsorted(np.cumsum(widths[::-1]), (width - 1) // 2, side="right"))
    return f"{line[:head]}\N{HORIZONTAL ELLIPSIS}{line[len(line) - tail :]}"


def _gallery(figure: "Figure", rows: int, columns: int, count: int) -> list["Axes"]:
    """Panels for ``count`` images, without ticks or frame."""
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set(xticks=[], yticks=[], anchor="N")  # titles of a row stand level over images of unequal height
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    for axes in panels[count:]:
        axes.remove()
    return panels[:count]


def _tallness(image: NDArray[np.uint8]) -> float:
    """Height by width, as far as a picture follows it: a strip of pixels becomes no mile of paper."""
    return min(2.5, max(0.3, image.shape[0] / max(image.shape[1], 1)))


def _shown(axes: "Axes", image: NDArray[np.uint8], longest: int) -> tuple[tuple[int, int], float]:
    """Show an image reduced to at most ``longest`` pixels a side; its size (height, width) there, and the scale."""
    small = _thumbnail(image, longest)
    axes.imshow(small, cmap="gray", vmin=0, vmax=255)
    return (small.shape[0], small.shape[1]), max(small.shape) / max(image.shape)


def _thumbnail(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    from PIL import Image

    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"expected a grey image, uint8 [H, W], found {image.dtype} {list(image.shape)}")
    picture = Image.fromarray(image)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(boxes, np.float64)
    if found.size == 0:
        return np.zeros((0, 4))
    if found.ndim != 2 or found.shape[1] != 4:
        raise ValueError(f"expected boxes [K, 4] as xyxy, found shape {found.shape}")
    return found


def _scored_boxes(boxes: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found, values = _boxes(boxes), np.asarray(scores, np.float64)
    if values.shape != (len(found),):
        raise ValueError(f"expected a score for each of {len(found)} boxes, found shape {values.shape}")
    return found, values


def _unit_square(axes: "Axes") -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def _say(axes: "Axes", text: str) -> None:
    axes.grid(visible=False)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)


def _require_same_length(**sequences: Sequence[Any]) -> None:
    lengths = {name: len(values) for name, values in sequences.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"expected the same number of each, at least one, found {lengths}")
