"""The style that all plots share, and the plots that both tasks draw."""

import logging
import textwrap
import unicodedata
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.files import write_atomically
from cxr.metrics import interval_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
WIDTH = 9.0  # inches; 1440 pixels, which a README shows at 800 with 11 pt as about 12 pixels
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#666666"
_TITLE_SIZE = 11.5  # points
CAPTION_SIZE, CAPTION_LINE = 7.5, 0.15  # points, and inches from line to line
_LETTERS_PER_INCH = 11  # of a title; file names of wide letters still fit
LINES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (ORANGE, (0, (5, 1))),
    (SKY, (0, (1, 1))),
)
_STYLE: dict[str, Any] = {
    "font.size": 11,
    "axes.titlesize": _TITLE_SIZE,
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
# Used where installed, for the characters that matplotlib's own DejaVu Sans lacks.
_EAST_ASIAN_FONTS = ("Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "NanumGothic", "Noto Sans CJK KR")
_MISSING = "\N{WHITE SQUARE}"


@contextmanager
def saved_figure(
    path: Path, size: tuple[float, float], layout: Any = "constrained", scale: float = 1.0
) -> "Generator[Figure, None, None]":
    """An empty figure of ``size`` inches (width, height), saved to ``path`` if the block ends without an error.

    It has ``DPI`` times ``scale`` pixels per inch. The user's own matplotlib settings are set aside meanwhile, so
    that the same data gives the same bytes.
    """
    # Matplotlib warns where its cache folder is not writable, which is no news for the user.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, {"font.family": list(_fonts()), **_STYLE}))
        figure = Figure(figsize=size, dpi=DPI * scale, layout=layout)
        yield figure
        write_atomically(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _EAST_ASIAN_FONTS if name in installed))


@cache
def _characters() -> frozenset[int]:
    """The code points that the fonts in use can draw."""
    from matplotlib import font_manager

    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in _fonts()]
    return frozenset(code for font in fonts for code in font.get_charmap())


def drawable(text: str) -> str:
    """The text with a white square for each character that no font in use can draw; line breaks stay.

    macOS lists Korean file names as separate letters (NFD), which fonts draw apart: compose them first.
    """
    drawn: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        printable = character.isprintable() and (character.isascii() or ord(character) in _characters())
        if printable or character == "\n":
            drawn.append(character)
        else:
            drawn.append(" " if character.isspace() else _MISSING)
    return "".join(drawn)


def shorten(text: str, inches: float) -> str:
    """Drawable text; a line longer than ``inches`` of a title loses its middle."""
    return "\n".join(_shortened(line, int(inches * _LETTERS_PER_INCH)) for line in drawable(text).split("\n"))


def wrap(text: str, inches: float) -> str:
    """As ``shorten``, but a line that is too long is first broken between words, into lines of similar length."""
    widest = int(inches * _LETTERS_PER_INCH)
    lines: list[str] = []
    for line in text.split("\n"):
        broken = partial(textwrap.wrap, line, break_long_words=False, break_on_hyphens=False)
        fewest = len(broken(widest))
        lines += next(found for width in range(1, widest + 1) if len(found := broken(width)) <= fewest)
    return shorten("\n".join(lines), inches)


def wrap_caption(text: str, inches: float) -> str:
    """As ``wrap``, for text of ``CAPTION_SIZE``."""
    return wrap(text, inches * _TITLE_SIZE / CAPTION_SIZE)


