"""The most memory that a piece of work needs, told by a process that does nothing else (Linux and macOS)."""

import multiprocessing
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def run_alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a new process, which shares no memory with this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_mib() -> float:
    """The most memory that this process has had, in MiB; pages mapped from files count while they are in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count the process that started this one too
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
