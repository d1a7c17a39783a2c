"""The settings of a training; imports no torch, so that --help prints at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr import cli
from cxr.cli import ROOT

PREVALENCE = 0.1  # at which predictive values are stated: about that of the upright (PA) exams of the RSNA challenge
LARGEST_SIZE = 1024  # pixels; beyond it a batch no longer fits the memory of an ordinary machine
OUTPUT_DIR = ROOT / "checkpoint" / "classification"
# Paths, class names in the data set, device: every other setting decides the weights.
_PLACES = {"data_dir", "table", "output_dir", "model_file"}
RESUME_IGNORES = _PLACES | {"normal", "pneumonia", "device", "resume", "overwrite"}

# Defaults that depend on --weights. From scratch: chosen in benchmarks/RECIPES.md. Fine-tuning: size and crops of the
# best published run, the rate that is usual for AdamW; not measured with ImageNet's weights.
FROM_SCRATCH = {"epochs": 10, "size": 96, "lr": 1.5e-3, "crop_prob": 0.5, "randconv_prob": 0.3}
FINE_TUNING = {"epochs": 8, "size": 224, "lr": 3e-4, "crop_prob": 1.0, "randconv_prob": 0.0}
_FILLED_IN: Any = None  # by one of them


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run; stored in the checkpoint as plain values.

    Attributes:
        crop_prob: probability of a random crop; .5 from random weights, else 1.
        randconv_prob: probability of a random 3 x 3 convolution (RandConv); .3 from random weights, else 0.
        weight_decay: of AdamW, for kernels; biases and normalisation have none.
        ema_window: of the running average of the weights (EMA), as a fraction of all steps.
        validation_share: of the images of each class, split off by patient.
        flip_tta: average the log-odds of an image and its mirror image; kept in the model file.
    """

    data_dir: Path = cli.flag(ROOT / "chest_xray", help="data set with train/ and test/, each with NORMAL/, PNEUMONIA/")
    table: Path | None = cli.flag(
        None, help="in place of --data-dir: CSV with path, label; optional patient, split (train, val, test)"
    )
    normal: tuple[str, ...] = cli.flag(("NORMAL",), help="folder names or labels of the class NORMAL")
    pneumonia: tuple[str, ...] = cli.flag(("PNEUMONIA",), help="folder names or labels of the class PNEUMONIA")
    output_dir: Path = cli.flag(OUTPUT_DIR, help="folder of checkpoints, metrics and the test report")
    model_file: Path = cli.flag(None, help="the finished model; by default pneumonia_resnet18.pth in --output-dir")
    weights: str = cli.flag("imagenet", help="imagenet (downloaded), none (random), or a file of ResNet-18 weights")
    epochs: int = cli.flag(None, at_least=1, help="passes over the training images; 10 from random weights, else 8")
    size: int = cli.flag(
        None, at_least=32, at_most=LARGEST_SIZE, help="input size in pixels; 96 from random weights, else 224"
    )
    batch_size: int = cli.flag(32, at_least=2, help="images per step, over all processes together")
    lr: float = cli.flag(
        None, above=0, help="peak AdamW learning rate of the one-cycle schedule; 1.5e-3 from random weights, else 3e-4"
    )
    style_mix_prob: float = cli.flag(
        0.5,
        at_least=0,
        at_most=1,
        help="probability of histogram matching, and of border swapping, with another image of the batch",
    )
    ood_val_dir: Path | None = cli.flag(
        None,
        help="out-of-domain images for model selection, never trained on: NORMAL/ and PNEUMONIA/, or the RSNA folder",
    )
    seed: int = cli.flag(0, at_least=0, at_most=2**63 - 1, help="of the split, the first weights and the augmentation")
    device: cli.Device = cli.flag("auto", help="auto: CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto: bfloat16 where it trains faster")
    resume: bool = cli.flag(False, help="continue from the last finished epoch in --output-dir")
    overwrite: bool = cli.flag(False, help="replace the run in --output-dir")
    skip_bad: bool = cli.flag(False, help="skip unreadable images")
    crop_prob: float = _FILLED_IN
    randconv_prob: float = _FILLED_IN
    weight_decay: float = 0.05
    ema_window: float = 0.08
    validation_share: float = 0.12
    flip_tta: bool = True

    def __post_init__(self) -> None:
        """Fill in the defaults that depend on ``weights`` and ``output_dir``."""
        if vars(self)["model_file"] is None:
            object.__setattr__(self, "model_file", self.output_dir / "pneumonia_resnet18.pth")
        for name, value in (FROM_SCRATCH if self.weights == "none" else FINE_TUNING).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def root(self) -> Path:
        """The folder of the images, or of the table."""
        return self.data_dir if self.table is None else self.table.parent

    @property
    def images_dir(self) -> Path:
        """The folder of the pictures."""
        return ROOT / "images" / "classification" if self.output_dir == OUTPUT_DIR else self.output_dir / "images"
