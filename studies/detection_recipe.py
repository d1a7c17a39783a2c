"""Train the same detector by torchvision's reference recipe, and score it on validation as train_detection does.

    python studies/detection_recipe.py --weights pneumonia_resnet18.pth --size 256 --epochs 24

The network, its start, the split, the image size and the images of an epoch are those of train_detection. The training
is that of torchvision's references/detection: SGD with momentum .9, learning rate .02 for 16 images a step, warm-up
over the first epoch, a tenth of it from 8/13 and a hundredth from 11/13 of the epochs, mirror images as the only
augmentation, no weight average, the last epoch's weights, and boxes given out from a score of .5. Held-out exams are
not looked at.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tqdm import tqdm

from cxr import augment, cli, runtime
from pytorch_detection import box_metrics
from pytorch_detection import train_detection as training
from pytorch_detection.inference import find_boxes
from pytorch_detection.model import build
from pytorch_detection.training_data import batch_of, epoch_order, labelled, load_data, move_boxes

_THRESHOLD = 0.5


@dataclass(frozen=True)
class RecipeConfig:
    """What both ways of training share."""

    data_dir: Path = cli.flag(cli.ROOT / "dataset_det", help="holds the DICOM folder and the tables")
    output_dir: Path = cli.flag(cli.ROOT / "checkpoint" / "detection_recipe", help="where the decoded images go")
    weights: str = cli.flag("none", help="as for train_detection")
    epochs: int = cli.flag(training.TrainConfig.epochs, help="passes over the training images")
    size: int = cli.flag(training.TrainConfig.size, help="side in pixels of the square the network sees")
    batch_size: int = cli.flag(training.TrainConfig.batch_size, help="images per step")
    seed: int = cli.flag(0, help="decides the split, the start and every random draw")
    device: runtime.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


def train(config: RecipeConfig, run: runtime.Runtime) -> dict[str, float | None]:
    """Scores on validation after the last epoch."""
    settings = training.TrainConfig(
        data_dir=config.data_dir, output_dir=config.output_dir, epochs=config.epochs, size=config.size, seed=config.seed
    )
    data = load_data(settings, run)
    model = build(config.weights, settings.backbone, config.size, image_head=False).to(run.device)
    model.to(memory_format=torch.channels_last)
    run = training.with_faster_precision(model, data, settings, run)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02 / 16 * config.batch_size, momentum=0.9, weight_decay=1e-4)
    drops = [config.epochs * 8 // 13, config.epochs * 11 // 13]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
    generator = runtime.seed_epoch(config.seed, 0, run)
    steps = len(epoch_order(data, settings.seed, 0, settings.negatives_per_positive)) // config.batch_size
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.001, total_iters=min(1000, steps - 1))
    still = dict.fromkeys(("rotation_degrees", "zoom", "stretch", "shear", "shift"), 0.0)
    for epoch in range(config.epochs):
        model.train()
        order = epoch_order(data, settings.seed, epoch, settings.negatives_per_positive)
        batches = runtime.batches(order, config.batch_size, run)
        for chosen in tqdm(batches, f"epoch {epoch + 1}/{config.epochs}", leave=False):
            stored, targets = batch_of(data, chosen, run)
            curves = augment.identity_curves(len(stored), run.device)
            mirror = augment.random_affine(len(stored), generator, **still, flip=0.5)
            images = augment.warp(augment.apply_curves(stored, curves), mirror, config.size)
            boxes = move_boxes([one["boxes"] for one in targets], mirror, config.size, least_kept=0.4)
            with run.autocast():
                losses = model(
                    images.contiguous(memory_format=torch.channels_last),
                    labelled(boxes, torch.stack([one["abnormal"] for one in targets])),
                )
            loss = torch.stack(list(losses.values())).sum()
            if not loss.isfinite():
                raise FloatingPointError(f"epoch {epoch + 1}: the loss is {loss.item()}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            warm_up.step()
        schedule.step()
    found = find_boxes([model], data.images.images, data.validation, False, run)
    truths = data.truths(data.validation)
    matches = box_metrics.match(found.boxes, found.scores, truths)
    scores = box_metrics.score_detections(found.boxes, found.scores, truths)
    at_half = float(box_metrics.rsna_score(matches, np.array([_THRESHOLD]))[0])
    return {**scores, f"rsna_score_at_{_THRESHOLD}": at_half}


def main(config: RecipeConfig) -> None:
    """Train and print the scores as JSON."""
    with runtime.start(config.device, "auto", config.seed) as run, training.lock_folder(config.output_dir, run):
        print(json.dumps(train(config, run), indent=2))


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(RecipeConfig, __doc__)))
