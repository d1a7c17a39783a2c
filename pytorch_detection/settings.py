"""The settings of the detection scripts, one flag each; nothing here waits for torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cxr import cli
from cxr.cli import ROOT

MODEL_FILE = ROOT / "pneumonia_fasterrcnn.pth"
SYNTHETIC_FILE = ROOT / "pytorch_detection" / "synthetic_start.pth"
SMALLEST_SIZE, LARGEST_SIZE = 64, 1024  # pixels; beyond it a batch no longer fits the memory of an ordinary machine
# Where the files lie, what computes them and what is chosen after training; every other setting decides the weights.
RESUME_IGNORES = {
    "data_dir",
    "table",
    "output_dir",
    "images_dir",
    "model_file",
    "device",
    "resume",
    "flip_tta",
    "ensemble",
}

Backbone = Literal["resnet18", "resnet50_v2"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run; stored in the checkpoint as plain values."""

    data_dir: Path = cli.flag(ROOT / "dataset_det", help="holds the DICOM folder and the tables of the RSNA challenge")
    table: Path | None = cli.flag(
        None, help="CSV with path, x, y, width, height, and patient if you like, in place of --data-dir"
    )
    output_dir: Path = cli.flag(ROOT / "checkpoint" / "detection", help="where checkpoints, metrics and the report go")
    images_dir: Path = cli.flag(ROOT / "images" / "detection", help="where the pictures go")
    model_file: Path = cli.flag(MODEL_FILE, help="the finished model, all that prediction needs")
    backbone: Backbone = cli.flag("resnet18", help="resnet18 for training from scratch, resnet50_v2 for COCO's weights")
    weights: str = cli.flag(
        "synthetic",
        help="synthetic (learnt from drawn chests, comes along, for resnet18), coco, imagenet (downloaded), none "
        "(random), or a file; may be a classifier's",
    )
    ensemble: int = cli.flag(
        1, at_least=1, at_most=9, help="networks trained one after the other, whose boxes are fused"
    )
    epochs: int = cli.flag(24, at_least=1, help="passes over the training images")
    size: int = cli.flag(
        256, at_least=SMALLEST_SIZE, at_most=LARGEST_SIZE, help="side in pixels of the square the network sees"
    )
    batch_size: int = cli.flag(8, at_least=1, help="images per step, over all processes together")
    lr: float = cli.flag(5e-4, above=0, help="highest AdamW learning rate of the one-cycle schedule")
    weight_decay: float = cli.flag(
        0.05, at_least=0, help="AdamW weight decay of kernels; biases and normalisation have none"
    )
    ema_window: float = cli.flag(
        0.08, above=0, below=1, help="share of all steps that the weight average reaches back over"
    )
    negatives_per_positive: float | None = cli.flag(
        1.0, at_least=0, help="images without opacity drawn per epoch for each one with"
    )
    image_loss_weight: float = cli.flag(
        0.5, at_least=0, help="weight of the loss of the whole image's answer; 0 leaves it out"
    )
    light_augmentation_epochs: int = cli.flag(
        4, at_least=0, help="last epochs, whose images are mirrored and moved a little but not varied otherwise"
    )
    flip_tta: bool = cli.flag(True, help="fuse the boxes of an image and its mirror image; kept in the model")
    seed: int = cli.flag(0, at_least=0, at_most=2**63 - 1, help="decides the split, the start and every random draw")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto computes in bfloat16 where that trains faster")
    resume: bool = cli.flag(False, help="go on from the last finished epoch in --output-dir")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")
    allow_missing: bool = cli.flag(False, help="leave out exams without a DICOM file, and files without a label")

    @property
    def root(self) -> Path:
        """The folder that holds the exams, or the table of them."""
        return self.data_dir if self.table is None else self.table.parent

    def each_network(self) -> "list[TrainConfig]":
        """The settings of each network's own training: the same exams, other random draws, a folder of its own."""
        further = [
            replace(
                self,
                seed=(self.seed + number) % 2**63,
                output_dir=self.output_dir / f"member_{number + 1}",
                images_dir=self.images_dir / f"member_{number + 1}",
            )
            for number in range(1, self.ensemble)
        ]
        return [self, *further]


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the detector that ``--weights synthetic`` begins with, and where it goes."""

    weights_file: Path = cli.flag(SYNTHETIC_FILE, help="where the weights go; by default where trainings look for them")
    output_dir: Path = cli.flag(ROOT / "checkpoint" / "synthetic", help="where exams, checkpoint and pictures go")
    exams: int = cli.flag(2500, at_least=60, help="synthetic exams; some four in five are learnt from")
    size: int = cli.flag(TrainConfig.size, at_least=128, at_most=LARGEST_SIZE, help="side in pixels of the exams")
    epochs: int = cli.flag(4, at_least=1, help="passes over the exams, the last with light augmentation")
    seed: int = cli.flag(5, at_least=0, at_most=2**63 - 1, help="decides the exams, the start and every random draw")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto computes in bfloat16 where that trains faster")


@dataclass(frozen=True)
class PredictConfig:
    """What to read, with which model, and where the answers go."""

    image: tuple[str, ...] = cli.flag(positional=True, help="one or more files, folders or globs")
    model: Path = cli.flag(MODEL_FILE, help="the finished model that training wrote")
    threshold: float | None = cli.flag(
        None, at_least=0, at_most=1, help="report boxes from this score on; by default from the one that training chose"
    )
    refuse_ood: bool = cli.flag(False, help="give no answer for an image unlike those the model was trained on")
    output_dir: Path = cli.flag(
        Path("predictions"), help="where pictures and predictions.csv go; by default in the current directory"
    )
    pictures: bool = cli.flag(True, help="draw the boxes on each image")
    submission: Path | None = cli.flag(None, help="write also a file for the RSNA challenge, one row for each image")
    json: bool = cli.flag(False, help="print one JSON document instead of sentences")
    dicom_output: Path | None = cli.flag(
        None, help="write DICOM reports and pictures for a PACS there; needs highdicom"
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


@dataclass(frozen=True)
class EvaluateConfig:
    """Which exams with true boxes judge which model, or whose boxes."""

    data_dir: Path | None = cli.flag(None, help="the exams: a folder as the RSNA challenge's")
    table: Path | None = cli.flag(
        None,
        help="the exams: CSV with path, x, y, width, height, and patient and further columns if you like; results are "
        "given for each value of those",
    )
    model: Path | None = cli.flag(None, help="the finished model; by default pneumonia_fasterrcnn.pth at the root")
    predictions: Path | None = cli.flag(
        None, help="judge these boxes in place of a model's: a submission to the challenge, or a CSV as predictions.csv"
    )
    threshold: float | None = cli.flag(
        None, at_least=0, at_most=1, help="judge the boxes from this score on; by default the model's, or all predicted"
    )
    output_dir: Path = cli.flag(
        Path("evaluation") / "detection",
        help="where report, errors.csv and pictures go; by default in the current directory",
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")
    allow_missing: bool = cli.flag(
        False, help="leave out exams without a DICOM file, a label or a row of --predictions, and files without a label"
    )
