"""Train Faster R-CNN to detect lung opacities in RSNA radiographs, and evaluate it on held-out patients.

    python pytorch_detection/train_detection.py --data-dir dataset_det
    python pytorch_detection/train_detection.py --table boxes.csv

Writes last.pth and metrics.jsonl in checkpoint/detection/ while it trains; at the end, there too, the finished model
pneumonia_fasterrcnn.pth, with the moving average of the weights, the report on held-out patients and errors.csv, and
pictures in images/detection/ (with --output-dir, in its folder images/). The table has the
format of evaluate_detection.py. --resume continues from last.pth and ends with the same weights as an uninterrupted
run. Under torchrun each batch is divided among the processes.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_detection.settings import RESUME_IGNORES, TrainConfig

# Before torch is imported, so that --help and wrong flags need no seconds.
CONFIG = cli.start(TrainConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cxr import metrics, runtime, training_run
from cxr.training_run import RunFolder, TrainState, lock_folder, prepare
from pytorch_detection import box_metrics, finish_training, rsna_dataset
from pytorch_detection.detector import choose_gate
from pytorch_detection.inference import RawDetections, as_input
from pytorch_detection.model import TASK, Architecture, Detection, GreyFasterRCNN, Losses, Target, build, construct
from pytorch_detection.training_data import TrainingData, augmented, batch_of, epoch_order, load_data

GRADIENT_LIMIT = 5.0  # norm to which longer gradients are clipped
_BATCH = 16  # images per batch of validation


def make_train_state(
    config: TrainConfig, model: GreyFasterRCNN, steps_per_epoch: int, run: runtime.Runtime
) -> TrainState[GreyFasterRCNN]:
    """``model`` with its optimizer, schedule and weight average."""
    return prepare(
        model,
        run,
        lr=config.lr,
        weight_decay=config.weight_decay,
        ema_window=config.ema_window,
        total_steps=config.epochs * steps_per_epoch,
    )


def weighted_losses(losses: Losses, image_loss_weight: float) -> Losses:
    """Torchvision's four losses and the weighted image-level loss, after ``loss``, their sum."""
    if "loss_image" in losses:
        losses = {**losses, "loss_image": losses["loss_image"] * image_loss_weight}
    return {"loss": torch.stack([*losses.values()]).sum(), **losses}


def batch_losses(
    network: nn.Module, images: Tensor, targets: Sequence[Target], image_loss_weight: float, run: runtime.Runtime
) -> Losses:
    """``weighted_losses`` of ``images`` float32 [B, 1, S, S], computed in the precision of ``run``."""
    with run.autocast():
        losses = network(images.contiguous(memory_format=torch.channels_last), targets)
    return weighted_losses(losses, image_loss_weight)


def with_faster_precision(
    model: GreyFasterRCNN, data: TrainingData, config: TrainConfig, run: runtime.Runtime
) -> runtime.Runtime:
    """``run`` in ``config.precision``, or for auto in that in which ``model`` trains faster."""
    stored, targets = batch_of(data, data.train[: runtime.trial_images(config.size)], run)
    images = as_input(stored)
    return runtime.with_faster_precision(
        run,
        config.precision,
        model,
        lambda network, trial: batch_losses(network, images, targets, config.image_loss_weight, trial)["loss"],
    )


def train_one_epoch(
    train_state: TrainState[GreyFasterRCNN], data: TrainingData, config: TrainConfig, epoch: int, run: runtime.Runtime
) -> dict[str, float]:
    """One pass in the order given by (seed, epoch); returns the mean losses per image over all processes.

    Raises:
        FloatingPointError: the loss of a step is not finite; names the step and its images, before weights change.
    """
    generator = runtime.seed_epoch(config.seed, epoch, run)
    order = epoch_order(data, config.seed, epoch, config.negatives_per_positive)
    light = epoch >= config.epochs - config.light_augmentation_epochs
    train_state.model.train()
    sums: dict[str, float] = {}
    steps = runtime.batches(order, config.batch_size, run)
    title = f"epoch {epoch + 1}/{config.epochs}"
    for step, batch in enumerate(tqdm(steps, title, unit="step", disable=not run.is_main, leave=False)):
        stored, targets = batch_of(data, batch, run)
        images, targets = augmented(stored, targets, generator, light)
        losses = batch_losses(train_state.ddp_model, images, targets, config.image_loss_weight, run)
        # One transfer for all of them: on a GPU each waits until the step so far is computed.
        values = dict(zip(losses, torch.stack([*losses.values()]).tolist(), strict=True))
        if not np.isfinite(values["loss"]):
            names = ", ".join(str(data.exams[i].path) for i in batch)
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {step + 1}: the loss is {values['loss']} on the images {names}"
            )
        train_state.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(train_state.model.parameters(), GRADIENT_LIMIT)
        train_state.optimizer.step()
        train_state.scheduler.step()
        train_state.average.update_parameters(train_state.model)
        sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
    return means_over_processes(sums, len(steps), run)


