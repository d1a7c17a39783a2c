"""Train the detector that train_detection.py begins with, on synthetic chests alone.

    python pretrain_detection.py

Draws the exams as make_sample_data.py does, teaches them to a detector that starts from random weights, and writes
pytorch_detection/synthetic_start.pth, which the project brings along: run this only to change it. No real image and no
label from elsewhere goes into it. It finds opacities in drawn chests, and next to none in real ones before it has
learnt from them too. It takes 12 minutes on two cores, and goes on where it was stopped.
"""

import sys

from cxr import cli
from pytorch_detection.settings import PretrainConfig, TrainConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(PretrainConfig, __doc__) if __name__ == "__main__" else None

import make_sample_data
from cxr import checkpoints, runtime
from cxr.training_run import RunFolder, lock_folder, with_average
from pytorch_detection import report
from pytorch_detection.model import TASK
from pytorch_detection.train_detection import begin, fit_one
from pytorch_detection.training_data import load_data


def main(config: PretrainConfig) -> None:
    """Draw, train and write what the command line asks for; what a run before has done of it is not done again."""
    if config.weights_file.is_dir() or not config.weights_file.parent.is_dir():
        raise ValueError(f"--weights-file {config.weights_file}: expected a file in a folder that is there")
    settings = TrainConfig(
        data_dir=config.output_dir / "dataset_det",
        output_dir=config.output_dir / "training",
        images_dir=config.output_dir / "images",
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
        make_sample_data.make(exams)
        model, state = begin(settings, may_be_new=True)
        fit_one(settings, model, state, load_data(settings, run), run)
    trained = with_average(RunFolder(settings.output_dir, TASK, report.NAME).load_last())
    kept = checkpoints.with_half_kernels(trained["model"])
    checkpoints.save(config.weights_file, task=TASK, architecture=trained["architecture"], model=kept)
    print(f"wrote {config.weights_file}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
