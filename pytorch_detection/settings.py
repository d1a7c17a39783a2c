"""The settings of a training run of the detector."""

from dataclasses import dataclass
from pathlib import Path

from cxr import cli, runtime
from pytorch_detection.model import LARGEST_SIZE, SMALLEST_SIZE, Backbone

ROOT = Path(__file__).resolve().parents[1]
# Where the files lie, what computes them and what is chosen after training; every other setting decides the weights.
MAY_DIFFER = {"data_dir", "out_dir", "images_dir", "model_file", "device", "compile", "resume", "flip_average"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run; stored in the checkpoint as plain values."""

    data_dir: Path = cli.flag(ROOT / "dataset_det", help="holds the DICOM folder and the tables of the RSNA challenge")
    out_dir: Path = cli.flag(ROOT / "checkpoint" / "detection", help="where checkpoints, metrics and the report go")
    images_dir: Path = cli.flag(ROOT / "images" / "detection", help="where the pictures go")
    model_file: Path = cli.flag(ROOT / "pneumonia_fasterrcnn.pth", help="the finished model, all that prediction needs")
    backbone: Backbone = cli.flag("resnet18", help="resnet18 for training from scratch, resnet50_v2 for COCO's weights")
    weights: str = cli.flag("none", help="coco, imagenet (downloaded), none (random), or a file; may be a classifier's")
    epochs: int = cli.flag(24, help="passes over the training images")
    size: int = cli.flag(384, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(8, help="images per step, over all processes together")
    lr: float = cli.flag(5e-4, help="highest AdamW learning rate of the one-cycle schedule")
    weight_decay: float = cli.flag(0.05, help="AdamW weight decay of kernels; biases and normalisation have none")
    average_share: float = cli.flag(0.08, help="share of all steps that the weight average reaches back over")
    negatives_per_positive: float | None = cli.flag(
        1.0, help="images without opacity drawn per epoch for each one with"
    )
    image_loss_weight: float = cli.flag(0.5, help="weight of the loss of the whole image's answer; 0 leaves it out")
    calm_epochs: int = cli.flag(4, help="the last epochs, which see the images nearly as they are")
    flip_average: bool = cli.flag(True, help="fuse the boxes of an image and its mirror image; kept in the model")
    seed: int = cli.flag(0, help="decides the split, the start and every random draw")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    precision: runtime.Precision = cli.flag("auto", help="auto computes in bfloat16 where that trains faster")
    compile: bool = cli.flag(False, help="torch.compile the backbone: pays on a GPU, needs a C++ compiler on a CPU")
    resume: bool = cli.flag(False, help="go on from the last finished epoch in --out-dir")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")
    allow_missing: bool = cli.flag(False, help="leave out exams without a DICOM file, and files without a label")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not 0 < self.average_share < 1:
            raise ValueError(f"--average-share {self.average_share}: expected more than 0, below 1")
        least = {"epochs": 1, "size": SMALLEST_SIZE, "batch_size": 1, "seed": 0, "weight_decay": 0, "calm_epochs": 0}
        for name, low in {**least, "image_loss_weight": 0, "negatives_per_positive": 0}.items():
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least {low}")
        if self.size > LARGEST_SIZE:
            raise ValueError(f"--size {self.size}: expected at most {LARGEST_SIZE}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr {self.lr}: expected a positive number")
        known = ("coco", "imagenet", "none")
        if self.weights not in known and not self.resume and not Path(self.weights).is_file():
            raise FileNotFoundError(
                f"--weights: no file {Path(self.weights).resolve()}, nor is it {' or '.join(known)}"
            )
