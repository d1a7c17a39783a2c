"""What prediction costs over what it cannot do without, and whether its memory grows with the number of files.

    python benchmarks/classification_predict.py

1. One image as a whole process against `python -c "import torch, torchvision"`, alternating.
2. A folder of JPEG files of the size that Kaggle's have, against the slower of only decoding them (all cores) and only
   computing on squares in memory (same network and precision), alternating in one process, start-up left out.
3. The most memory of a process that predicts ten times as many files, against one that predicts some.

Prints median ratios with their range. Files and an untrained model are generated; --folder measures real files.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks import generated, prediction
from benchmarks.alternating import spread
from benchmarks.own_process import run_alone
from cxr import cli, reading, runtime
from pytorch_classification import predict_classification as script
from pytorch_classification.model import Classifier, build


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(5, help="measurements of each kind, alternating")
    files: int = cli.flag(500, help="files in the generated folder")
    folder: Path | None = cli.flag(None, help="measure these files instead")
    size: int = cli.flag(112, help="side in pixels of the square the network sees")
    memory_files: int = cli.flag(1000, help="files of the smaller of the predictions whose memory is compared; 0: none")


def measure_memory(paths: list[Path], few: int, model: Path, place: Path) -> None:
    """Print the most memory of a prediction on ``few`` files and on ten times as many."""
    peaks: list[float] = []
    for count in (few, 10 * few):
        images = prediction.repeated(paths, count, place / str(count))
        arguments = ["--image", str(images), "--model", str(model), "--output-dir", str(place / "predictions")]
        peaks.append(run_alone(prediction.peak_of, script.main, [*arguments, "--device", "cpu"]))
    print(f"most memory: {few} files {peaks[0]:.0f} MiB, {10 * few} files {peaks[1]:.0f} MiB")
    print(spread("memory of ten times as many files / memory", [peaks[1] / peaks[0]]))


def main() -> None:
    """Measure and print."""
    config = cli.parse(BenchConfig)
    with tempfile.TemporaryDirectory() as name, runtime.start("cpu", "fp32", seed=0) as run:
        place = Path(name)
        paths = generated.files(config.folder, place, ".jpeg", generated.write_jpegs, config.files)
        network = build("none").to(memory_format=torch.channels_last).eval()
        classifier = Classifier(network, config.size, config.size + config.size // 8, True, 1.0, 0.5)
        model = place / "model.pth"
        classifier.save(model)
        command = [sys.executable, str(Path(script.__file__)), "--image", str(paths[0]), "--model", str(model)]
        print(prediction.whole_process([*command, "--no-grad-cam"], config.rounds))

        squares = np.stack([reading.read_square(path, classifier.store_size)[0] for path in paths[:32]])
        settings = script.PredictConfig(image=("",))

        def compute() -> None:
            for first in range(0, len(paths), len(squares)):
                classifier.probabilities(squares[: len(paths) - first], run)

        def predict() -> None:
            script.predict(classifier, paths, settings, False, run)

        print(prediction.folder(paths, classifier.store_size, compute, predict, config.rounds))
        if config.memory_files:
            measure_memory(paths, config.memory_files, model, place)


if __name__ == "__main__":
    sys.exit(cli.run(main))
