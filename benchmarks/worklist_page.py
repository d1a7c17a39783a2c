"""What the worklist costs over what it cannot do without, and whether its memory grows with the number of exams.

    python benchmarks/worklist_page.py --folder dataset_det/stage_2_train_images

1. The worklist of a folder, pictures, page and table included, against only decoding the files once (all cores) and
   then only computing on squares in memory (classifier with Grad-CAM and detector, same precision), alternating in
   one process, start-up left out. Decoding is to the size of the films on the page; the two parts are added: doing
   both at a time pays for all else.
2. The most memory of a process that lists ten times as many exams, against one that lists some.

Prints median ratios with their range. Files are generated unless --folder names real ones, and the models are untrained
unless --classifier and --detector name some; an untrained detector finds more boxes than a chest has.
"""

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

import worklist as script
from benchmarks import generated
from benchmarks.prediction import BATCH, measure_folder, measure_memory
from cxr import cli, reading, runtime
from pytorch_classification.classifier import Classifier
from pytorch_classification.model import build
from pytorch_detection.detector import Detector, Rule
from pytorch_detection.model import Architecture, construct
from reading_room import page
from reading_room.exams import Journal
from reading_room.thumbnails import FILM_SIDE
from reading_room.watch import state_of


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(3, help="measurements of each kind, alternating")
    files: int = cli.flag(300, help="files that are listed")
    folder: Path | None = cli.flag(None, help="list files of this folder; without it they are generated")
    classifier: Path | None = cli.flag(None, help="measure this classifier; without it an untrained one")
    detector: Path | None = cli.flag(None, help="measure this detector; without it an untrained one")
    classifier_size: int = cli.flag(112, help="side in pixels of the square that an untrained classifier sees")
    detector_size: int = cli.flag(256, help="side in pixels of the square that an untrained detector sees")
    memory_files: int = cli.flag(300, help="files of the smaller of the lists whose memory is compared; 0: none")


def film_of(path: Path) -> Image.Image:
    """A file decoded, and shrunk to what the page shows."""
    return reading.read(path).within(FILM_SIDE)


def measure_speed(paths: list[Path], config: script.WorklistConfig, run: runtime.Runtime, rounds: int) -> None:
    """Print how fast the worklist is against its two parts one after the other."""
    predictor, about = script.open_worklist(config, run)
    classifier, detector = predictor.classifier, predictor.detector
    assert detector is not None
    squares = [
        [reading.read(path).square(side) for path in paths[:BATCH]] for side in (classifier.store_size, detector.size)
    ]
    small, large = map(np.stack, squares)

    def compute(count: int) -> None:
        classifier.predict(small[:count], run, grad_cam=True)
        detector.predict(large[:count], run)[0]

    def listing() -> None:
        journal = Journal.open(config.output_dir, {"watched": False})
        for _ in replace(predictor, journal=journal).predict([(path, state_of(path)) for path in paths]):
            pass
        page.write(journal, about)

    title = "worklist: speed / speed of decoding once, then computing, fp32"
    measure_folder(paths, title, film_of, compute, listing, rounds)


def main(config: BenchConfig) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, runtime.start("cpu", "fp32", seed=0) as run:
        place = Path(name)
        paths = generated.files(config.folder, place, ".dcm", generated.write_dicoms, config.files)[: config.files]
        classifier, detector = config.classifier or place / "classifier.pth", config.detector or place / "detector.pth"
        if config.classifier is None:
            size = config.classifier_size
            Classifier(build("none"), size, size + size // 8, True, 1.0, 0.5).save(classifier)
        if config.detector is None:
            network = construct(Architecture("resnet18", config.detector_size, frozen=False, image_head=True))
            Detector((network,), True, Rule(0.0, 1.0, 0.5)).save(detector)
        measure_speed(paths, script.WorklistConfig((name,), classifier, detector, place / "listed"), run, config.rounds)
        if config.memory_files:
            flags = ["--classifier", str(classifier), "--detector", str(detector)]
            measure_memory(config.memory_files, script.main, flags, place)


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
