"""Scores against the number of training exams, to see what more of them would bring."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cxr.pictures import LINES, WIDTH, picture


def growth_curve(scores: Mapping[str, Mapping[int, Sequence[float]]], path: Path, *, title: str = "") -> None:
    """Draw each training as a dot, and a line through the means; the number of exams is on a logarithmic scale.

    Args:
        scores: name of a score -> number of training exams -> its value in 0..1 in each training.
        title: a line.

    Raises:
        ValueError: nothing to draw.
    """
    if not scores or not all(scores.values()):
        raise ValueError("no score to draw against the number of training exams")
    with picture(path, (WIDTH * 0.7, 4)) as figure:
        axes = figure.subplots()
        numbers = sorted({number for by_number in scores.values() for number in by_number})
        for (name, by_number), (colour, style), mark in zip(scores.items(), LINES, "osD^vP", strict=False):
            at = sorted(by_number)
            means = [float(np.mean(by_number[number])) for number in at]
            axes.plot(at, means, color=colour, linestyle=style, marker=mark, label=name)
            for number in at:
                values = by_number[number]
                axes.plot([number] * len(values), values, mark, color=colour, alpha=0.35, markersize=4, linestyle="")
            axes.annotate(
                f"{means[-1]:.2f}", (at[-1], means[-1]), xytext=(8, -4), textcoords="offset points", color=colour
            )
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axes.set_xticks([], minor=True)
        axes.set_xlim(numbers[0] / 1.1, numbers[-1] * 1.2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training exams, with as many steps each")
        axes.set_ylabel("score on exams of other patients")
        axes.set_title(title)
        axes.legend()
