"""How much of the bare network's speed is left in an epoch of detection training, validation and all.

    python benchmarks/detection_epoch.py --data-dir dataset_det --weights pneumonia_resnet18.pth

Alternates, over several rounds in one process on the exams of --data-dir: one epoch of train_detection with its
validation (losses, boxes, AP, RSNA score, FROC), checkpoints and curves; and as many bare forward, backward and
optimizer steps of the same network on a batch already in memory. Prints the median ratio with its range.
"""

import itertools
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.alternating import alternate, speedups, spread
from benchmarks.detection_step import bare_step
from cxr import cli, runtime, training_run
from cxr.training_run import RunFolder
from pytorch_detection import finish_training
from pytorch_detection import train_detection as training
from pytorch_detection.training_data import augmented, batch_of, epoch_order, load_data


@dataclass(frozen=True)
class BenchConfig:
    """What is trained, and how often."""

    data_dir: Path = cli.flag(Path("dataset_det"), help="holds the DICOM folder and the tables")
    weights: str = cli.flag("none", help="as for train_detection")
    rounds: int = cli.flag(2, help="measurements of each kind, alternating, after one that is not counted")
    size: int = cli.flag(256, help="side in pixels of the square the network sees")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


def main(config: BenchConfig) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, runtime.start(config.device, "auto", seed=0) as run:
        place = Path(name)
        settings = training.TrainConfig(
            data_dir=config.data_dir,
            output_dir=place / "run",
            weights=config.weights,
            size=config.size,
            epochs=2 * config.rounds + 4,
        )
        data = load_data(settings, run)
        first_epoch = epoch_order(data, settings.seed, 0, settings.negatives_per_positive)
        steps = runtime.steps_per_epoch(len(first_epoch), settings.batch_size, run)
        model = training.build(settings.weights, settings.backbone, settings.size, image_head=True)
        train_state = training.make_train_state(settings, model, steps, run)
        run = training.with_faster_precision(train_state.model, data, settings, run)
        generator = runtime.seed_epoch(0, 0, run)
        stored, targets = batch_of(data, first_epoch[: settings.batch_size], run)
        images, ready = augmented(stored, targets, generator, False)
        images = images.contiguous(memory_format=torch.channels_last)
        folder = RunFolder(settings.output_dir, training.TASK, finish_training.REPORT)
        folder.begin(0)
        numbers = itertools.count()

        def bare() -> None:
            train_state.model.train()
            for _ in range(steps):
                bare_step(train_state, settings, images, ready, run)
            if run.device.type == "cuda":
                torch.cuda.synchronize()

        def epoch() -> None:
            number = next(numbers)
            means = training.train_one_epoch(train_state, data, settings, number, run)
            record = {"epoch": number + 1, **{f"train_{part}": value for part, value in means.items()}}
            record |= training.validate(train_state, data, settings, run)
            folder.save_epoch(train_state, {}, record)
            finish_training.draw_curves(training_run.read_records(folder.log), settings.images_dir)

        taken = alternate({"epoch": epoch, "bare": bare}, config.rounds)
        print(f"{steps} steps and {len(data.validation)} validation exams at {config.size} px on {run}")
        print(spread(f"epoch / bare, {run.precision}", speedups(taken, "epoch", "bare")))


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
