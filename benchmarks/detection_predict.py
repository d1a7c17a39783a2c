"""What detection costs over what it cannot do without.

    python benchmarks/detection_predict.py --folder dataset_det/stage_2_train_images

1. One image as a whole process against `python -c "import torch, torchvision"`, alternating.
2. A folder of DICOM files of 1,024 pixels in JPEG Baseline, against the slower of only decoding them (all cores) and
   only finding boxes in squares in memory (same network and precision), alternating in one process, start-up left out.

Prints median ratios with their range. Files are generated unless --folder names real ones, and the model is untrained
unless --model names one; an untrained model finds more boxes than a chest has, and so takes longer.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import generated, prediction
from cxr import cli, reading, runtime
from pytorch_detection import predict_detection as script
from pytorch_detection.detector import Detector, Rule
from pytorch_detection.model import Architecture, construct


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(5, help="measurements of each kind, alternating")
    files: int = cli.flag(64, help="files that are read")
    folder: Path | None = cli.flag(None, help="measure files of this folder; without it they are generated")
    model: Path | None = cli.flag(None, help="measure this model; without it an untrained one")
    size: int = cli.flag(384, help="side in pixels of the square that an untrained network sees")


def main() -> None:
    """Measure and print."""
    config = cli.parse(BenchConfig)
    with tempfile.TemporaryDirectory() as name, runtime.start("cpu", "fp32", seed=0) as run:
        place = Path(name)
        paths = generated.files(config.folder, place, ".dcm", generated.write_dicoms, config.files)[: config.files]
        model = config.model or place / "model.pth"
        if config.model is None:
            network = construct(Architecture("resnet18", config.size, frozen=False, image_head=True))
            Detector(network, True, Rule(0.0, 1.0, 0.5)).save(model)
        detector = Detector.load(model, run)
        command = [sys.executable, str(Path(script.__file__)), "--image", str(paths[0]), "--model", str(model)]
        print(prediction.whole_process([*command, "--no-pictures"], config.rounds))

        squares = np.stack([reading.read_square(path, detector.size)[0] for path in paths[:16]])
        settings = script.PredictConfig(image=("",), pictures=False)

        def compute() -> None:
            for first in range(0, len(paths), len(squares)):
                detector.find(squares[: len(paths) - first], run)

        def predict() -> None:
            script.predict(detector, paths, settings, run)

        print(prediction.folder(paths, detector.size, compute, predict, config.rounds))


if __name__ == "__main__":
    sys.exit(cli.run(main))
