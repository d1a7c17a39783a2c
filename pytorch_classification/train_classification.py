"""Train ResNet-18 to tell PNEUMONIA from NORMAL chest radiographs, calibrate it, and report on the test images once.

    python pytorch_classification/train_classification.py --data-dir chest_xray --weights none

Writes checkpoint/classification/{last,best}.pth and metrics.jsonl while it trains; at the end the finished model to
pneumonia_resnet18.pth, the test report to checkpoint/classification/test_report.json, and pictures to images/. With
--resume it goes on from last.pth and ends with the same weights as a run that was never stopped. Under torchrun the
batch is divided among the processes.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from cxr import augment, checkpoints, cli, metrics, reading, resume, runlog, runtime
from cxr.learner import Learner, prepare
from cxr.squares import Squares, sent
from pytorch_classification import data_load, report
from pytorch_classification.model import (
    LARGEST_SIZE,
    TASK,
    as_input,
    build,
    predict_logits,
    to_probability,
)

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
    images_dir: Path = cli.flag(ROOT / "images", help="where the pictures go")
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


@dataclass(frozen=True)
class Data:
    """What a run learns from and chooses by.

    ``squares`` are [N, S', S'], ``labels`` int64 [N], ``hashes`` the content of each file; ``train`` and
    ``validation`` are indices into them, not of images that cannot be read.
    """

    listing: data_load.Listing
    squares: Squares
    labels: NDArray[np.int64]
    hashes: list[str]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [N, S', S'], mapped from disk."""
        return self.squares.array

    def facts(self, data_dir: Path) -> dict[str, str]:
        """Content and class of each image, by its name below ``data_dir``; the name tells the patient."""
        names = [path.relative_to(data_dir).as_posix() for path in self.listing.paths]
        facts = zip(self.hashes, self.labels.tolist(), strict=True)
        return {name: f"{content} {label}" for name, (content, label) in zip(names, facts, strict=True)}


def store_size(size: int) -> int:
    """Side of the stored squares: an eighth over the training size, so that warping does not blur them."""
    return size + size // 8


def load_data(config: TrainConfig, run: runtime.Runtime) -> Data:
    """train/ and val/ decoded and divided by patient; ``test/`` is not opened."""
    pool = ("train", "val") if (config.data_dir / "val").is_dir() else ("train",)
    listing = data_load.list_images(config.data_dir, *pool)
    if not (config.data_dir / "test").is_dir():
        warnings.warn(f"no folder {config.data_dir / 'test'}: the run will end without a test report", stacklevel=2)
    store = reading.decode_once(
        listing.paths,
        store_size(config.size),
        config.out_dir / "decoded",
        name="train",
        skip_bad=config.skip_bad,
        progress=run.is_main,
    )
    readable = np.flatnonzero(store.readable)
    if len(readable) < len(listing):
        warnings.warn(f"{len(listing) - len(readable)} images that cannot be read are left out", stacklevel=2)
    hashes = [store.hashes[i] for i in readable]
    kept = listing.take(readable)
    train, validation = data_load.split(kept, hashes, config.validation_share, config.seed)
    conflicts = data_load.conflicting_duplicates(kept, hashes)
    if conflicts:
        warnings.warn(
            f"{len(conflicts)} files stand in both classes with the same content: {conflicts[0]}", stacklevel=2
        )
    squares = Squares(store.images, run.device)
    return Data(listing, squares, listing.labels, store.hashes, readable[train], readable[validation])


