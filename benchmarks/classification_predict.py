"""What prediction costs over what it cannot do without.

    python benchmarks/classification_predict.py

1. One image as a whole process against `python -c "import torch, torchvision"`, alternating.
2. A folder of JPEG files of the size that Kaggle's have, against the slower of only decoding them (all cores) and only
   computing on squares in memory (same network and precision), alternating in one process, start-up left out.

Prints median ratios with their range. Files and an untrained model are generated; --folder measures real files.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from cxr import cli, pixels, runtime
from cxr.decoded import cores
from pytorch_classification import predict_classification as prediction
from pytorch_classification.model import Classifier, build

SCRIPT = Path(prediction.__file__)


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(5, help="measurements of each kind, alternating")
    files: int = cli.flag(500, help="files in the generated folder")
    folder: Path | None = cli.flag(None, help="measure these files instead")
    size: int = cli.flag(112, help="side in pixels of the square the network sees")


def write_files(folder: Path, count: int) -> None:
    """Smooth grey JPEGs of 1,000 to 2,000 pixels, 40 different ones under ``count`` names."""
    generator = np.random.default_rng(0)
    for index in range(min(count, 40)):
        width, height = generator.integers(1000, 2000), generator.integers(700, 1500)
        coarse = generator.integers(0, 256, (height // 16, width // 16), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{index}.jpeg")
    for index in range(40, count):
        (folder / f"{index}.jpeg").write_bytes((folder / f"{index % 40}.jpeg").read_bytes())


def seconds(action: Callable[[], object]) -> float:
    """Wall time of ``action``."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def whole_process(image: Path, model: Path, rounds: int) -> list[float]:
    """Time of a prediction over time of the imports, in each round."""
    imports = [sys.executable, "-c", "import torch, torchvision"]
    predict = [sys.executable, str(SCRIPT), "--image", str(image), "--model", str(model), "--no-grad-cam"]
    ratios: list[float] = []
    for _ in range(rounds):
        base = seconds(lambda: subprocess.run(imports, check=True))
        ratios.append(seconds(lambda: subprocess.run(predict, check=True, capture_output=True)) / base)
    return ratios


def folder_share(paths: list[Path], classifier: Classifier, rounds: int, run: runtime.Runtime) -> list[float]:
    """Time of the slower of decoding and computing over time of the prediction, in each round."""
    size = classifier.store_size
    squares = np.stack([pixels.read_square(path, size)[0] for path in paths[:32]])
    config = prediction.PredictConfig(image=("",))

    def decode() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(lambda path: pixels.read_square(path, size), paths):
                pass

    def compute() -> None:
        for _ in range(0, len(paths), len(squares)):
            classifier.probabilities(squares, run)

    shares: list[float] = []
    for round_number in range(rounds + 1):
        decoding, computing = seconds(decode), seconds(compute)
        predicting = seconds(lambda: prediction.predict(classifier, paths, config, False, run))
        if round_number:  # the first warms up
            shares.append(max(decoding, computing) / predicting)
            rates = [len(paths) / taken for taken in (decoding, computing, predicting)]
            print("images/s: decoding {:.0f}, computing {:.0f}, predicting {:.0f}".format(*rates))
    return shares


def main() -> None:
    """Measure and print."""
    config = cli.parse(BenchConfig)
    with tempfile.TemporaryDirectory() as name, runtime.start("cpu", "fp32", seed=0) as run:
        folder = config.folder or Path(name) / "files"
        if config.folder is None:
            folder.mkdir()
            write_files(folder, config.files)
        paths = pixels.find_images([str(folder)])
        model = build("none").to(memory_format=torch.channels_last).eval()
        classifier = Classifier(model, config.size, config.size + config.size // 8, True, 1.0, 0.5)
        classifier.save(Path(name) / "model.pth")
        ratios = whole_process(paths[0], Path(name) / "model.pth", config.rounds)
        shares = folder_share(paths, classifier, config.rounds, run)
    for title, values in (("one image / imports", ratios), ("share of the slower part", shares)):
        print(f"{title}: median {statistics.median(values):.2f}, range {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
