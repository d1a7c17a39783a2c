"""Text for terminals, tables and file names."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

_LONGEST_STEM = 200  # bytes of a file name of at most 255; the rest is for a number, an ending and ".partial"


def printable(text: str) -> str:
    """``text`` with control characters, and those that hide or reorder others, as escape sequences."""
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == "Zs"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def one_line(text: object) -> str:
    """``text`` on one line of a terminal: white space and line ends become a space, the rest is ``printable``."""
    return printable(" ".join(str(text).split()))


def shown_path(path: Path) -> str:
    """``path`` as text on one line, for a CSV or a message."""
    return printable(str(path))


def composed(text: str) -> str:
    """``text`` in Unicode's composed form (NFC), to compare names by; macOS decomposes the names of files."""
    return unicodedata.normalize("NFC", text)


def shortened(text: str, longest: int) -> str:
    """``text``, cut with three dots after ``longest`` characters."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def quoted(value: object) -> str:
    """A value from a file, for a message: one line of at most 300 characters."""
    return shortened(" ".join(repr(value).split()), 300)


def first_of(items: Sequence[object], shown: int = 5) -> str:
    """The first few ``items``, and the number of further ones."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more


def first_lines(lines: Sequence[str], shown: int = 20) -> list[str]:
    """The first of ``lines``, and one with the number of further ones."""
    more = [f"and {len(lines) - shown} more"] if len(lines) > shown else []
    return [*lines[:shown], *more]


def free_name(folder: Path, stem: str, ending: str, taken: set[str]) -> Path:
    """``folder/stem + ending``, numbered where this run has used that name; adds it to ``taken``.

    Characters that are not printable become ``_``, and very long names are cut.
    """
    whole = "".join(character if character.isprintable() else "_" for character in stem)
    stem = whole.encode()[:_LONGEST_STEM].decode(errors="ignore")
    name, number = stem + ending, 2
    while name.casefold() in taken:
        name, number = f"{stem}-{number}{ending}", number + 1
    taken.add(name.casefold())
    return folder / name


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, each column as wide as its longest text; letters of East Asia take two places of a terminal."""
    widths = [max(_places(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(text + " " * (width - _places(text)) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _places(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
