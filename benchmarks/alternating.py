"""Time several actions in turn, round by round: whatever else the machine does meanwhile falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

Seconds = Mapping[str, Sequence[float]]


def alternate(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall time of each action in each of ``rounds``, after a round that is not counted and warms up."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for number in tqdm(range(rounds + 1), "rounds", leave=False):
        for name, action in actions.items():
            begun = time.perf_counter()
            action()
            ended = time.perf_counter()
            if number:
                taken[name].append(ended - begun)
    return taken


def speedups(taken: Seconds, fast: str, slow: str) -> list[float]:
    """How many times as fast as ``slow`` the action ``fast`` was, in each round."""
    return [long / short for short, long in zip(taken[fast], taken[slow], strict=True)]


def rates(taken: Seconds, counts: Mapping[str, int]) -> str:
    """Median images per second of each action, of which one call takes ``counts`` images."""
    return ", ".join(f"{name} {counts[name] / statistics.median(seconds):.3g}" for name, seconds in taken.items())


def spread(title: str, values: Sequence[float]) -> str:
    """The line that says what was found; run_all.py reads it again."""
    return f"{title}: median {statistics.median(values):.3f}, range {min(values):.3f} to {max(values):.3f}"
