"""How every plot of this project looks, and the plots that both tasks draw."""

import io
import logging
import textwrap
import unicodedata
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.files import write_atomically
from cxr.metrics import interval_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home that may not be written to is no news

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
# Taken where installed, for the characters that matplotlib's own DejaVu Sans lacks.
_EAST_ASIAN_FONTS = ("Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "NanumGothic", "Noto Sans CJK KR")
_MISSING = "\N{WHITE SQUARE}"


@contextmanager
def picture(
    path: Path, size: tuple[float, float], layout: Any = "constrained", finer: float = 1.0
) -> "Generator[Figure, None, None]":
    """An empty figure of ``size`` inches (width, height), saved to ``path`` if the block ends without an error.

    It has ``DPI`` times ``finer`` pixels an inch. The user's own matplotlib settings are set aside meanwhile, so
    that the same data gives the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": list(_families()),
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
        )
        figure = Figure(figsize=size, dpi=DPI * finer, layout=layout)
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, lambda file: file.write(content.getvalue()))


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


def drawable(text: str) -> str:
    """The text with a white square for what no font here can draw; line breaks stay.

    macOS lists Korean file names as separate letters (NFD), which fonts draw apart: compose them first.
    """
    drawn: list[str] = []
    for sign in unicodedata.normalize("NFC", text):
        if sign == "\n" or (sign.isprintable() and (sign.isascii() or ord(sign) in _characters())):
            drawn.append(sign)
        else:
            drawn.append(" " if sign.isspace() else _MISSING)
    return "".join(drawn)


def fit(text: str, inches: float) -> str:
    """Drawable text; a line longer than ``inches`` of a title loses its middle."""
    return "\n".join(_shortened(line, int(inches * _LETTERS_PER_INCH)) for line in drawable(text).split("\n"))


def wrapped(text: str, inches: float) -> str:
    """As ``fit``, but a line that is too long is first broken between words, into parts about alike."""
    widest = int(inches * _LETTERS_PER_INCH)
    parts: list[str] = []
    for line in text.split("\n"):
        wrapped = partial(textwrap.wrap, line, break_long_words=False, break_on_hyphens=False)
        fewest = len(wrapped(widest))
        parts += next(found for width in range(1, widest + 1) if len(found := wrapped(width)) <= fewest)
    return fit("\n".join(parts), inches)


def small(text: str, inches: float) -> str:
    """As ``wrapped``, for text of ``CAPTION_SIZE``."""
    return wrapped(text, inches * _TITLE_SIZE / CAPTION_SIZE)


def _shortened(line: str, width: int) -> str:
    widths = [2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in line]
    if sum(widths) <= width:
        return line
    head = int(np.searchsorted(np.cumsum(widths), width // 2, side="right"))
    tail = int(np.searchsorted(np.cumsum(widths[::-1]), (width - 1) // 2, side="right"))
    return f"{line[:head]}\N{HORIZONTAL ELLIPSIS}{line[len(line) - tail :]}"


def gallery(figure: "Figure", rows: int, columns: int, count: int) -> list["Axes"]:
    """Panels for ``count`` images, without ticks or frame."""
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set(xticks=[], yticks=[], anchor="N")  # titles of a row stand level over images of unequal height
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    for axes in panels[count:]:
        axes.remove()
    return panels[:count]


def tallness(image: NDArray[np.uint8]) -> float:
    """Height divided by width, within bounds: a strip of pixels must not become a picture of metres."""
    return min(2.5, max(0.3, image.shape[0] / max(image.shape[1], 1)))


def thumbnail(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The image [H, W] reduced to at most ``longest`` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def unit_square(axes: "Axes") -> None:
    """Show 0..1 along both axes, at one scale."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def say(axes: "Axes", text: str) -> None:
    """Write in the middle of a panel why it holds no curve."""
    axes.grid(visible=False)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)


