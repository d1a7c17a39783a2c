"""What a step of detection training costs beyond the bare network, and beside torchvision's own loop.

    python benchmarks/detection_step.py

Alternates, over several rounds in one process and on the same generated squares and boxes: steps of train_detection
(batch, augmentation, weight average, logging and all); the same network's bare forward, backward and optimizer step on
tensors already in memory; torchvision's reference way (its whole FasterRCNN on a ResNet-18 pyramid with its own
defaults, float32, mirror image, SGD). Prints medians and ranges of the ratios.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN

from benchmarks.alternating import alternate, rates, speedups, spread
from cxr import cli, runtime
from cxr.runtime import Squares
from pytorch_detection import train_detection as training
from pytorch_detection.box_tables import ExamSet
from pytorch_detection.model import GreyFasterRCNN, Target, construct
from pytorch_detection.rsna_dataset import CLASSES, Exam, RsnaDetectionDataset
from pytorch_detection.training_data import TrainingData, augmented, batch_of


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    rounds: int = cli.flag(5, help="measurements of each kind, alternating")
    steps: int = cli.flag(4, help="steps in a measurement")
    size: int = cli.flag(512, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(8, help="images per step")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


def generated(count: int, size: int, device: torch.device) -> TrainingData:
    """Noise in the form of a decoded data set; every second exam has one or two boxes of the usual sizes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size), dtype=np.uint8)
    exams: list[Exam] = []
    for index in range(count):
        corners = random.uniform(0, 0.6, (index % 2 * (1 + index % 4 // 3), 2)) * size
        sides = random.uniform((0.12, 0.18), (0.3, 0.4), corners.shape) * size
        rows = np.concatenate([corners, corners + sides], axis=1).tolist()
        boxes = tuple((left, top, right, bottom) for left, top, right, bottom in rows)
        finding = CLASSES[2 if boxes else 0]
        exams.append(Exam(str(index), Path(f"{index}.dcm"), boxes, finding, str(index), None, None, None))
    sizes, every, none = np.full((count, 2), size, np.int32), np.arange(count), np.arange(0)
    store = RsnaDetectionDataset(images, sizes, exams)
    exam_set = ExamSet(Path("generated"), exams, store, sizes, [""] * count, every, {})
    return TrainingData(**vars(exam_set), squares=Squares(images, device), train=every, validation=none, held_out=none)


def torchvision_step(size: int, device: torch.device) -> Callable[[Tensor, list[Target]], None]:
    """One step as torchvision's reference training does it, on grey squares repeated to three channels."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
    )
    model = FasterRCNN(backbone, num_classes=2, min_size=size, max_size=size).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step(stored: Tensor, targets: list[Target]) -> None:
        images = [(image / 255).flip(1).expand(3, -1, -1).contiguous() for image in stored]
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bare_step(
    train_state: training.TrainState[GreyFasterRCNN],
    settings: training.TrainConfig,
    images: Tensor,
    targets: list[Target],
    run: runtime.Runtime,
) -> None:
    """Forward, backward and optimizer step on tensors that are already where they are needed."""
    with run.autocast():
        losses = training.weighted_losses(train_state.model(images, targets), settings.image_loss_weight)
    train_state.optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    train_state.optimizer.step()


def main(config: BenchConfig) -> None:
    """Measure and print."""
    settings = training.TrainConfig(size=config.size, batch_size=config.batch_size, epochs=2 * config.rounds + 4)
    with runtime.start(config.device, "auto", seed=0) as run:
        data = generated(config.steps * config.batch_size, config.size, run.device)
        architecture = training.Architecture(settings.backbone, config.size, frozen=False, image_head=True)
        train_state = training.make_train_state(settings, construct(architecture), config.steps, run)
        run = training.with_faster_precision(train_state.model, data, settings, run)
        train_state.model.train()
        generator = runtime.seed_epoch(0, 0, run)
        stored, targets = batch_of(data, np.arange(config.batch_size), run)
        images, ready = augmented(stored, targets, generator, False)
        images = images.contiguous(memory_format=torch.channels_last)
        of_torchvision = torchvision_step(config.size, run.device)

        numbers = itertools.count()

        def repeated(step: Callable[[], object], times: int = config.steps) -> Callable[[], None]:
            def action() -> None:
                for _ in range(times):
                    step()
                if run.device.type == "cuda":
                    torch.cuda.synchronize()

            return action

        actions = {
            "bare": repeated(lambda: bare_step(train_state, settings, images, ready, run)),
            "whole": repeated(lambda: training.train_one_epoch(train_state, data, settings, next(numbers), run), 1),
            "torchvision": repeated(lambda: of_torchvision(stored, targets)),
        }
        taken = alternate(actions, config.rounds)
    print(f"images/s: {rates(taken, dict.fromkeys(taken, config.steps * config.batch_size))}")
    for title, fast, slow in (
        (f"speed of the whole step / bare step, {run.precision}", "whole", "bare"),
        (f"speed of the whole step in {run.precision} / torchvision's in fp32", "whole", "torchvision"),
    ):
        print(spread(title, speedups(taken, fast, slow)))


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
