"""How every picture of this project looks and is written.

Nothing here keeps state or needs a display: each function draws on a ``Figure`` of its own (never pyplot) and writes
its file whole or not at all. Colours are Okabe and Ito's, which colour-blind readers tell apart, and what a colour says
is also said by a line style, a mark or a word. Text stays readable where a README shows a picture 800 pixels wide.
"""

import io
import logging
import textwrap
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxr.files import write_atomically

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
