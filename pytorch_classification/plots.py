"""Plots of a classifier's scores, and Grad-CAM overlays."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cxr import metrics
from cxr.metrics import Array
from cxr.plots import (
    BLUE,
    CAPTION_LINE,
    CAPTION_SIZE,
    GREY,
    VERMILLION,
    WIDTH,
    aspect,
    image_panels,
    placeholder,
    saved_figure,
    shorten,
    thumbnail,
    unit_square,
    wrap,
    wrap_caption,
)
from pytorch_classification.data_load import CLASSES, PNEUMONIA
from pytorch_classification.image_metrics import (
    CALIBRATION_BINS,
    average_precision,
    calibration_bin,
    calibration_error,
    predictive_values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERLAY_WIDTH = 6.0  # inches; a README shows such a picture beside another
_SWEEP_LOG_ODDS = 6.0  # ends of the threshold axis: probabilities of .0025 and .9975
_SWEEP_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99)
_BIN_IMAGES = 5  # the fewest of a bin whose fraction of positives is drawn
_RESAMPLES = 500  # of the bands
_ONE_CLASS = "undefined: images of one class only"
_DARK_BLUES = 0.71  # of the colour map: from here on white text has the better contrast


def confusion_matrix(matrix: ArrayLike, path: Path, *, title: str) -> None:
    """The counts ``matrix`` [2, 2] of true classes (rows) and predicted ones, and their share of the true class."""
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    with saved_figure(path, (5.6, 4.8)) as figure:
        from matplotlib.ticker import StrMethodFormatter

        axes = figure.subplots()
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > _DARK_BLUES else "black"
            text = f"{count:,}\n{shares[row, column]:.1%}" if totals[row, 0] else "no image"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=15)
        axes.set_xticks((0, 1), CLASSES)
        axes.set_yticks((0, 1), CLASSES, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="true class", title=shorten(title, 4.4))
        bar = figure.colorbar(
            shown, ax=axes, shrink=0.8, label="fraction of the true class", format=StrMethodFormatter("{x:.0%}")
        )
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def roc_and_precision_recall(
    labels: NDArray[np.int64],
    scores: Array,
    threshold: float,
    path: Path,
    *,
    patients: Sequence[str],
    title: str,
) -> None:
    """Both curves with their bootstrap bands and the operating point; ``labels`` and ``scores`` are [N]."""
    truth = labels == PNEUMONIA
    with saved_figure(path, (WIDTH, 4.8)) as figure:
        roc, recall = figure.subplots(1, 2)
        figure.suptitle(shorten(title, WIDTH))
        roc.set(title="ROC", xlabel="1 - specificity (false-positive rate)", ylabel="sensitivity")
        recall.set(title="Precision-recall", xlabel="recall (sensitivity)", ylabel="precision (PPV)")
        for axes in (roc, recall):
            unit_square(axes)
        if truth.all() or not truth.any():
            placeholder(roc, _ONE_CLASS)
            placeholder(recall, _ONE_CLASS)
            return
        positive, prevalence = scores >= threshold, float(truth.mean())
        sensitivity, false_rate = positive[truth].mean(), positive[~truth].mean()
        roc.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
        recall.axhline(prevalence, color=GREY, linestyle=":", label=f"chance ({prevalence:.0%} positive)")
        _bands(roc, recall, truth, scores, patients)
        false_rates, recalls, precision = _curves(truth, scores)
        roc.plot(false_rates, recalls, color=BLUE, label=f"AUC {metrics.roc_auc(scores, truth):.3f}")
        area = average_precision(scores, truth)
        recall.plot(recalls, precision, color=BLUE, drawstyle="steps-pre", label=f"average precision {area:.3f}")
        point = {"color": VERMILLION, "marker": "o", "markersize": 9, "linestyle": "none", "markeredgecolor": "white"}
        label = f"threshold {threshold:.3g}: sensitivity {sensitivity:.3f},\n"
        roc.plot(false_rate, sensitivity, **point, label=f"{label}specificity {1 - false_rate:.3f}")
        if positive.any():
            ppv = truth[positive].mean()
            recall.plot(sensitivity, ppv, **point, label=f"{label}precision {ppv:.3f}")
        roc.legend(loc="lower right")
        recall.legend(loc="lower left")


def _curves(truth: NDArray[np.bool_], scores: Array, weights: Array | None = None) -> tuple[Array, Array, Array]:
    """False-positive rate, sensitivity and precision as the threshold falls, from above the highest score."""
    positives, negatives = metrics.by_score(scores, truth, weights)
    true, false = positives.cumsum(-1), negatives.cumsum(-1)
    precision = np.where(true + false > 0, true / np.maximum(true + false, 1), 1.0)
    start = [(0, 0)] * (true.ndim - 1) + [(1, 0)]
    sensitivity, false_rate = true / true[..., -1:], false / false[..., -1:]
    return np.pad(false_rate, start), np.pad(sensitivity, start), np.pad(precision, start, mode="edge")


def _bands(roc: "Axes", recall: "Axes", truth: NDArray[np.bool_], scores: Array, patients: Sequence[str]) -> None:
    weights = metrics.cluster_resamples(patients, _RESAMPLES, seed=0)
    weights = weights[weights[:, truth].any(axis=1) & weights[:, ~truth].any(axis=1)]
    if not len(weights):
        return
    false_rates, sensitivities, precisions = _curves(truth, scores, weights)
    grid = np.linspace(0, 1, 201)
    for axes, along, across in ((roc, false_rates, sensitivities), (recall, sensitivities, precisions)):
        curves = [np.interp(grid, *curve) for curve in zip(along, across, strict=True)]
        low, high = np.percentile(curves, [2.5, 97.5], axis=0)
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95% band, by patient")


def threshold_sweep(
    labels: NDArray[np.int64],
    scores: Array,
    threshold: float,
    path: Path,
    *,
    patients: Sequence[str],
    prevalence: float,
    title: str,
) -> None:
    """Sensitivity and specificity, and PPV and NPV at ``prevalence``, against the threshold, with bootstrap bands."""
    truth = labels == PNEUMONIA
    with saved_figure(path, (WIDTH, 4.6)) as figure:
        rates, values = figure.subplots(1, 2, sharey=True)
        figure.suptitle(shorten(title, WIDTH))
        rates.set(title="sensitivity and specificity", ylabel="proportion")
        values.set(title=f"predictive values at a prevalence of {prevalence:.0%}")
        # Many scores are near 0 and 1: the log-odds scale spreads them.
        cuts = 1 / (1 + np.exp(-np.linspace(-_SWEEP_LOG_ODDS, _SWEEP_LOG_ODDS, 241)))
        for axes in (rates, values):
            axes.set(xscale="logit", xlim=(cuts[0], cuts[-1]), ylim=(-0.02, 1.02), xlabel="probability threshold")
            axes.set_xticks(_SWEEP_TICKS, [f"{tick:g}" for tick in _SWEEP_TICKS])
            axes.set_xticks([], minor=True)
            axes.axvline(threshold, color=GREY, linestyle=":", label=f"operating point {threshold:.3f}")
        if truth.all() or not truth.any():
            placeholder(rates, _ONE_CLASS)
            placeholder(values, _ONE_CLASS)
            return
        weights = np.concatenate([np.ones((1, scores.size)), metrics.cluster_resamples(patients, _RESAMPLES, seed=0)])
        positive = scores[:, None] >= cuts
        sensitivity = metrics.ratio(weights @ (positive & truth[:, None]), (weights @ truth)[:, None])
        specificity = metrics.ratio(weights @ (~positive & ~truth[:, None]), (weights @ ~truth)[:, None])
        ppv, npv = predictive_values(sensitivity, specificity, prevalence)
        panels = ((rates, {"sensitivity": sensitivity, "specificity": specificity}), (values, {"PPV": ppv, "NPV": npv}))
        for axes, curves in panels:
            for (name, curve), colour, style in zip(curves.items(), (VERMILLION, BLUE), ("-", "--"), strict=True):
                defined = ~np.isnan(curve).all(axis=0)
                low, high = np.nanpercentile(curve[:, defined], [2.5, 97.5], axis=0)
                axes.fill_between(cuts[defined], low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(cuts, curve[0], color=colour, linestyle=style, label=name)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1, handlelength=1.6)


def reliability(labels: NDArray[np.int64], scores: Array, path: Path, *, before: Array, title: str) -> None:
    """Reliability diagram: fraction of positives against mean probability in 15 bins of equal width, and their images.

    Bins have Wilson's 95 % interval; one of fewer than 5 images has no point. ``before`` [N] are the probabilities
    before temperature scaling.
    """
    truth = labels == PNEUMONIA
    with saved_figure(path, (6.4, 6.8)) as figure:
        from matplotlib.ticker import NullFormatter, StrMethodFormatter

        diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        diagram.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
        means, fractions, _ = _bins(truth, before)
        label = f"before calibration: {_calibration(truth, before)}"
        diagram.plot(means, fractions, "D", color=GREY, markerfacecolor="none", label=label)
        means, fractions, bars = _bins(truth, scores)
        label = f"calibrated: {_calibration(truth, scores)}"
        diagram.errorbar(means, fractions, bars, color=BLUE, marker="o", linewidth=1.5, elinewidth=1, label=label)
        diagram.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        diagram.set(ylabel="observed fraction of PNEUMONIA", title=shorten(title, 5.4))
        edges = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
        images = np.bincount(calibration_bin(scores), minlength=CALIBRATION_BINS)
        drawn = counts.bar(edges, images, width=1 / CALIBRATION_BINS, align="edge", color=BLUE, edgecolor="white")
        counts.bar_label(drawn, [f"{count}" if count else "" for count in images], fontsize=8)
        counts.set(yscale="log", ylim=(0.7, 4 * images.max()), ylabel="images")
        counts.set(xlabel=f"probability of PNEUMONIA (bins of fewer than {_BIN_IMAGES} images have no point)")
        counts.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        counts.yaxis.set_minor_formatter(NullFormatter())
        # Below: bins of a good classifier are in the upper left corner too.
        figure.legend(*diagram.get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1)


def _bins(truth: NDArray[np.bool_], scores: Array) -> tuple[Array, Array, Array]:
    """Mean score, fraction of positives and length of its bars [2, B], of the B bins that hold enough images."""
    bins = calibration_bin(scores)
    used, images = np.unique(bins, return_counts=True)
    used = used[images >= _BIN_IMAGES]
    fractions = np.array([truth[bins == index].mean() for index in used])
    bounds = [metrics.wilson_interval(int(truth[bins == index].sum()), int((bins == index).sum())) for index in used]
    means = np.array([scores[bins == index].mean() for index in used])
    return means, fractions, np.abs(np.array(bounds).reshape(-1, 2).T - fractions)


def _calibration(truth: NDArray[np.bool_], scores: Array) -> str:
    return f"ECE {calibration_error(scores, truth):.3f}, Brier {np.mean((scores - truth) ** 2):.3f}"


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
    """Radiographs and their Grad-CAM overlays side by side; errors are framed, and crossed where others are ticked."""
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    across = WIDTH / columns
    tall = max(aspect(image) for image in images)
    below = wrap_caption(caption, WIDTH)
    size = (WIDTH, rows * (across / 2 * tall + 0.45) + 0.75 + CAPTION_LINE * len(below.splitlines()))
    with saved_figure(path, size, layout="compressed") as figure:
        panels = image_panels(figure, rows, columns, len(images))
        for axes, image, heatmap, title, is_correct in zip(panels, images, heatmaps, titles, correct, strict=True):
            axes.imshow(_side_by_side(thumbnail(image, 400), heatmap))
            colour, mark = ("black", "\N{CHECK MARK}") if is_correct else (VERMILLION, "\N{BALLOT X}")
            axes.set_title(f"{mark} {shorten(title, across - 0.2)}", color=colour)
            if not is_correct:
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
    """One radiograph and its Grad-CAM overlay side by side, in the proportions of the original."""
    text, below = wrap(title, OVERLAY_WIDTH), wrap_caption(caption, OVERLAY_WIDTH)
    lines = 1.1 + 0.2 * text.count("\n") + CAPTION_LINE * len(below.splitlines())
    size = (OVERLAY_WIDTH, OVERLAY_WIDTH / 2 * aspect(image) + lines)
    with saved_figure(path, size, layout="compressed", scale=1.5) as figure:
        (axes,) = image_panels(figure, 1, 1, 1)
        axes.imshow(_side_by_side(thumbnail(image, 1024), heatmap))
        axes.set_title(text)
        _heat_bar(figure, [axes], common_scale)
        figure.supxlabel(below, fontsize=CAPTION_SIZE)


def _side_by_side(image: NDArray[np.uint8], heatmap: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The image [H, W], a white gap, and the image under its heat map, as RGB; no heat is transparent."""
    import matplotlib

    height, width = image.shape
    enlarged = Image.fromarray(np.asarray(heatmap, np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    heat = np.asarray(enlarged).clip(0, 1)
    opacity = _opacity(heat)[..., None]
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    overlay = np.round((1 - opacity) * image[..., None] + opacity * colours).astype(np.uint8)
    gap = np.full((height, max(1, width // 60), 3), 255, np.uint8)
    return np.concatenate([np.repeat(image[..., None], 3, axis=2), gap, overlay], axis=1)


def _opacity(heat: NDArray[Any]) -> NDArray[Any]:
    return 0.6 * np.sqrt(heat)


def _heat_bar(figure: "Figure", panels: Sequence["Axes"], common_scale: bool) -> None:
    """The colours of a heat map over mid grey."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    heat = np.linspace(0, 1, 256)
    opacity = _opacity(heat)[:, None]
    colours = ListedColormap((1 - opacity) * 0.5 + opacity * matplotlib.colormaps["inferno"](heat)[:, :3])
    layout: dict[str, Any] = {"location": "bottom", "shrink": 0.7, "aspect": 50, "panchor": False}
    bar = figure.colorbar(ScalarMappable(cmap=colours), ax=list(panels), **layout)
    highest = "90th percentile of validation" if common_scale else "maximum of this image"
    bar.set_label(f"Grad-CAM for PNEUMONIA (1: {highest})")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
