"""What prediction costs over what it cannot do without, and whether its memory grows with the number of files.

    python benchmarks/prediction.py --task detection --folder dataset_det/stage_2_train_images

1. One image as a whole process against `python -c "import torch, torchvision"`, alternating.
2. A folder against only decoding it (all cores) and then only computing on squares in memory (same network and
   precision), alternating in one process, start-up left out.
3. The most memory of a process that predicts ten times as many files, against one that predicts some.

Prints median ratios with their range. Without --folder, files in the form of the real ones are generated: JPEG to
classify, DICOM to detect in. Without --model the network is untrained; one that finds boxes finds more of them then.
"""

import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import generated
from benchmarks.alternating import alternate, rates, speedups, spread
from cxr import cli, reading, runtime
from cxr.prediction import load, predict_in_batches
from pytorch_classification import predict_classification
from pytorch_classification.classifier import Classifier
from pytorch_classification.model import build
from pytorch_detection import predict_detection
from pytorch_detection.detector import Detector, Rule
from pytorch_detection.model import Architecture, construct

IMPORTS = (sys.executable, "-c", "import torch, torchvision")
BATCH = 16  # squares that only computing takes at once


@dataclass(frozen=True)
class BenchConfig:
    """What is measured, and how often."""

    task: Literal["classification", "detection"] = cli.flag("classification", help="whose prediction")
    rounds: int = cli.flag(5, help="measurements of each kind, alternating")
    files: int = cli.flag(64, help="files that are read")
    folder: Path | None = cli.flag(None, help="measure files of this folder; without it they are generated")
    model: Path | None = cli.flag(None, help="measure this model; without it an untrained one")
    size: int = cli.flag(112, help="side in pixels of the square that an untrained network sees")
    memory_files: int = cli.flag(500, help="files of the smaller of the predictions whose memory is compared; 0: none")


class Prediction(NamedTuple):
    """One of the two: its script, the size of its squares, and what it computes on them and does with files."""

    script: Any
    quick: str  # the flag that leaves out the pictures
    store_size: int
    compute: Callable[[NDArray[np.uint8]], object]
    predict: Callable[[list[Path]], object]


def classification(config: BenchConfig, model: Path, run: runtime.Runtime) -> Prediction:
    """The classifier in ``model``, which is written first if it is untrained."""
    if config.model is None:
        network = build("none").to(memory_format=torch.channels_last).eval()
        Classifier(network, config.size, config.size + config.size // 8, True, 1.0, 0.5).save(model)
    script, found = predict_classification, Classifier.load(model, run)
    size = found.store_size
    return Prediction(
        script,
        "--no-grad-cam",
        found.store_size,
        lambda squares: found.probabilities(squares, run),
        lambda paths: [
            *predict_in_batches(
                paths,
                lambda path: load(path, [size]),
                lambda some: script.predict(found, some, run, grad_cam=False),
                32,
            )
        ],
    )


def detection(config: BenchConfig, model: Path, run: runtime.Runtime) -> Prediction:
    """The detector in ``model``, which is written first if it is untrained."""
    if config.model is None:
        network = construct(Architecture("resnet18", config.size, frozen=False, image_head=True))
        Detector((network,), True, Rule(0.0, 1.0, 0.5)).save(model)
    script, found = predict_detection, Detector.load(model, run)
    return Prediction(
        script,
        "--no-pictures",
        found.size,
        lambda squares: found.predict(squares, run),
        lambda paths: [
            *predict_in_batches(
                paths, lambda path: load(path, [found.size]), lambda some: script.predict(found, some, run), BATCH
            )
        ],
    )


def measure_process(command: Sequence[str], rounds: int) -> None:
    """Print what one image costs, against a process that only imports what it cannot do without."""

    def process(words: Sequence[str]) -> None:
        subprocess.run(words, check=True, capture_output=True)

    taken = alternate({"imports": lambda: process(IMPORTS), "one image": lambda: process(command)}, rounds)
    print(spread("one image: time of the process / time of the imports, fp32", speedups(taken, "imports", "one image")))


def measure_folder(
    paths: list[Path],
    what: str,
    decode: Callable[[Path], object],
    compute: Callable[[int], object],
    whole: Callable[[], object],
    rounds: int,
) -> None:
    """Print how fast ``whole`` is on ``paths``, against decoding them on all cores and then computing as often.

    Args:
        what: the title of what is found.
        decode: for one file.
        compute: for so many squares, at most ``BATCH``.
        whole: for all files.
    """

    def decoding() -> None:
        with ThreadPoolExecutor(reading.cores()) as pool:
            for _ in pool.map(decode, paths):
                pass

    def computing() -> None:
        for first in range(0, len(paths), BATCH):
            compute(min(BATCH, len(paths) - first))

    taken = alternate({"decoding": decoding, "computing": computing, "whole": whole}, rounds)
    parts = [sum(pair) for pair in zip(taken["decoding"], taken["computing"], strict=True)]
    print(f"images/s: {rates(taken, dict.fromkeys(taken, len(paths)))}")
    print(spread(what, speedups({**taken, "parts": parts}, "whole", "parts")))


def measure_memory(few: int, main: Callable[[], int], flags: Sequence[str], place: Path) -> None:
    """Print the most memory of the script's ``main`` on so many files and on ten times as many."""
    pictures = [place / f"{number}.jpeg" for number in range(40)]
    generated.write_jpegs(pictures)
    peaks: list[float] = []
    for count in (few, 10 * few):
        folder, out = place / str(count), place / f"{count} answered"
        folder.mkdir()
        for number in range(count):  # no two alike: what follows the end of a JPEG picture is none of it
            (folder / f"{number}.jpeg").write_bytes(pictures[number % 40].read_bytes() + str(number).encode())
        words = ["--image", str(folder), *flags, "--output-dir", str(out), "--device", "cpu"]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(peak_mib, main, words).result())
        print(f"most memory: {count} files {peaks[-1]:.0f} MiB", flush=True)
    print(spread("memory of ten times as many files / memory", [peaks[1] / peaks[0]]))


def peak_mib(main: Callable[[], int], arguments: Sequence[str]) -> float:
    """The most memory that this process, one of Linux, has had after the script's ``main``."""
    sys.argv = ["predict", *arguments]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        main()
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**10


def main(config: BenchConfig) -> None:
    """Measure and print."""
    kinds = {
        "classification": (classification, ".jpeg", generated.write_jpegs),
        "detection": (detection, ".dcm", generated.write_dicoms),
    }
    prepared, suffix, write = kinds[config.task]
    with tempfile.TemporaryDirectory() as name, runtime.start("cpu", "fp32", seed=0) as run:
        place = Path(name)
        model = config.model or place / "model.pth"
        paths = generated.files(config.folder, place, suffix, write, config.files)[: config.files]
        one = prepared(config, model, run)
        words = [sys.executable, str(Path(one.script.__file__)), "--image", str(paths[0]), "--model", str(model)]
        measure_process([*words, one.quick], config.rounds)
        square = np.stack([reading.read(path).square(one.store_size) for path in paths[:BATCH]])
        measure_folder(
            paths,
            "folder: speed of the prediction / speed of decoding, then computing, fp32",
            lambda path: reading.read(path).square(one.store_size),
            lambda count: one.compute(square[:count]),
            lambda: one.predict(paths),
            config.rounds,
        )
        if config.memory_files:
            measure_memory(config.memory_files, one.script.main, ["--model", str(model), one.quick], place)


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
