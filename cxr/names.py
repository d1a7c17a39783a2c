"""Names of files, as text for a table or a message, and of the pictures of a run."""

from pathlib import Path

from cxr.text import printable

_LONGEST_STEM = 200  # bytes; leaves 55 for a number, an ending and the mark of a file being written


def shown_path(path: Path) -> str:
    """``path`` as text on one line, for a CSV or a message."""
    return printable(str(path))


def free_name(folder: Path, stem: str, ending: str, taken: set[str]) -> Path:
    """``folder/stem + ending``, numbered where that name was given before in this run.

    What is not printable becomes ``_``, and very long names are cut: file systems take 255 bytes.
    """
    whole = "".join(character if character.isprintable() else "_" for character in stem)
    stem = whole.encode()[:_LONGEST_STEM].decode(errors="ignore")
    name, number = stem + ending, 2
    while name.casefold() in taken:
        name, number = f"{stem}-{number}{ending}", number + 1
    taken.add(name.casefold())
    return folder / name
