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
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[list[Future[Read]]] = deque()
        for first in range(0, len(paths), batch_size):
            waiting.append([pool.submit(_read, path, size) for path in paths[first : first + batch_size]])
            if len(waiting) == 3:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def _read(path: Path, size: int) -> Read:
    try:
        image, (height, width) = pixels.read_square(path, size)
    except (pixels.UnreadableImage, OSError) as error:
        return Read(path, None, 0, 0, " ".join(str(error).split()))
    return Read(path, image, height, width, "")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV in UTF-8 with one header line, there whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))


def shown_path(path: Path) -> str:
    """``path`` as text for a CSV or a message: one line, and not what a spreadsheet would take for a formula."""
    text = str(path).encode("utf-8", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")
    return f"./{text}" if text[0] in "=+-@\t" else text


def free_name(folder: Path, stem: str, ending: str, taken: set[str]) -> Path:
    """``folder/stem + ending``, numbered when an image of the same name has been met in this run."""
    name, number = stem + ending, 2
    while name.casefold() in taken:
        name, number = f"{stem}-{number}{ending}", number + 1
    taken.add(name.casefold())
    return folder / name
