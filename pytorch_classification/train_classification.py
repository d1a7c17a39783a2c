"""Train ResNet-18 to classify PNEUMONIA and NORMAL chest radiographs, calibrate it, and evaluate it on the test set.

    python pytorch_classification/train_classification.py --data-dir chest_xray --weights none

Writes {last,best}.pth and metrics.jsonl in checkpoint/classification/ while it trains; at the end the finished model
pneumonia_resnet18.pth and the test report test_report.json there, and pictures in images/classification/ (with
--output-dir, all there, pictures in its folder images/). --resume continues from last.pth and ends with the
same weights as an uninterrupted run. Under torchrun each batch is divided among the processes.
"""

import sys
import time
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_classification.settings import RESUME_IGNORES, TrainConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(TrainConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from cxr import metrics, runtime, training_run
from cxr.runtime import to_device
from cxr.training_run import RunFolder, TrainState, lock_folder, prepare
from pytorch_classification import finish_training
from pytorch_classification.augment import augmented
from pytorch_classification.data_load import CLASSES
from pytorch_classification.model import TASK, as_input, build, predict_logits
from pytorch_classification.operating_point import fit_temperature
from pytorch_classification.training_data import TrainingData, load_data

GRADIENT_LIMIT = 2.0  # norm to which longer gradients are clipped


def class_weights(labels: NDArray[np.int64]) -> Tensor:
    """float32 [2] that give both classes the same weight in the loss, with mean 1 over ``labels``.

    Three of four training images are PNEUMONIA. Unweighted, uncertain images would be predicted as that class.
    """
    counts = np.bincount(labels, minlength=2)
    return torch.tensor(len(labels) / (2 * counts), dtype=torch.float32)


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the log-odds [B], each image weighted by its class; the mean over images."""
    losses = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return (losses * weights[labels]).mean()


def make_train_state(
    config: TrainConfig, model: nn.Module, steps_per_epoch: int, run: runtime.Runtime
) -> TrainState[nn.Module]:
    """``model`` with its optimizer, schedule and weight average."""
    return prepare(
        model,
        run,
        lr=config.lr,
        weight_decay=config.weight_decay,
        ema_window=config.ema_window,
        total_steps=config.epochs * steps_per_epoch,
    )


def batch_loss(network: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, run: runtime.Runtime) -> Tensor:
    """``weighted_loss`` of ``images`` float32 [B, 1, S, S], in the precision of ``run``."""
    with run.autocast():
        logits = network(images.contiguous(memory_format=torch.channels_last))
    return weighted_loss(logits.float().squeeze(1), labels, weights)


def with_faster_precision(
    model: nn.Module, data: TrainingData, size: int, precision: cli.Precision, run: runtime.Runtime
) -> runtime.Runtime:
    """``run`` in ``precision``, or for auto in that in which ``model`` trains faster on squares of ``size``."""
    few = data.train[: runtime.trial_images(size)]
    images, labels = as_input(data.squares[few], size), to_device(data.labels[few], run.device)
    weights = torch.ones(2, device=run.device)
    return runtime.with_faster_precision(
        run, precision, model, lambda network, trial: batch_loss(network, images, labels, weights, trial)
    )


def train_one_epoch(
    train_state: TrainState[nn.Module], data: TrainingData, config: TrainConfig, epoch: int, run: runtime.Runtime
) -> float:
    """One pass in the order given by (seed, epoch); returns the mean loss per image over all processes.

    Raises:
        FloatingPointError: the loss of a step is not finite; names the step and its images, before weights change.
    """
    generator = runtime.seed_epoch(config.seed, epoch, run)
    weights = class_weights(data.labels[data.train]).to(run.device)
    order = runtime.epoch_order(data.train, config.seed, epoch)
    train_state.model.train()
    total = 0.0
    steps = runtime.batches(order, config.batch_size, run)
    title = f"epoch {epoch + 1}/{config.epochs}"
    for step, batch in enumerate(tqdm(steps, title, unit="step", disable=not run.is_main, leave=False)):
        labels = to_device(data.labels[batch], run.device)
        images = augmented(
            data.squares[batch],
            config.size,
            generator,
            crop_prob=config.crop_prob,
            style_mix_prob=config.style_mix_prob,
            randconv_prob=config.randconv_prob,
        )
        loss = batch_loss(train_state.ddp_model, images, labels, weights, run)
        value = loss.item()
        if not np.isfinite(value):
            names = ", ".join(str(data.listing.paths[i]) for i in batch)
            raise FloatingPointError(f"epoch {epoch + 1}, step {step + 1}: the loss is {value} on the images {names}")
        train_state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(train_state.model.parameters(), GRADIENT_LIMIT)
        train_state.optimizer.step()
        train_state.scheduler.step()
        train_state.average.update_parameters(train_state.model)
        total += value
    return float(np.mean(runtime.gather_objects(total / len(steps), run)))


def validate(
    train_state: TrainState[nn.Module], data: TrainingData, size: int, flip_tta: bool, run: runtime.Runtime
) -> dict[str, float]:
    """Scores of the averaged weights on the validation and the shifted set, the same in every process.

    ``selection_loss``, which selects the epoch, is the mean over both sets of the loss at the best temperature: AUC
    no longer separates good epochs, and the plain loss prefers early ones, which are less confident.
    """
    runtime.synchronize_buffers(train_state.average, run)
    scores: dict[str, float] = {}
    for name, (images, indices, labels) in data.validation_sets().items():
        logits = predict_logits(train_state.average, images, indices, size, flip_tta, run)
        truth, weights = torch.from_numpy(labels), class_weights(labels).double()
        calibrated = logits / fit_temperature(logits, labels)
        scores |= {
            f"{name}_loss": weighted_loss(torch.from_numpy(logits), truth, weights).item(),
            f"{name}_calibrated_loss": weighted_loss(torch.from_numpy(calibrated), truth, weights).item(),
            f"{name}_auc": float(metrics.roc_auc(logits, labels)),
        }
    scores["selection_loss"] = (scores["val_calibrated_loss"] + scores["shifted_calibrated_loss"]) / 2
    return scores


def fit(config: TrainConfig, run: runtime.Runtime) -> None:
    """The whole run: epochs, calibration, model file, test report and pictures."""
    folder = RunFolder(config.output_dir, TASK, finish_training.REPORT)
    folder.require_free(config.resume or config.overwrite, config.model_file)
    state = folder.load_last() if config.resume else None
    model = build(config.weights if state is None else "none")
    data = load_data(config, run)
    train_state = make_train_state(config, model, runtime.steps_per_epoch(len(data.train), config.batch_size, run), run)
    about = {
        "config": cli.plain(config),
        "classes": list(CLASSES),
        "processes": run.world_size,
        "data": training_run.fingerprint(data.facts(config.root)),
    }
    start, best = 0, float("inf")
    if state is None:
        run = with_faster_precision(train_state.model, data, config.size, config.precision, run)
    else:
        training_run.require_same_run(state, about, RESUME_IGNORES, config.output_dir)
        train_state.restore(state)
        start, best = state["epoch"], state["best"]
        run = runtime.as_begun(run, state)
    about |= {"bf16": run.bf16, "bf16_speedup": run.bf16_speedup}
    if run.is_main:
        folder.begin(start)
        print(summary(data, config, run))
        if start:
            finish_training.draw_curves(training_run.read_records(folder.log), config.images_dir)
    for epoch in range(start, config.epochs):
        began = time.perf_counter()
        lr = train_state.scheduler.get_last_lr()[0]
        train_loss = train_one_epoch(train_state, data, config, epoch, run)
        scores = validate(train_state, data, config.size, config.flip_tta, run)
        improved = scores["selection_loss"] < best
        best = min(best, scores["selection_loss"])
        record = {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, **scores, "improved": improved}
        record["seconds"] = round(time.perf_counter() - began, 1)
        if run.is_main:
            folder.save_epoch(train_state, {**about, "best": best}, record)
            print(format_epoch(record, config.epochs))
            finish_training.draw_curves(training_run.read_records(folder.log), config.images_dir)
    runtime.wait(run)  # for the checkpoint of the first process
    finish_training.finish(config, data, run)


def summary(data: TrainingData, config: TrainConfig, run: runtime.Runtime) -> str:
    """The data and settings of the run, in two lines."""
    sets: list[str] = []
    for name, indices in (("train", data.train), ("validation", data.validation)):
        normal, pneumonia = np.bincount(data.labels[indices], minlength=2)
        patients = data.count_patients(indices)
        sets.append(f"{name} {normal} {CLASSES[0]} + {pneumonia} {CLASSES[1]} of {patients} patients")
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}"
    return f"{'; '.join(sets)}\n{epochs} at {config.size} px from weights {config.weights} on {run}"


def format_epoch(record: dict[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {record['epoch']:>3}/{epochs}  train loss {record['train_loss']:.4f}  "
        f"val loss {record['val_loss']:.4f}  AUC {record['val_auc']:.4f}  shifted AUC {record['shifted_auc']:.4f}"
        + ("  best" * record["improved"])
    )


def main(config: TrainConfig) -> None:
    """Lock the output folder and train."""
    with runtime.start(config.device, config.precision, config.seed) as run, lock_folder(config.output_dir, run):
        fit(config, run)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
