"""Many radiographs for a prediction: read ahead of the model, a bad file is an answer and not the end."""

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr import pixels
from cxr.checkpoints import write_atomically
from cxr.decoded import cores
from cxr.text import one_line, printable

_FORMULA = ("=", "+", "-", "@", "\t", "\n")  # what spreadsheets begin a formula with (OWASP, CSV injection)
_LONGEST_STEM = 200  # bytes; leaves 55 for a number, an ending and the mark of a file being written


@dataclass(frozen=True)
class Read:
    """One file that was asked for: its picture, or why there is none.

    Attributes:
        image: uint8 [S, S], squashed to a square, bone white; None when ``error`` says why not.
        height, width: of the original in pixels; 0 without an image.
    """

    path: Path
    image: NDArray[np.uint8] | None
    height: int
    width: int
    error: str


def read_ahead(paths: Sequence[Path], size: int, batch_size: int) -> Iterator[list[Read]]:
    """Batches of ``paths`` in order, the next ones being read by all cores while the caller works on one.

    Memory holds three batches of squares and one full image for each core, however many the paths are.
    """
    pool = ThreadPoolExecutor(cores())
    waiting: deque[list[Future[Read]]] = deque()
    try:
        for first in range(0, len(paths), batch_size):
            waiting.append([pool.submit(_read, path, size) for path in paths[first : first + batch_size]])
            if len(waiting) == 3:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)  # whoever leaves early does not want to wait for what was read ahead


def _read(path: Path, size: int) -> Read:
    try:
        image, (height, width) = pixels.read_square(path, size)
    except (pixels.UnreadableImage, OSError) as error:
        return Read(path, None, 0, 0, one_line(error))
    return Read(path, image, height, width, "")


def read_again(read: Read) -> tuple[NDArray[np.uint8] | None, str]:
    """The whole picture, uint8 [H, W], of a file whose square was read before; None and why, if that is gone.

    Keeping every whole picture until its answer is known would take memory by the batch.
    """
    try:
        image = pixels.read_grey(read.path)
    except (pixels.UnreadableImage, OSError) as error:
        return None, one_line(error)
    if image.shape != (read.height, read.width):
        return None, f"{printable(str(read.path))}: changed while its answer was worked out"
    return image, ""


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV in UTF-8 with one header line, there whole or not at all; no text in it is a formula to a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r\n", "\n").replace("\r", "\n")  # a bare \r is not quoted and would end the row
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text  # which spreadsheets take for the mark of a text
    return text


def shown_path(path: Path) -> str:
    """``path`` as text for a CSV or a message: one line, and not what a spreadsheet would take for a formula."""
    text = printable(str(path))
    return f"./{text}" if text.startswith(_FORMULA) else text


def free_name(folder: Path, stem: str, ending: str, taken: set[str]) -> Path:
    """``folder/stem + ending``, numbered when an image of the same name has been met in this run.

    What is not printable becomes ``_``, and very long names are cut: file systems take 255 bytes.
    """
    whole = "".join(character if character.isprintable() else "_" for character in stem)
    stem = whole.encode()[:_LONGEST_STEM].decode(errors="ignore")
    name, number = stem + ending, 2
    while name.casefold() in taken:
        name, number = f"{stem}-{number}{ending}", number + 1
    taken.add(name.casefold())
    return folder / name
