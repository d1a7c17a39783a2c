"""Images per second of classification training by one process and by several under torchrun, on the same cores.

    python benchmarks/processes.py

Alternates, over several rounds, the same steps of train_classification by one process with all cores, and by torchrun's
processes with an equal share of the cores each and of every batch. Each measurement starts its own processes, which
time an epoch after one that is not counted. Prints the median ratio with its range; 1 would mean that dividing the
batch and exchanging the gradients (45 MB a step) cost nothing.
"""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from benchmarks.alternating import rates, speedups, spread
from benchmarks.classification_epoch import generated
from cxr import cli, reading, runtime
from pytorch_classification import train_classification as training


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(3, help="measurements of each kind, alternating")
    steps: int = cli.flag(10, help="steps in an epoch")
    processes: int = cli.flag(2, help="processes of torchrun")
    size: int = cli.flag(112, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(32, help="images per step, over all processes together")


def timed_epoch(config: BenchConfig) -> float:
    """Seconds of the second epoch; what each of the processes under measurement does."""
    settings = training.TrainConfig(weights="none", size=config.size, batch_size=config.batch_size, epochs=2)
    with runtime.start("cpu", "auto", seed=0) as run:
        data = generated(settings, config.steps * config.batch_size, run.device)
        learner = training.make_learner(settings, training.build("none"), config.steps, run)
        run = training.with_faster_precision(learner.model, data, settings, run)
        for epoch in range(2):
            runtime.wait(run)
            begun = time.perf_counter()
            training.train_one_epoch(learner, data, settings, epoch, run)
        return time.perf_counter() - begun


def measure(processes: int, arguments: Sequence[str]) -> float:
    """Seconds that a group of ``processes`` needs for an epoch."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, reading.cores() // processes))}
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{processes} processes ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return float(ended.stdout)


def main() -> None:
    """Measure and print; under torchrun, be measured."""
    config = cli.parse(BenchConfig)
    if "LOCAL_RANK" in os.environ:
        seconds = timed_epoch(config)
        if os.environ["RANK"] == "0":
            print(seconds)
        return
    sizes = {"one process": 1, f"{config.processes} processes": config.processes}
    taken: dict[str, list[float]] = {name: [] for name in sizes}
    for _, (name, number) in tqdm(list(itertools.product(range(config.rounds), sizes.items())), "epochs", leave=False):
        taken[name].append(measure(number, sys.argv[1:]))
    print(f"images/s: {rates(taken, dict.fromkeys(taken, config.steps * config.batch_size))}")
    one, several = sizes
    print(spread(f"speed of {several} / one process, on the same cores", speedups(taken, several, one)))


if __name__ == "__main__":
    sys.exit(cli.run(main))