def means_over_processes(sums: dict[str, float], count: int, run: runtime.Runtime) -> dict[str, float]:
    """The means over all processes from the sums over ``count`` items in each."""
    parts = runtime.gather_objects((sums, count), run)
    total = sum(number for _, number in parts)
    return {name: sum(part[name] for part, number in parts if number) / total for name in sums}


@torch.inference_mode()
def validate(
    train_state: TrainState[GreyFasterRCNN], data: TrainingData, config: TrainConfig, run: runtime.Runtime
) -> dict[str, Any]:
    """Scores and losses of the averaged weights on the validation images, the same in every process.

    One pass through the backbone gives both. The anchors and proposals of the losses are sampled with the same seed
    each time.
    """
    runtime.synchronize_buffers(train_state.average, run)
    model = train_state.average.module
    assert isinstance(model, GreyFasterRCNN)
    model.eval()
    torch.manual_seed(config.seed)
    mine = runtime.shard(data.validation, run)
    detections: list[Detection] = []
    sums: dict[str, float] = {}
    for first in range(0, len(mine), _BATCH):
        batch = mine[first : first + _BATCH]
        stored, targets = batch_of(data, batch, run)
        with run.autocast():
            losses, found = model.losses_and_detections(as_input(stored), targets)
        values = {name: loss.item() for name, loss in weighted_losses(losses, config.image_loss_weight).items()}
        sums = {name: sums.get(name, 0.0) + value * len(batch) for name, value in values.items()}
        detections += found
    found, truths = RawDetections.of(detections).gathered(run), data.truths(data.validation)
    gate_power = choose_gate(found, truths)
    scores = box_metrics.score_detections(found.boxes, found.gated(gate_power), truths)
    if config.image_loss_weight:
        labels = np.array([len(boxes) > 0 for boxes in truths])
        auc = float(metrics.roc_auc(found.probability, labels))
        scores["image_head_auc"] = None if np.isnan(auc) else auc  # no image without opacity: JSON has no NaN
    means = means_over_processes(sums, len(mine), run)
    return {f"val_{name}": value for name, value in {**means, "gate_power": gate_power, **scores}.items()}


def fit(config: TrainConfig, run: runtime.Runtime) -> None:
    """The whole run: each network, operating point, model file, held-out report and pictures."""
    networks = config.each_network()
    # Before the exams are decoded, so that wrong settings are refused at once.
    RunFolder(config.output_dir, TASK, finish_training.REPORT).require_free(
        config.resume or config.overwrite, config.model_file
    )
    begun = [begin(each, may_be_new=not config.resume or each is not networks[0]) for each in networks]
    data = load_data(config, run)
    if run.is_main:
        drop_others(config, {each.output_dir for each in networks})
    trained = run
    for number, (each, (model, state)) in enumerate(zip(networks, begun, strict=True), 1):
        if run.is_main and len(networks) > 1:
            print(f"network {number} of {len(networks)}, in {each.output_dir}")
        trained = fit_one(each, model, state, data, run)
    finish_training.finish(config, data, trained)


def drop_others(config: TrainConfig, folders: set[Path]) -> None:
    """Remove the further networks of a previous run; on --resume name those that are not in ``folders``."""
    for folder in sorted(config.output_dir.glob("member_*")):
        if not config.resume:
            print(f"{folder}: a network of the previous run, removed")
            shutil.rmtree(folder)
        elif folder not in folders:
            print(f"{folder}: not used, because --ensemble is {config.ensemble}")


