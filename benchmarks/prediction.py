"""What the benchmarks of both predictions measure."""

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from benchmarks.alternating import alternate, rates, speedups, spread
from benchmarks.own_process import peak_mib
from cxr import reading
from cxr.reading import cores

IMPORTS = (sys.executable, "-c", "import torch, torchvision")


def whole_process(command: Sequence[str], rounds: int) -> str:
    """``command`` as a process, against one that only imports what it cannot do without."""

    def process(words: Sequence[str]) -> None:
        subprocess.run(words, check=True, capture_output=True)

    taken = alternate({"imports": lambda: process(IMPORTS), "one image": lambda: process(command)}, rounds)
    return spread("one image: time of the process / time of the imports", speedups(taken, "imports", "one image"))


def folder(
    paths: Sequence[Path],
    size: int,
    compute: Callable[[], object],
    predict: Callable[[], object],
    rounds: int,
) -> str:
    """The prediction on ``paths``, against only decoding them (all cores) and only computing as often."""

    def decode() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(lambda path: reading.read_square(path, size), paths):
                pass

    taken = alternate({"decoding": decode, "computing": compute, "predicting": predict}, rounds)
    slower = [max(pair) for pair in zip(taken["decoding"], taken["computing"], strict=True)]
    shares = speedups({**taken, "slower": slower}, "predicting", "slower")
    speeds = rates(taken, dict.fromkeys(taken, len(paths)))
    return f"images/s: {speeds}\n" + spread("folder: speed of the prediction / speed of its slower part", shares)


def repeated(paths: Sequence[Path], count: int, place: Path) -> Path:
    """``place`` with ``count`` links to ``paths`` in turn."""
    place.mkdir()
    for number in range(count):
        source = paths[number % len(paths)]
        (place / f"{number}{source.suffix}").symlink_to(source.resolve())
    return place


def peak_of(main: Callable[[], int], arguments: Iterable[str]) -> float:
    """The most memory of this process in MiB after the script's ``main``; for ``own_process.run_alone``."""
    sys.argv = ["predict", *arguments]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        main()
    return peak_mib()
