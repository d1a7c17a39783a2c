"""The settings of a training; imports no torch, so that --help prints at once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cxr import cli
from cxr.cli import ROOT

MODEL_FILE = ROOT / "pneumonia_fasterrcnn.pth"  # the bundled model
SYNTHETIC_FILE = ROOT / "pytorch_detection" / "synthetic_start.pth"
OUTPUT_DIR = ROOT / "checkpoint" / "detection"
SMALLEST_SIZE, LARGEST_SIZE = 64, 1024  # pixels; larger batches exceed the memory of an ordinary machine
# Paths, device and what is chosen after training: every other setting decides the weights.
_PLACES = {"data_dir", "table", "output_dir", "model_file"}
RESUME_IGNORES = _PLACES | {"device", "flip_tta", "ensemble", "resume", "overwrite"}

Backbone = Literal["resnet18", "resnet50_v2"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run; stored in the checkpoint as plain values.

    Attributes:
        light_augmentation_epochs: final epochs with flips and small shifts only.
        weight_decay: of AdamW, for kernels; biases and normalisation have none.
        ema_window: EMA window as a fraction of all steps.
        flip_tta: test-time augmentation: fuse the boxes of an image and its mirror image; kept in the model file.
    """

    data_dir: Path = cli.flag(ROOT / "dataset_det", help="folder of the RSNA challenge: DICOM files and tables")
    table: Path | None = cli.flag(
        None, help="in place of --data-dir: CSV with path, x, y, width, height; optional patient"
    )
    output_dir: Path = cli.flag(OUTPUT_DIR, help="folder of checkpoints, metrics and the held-out report")
    model_file: Path = cli.flag(None, help="the finished model; by default pneumonia_fasterrcnn.pth in --output-dir")
    backbone: Backbone = cli.flag("resnet18", help="resnet18 from synthetic or random weights, resnet50_v2 from COCO")
    weights: str = cli.flag(
        "synthetic",
        help="synthetic (bundled, pre-trained on synthetic X-rays, for resnet18), coco or imagenet (downloaded), none "
        "(random), or a file: of a detector or of a classifier",
    )
    ensemble: int = cli.flag(1, at_least=1, at_most=9, help="ensemble size")
    epochs: int = cli.flag(24, at_least=1, help="passes over the training images")
    size: int = cli.flag(256, at_least=SMALLEST_SIZE, at_most=LARGEST_SIZE, help="input size in pixels")
    batch_size: int = cli.flag(8, at_least=1, help="images per step, over all processes together")
    lr: float = cli.flag(5e-4, above=0, help="peak AdamW learning rate of the one-cycle schedule")
    negatives_per_positive: float = cli.flag(
        1.0, at_least=0, help="training images without opacity per epoch for each one with opacity"
    )
    image_loss_weight: float = cli.flag(0.5, at_least=0, help="weight of the image-level loss; 0: no image-level head")
    seed: int = cli.flag(0, at_least=0, at_most=2**63 - 1, help="of the split, the first weights and the augmentation")
    device: cli.Device = cli.flag("auto", help="auto: CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto: bfloat16 where it trains faster")
    resume: bool = cli.flag(False, help="continue from the last finished epoch in --output-dir")
    overwrite: bool = cli.flag(False, help="replace the run in --output-dir")
    skip_bad: bool = cli.flag(False, help="skip unreadable images")
    allow_missing: bool = cli.flag(False, help="skip exams without a DICOM file, and files without a label")
    light_augmentation_epochs: int = 4
    weight_decay: float = 0.05
    ema_window: float = 0.08
    flip_tta: bool = True

    def __post_init__(self) -> None:
        """Fill in the default that depends on ``output_dir``."""
        if vars(self)["model_file"] is None:
            object.__setattr__(self, "model_file", self.output_dir / MODEL_FILE.name)

    @property
    def root(self) -> Path:
        """The folder of the exams, or of the table."""
        return self.data_dir if self.table is None else self.table.parent

    @property
    def images_dir(self) -> Path:
        """The folder of the pictures."""
        return ROOT / "images" / "detection" if self.output_dir == OUTPUT_DIR else self.output_dir / "images"

    def each_network(self) -> "list[TrainConfig]":
        """The settings of the training of each network: the same exams, but its own random numbers and folder."""
        others = range(1, self.ensemble)
        folders = [self.output_dir / f"member_{number + 1}" for number in others]
        seeds = [(self.seed + number) % 2**63 for number in others]
        further = [replace(self, seed=seed, output_dir=folder) for seed, folder in zip(seeds, folders, strict=True)]
        return [self, *further]