def augmented(stored: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """What the network sees of ``stored`` uint8 [B, S', S'] while it learns: float32 [B, 1, size, size].

    Position and shape vary as children do; tone, sharpness and the frame vary because in this data set they differ
    between sources and so between classes, and would be learnt in place of the lungs.
    """
    count = len(stored)
    curves = augment.plain_curves(count, stored.device)
    curves = augment.swap_tones(curves, stored, generator, share=0.5)
    curves = augment.vary_tone(curves, generator, gamma=0.5, contrast=0.4, brightness=0.15)
    images = augment.apply_curves(stored, curves)
    matrices = augment.random_affine(
        count, generator, rotation_degrees=12, zoom=0.2, stretch=0.12, shear=0.1, shift=0.12, flip=0.5
    )
    images = augment.warp(images, matrices, size)
    images = augment.swap_frames(images, generator, share=0.5, inner=0.72)
    images = augment.vary_sharpness(images, generator, sigma=1.6, share_blurred=0.4, share_sharpened=0.2)
    return augment.erase(images, generator, share=0.4, smallest=0.1, largest=0.35)


def class_weights(labels: NDArray[np.int64]) -> Tensor:
    """float32 [2] that give both classes the same say, with mean 1 over ``labels``.

    Three of four training images are PNEUMONIA. Unweighted, that share would lean every doubtful chest towards it.
    """
    counts = np.bincount(labels, minlength=2)
    return torch.tensor(len(labels) / (2 * counts), dtype=torch.float32)


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the log-odds [B], each image weighted by its class; the mean over images."""
    losses = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return (losses * weights[labels]).mean()


def make_learner(config: TrainConfig, steps_per_epoch: int, run: runtime.Runtime) -> Learner[nn.Module]:
    """The network with its optimizer, schedule and weight average."""
    model = build("none" if config.resume else config.weights)
    return prepare(
        model,
        run,
        lr=config.lr,
        weight_decay=config.weight_decay,
        average_share=config.average_share,
        total_steps=config.epochs * steps_per_epoch,
        compiled=(model,) if config.compile else (),
    )


def batch_loss(network: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, run: runtime.Runtime) -> Tensor:
    """``weighted_loss`` of ``images`` float32 [B, 1, S, S], in the precision of ``run``."""
    with run.autocast():
        logits = network(images.contiguous(memory_format=torch.channels_last))
    return weighted_loss(logits.float().squeeze(1), labels, weights)


def with_faster_precision(model: nn.Module, data: Data, config: TrainConfig, run: runtime.Runtime) -> runtime.Runtime:
    """``run`` in the precision in which ``model`` trains faster, if ``config`` leaves the choice."""
    few = data.train[: runtime.trial_images(config.size)]
    images, labels = as_input(data.squares[few], config.size), sent(data.labels[few], run.device)
    weights = torch.ones(2, device=run.device)
    return runtime.with_faster_precision(
        run,
        config.precision,
        model,
        lambda network, trial: batch_loss(network, images, labels, weights, trial),
    )


def train_one_epoch(
    learner: Learner[nn.Module], data: Data, config: TrainConfig, epoch: int, run: runtime.Runtime
) -> float:
    """One pass in the order that (seed, epoch) decides; the mean loss per image, over all processes.

    Raises:
        FloatingPointError: the loss of a step is not finite; names the step and its images, before weights change.
    """
    generator = runtime.seed_epoch(config.seed, epoch, run)
    weights = class_weights(data.labels[data.train]).to(run.device)
    order = runtime.epoch_order(data.train, config.seed, epoch)
    learner.model.train()
    total = 0.0
    steps = runtime.batches(order, min(config.batch_size, len(order)), run)
    title = f"epoch {epoch + 1}/{config.epochs}"
    for step, chosen in enumerate(tqdm(steps, title, unit="step", disable=not run.is_main, leave=False)):
        labels = sent(data.labels[chosen], run.device)
        images = augmented(data.squares[chosen], config.size, generator)
        loss = batch_loss(learner.stepper, images, labels, weights, run)
        value = loss.item()
        if not np.isfinite(value):
            names = ", ".join(str(data.listing.paths[i]) for i in chosen)
            raise FloatingPointError(f"epoch {epoch + 1}, step {step + 1}: the loss is {value} on the images {names}")
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.model.parameters(), max_norm=2.0)
        learner.optimizer.step()
        learner.scheduler.step()
        learner.average.update_parameters(learner.model)
        total += value
    return float(np.mean(runtime.gather_objects(total / len(steps), run)))


def validate(learner: Learner[nn.Module], data: Data, config: TrainConfig, run: runtime.Runtime) -> dict[str, float]:
    """Scores of the averaged weights on the validation images, the same in every process.

    The epoch is chosen by ``val_calibrated_loss``, the loss that is left at the best temperature: AUC no longer tells
    good epochs apart, and the plain loss prefers early ones for being less sure of themselves.
    """
    runtime.synchronize_buffers(learner.average, run)
    logits = predict_logits(learner.average, data.images, data.validation, config.size, config.flip_average, run)
    labels = data.labels[data.validation]
    truth, weights = torch.from_numpy(labels), class_weights(labels).double()
    calibrated = logits / metrics.fit_temperature(logits, labels)
    point = metrics.operating_point(to_probability(logits, 1.0), labels, config.target_sensitivity)
    auc = float(metrics.roc_auc(logits, labels))
    return {
        "val_loss": weighted_loss(torch.from_numpy(logits), truth, weights).item(),
        "val_calibrated_loss": weighted_loss(torch.from_numpy(calibrated), truth, weights).item(),
        "val_auc": auc,
        "val_specificity": point.specificity,
    }


def fit(config: TrainConfig, run: runtime.Runtime) -> None:
    """The whole run: epochs, then calibration, model file, test report and pictures."""
    data = load_data(config, run)
    batch_size = min(config.batch_size, len(data.train))
    if batch_size % run.world_size:
        raise ValueError(f"--batch-size {batch_size} cannot be divided among {run.world_size} processes")
    learner = make_learner(config, len(data.train) // batch_size, run)
    last, best_file, log = (config.out_dir / name for name in ("last.pth", "best.pth", "metrics.jsonl"))
    start, best = 0, float("inf")
    about = {
        "config": cli.plain(config),
        "classes": list(data_load.CLASSES),
        "processes": run.world_size,
        "data": resume.listed(data.facts(config.data_dir)),
    }
    if config.resume:
        state = checkpoints.load(last, task=TASK)
        resume.require_same_run(state, about, MAY_DIFFER, config.out_dir)
        learner.restore(state)
        start, best = state["epoch"], state["best"]
        run = runtime.as_begun(run, state)
    else:
        run = with_faster_precision(learner.model, data, config, run)
    about |= {"bf16": run.bf16, "bf16_speedup": run.bf16_speedup}
    if run.is_main:
        if not config.resume:
            resume.make_way(config.out_dir, ("last.pth", "best.pth"), "test_report.json")
        runlog.drop_from(log, start)
        print(summary(data, config, run))
    for epoch in range(start, config.epochs):
        lr = learner.scheduler.get_last_lr()[0]
        train_loss = train_one_epoch(learner, data, config, epoch, run)
        scores = validate(learner, data, config, run)
        record = {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, **scores}
        improved = scores["val_calibrated_loss"] < best
        best = min(best, scores["val_calibrated_loss"])
        if run.is_main:
            runlog.append(log, record)
            common = {**about, "epoch": epoch + 1, "best": best}
            if improved:
                weights = learner.average.module.state_dict()
                checkpoints.save(best_file, task=TASK, **common, model=weights)
            checkpoints.save(last, task=TASK, **common, **learner.state())
            print(line_of(record, config.epochs, improved))
    runtime.wait(run)  # the other processes read what the first has just written
    report.finish(config, data, runlog.read(log), run)


def summary(data: Data, config: TrainConfig, run: runtime.Runtime) -> str:
    """What is about to happen, in two lines."""
    counts = [np.bincount(data.labels[part], minlength=2).tolist() for part in (data.train, data.validation)]
    patients = [len({data.listing.patients[i] for i in part}) for part in (data.train, data.validation)]
    parts = [
        f"{name} {count[0]} {data_load.CLASSES[0]} + {count[1]} {data_load.CLASSES[1]} of {people} patients"
        for name, count, people in zip(("train", "validation"), counts, patients, strict=True)
    ]
    return f"{'; '.join(parts)}\n{config.epochs} epochs at {config.size} px from weights {config.weights} on {run}"


def line_of(record: dict[str, Any], epochs: int, improved: bool) -> str:
    """One epoch in one line."""
    return (
        f"epoch {record['epoch']:>3}/{epochs}  train loss {record['train_loss']:.4f}  "
        f"val loss {record['val_loss']:.4f}  AUC {record['val_auc']:.4f}  specificity {record['val_specificity']:.3f}"
        + ("  kept" * improved)
    )


def main() -> None:
    """Parse, lock the output folder, train."""
    config = cli.parse(TrainConfig)
    with runtime.start(config.device, config.precision, config.seed) as run, runtime.only_run_in(config.out_dir, run):
        fit(config, run)


if __name__ == "__main__":
    sys.exit(cli.run(main))