if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        parts: name of a part of the loss -> name in the legend. A second row of panels shows ``train_`` and ``val_``
            plus that name, one panel each.
    """
    best_epoch = max((record["epoch"] for record in records if record.get("improved")), default=None)
    panels: list[tuple[str, str, Mapping[str, str]]] = [
        ("Loss", "loss", {"train_loss": "training", "val_loss": "validation", **(losses or {})}),
        ("Validation scores", "score", scores),
    ]
    if parts:
        for prefix, name in (("train_", "training"), ("val_", "validation")):
            series = {prefix + key: text for key, text in parts.items()}
            panels.append((f"Parts that add up to the {name} loss", "loss", series))
    with picture(path, (WIDTH, 2.2 * len(panels))) as figure:
        for axes, (title, unit, series) in zip(figure.subplots(len(panels) // 2, 2).flat, panels, strict=True):
            _by_epoch(axes, records, series, best_epoch)
            axes.set(title=title, xlabel="epoch", ylabel=unit)


def _by_epoch(
    axes: "Axes", records: Sequence[Mapping[str, Any]], series: Mapping[str, str], best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in records]
    for index, (key, label) in enumerate(series.items()):
        colour, style = LINES[index % len(LINES)]
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
        say(axes, "not recorded")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def require_tensorboard() -> None:
    """Raise ValueError with the command that installs it where TensorBoard is missing."""
    if find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")


def write_scalars(records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Every number of the ``records``, lines of metrics.jsonl, by epoch, as an event file in ``folder``.

    The file is written anew each time: a run that was resumed has no epochs in it that the log does not know.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    earlier = [*folder.glob("events.out.tfevents.*")]
    # The purge tells a TensorBoard that is open to forget what it has read of the earlier file.
    with SummaryWriter(folder, purge_step=1) as writer:
        for record in records:
            for name, value in record.items():
                if name != "epoch" and type(value) in (int, float):
                    writer.add_scalar(name, value, record["epoch"])
    for path in earlier:
        path.unlink()


if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _MARGIN = 0.3, 1.25  # inches
_LABEL = 2.6  # inches for the names of the rows


def forest_plot(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], scores: Mapping[str, str], path: Path, *, title: str
) -> None:
    """One panel for each of ``scores``, one line for each of ``rows``: value, interval, and the first row dotted.

    Args:
        rows: name -> scores, each with ``value``, ``low`` and ``high`` as ``metrics.bootstrap`` gives them; the first
            is all images, by which the others are seen.
        scores: key in a row -> name of the panel.
        title: which images, how many.
    """
    first = next(iter(rows.values()))
    with picture(path, (WIDTH, _MARGIN + _ROW * len(rows))) as figure:
        figure.suptitle(fit(title, WIDTH))
        figure.supxlabel("95% interval by patient", fontsize=11)
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, (key, name) in zip(panels, scores.items(), strict=True):
            if first[key]["value"] is not None:
                axes.axvline(first[key]["value"], color=GREY, linestyle=":", linewidth=1)
            for place, row in enumerate(rows.values()):
                draw_score(axes, place, row[key], *((BLUE, "o") if place else (VERMILLION, "D")))
            axes.set_title(fit(name, WIDTH / len(scores) - 0.8))
        panels[0].set_yticks(range(len(rows)), [fit(name, _LABEL) for name in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)


def draw_score(axes: "Axes", place: int, score: Mapping[str, Any], colour: str, mark: str) -> None:
    """A score as a mark, its interval as a bar and its value as text, on the line ``place``."""
    text = interval_text({"value": score["value"], "low": None})
    axes.text(1.02, place, text, va="center", fontsize=9, transform=axes.get_yaxis_transform())
    if score["value"] is not None:
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=1.5)
        axes.plot(score["value"], place, color=colour, marker=mark, markersize=6)


SHEET_COLUMNS = 6  # images beside each other
_ACROSS, _TALL = WIDTH / SHEET_COLUMNS, 1.85  # inches of an image with its caption and the space around
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
        return _HEADING + (-(-len(self.images) // SHEET_COLUMNS) * _TALL if self.images else _WORD)


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
                row, column = divmod(number, SHEET_COLUMNS)
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
