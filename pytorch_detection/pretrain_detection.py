"""Pre-train the detector on synthetic radiographs: the initial weights of train_detection.py.

    python pytorch_detection/pretrain_detection.py

Makes the exams of make_sample_data.py, trains a detector on them from random weights, and writes
pytorch_detection/synthetic_start.pth, which is part of the repository: run this only to change it. No real image or
label is used. The detector finds opacities in synthetic radiographs, and hardly any in real ones before it is trained
on those too. It takes 12 minutes on two cores, and resumes where it was stopped.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import LARGEST_SIZE, SYNTHETIC_FILE, TrainConfig


@dataclass(frozen=True)
class PretrainConfig:
    """The synthetic exams, the training on them, and where its weights go."""

    weights_file: Path = cli.flag(SYNTHETIC_FILE, help="the weights; by default where --weights synthetic reads them")
    output_dir: Path = cli.flag(cli.ROOT / "checkpoint" / "synthetic", help="folder of exams, checkpoint and pictures")
    exams: int = cli.flag(2500, at_least=60, help="synthetic exams, about four in five for training")
    size: int = cli.flag(TrainConfig.size, at_least=128, at_most=LARGEST_SIZE, help="size of the exams in pixels")
    epochs: int = cli.flag(4, at_least=1, help="passes over the exams, the last with light augmentation")
    seed: int = cli.flag(5, at_least=0, at_most=2**63 - 1, help="of the exams, the first weights and the augmentation")
    device: cli.Device = cli.flag("auto", help="auto: CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto: bfloat16 where it trains faster")


# Before torch is imported, so that --help and wrong flags need no seconds.
CONFIG = cli.start(PretrainConfig, __doc__) if __name__ == "__main__" else None

import make_sample_data
from cxr import checkpoints, runtime
from cxr.training_run import RunFolder, lock_folder, with_average
from pytorch_detection.finish_training import REPORT
from pytorch_detection.model import TASK
from pytorch_detection.train_detection import begin, fit_one
from pytorch_detection.training_data import load_data


def main(config: PretrainConfig) -> None:
    """Make the exams, train, write the weights; steps that an earlier run has finished are not repeated."""
    if config.weights_file.is_dir() or not config.weights_file.parent.is_dir():
        raise ValueError(f"--weights-file {config.weights_file}: expected a file in an existing folder")
    settings = TrainConfig(
        data_dir=config.output_dir / "dataset_det",
        output_dir=config.output_dir / "training",
        weights="none",
        epochs=config.epochs,
        size=config.size,
        light_augmentation_epochs=1,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
        resume=True,
    )
    exams = make_sample_data.SampleConfig(
        output_dir=config.output_dir, only="detection", exams=config.exams, exam_size=config.size, seed=config.seed
    )
    with runtime.start(config.device, config.precision, config.seed) as run, lock_folder(settings.output_dir, run):
        make_sample_data.main(exams)
        model, state = begin(settings, may_be_new=True)
        fit_one(settings, model, state, load_data(settings, run), run)
    trained = with_average(RunFolder(settings.output_dir, TASK, REPORT).load_last())
    weights = checkpoints.with_half_kernels(trained["model"])
    checkpoints.save(config.weights_file, task=TASK, architecture=trained["architecture"], model=weights)
    print(f"wrote {config.weights_file}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