def _shortened(line: str, width: int) -> str:
    widths = [2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line]
    if sum(widths) <= width:
        return line
    head = int(np.searchsorted(np.cumsum(widths), width // 2, side="right"))
    tail = int(np.searchsorted(np.cumsum(widths[::-1]), (width - 1) // 2, side="right"))
    return f"{line[:head]}\N{HORIZONTAL ELLIPSIS}{line[len(line) - tail :]}"


def image_panels(figure: "Figure", rows: int, columns: int, count: int) -> list["Axes"]:
    """Panels for ``count`` images, without ticks or frame."""
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set(xticks=[], yticks=[], anchor="N")  # titles of a row are level over images of unequal height
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    for axes in panels[count:]:
        axes.remove()
    return panels[:count]


def aspect(image: NDArray[np.uint8]) -> float:
    """Height divided by width, within bounds: a strip of pixels must not become a picture of metres."""
    return min(2.5, max(0.3, image.shape[0] / max(image.shape[1], 1)))


def thumbnail(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The image [H, W] reduced to at most ``longest`` pixels a side."""
    picture = Image.fromarray(image)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def unit_square(axes: "Axes") -> None:
    """Show 0..1 along both axes, at one scale."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def placeholder(axes: "Axes", text: str) -> None:
    """Write in the middle of an empty panel why it has no curve."""
    axes.grid(visible=False)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)


def loss_curves(
    records: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    scores: Mapping[str, str],
    losses: Mapping[str, str] | None = None,
    parts: Mapping[str, str] | None = None,
) -> None:
    """Loss and validation scores by epoch, with the best epoch so far where one is chosen.

    Args:
        records: lines of metrics.jsonl with ``epoch`` (the first is 1), ``improved`` (the best so far), ``train_loss``,
            ``val_loss`` and what is named below. A missing, None or non-finite value leaves a gap.
        scores: key of a record -> name in the legend, for the panel of scores.
        losses: key of a record -> name in the legend, beside the two losses.
        parts: name of a loss term -> name in the legend. A second row of panels shows ``train_`` and ``val_`` plus that
            name, one panel each.
    """
    best_epoch = max((record["epoch"] for record in records if record.get("improved")), default=None)
    panels: list[tuple[str, str, Mapping[str, str]]] = [
        ("Loss", "loss", {"train_loss": "training", "val_loss": "validation", **(losses or {})}),
        ("Validation scores", "score", scores),
    ]
    if parts:
        for prefix, name in (("train_", "Training"), ("val_", "Validation")):
            panels.append((f"{name} loss terms", "loss", {prefix + key: text for key, text in parts.items()}))
    with saved_figure(path, (WIDTH, 2.2 * len(panels))) as figure:
        for axes, (title, unit, series) in zip(figure.subplots(len(panels) // 2, 2).flat, panels, strict=True):
            _by_epoch(axes, records, series, best_epoch)
            axes.set(title=title, xlabel="epoch", ylabel=unit)


def _by_epoch(
    axes: "Axes", records: Sequence[Mapping[str, Any]], series: Mapping[str, str], best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in records]
    for (key, label), (colour, style) in zip(series.items(), LINES, strict=False):
        found = [record.get(key) for record in records]
        values = np.array([np.nan if value is None else value for value in found], np.float64)
        values[~np.isfinite(values)] = np.nan
        if np.isfinite(values).any():
            axes.plot(epochs, values, linestyle=style, color=colour, marker="o", markersize=3, label=drawable(label))
    if axes.lines:
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best epoch: {best_epoch}")
        # Below the panel: curves of scores fill it, and a legend inside would hide one.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    else:
        placeholder(axes, "not recorded")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


_ROW, _MARGIN = 0.3, 1.25  # inches
_LABEL = 2.9  # inches for the names of the rows


def forest_plot(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], scores: Mapping[str, str], path: Path, *, title: str
) -> None:
    """One panel for each of ``scores``, one line for each of ``rows``: value, interval, and the first row dotted.

    Args:
        rows: name -> scores, each with ``value``, ``low`` and ``high`` as ``metrics.bootstrap`` gives them; the first
            is all images, with which the others are compared.
        scores: key in a row -> name of the panel.
        title: which images, how many.
    """
    first = next(iter(rows.values()))
    with saved_figure(path, (WIDTH, _MARGIN + _ROW * len(rows))) as figure:
        figure.suptitle(shorten(title, WIDTH))
        figure.supxlabel("95% interval by patient", fontsize=11)
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, (key, name) in zip(panels, scores.items(), strict=True):
            if first[key]["value"] is not None:
                axes.axvline(first[key]["value"], color=GREY, linestyle=":", linewidth=1)
            for line, row in enumerate(rows.values()):
                draw_score(axes, line, row[key], *((BLUE, "o") if line else (VERMILLION, "D")))
            axes.set_title(shorten(name, WIDTH / len(scores) - 0.8))
        panels[0].set_yticks(range(len(rows)), [shorten(name, _LABEL) for name in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)


def draw_score(axes: "Axes", line: int, score: Mapping[str, Any], colour: str, marker: str) -> None:
    """A score as a marker, its interval as a bar and its value as text, on ``line``, counted from the top."""
    text = interval_text({"value": score["value"], "low": None})
    axes.text(1.04, line, text, va="center", fontsize=9, transform=axes.get_yaxis_transform())
    if score["value"] is not None:
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [line, line], color=colour, linewidth=1.5)
        axes.plot(score["value"], line, color=colour, marker=marker, markersize=6)


SHEET_COLUMNS = 6  # images beside each other
_ACROSS, _TALL = WIDTH / SHEET_COLUMNS, 1.85  # inches of an image with its caption and the space around
_HEADING, _CAPTION, _EMPTY, _SPACE = 0.36, 0.3, 0.4, 0.06  # inches of height; the third is of a block without image
_CAPTION_WIDTH = 1.9  # as wide as titles of so many inches, in small letters


@dataclass(frozen=True)
class Block:
    """Images under one heading, each uint8 [H, W] or [H, W, 3] with a caption of a line or two; there may be none."""

    heading: str
    images: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]

    @property
    def inches(self) -> float:
        """Its height on the sheet."""
        return _HEADING + (-(-len(self.images) // SHEET_COLUMNS) * _TALL if self.images else _EMPTY)


def image_sheet(blocks: Sequence[Block], path: Path, *, note: str) -> None:
    """Images in blocks, one under the other, to the PNG file ``path``; ``note`` is below the last.

    Laid out by hand, pixel for pixel: with axes of its own for each image a sheet takes three times as long.
    """
    tall = sum(block.inches for block in blocks) + _HEADING
    with saved_figure(path, (WIDTH, tall), layout="none") as figure:
        top = tall
        for block in blocks:
            heading = shorten(block.heading, WIDTH - 0.4)
            figure.text(_SPACE / WIDTH, (top - _SPACE) / tall, heading, va="top", fontsize=12, fontweight="bold")
            if not block.images:
                figure.text(0.5, (top - _HEADING) / tall, "no such image", ha="center", va="top", color=GREY)
            for number, (image, caption) in enumerate(zip(block.images, block.captions, strict=True)):
                row, column = divmod(number, SHEET_COLUMNS)
                left, above = column * _ACROSS + _SPACE, top - _HEADING - row * _TALL
                text = shorten(caption, _CAPTION_WIDTH)
                figure.text(left / WIDTH, above / tall, text, va="top", fontsize=8, linespacing=1.1)
                shown = Image.fromarray(image)
                scale = min(
                    (_ACROSS - 2 * _SPACE) * DPI / shown.width, (_TALL - _CAPTION - 2 * _SPACE) * DPI / shown.height
                )
                shown = shown.resize((max(1, int(shown.width * scale)), max(1, int(shown.height * scale))))
                below = round((above - _CAPTION) * DPI) - shown.height
                figure.figimage(np.asarray(shown), round(left * DPI), below, cmap="gray", vmin=0, vmax=255)
            top -= block.inches
        figure.text(_SPACE / WIDTH, 2 * _SPACE / tall, shorten(note, WIDTH - 0.4), fontsize=10)
