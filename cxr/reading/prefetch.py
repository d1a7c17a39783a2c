"""Read many files ahead of the model, on all cores."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

File = TypeVar("File")
Found = TypeVar("Found")


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


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
