"""How much of the bare network's speed is left in an epoch of classification training, augmentation and all.

    python benchmarks/classification_epoch.py

Alternates, over several rounds in one process, a real epoch of train_classification on generated squares and the bare
forward, backward and optimizer step on one batch already in memory (same network, precision and batch). Prints the
median ratio with its range; 1 would mean that augmentation, weight average and logging cost nothing.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.alternating import alternate, rates, speedups, spread
from cxr import cli, runtime
from cxr.runtime import Squares
from pytorch_classification import train_classification as training
from pytorch_classification.data_load import Listing
from pytorch_classification.shifted_validation import ShiftedSet
from pytorch_classification.training_data import TrainingData, store_size


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(5, help="epochs of each kind, alternating")
    steps: int = cli.flag(8, help="steps in an epoch")
    size: int = cli.flag(112, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(32, help="images per step")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


def generated(config: training.TrainConfig, count: int, device: torch.device) -> TrainingData:
    """Noise in the form of a decoded data set, half of it PNEUMONIA."""
    side = store_size(config.size)
    images = np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)
    labels = np.arange(count) % 2
    listing = Listing([Path(f"{index}.png") for index in range(count)], labels, [str(index) for index in range(count)])
    return TrainingData(
        listing,
        Squares(images, device),
        labels,
        [""] * count,
        np.arange(count),
        np.arange(0),
        ShiftedSet("none", images[:0], labels[:0]),
    )


def bare_epoch(train_state: training.TrainState[torch.nn.Module], config: BenchConfig, run: runtime.Runtime) -> None:
    """Forward, backward and step on one batch that is already where it is needed."""
    images = torch.rand(config.batch_size, 1, config.size, config.size, device=run.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(config.batch_size, device=run.device) % 2
    weights = torch.ones(2, device=run.device)
    for _ in range(config.steps):
        with run.autocast():
            logits = train_state.model(images)
        train_state.optimizer.zero_grad(set_to_none=True)
        training.weighted_loss(logits.float().squeeze(1), labels, weights).backward()
        train_state.optimizer.step()
    if run.device.type == "cuda":
        torch.cuda.synchronize()


def main(config: BenchConfig) -> None:
    """Measure and print."""
    settings = training.TrainConfig(
        weights="none", size=config.size, batch_size=config.batch_size, epochs=2 * config.rounds + 2
    )
    with runtime.start(config.device, "auto", seed=0) as run:
        data = generated(settings, config.steps * config.batch_size, run.device)
        train_state = training.make_train_state(settings, training.build("none"), config.steps, run)
        run = training.with_faster_precision(train_state.model, data, settings.size, settings.precision, run)
        train_state.model.train()
        numbers = itertools.count()
        epochs = {
            "bare": lambda: bare_epoch(train_state, config, run),
            "epoch": lambda: training.train_one_epoch(train_state, data, settings, next(numbers), run),
        }
        taken = alternate(epochs, config.rounds)
    print(f"images/s: {rates(taken, dict.fromkeys(taken, config.steps * config.batch_size))}")
    print(spread(f"epoch / bare, {run.precision}", speedups(taken, "epoch", "bare")))


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
