"""The plots of a classifier's scores, and radiographs under Grad-CAM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr import metrics, plots
from cxr.plots import (
    BLUE,
    CAPTION_LINE,
    CAPTION_SIZE,
    GREY,
    VERMILLION,
    WIDTH,
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
from pytorch_classification.data_load import CLASSES
from pytorch_classification.image_metrics import (
    CALIBRATION_BINS,
    average_precision,
    calibration_bin,
    calibration_error,
    predictive_values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FARTHEST_LOG_ODDS = 6.0  # of a threshold sweep; a probability of .0025 and .9975
_SWEEP_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99)
_FEWEST = 5  # images of a bin whose share of positives is drawn
_DARK_BLUES = 0.71  # of the colour map: from here on white text has the better contrast


def confusion_matrix(matrix: ArrayLike, path: Path, *, title: str) -> None:
    """The counts ``matrix`` [2, 2] of true classes (rows) and predicted ones, and their share of the true class."""
    from matplotlib.ticker import StrMethodFormatter

    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    with picture(path, (5.6, 4.8)) as figure:
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
        axes.set(xlabel="predicted class", ylabel="true class", title=fit(title, 4.4))
        bar = figure.colorbar(
            shown, ax=axes, shrink=0.8, label="share of the true class", format=StrMethodFormatter("{x:.0%}")
        )
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def roc_and_precision_recall(
    labels: ArrayLike,
    probabilities: ArrayLike,
    threshold: float,
    path: Path,
    *,
    groups: Sequence[object] | NDArray[Any],
    title: str,
) -> None:
    """Both curves with the operating point on them."""
    truth, scores = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float64)
    with picture(path, (WIDTH, 4.8)) as figure:
        roc, recall = figure.subplots(1, 2)
        figure.suptitle(fit(title, WIDTH))
        roc.set(title="ROC", xlabel="1 - specificity (false-positive rate)", ylabel="sensitivity")
        recall.set(title="Precision and recall", xlabel="recall (sensitivity)", ylabel="precision (PPV)")
        for axes in (roc, recall):
            unit_square(axes)
        if truth.all() or not truth.any():
            say(roc, "undefined: one class alone")
            say(recall, "undefined: one class alone")
            return
        called, share = scores >= threshold, float(truth.mean())
        sensitivity, false_rate = called[truth].mean(), called[~truth].mean()
        roc.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
        recall.axhline(share, color=GREY, linestyle=":", label=f"chance ({share:.0%} positive)")
        _bands(roc, recall, truth, scores, groups)
        false_rates, found, precision = _curves(truth, scores)
        roc.plot(false_rates, found, color=BLUE, label=f"AUC {metrics.roc_auc(scores, truth):.3f}")
        area = average_precision(scores, truth)
        recall.plot(found, precision, color=BLUE, drawstyle="steps-pre", label=f"average precision {area:.3f}")
        point = {"color": VERMILLION, "marker": "o", "markersize": 9, "linestyle": "none", "markeredgecolor": "white"}
        label = f"threshold {threshold:.3g}: sensitivity {sensitivity:.3f},\n"
        roc.plot(false_rate, sensitivity, **point, label=f"{label}specificity {1 - false_rate:.3f}")
        if called.any():
            ppv = truth[called].mean()
            recall.plot(sensitivity, ppv, **point, label=f"{label}precision {ppv:.3f}")
        roc.legend(loc="lower right")
        recall.legend(loc="lower left")


def _curves(truth: NDArray[np.bool_], scores: NDArray[np.float64], weights: Any = None) -> tuple[Any, Any, Any]:
    """False-positive rate, sensitivity and precision as the threshold falls, from above the highest score."""
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


def threshold_sweep(
    labels: ArrayLike,
    probabilities: ArrayLike,
    threshold: float,
    path: Path,
    *,
    groups: Sequence[object] | NDArray[Any],
    prevalence: float,
    title: str,
) -> None:
    """What every threshold would make of the images: sensitivity and specificity; PPV and NPV at ``prevalence``."""
    truth, scores = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float64)
    with picture(path, (WIDTH, 4.6)) as figure:
        rates, values = figure.subplots(1, 2, sharey=True)
        figure.suptitle(fit(title, WIDTH))
        rates.set(title="sensitivity and specificity", ylabel="share")
        values.set(title=f"predictive values at a prevalence of {prevalence:.0%}")
        # Scores crowd at 0 and 1: on a scale of log-odds there is room for them.
        cuts = 1 / (1 + np.exp(-np.linspace(-_FARTHEST_LOG_ODDS, _FARTHEST_LOG_ODDS, 241)))
        for axes in (rates, values):
            axes.set(
                xscale="logit", xlim=(cuts[0], cuts[-1]), ylim=(-0.02, 1.02), xlabel="threshold on the probability"
            )
            axes.set_xticks(_SWEEP_TICKS, [f"{tick:g}" for tick in _SWEEP_TICKS])
            axes.set_xticks([], minor=True)
            axes.axvline(threshold, color=GREY, linestyle=":", label=f"operating point {threshold:.3f}")
        if truth.all() or not truth.any():
            say(rates, "undefined: one class alone")
            say(values, "undefined: one class alone")
            return
        weights = np.concatenate([np.ones((1, scores.size)), metrics.cluster_resamples(groups, 500, seed=0)])
        called = scores[:, None] >= cuts
        sensitivity = metrics.ratio(weights @ (called & truth[:, None]), (weights @ truth)[:, None])
        specificity = metrics.ratio(weights @ (~called & ~truth[:, None]), (weights @ ~truth)[:, None])
        ppv, npv = predictive_values(sensitivity, specificity, prevalence)
        for axes, curves in ((rates, (sensitivity, specificity)), (values, (ppv, npv))):
            named = ("sensitivity", "specificity") if axes is rates else ("PPV", "NPV")
            for curve, name, colour, style in zip(curves, named, (VERMILLION, BLUE), ("-", "--"), strict=True):
                known = ~np.isnan(curve).all(axis=0)
                low, high = np.nanpercentile(curve[:, known], [2.5, 97.5], axis=0)
                axes.fill_between(cuts[known], low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(cuts, curve[0], color=colour, linestyle=style, label=name)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1, handlelength=1.6)


def reliability(labels: ArrayLike, probabilities: ArrayLike, path: Path, *, before: ArrayLike, title: str) -> None:
    """Share of positives against mean probability in 15 bins of equal width, and how many images each bin holds.

    Bins have Wilson's 95 % interval; one of fewer than 5 images has no point: its share would be chance. ``before`` [N]
    are the probabilities before temperature scaling.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    truth, scores = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float64)
    with picture(path, (6.4, 6.8)) as figure:
        diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        diagram.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
        raw = np.asarray(before, np.float64)
        centres, shares, _ = _bins(truth, raw)
        label = f"before calibration: {_calibration(truth, raw)}"
        diagram.plot(centres, shares, "D", color=GREY, markerfacecolor="none", label=label)
        centres, shares, bars = _bins(truth, scores)
        label = f"calibrated: {_calibration(truth, scores)}"
        diagram.errorbar(centres, shares, bars, color=BLUE, marker="o", linewidth=1.5, elinewidth=1, label=label)
        diagram.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        diagram.set(ylabel="observed share of PNEUMONIA", title=fit(title, 5.4))
        edges = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
        images = np.bincount(calibration_bin(scores), minlength=CALIBRATION_BINS)
        drawn = counts.bar(edges, images, width=1 / CALIBRATION_BINS, align="edge", color=BLUE, edgecolor="white")
        counts.bar_label(drawn, [f"{count}" if count else "" for count in images], fontsize=8)
        counts.set(yscale="log", ylim=(0.7, 4 * images.max()), ylabel="images")
        counts.set(xlabel=f"probability of PNEUMONIA (bins of fewer than {_FEWEST} images have no point)")
        counts.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        counts.yaxis.set_minor_formatter(NullFormatter())
        # Below: bins of a good classifier stand in the upper left corner too.
        figure.legend(*diagram.get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1)


def _bins(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean score, share of positives and length of its bars [2, B], of the B bins that hold enough images."""
    bins = calibration_bin(scores)
    used, images = np.unique(bins, return_counts=True)
    used = used[images >= _FEWEST]
    shares = np.array([truth[bins == index].mean() for index in used])
    bounds = [metrics.wilson_interval(int(truth[bins == index].sum()), int((bins == index).sum())) for index in used]
    centres = np.array([scores[bins == index].mean() for index in used])
    return centres, shares, np.abs(np.array(bounds).reshape(-1, 2).T - shares)


def _calibration(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> str:
    return f"ECE {calibration_error(scores, truth):.3f}, Brier {np.mean((scores - truth) ** 2):.3f}"


def shortcut_auc(
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
    """One line for each score with its colour and mark; the first row is on top."""
    for place, (score, colour, mark) in enumerate(rows.values()):
        plots.draw_score(axes, place, score, colour, mark)
    axes.set_yticks(range(len(rows)), [fit(name, 2.0) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


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