def begin(config: TrainConfig, *, may_be_new: bool) -> tuple[GreyFasterRCNN, dict[str, Any] | None]:
    """A network to train, and on --resume the checkpoint to continue from, which must exist unless ``may_be_new``."""
    folder = RunFolder(config.output_dir, TASK, finish_training.REPORT)
    if config.resume and (folder.last.exists() or not may_be_new):
        state = folder.load_last()
        return construct(Architecture.of(state, folder.last)), state
    torch.manual_seed(config.seed)
    return build(config.weights, config.backbone, config.size, image_head=config.image_loss_weight > 0), None


def fit_one(
    config: TrainConfig, model: GreyFasterRCNN, state: dict[str, Any] | None, data: TrainingData, run: runtime.Runtime
) -> runtime.Runtime:
    """Train one network for the epochs that are left after those of ``state``; returns ``run`` in their precision."""
    folder = RunFolder(config.output_dir, TASK, finish_training.REPORT)
    images = len(epoch_order(data, config.seed, 0, config.negatives_per_positive))
    train_state = make_train_state(config, model, runtime.steps_per_epoch(images, config.batch_size, run), run)
    about = {
        "config": cli.plain(config),
        "architecture": asdict(model.architecture),
        "processes": run.world_size,
        "data": training_run.fingerprint(data.facts()),
    }
    start = 0
    if state is None:
        run = with_faster_precision(train_state.model, data, config, run)
    else:
        training_run.require_same_run(state, about, RESUME_IGNORES, config.output_dir)
        train_state.restore(state)
        start = state["epoch"]
        run = runtime.as_begun(run, state)
    about |= {"bf16": run.bf16, "bf16_speedup": run.bf16_speedup}
    if run.is_main:
        folder.begin(start)
        finished = start >= config.epochs
        print(f"already trained: epoch {start} of {config.epochs}" if finished else summary(data, config, images, run))
        if start:
            finish_training.draw_curves(training_run.read_records(folder.log), config.images_dir)
    for epoch in range(start, config.epochs):
        began = time.perf_counter()
        lr = train_state.scheduler.get_last_lr()[0]
        means = train_one_epoch(train_state, data, config, epoch, run)
        scores = validate(train_state, data, config, run)
        record = {"epoch": epoch + 1, "lr": lr, **{f"train_{name}": value for name, value in means.items()}, **scores}
        record["seconds"] = round(time.perf_counter() - began, 1)
        if run.is_main:
            folder.save_epoch(train_state, about, record)
            print(format_epoch(record, config.epochs))
            finish_training.draw_curves(training_run.read_records(folder.log), config.images_dir)
    runtime.wait(run)  # the other processes read what the first has just written
    return run


def summary(data: TrainingData, config: TrainConfig, images: int, run: runtime.Runtime) -> str:
    """The exams and the settings of a run that starts, with ``images`` per epoch, in four lines."""
    parts = {"train": data.train, "validation": data.validation, "held out": data.held_out}
    lines = [f"{name}: {rsna_dataset.describe(data.of(part))}" for name, part in parts.items()]
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)} of {images} images at {config.size} px"
    return "\n".join([*lines, f"{epochs}, {config.backbone} from weights {config.weights}, on {run}"])


def format_epoch(record: dict[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    auc = record["val_image_auc"]
    return (
        f"epoch {record['epoch']:>3}/{epochs}  train loss {record['train_loss']:.4f}  "
        f"val loss {record['val_loss']:.4f}  AP50 {record['val_ap50']:.3f}  RSNA {record['val_rsna_score']:.3f}  "
        f"sensitivity at 1 FP/image {record['val_sensitivity_at_1_fp']:.3f}  "
        f"image AUC {'-' if auc is None else f'{auc:.3f}'}"
    )


def main(config: TrainConfig) -> None:
    """Lock the output folder, train."""
    with runtime.start(config.device, config.precision, config.seed) as run, lock_folder(config.output_dir, run):
        fit(config, run)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
