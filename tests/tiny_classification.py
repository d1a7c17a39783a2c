"""A data set in the Kaggle layout and settings with which the classification scripts run in seconds."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

PER_CLASS = {"train": 32, "val": 2, "test": 12}


def chest(label: int, seed: int) -> np.ndarray:
    """Horizontal stripes for NORMAL (0) and vertical ones for PNEUMONIA (1), of any tone, place and size: uint8 [H, W].

    Neither turning by a few degrees nor a change of tone, sharpness or frame makes one the other.
    """
    random = np.random.default_rng([label, seed])
    height, width = random.integers(40, 64, size=2)
    across = np.linspace(0, 1, width)[None, :] if label else np.linspace(0, 1, height)[:, None]
    wave = np.sin(2 * np.pi * (random.uniform(3, 4) * across + random.uniform()))
    grey = random.uniform(100, 150) + random.uniform(40, 80) * wave + random.normal(0, 6, (height, width))
    return grey.clip(0, 255).astype(np.uint8)


def name_of(label: int, number: int) -> str:
    """As Kaggle names them; two images in a row are of one patient."""
    patient = number // 2
    if label:
        return f"person{patient}_{'bacteria' if number % 2 else 'virus'}_{number}.jpeg"
    return f"{'NORMAL2-' if patient % 2 else ''}IM-{patient:04}-{number % 2:04}.jpeg"


def write_chest_xray(folder: Path, per_class: dict[str, int] = PER_CLASS) -> Path:
    """``folder`` with {train,val,test}/{NORMAL,PNEUMONIA}; no patient and no picture is repeated."""
    first = 0
    for split, count in per_class.items():
        for label, name in enumerate(("NORMAL", "PNEUMONIA")):
            (folder / split / name).mkdir(parents=True)
            for number in range(first, first + count):
                Image.fromarray(chest(label, number)).save(folder / split / name / name_of(label, number), quality=92)
        first += count
    return folder


def settings(data_dir: Path, folder: Path, **changes: object) -> Any:
    """A ``TrainConfig`` that writes under ``folder`` alone and trains for seconds."""
    from pytorch_classification.settings import TrainConfig

    chosen: dict[str, Any] = {
        "data_dir": data_dir,
        "output_dir": folder / "run",
        "model_file": folder / "model.pth",
        "weights": "none",
        "epochs": 2,
        "size": 32,
        "batch_size": 24,
        "lr": 2e-3,
        "ema_window": 0.1,
        "validation_share": 0.25,
        "device": "cpu",
        "precision": "fp32",
    }
    return TrainConfig(**chosen | changes)


def train(config: Any) -> None:
    """What the script does once it has read its command line."""
    from cxr import runtime
    from cxr.training_run import lock_folder
    from pytorch_classification.train_classification import fit

    with runtime.start(config.device, config.precision, config.seed) as run, lock_folder(config.output_dir, run):
        fit(config, run)


def only_after(epoch: int) -> Any:
    """A context in which curves are drawn of that many epochs alone: a picture takes as long as a tiny epoch."""
    from cxr import plots

    draw = plots.loss_curves
    return patch.object(plots, "loss_curves", lambda records, *rest, **named: len(records) < epoch or draw(records, *rest, **named))  # fmt: skip
