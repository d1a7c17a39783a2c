"""The settings of a training run of the classifier."""

from dataclasses import dataclass
from pathlib import Path

from cxr import cli, runtime
from pytorch_classification.model import LARGEST_SIZE

ROOT = Path(__file__).resolve().parents[1]
# Where the files lie and what computes them; every other setting decides the weights.
MAY_DIFFER = {"data_dir", "out_dir", "images_dir", "model_file", "device", "compile", "resume"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run; stored in the checkpoint as plain values."""

    data_dir: Path = cli.flag(ROOT / "chest_xray", help="holds train/ and test/, each with NORMAL/ and PNEUMONIA/")
    out_dir: Path = cli.flag(
        ROOT / "checkpoint" / "classification", help="where checkpoints, metrics and the report go"
    )
    images_dir: Path = cli.flag(ROOT / "images" / "classification", help="where the pictures go")
    model_file: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model, all that prediction needs")
    weights: str = cli.flag("imagenet", help="imagenet (downloaded), none (random), or a file of ResNet-18 weights")
    epochs: int = cli.flag(20, help="passes over the training images")
    size: int = cli.flag(112, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(32, help="images per step, over all processes together")
    lr: float = cli.flag(1.5e-3, help="highest AdamW learning rate of the one-cycle schedule")
    weight_decay: float = cli.flag(0.05, help="AdamW weight decay of kernels; biases and normalisation have none")
    average_share: float = cli.flag(0.08, help="share of all steps that the weight average reaches back over")
    validation_share: float = cli.flag(0.12, help="share of each class set apart, by patient, to choose by")
    target_sensitivity: float = cli.flag(0.95, help="validation sensitivity that the operating point must reach")
    flip_average: bool = cli.flag(True, help="average the log-odds of an image and its mirror image; kept in the model")
    seed: int = cli.flag(0, help="decides the split, the start and every random draw")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    precision: runtime.Precision = cli.flag("auto", help="auto computes in bfloat16 where that trains faster")
    compile: bool = cli.flag(False, help="torch.compile the network: pays on a GPU, needs a C++ compiler on a CPU")
    resume: bool = cli.flag(False, help="go on from the last finished epoch in --out-dir")
    skip_bad: bool = cli.flag(False, help="leave out images that cannot be read instead of stopping")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        for name, low, high in (("validation_share", 0, 1), ("target_sensitivity", 0, 1), ("average_share", 0, 1)):
            if not low < getattr(self, name) < high:
                raise ValueError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: expected more than {low}, below {high}"
                )
        for name, least in (("epochs", 1), ("size", 32), ("batch_size", 2), ("seed", 0), ("weight_decay", 0)):
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least {least}")
        if self.size > LARGEST_SIZE:
            raise ValueError(f"--size {self.size}: expected at most {LARGEST_SIZE}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr {self.lr}: expected a positive number")
        if self.weights not in ("imagenet", "none") and not self.resume and not Path(self.weights).is_file():
            raise FileNotFoundError(f"--weights: no file {Path(self.weights).resolve()}, nor is it imagenet or none")
