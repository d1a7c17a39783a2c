"""Images per second of classification training from JPEG files, against the scripts that people start from.

    python benchmarks/classification_loaders.py --data-dir chest_xray

Alternates, over several rounds in one process, an epoch on the same files and a ResNet-18 of the same size by:

- train_classification, first with the files still to be decoded, then once more;
- the usual script: torchvision's ImageFolder with RandomResizedCrop, mirror image, ToTensor and Normalize, a DataLoader
  with workers, float32 and SGD, as in torchvision's references/classification;
- timm's data set, loader with its default augmentation, optimizer and loss, where timm is installed.

Prints median ratios with their range. No epoch is validated. Our first one decodes the validation images too, which are
not counted; the workers of the others stay from one epoch to the next.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from benchmarks import generated
from benchmarks.alternating import alternate, rates, speedups, spread
from cxr import cli, runtime
from pytorch_classification import train_classification as training

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

Epoch = Callable[[], object]


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(3, help="epochs of each kind, alternating")
    data_dir: Path | None = cli.flag(None, help="holds train/ with NORMAL/ and PNEUMONIA/; generated without it")
    files: int = cli.flag(240, help="files that are generated")
    size: int = cli.flag(224, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(32, help="images per step")
    workers: int = cli.flag(2, help="processes that decode for the usual script and for timm")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


def our_epochs(
    config: BenchConfig, data_dir: Path, place: Path, run: runtime.Runtime
) -> tuple[Epoch, Epoch, int, runtime.Runtime]:
    """An epoch that decodes, one that does not, the images that are trained on, and the run in its precision."""
    settings = training.TrainConfig(
        data_dir=data_dir,
        output_dir=place,
        weights="none",
        size=config.size,
        batch_size=config.batch_size,
        epochs=2 * (config.rounds + 1),
    )
    data = training.load_data(settings, run)
    batch_size = min(config.batch_size, len(data.train))
    train_state = training.make_train_state(settings, training.build("none"), len(data.train) // batch_size, run)
    run = training.with_faster_precision(train_state.model, data, settings.size, settings.precision, run)
    numbers = iter(range(settings.epochs))

    def first() -> None:
        shutil.rmtree(place)
        training.train_one_epoch(train_state, training.load_data(settings, run), settings, next(numbers), run)

    def later() -> None:
        training.train_one_epoch(train_state, data, settings, next(numbers), run)

    return first, later, len(data.train) // batch_size * batch_size, run


def train(
    model: nn.Module, batches: Iterable[list[Tensor]], loss_of: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """One epoch as both of the others write it."""
    device = next(model.parameters()).device
    model.train()
    for images, labels in batches:
        loss = loss_of(model(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def usual_epoch(config: BenchConfig, folder: Path, device: torch.device) -> Epoch:
    """An epoch of torchvision's parts."""
    seen = [
        transforms.RandomResizedCrop(config.size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(_MEAN, _DEVIATION),
    ]
    batches = DataLoader(
        datasets.ImageFolder(folder, transforms.Compose(seen)),
        config.batch_size,
        shuffle=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=device.type == "cuda",
    )
    model = models.resnet18(num_classes=2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    return lambda: train(model, batches, nn.CrossEntropyLoss(), optimizer)


def timm_epoch(config: BenchConfig, folder: Path, device: torch.device) -> Epoch:
    """An epoch of timm's parts, with the defaults of its train.py."""
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    batches = create_loader(
        create_dataset("", root=str(folder), is_training=True),
        input_size=(3, config.size, config.size),
        batch_size=config.batch_size,
        is_training=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=device.type == "cuda",
        device=device,
    )
    model = models.resnet18(num_classes=2).to(device)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.05, momentum=0.9, weight_decay=2e-5)
    return lambda: train(model, batches, LabelSmoothingCrossEntropy(), optimizer)


def main(config: BenchConfig) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, runtime.start(config.device, "auto", seed=0) as run:
        place = Path(name)
        data_dir = config.data_dir or generated.write_chest_xray(place / "generated", config.files)
        first, later, ours, run = our_epochs(config, data_dir, place / "decoded", run)
        epochs = {"first": first, "later": later, "usual": usual_epoch(config, data_dir / "train", run.device)}
        peers = ["usual"]
        if find_spec("timm"):
            epochs["timm"] = timm_epoch(config, data_dir / "train", run.device)
            peers.append("timm")
        else:
            print("timm is not installed and left out")
        taken = alternate(epochs, config.rounds)
        theirs = sum(1 for path in (data_dir / "train").glob("*/*") if path.is_file())
        counts = {name: theirs if name in peers else ours for name in epochs}
    print(f"images/s at {config.size} px on {run}: {rates(taken, counts)}")
    for mine in ("first", "later"):
        for other in peers:
            ratios = [ratio * ours / theirs for ratio in speedups(taken, mine, other)]
            print(spread(f"speed of our {mine} epoch in {run.precision} / {other} script in fp32", ratios))


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
