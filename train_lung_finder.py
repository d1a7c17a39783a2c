"""Train the network that finds the lungs, on synthetic chests alone.

    python train_lung_finder.py

Draws the chests (phantom/wide.py), whose lungs are known, and teaches the network on ever new disguises of them. Writes
pytorch_classification/lung_finder.npz, which the project brings along: run this only to change it. No real image and
no label from elsewhere goes into it.
"""

import sys
from functools import partial

from cxr import cli
from pytorch_classification.settings import LungConfig

if __name__ == "__main__":
    cli.parse(LungConfig, summary=__doc__)  # --help and mistakes are answered before torch is imported: seconds

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from cxr import runtime
from cxr.learner import Learner, prepare
from phantom import processes
from phantom.wide import WideChest, take_wide
from pytorch_classification import lung_finder
from pytorch_classification.lung_augment import disguise
from pytorch_classification.lung_finder import SIZE, LungNet

STORED = 2 * SIZE  # pixels along each side of a drawn chest; parts of it are cut out
DRAWN = 224  # pixels across while it is drawn
LUNG_WEIGHT = 1.5  # a white part of a lung that is left out costs more than a shadow that is taken in


def squares(chest: WideChest) -> NDArray[np.uint8]:
    """[2, S, S]: a chest and its lungs (255), squashed to a square as every image of the project is."""
    whole = [Image.fromarray(picture) for picture in (chest.pixels, np.uint8(255) * chest.lungs)]
    return np.stack([np.asarray(one.resize((STORED, STORED), Image.Resampling.BOX)) for one in whole])


def loss_of(network: nn.Module, images: Tensor, lungs: Tensor, run: runtime.Runtime) -> Tensor:
    """Cross-entropy of pixels and half the Dice loss of images (Milletari et al. 2016, doi:10.1109/3DV.2016.79)."""
    with run.autocast():
        logits = network(images.contiguous(memory_format=torch.channels_last)).float()
    weight = torch.tensor(LUNG_WEIGHT, device=run.device)
    pixels = functional.binary_cross_entropy_with_logits(logits, lungs, pos_weight=weight)
    likely, spread = torch.sigmoid(logits), 0.0025 * lungs[0].numel()  # so that an empty mask can be right
    both, all_of_both = (likely * lungs).sum((1, 2, 3)), (likely + lungs).sum((1, 2, 3))
    return pixels + 0.5 * (1 - ((2 * both + spread) / (all_of_both + spread)).mean())


@torch.inference_mode()
def overlap(network: nn.Module, images: Tensor, lungs: Tensor) -> float:
    """Mean intersection over union of found and true lungs, over the images that show some."""
    network.eval()
    found, true = network(images) > 0, lungs > 0.5
    shares = (found & true).sum((1, 2, 3)) / (found | true).sum((1, 2, 3)).clamp(min=1)
    return float(shares[true.sum((1, 2, 3)) > 0].mean())


def train_one_epoch(
    learner: Learner[LungNet], chests: Tensor, config: LungConfig, epoch: int, run: runtime.Runtime
) -> float:
    """One pass over ``chests``, uint8 [N, 2, S, S], each in a new disguise; the mean loss per step.

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    learner.model.train()
    generator = torch.Generator().manual_seed(1000 * config.seed + epoch)
    steps = len(chests) // config.batch_size
    order = torch.randperm(len(chests), generator=generator)[: steps * config.batch_size]
    total = 0.0
    for batch in tqdm(order.split(config.batch_size), f"epoch {epoch + 1}", leave=False):
        images, lungs = disguise(chests[batch, 0], chests[batch, 1], SIZE, generator)
        loss = loss_of(learner.model, images.to(run.device), lungs.to(run.device), run)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch + 1}; try a lower --lr")
        learner.optimizer.zero_grad()
        loss.backward()
        learner.optimizer.step()
        learner.scheduler.step()
        learner.average.update_parameters(learner.model)
        total += loss.item()
    return total / steps


def fit(config: LungConfig, chests: Tensor, run: runtime.Runtime) -> nn.Module:
    """The average of the weights of the last steps, learnt from ``chests``, uint8 [N, 2, S, S] on the CPU."""
    chests, rest = chests[: -config.held_back], chests[-config.held_back :]
    lesson = disguise(rest[:, 0], rest[:, 1], SIZE, torch.Generator().manual_seed(config.seed))
    images, lungs = (part.to(run.device) for part in lesson)
    network, few = LungNet(), runtime.trial_images(SIZE)
    run = runtime.with_faster_precision(
        run, config.precision, network, lambda trial, how: loss_of(trial, images[:few], lungs[:few], how)
    )
    learner = prepare(
        network,
        run,
        lr=config.lr,
        weight_decay=config.weight_decay,
        average_share=0.02,
        total_steps=config.epochs * (len(chests) // config.batch_size),
    )
    print(f"{len(chests)} chests, {run}")
    for epoch in range(config.epochs):
        loss = train_one_epoch(learner, chests, config, epoch, run)
        share = overlap(learner.average.module, images, lungs)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, IoU of chests held back, in disguise, {share:.4f}", flush=True)
    return learner.average.module


def main() -> None:
    """Draw, train and write what the command line asks for."""
    config = cli.parse(LungConfig, summary=__doc__)
    numbers = range(config.chests + config.held_back)
    take = partial(take_wide, seed=config.seed, width=DRAWN)
    drawn = processes.draw(take, numbers, config.workers, "chests")
    chests = torch.from_numpy(np.stack([squares(chest) for chest in drawn]))
    with runtime.start(config.device, config.precision, config.seed) as run:
        lung_finder.save(fit(config, chests, run).cpu(), config.weights_file)
    print(f"wrote {config.weights_file}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
