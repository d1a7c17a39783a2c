"""The settings of the classification scripts, one flag each; nothing here waits for torch."""

from dataclasses import dataclass
from pathlib import Path

from cxr import cli
from cxr.cli import ROOT

PREVALENCE = 0.1  # at which predictive values are stated: about that of the upright (PA) exams of the RSNA challenge
LARGEST_SIZE = 1024  # pixels; beyond it a batch no longer fits the memory of an ordinary machine
# Where the files lie, how they are labelled there and what computes them; every other setting decides the weights.
RESUME_IGNORES = {
    "data_dir",
    "table",
    "normal",
    "pneumonia",
    "output_dir",
    "images_dir",
    "model_file",
    "device",
    "resume",
}

# What a start needs, where the user does not say. From scratch: chosen in docs/experiments.md. Fine-tuning: size and
# crops of the best published run, the rate that is usual for AdamW; not measured with ImageNet's weights.
FROM_SCRATCH = {"epochs": 10, "size": 96, "lr": 1.5e-3, "crop_prob": 0.5, "randconv_prob": 0.3}
FINE_TUNING = {"epochs": 8, "size": 224, "lr": 3e-4, "crop_prob": 1.0, "randconv_prob": 0.0}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run; stored in the checkpoint as plain values."""

    data_dir: Path = cli.flag(ROOT / "chest_xray", help="holds train/ and test/, each with NORMAL/ and PNEUMONIA/")
    table: Path | None = cli.flag(
        None, help="CSV with path, label, and patient and split (train, val, test) if you like, in place of --data-dir"
    )
    normal: tuple[str, ...] = cli.flag(("NORMAL",), help="the folders or labels that stand for NORMAL")
    pneumonia: tuple[str, ...] = cli.flag(("PNEUMONIA",), help="the folders or labels that stand for PNEUMONIA")
    output_dir: Path = cli.flag(
        ROOT / "checkpoint" / "classification", help="where checkpoints, metrics and the report go"
    )
    images_dir: Path = cli.flag(ROOT / "images" / "classification", help="where the pictures go")
    model_file: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model, all that prediction needs")
    weights: str = cli.flag("imagenet", help="imagenet (downloaded), none (random), or a file of ResNet-18 weights")
    epochs: int = cli.flag(
        None, at_least=1, help="passes over the training images; 10 from random weights, 8 from others"
    )
    size: int = cli.flag(
        None,
        at_least=32,
        at_most=LARGEST_SIZE,
        help="side in pixels of the square the network sees; 96 from random weights, 224 from others",
    )
    crop_prob: float = cli.flag(
        None,
        at_least=0,
        at_most=1,
        help="share of looks at a random part of the picture; .5 from random weights, 1 from others",
    )
    style_mix_prob: float = cli.flag(
        0.5, at_least=0, at_most=1, help="share of looks with the tone, and share with the frame, of another image"
    )
    randconv_prob: float = cli.flag(
        None,
        at_least=0,
        at_most=1,
        help="share of looks through a random filter; .3 from random weights, 0 from others",
    )
    batch_size: int = cli.flag(32, at_least=2, help="images per step, over all processes together")
    lr: float = cli.flag(
        None,
        above=0,
        help="highest AdamW learning rate of the one-cycle schedule; 1.5e-3 from random weights, 3e-4 from others",
    )
    weight_decay: float = cli.flag(
        0.05, at_least=0, help="AdamW weight decay of kernels; biases and normalisation have none"
    )
    ema_window: float = cli.flag(
        0.08, above=0, below=1, help="share of all steps that the weight average reaches back over"
    )
    validation_share: float = cli.flag(
        0.12, above=0, below=1, help="share of each class set apart, by patient, to choose by"
    )
    ood_val_dir: Path | None = cli.flag(
        None, help="films of another source to choose by and never learn from: NORMAL/ and PNEUMONIA/, or RSNA's folder"
    )
    flip_tta: bool = cli.flag(True, help="average the log-odds of an image and its mirror image; kept in the model")
    seed: int = cli.flag(0, at_least=0, at_most=2**63 - 1, help="decides the split, the start and every random draw")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto computes in bfloat16 where that trains faster")
    resume: bool = cli.flag(False, help="go on from the last finished epoch in --output-dir")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")

    def __post_init__(self) -> None:
        """Fill in what the start decides."""
        for name, value in (FROM_SCRATCH if self.weights == "none" else FINE_TUNING).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def root(self) -> Path:
        """The folder that holds the images, or the table of them."""
        return self.data_dir if self.table is None else self.table.parent


@dataclass(frozen=True)
class PredictConfig:
    """What to read, with which model, and where the answers go."""

    image: tuple[str, ...] = cli.flag(positional=True, help="one or more files, folders or globs")
    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
    threshold: float | None = cli.flag(
        None, above=0, below=1, help="call PNEUMONIA from this probability on; by default from the model's threshold"
    )
    refuse_ood: bool = cli.flag(False, help="give no answer for an image unlike those the model was trained on")
    output_dir: Path = cli.flag(
        Path("predictions"), help="where pictures and predictions.csv go; by default in the current directory"
    )
    grad_cam: bool | None = cli.flag(None, help="draw Grad-CAM; by default for a single file or a PACS")
    json: bool = cli.flag(False, help="print one JSON document instead of sentences")
    dicom_output: Path | None = cli.flag(
        None, help="write DICOM reports and pictures for a PACS there; needs highdicom"
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


@dataclass(frozen=True)
class PointingConfig:
    """Which images, which boxes, which model."""

    image: tuple[str, ...] = cli.flag(help="one or more files, folders or globs")
    boxes: Path = cli.flag(help="CSV with the columns path or patientId, and x, y, width, height")
    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
    json: bool = cli.flag(False, help="print one JSON document instead of a sentence")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


@dataclass(frozen=True)
class AuditConfig:
    """Which images, and which model is asked about them."""

    data_dir: Path = cli.flag(help="a folder that holds one folder for each of two classes, such as chest_xray/train")
    train_dir: Path | None = cli.flag(
        None, help="learn the style from this folder, the model's training images, instead of from the other patients"
    )
    model: Path | None = cli.flag(None, help="a finished model to be examined on --data-dir")
    output_dir: Path = cli.flag(ROOT / "images" / "classification", help="where table, report and pictures go")
    seed: int = cli.flag(0, at_least=0, at_most=2**32 - 1, help="of the folds and of the intervals")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")


@dataclass(frozen=True)
class EvaluateConfig:
    """Which labelled images judge which model, or set its operating point anew."""

    data_dir: Path | None = cli.flag(None, help="labelled images: a folder that holds one folder for each class")
    table: Path | None = cli.flag(
        None,
        help="labelled images: CSV with path, label, and patient and further columns if you like; results are given "
        "for each value of those",
    )
    unlabelled: Path | None = cli.flag(
        None, help="images without labels to set the operating point by: needs --prevalence and --save-model"
    )
    normal: tuple[str, ...] = cli.flag(("NORMAL",), help="the folders or labels that stand for NORMAL")
    pneumonia: tuple[str, ...] = cli.flag(("PNEUMONIA",), help="the folders or labels that stand for PNEUMONIA")
    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
    prevalence: float | None = cli.flag(
        None, above=0, below=1, help="share of PNEUMONIA where the model is to be used; .1 in reports if not given"
    )
    set_sensitivity: float | None = cli.flag(
        None, above=0, at_most=1, help="set the operating point for this sensitivity, cross-fitted by patient"
    )
    set_specificity: float | None = cli.flag(
        None, above=0, at_most=1, help="set the operating point for this specificity, cross-fitted by patient"
    )
    save_model: Path | None = cli.flag(None, help="the model file to write with the new operating point")
    output_dir: Path = cli.flag(
        Path("evaluation") / "classification",
        help="where report, errors.csv and pictures go; by default in the current directory",
    )
    grad_cam: bool = cli.flag(True, help="draw Grad-CAM of some images")
    corruptions: bool = cli.flag(
        False, help="also judge the images with noise, blur, compression, other exposure and cropped; 11 times the work"
    )
    seed: int = cli.flag(0, at_least=0, at_most=2**32 - 1, help="of the folds that the operating point is judged in")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")
