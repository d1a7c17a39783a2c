"""Read many files ahead of the model, on all cores."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cxr.messages import one_line, printable
from cxr.reading import radiograph

File = TypeVar("File")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Read:
    """One file that was asked for: its picture, or why there is none.

    Attributes:
        image: uint8 [S, S], squashed to a square, bone white; None when ``error`` says why not.
        height, width: of the original in pixels; 0 without an image.
        note: what the header says against a frontal chest radiograph, empty if nothing.
    """

    path: Path
    image: NDArray[np.uint8] | None
    height: int
    width: int
    error: str
    note: str = ""


def read_ahead(paths: Sequence[Path], size: int, batch_size: int) -> Iterator[list[Read]]:
    """Batches of ``paths``, as ``in_batches`` gives them."""
    return in_batches(lambda path: _read(path, size), paths, batch_size)


def in_batches(read: Callable[[File], Found], files: Sequence[File], batch_size: int) -> Iterator[list[Found]]:
    """The results of ``read``, in batches and in order; all cores read the next ones while the caller works on one.

    Memory holds three batches of results, however many the files are, and the work of ``read`` on each core.
    """
    pool = ThreadPoolExecutor(cores())
    waiting: deque[list[Future[Found]]] = deque()
    try:
        for first in range(0, len(files), batch_size):
            waiting.append([pool.submit(read, file) for file in files[first : first + batch_size]])
            if len(waiting) == 3:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)  # an early end does not wait for the files in the queue


def _read(path: Path, size: int) -> Read:
    try:
        found = radiograph.read(path)
        image, (height, width) = found.square(size), found.size
    except (radiograph.UnreadableImage, OSError) as error:
        return Read(path, None, 0, 0, one_line(error))
    return Read(path, image, height, width, "", found.header.note)


def read_again(read: Read) -> tuple[NDArray[np.uint8] | None, str]:
    """The whole picture, uint8 [H, W], of a file whose square was read before; None and the reason if it has gone.

    Keeping every whole picture until its answer is known would take memory by the batch.
    """
    try:
        image = radiograph.read(read.path).whole()
    except (radiograph.UnreadableImage, OSError) as error:
        return None, one_line(error)
    if image.shape != (read.height, read.width):
        return None, f"{printable(str(read.path))}: changed while its answer was worked out"
    return image, ""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
