"""Train the classifier with several recipes and seeds, and score each out of distribution.

    python studies/classification_recipe.py --data-dir chest_xray --rsna-dir dataset_det --recipes default whole

Appends one JSON line per run to checkpoint/classification_recipe/runs.jsonl and skips runs that are in it. Scores are
ROC AUC on validation (other patients, same source), on validation with NORMAL style-transferred, on NORMAL of the
styles that were left out of training against validation's PNEUMONIA, and on RSNA's Normal against Lung Opacity in one
half of the patients; the other half is scored with --last-look alone, when a recipe has been chosen. test/ is not read.
"""

import hashlib
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray

from cxr import cli, metrics, reading, runtime, training_run
from cxr.training_run import lock_folder
from pytorch_classification import train_classification as training
from pytorch_classification.model import as_input, predict_logits
from pytorch_classification.shifted_validation import balanced_threshold
from pytorch_classification.training_data import TrainingData, load_data, store_size
from pytorch_detection import rsna_dataset

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "whole": {"crop_prob": 0.0},
    "parts": {"crop_prob": 1.0},
    "no exchange": {"style_mix_prob": 0.0},
    "no filter": {"randconv_prob": 0.0},
    "more filter": {"randconv_prob": 0.6},
    "quarter parts": {"crop_prob": 0.25},
    "three quarters parts": {"crop_prob": 0.75},
    "longer": {"epochs": 20},
    "larger": {"size": 128},
}
LEFT_OUT = (0.1, 0.05)  # of NORMAL and of PNEUMONIA: those whose style is most like the other class
_FOLDS = 5


@dataclass(frozen=True)
class BenchConfig:
    """What is trained, and on what it is scored."""

    data_dir: Path = cli.flag(training.TrainConfig.data_dir, help="holds train/ with NORMAL/ and PNEUMONIA/")
    rsna_dir: Path | None = cli.flag(None, help="folder of the RSNA challenge with the mapping to NIH patients")
    output_dir: Path = cli.flag(Path("checkpoint/classification_recipe"), help="where runs.jsonl and the squares go")
    recipes: tuple[str, ...] = cli.flag(tuple(RECIPES), help=f"some of {', '.join(RECIPES)}")
    seeds: tuple[int, ...] = cli.flag((0, 1, 2), help="one training each")
    size: int = cli.flag(96, help="side in pixels of the square the network sees")
    epochs: int = cli.flag(10, help="passes over the training images")
    last_look: bool = cli.flag(False, help="score the other half of RSNA's patients too")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


def style_of(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, F] of squares [N, S, S], without the lungs: outer ring of a thumbnail, grey histogram, radial spectrum."""
    small = as_input(torch.from_numpy(images), 28)[:, 0].numpy()
    ring = np.ones((28, 28), bool)
    ring[3:-3, 3:-3] = False
    histogram = np.stack([np.bincount(image.ravel() // 8, minlength=32) for image in images]) / images[0].size
    size = images.shape[-1]
    band = (np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * 64).astype(int).ravel()
    power = np.log1p(np.abs(np.fft.rfft2(images.astype(np.float32))) ** 2).reshape(len(images), -1)
    spectrum = np.stack([power[:, band == one].mean(axis=1) for one in np.unique(band)], axis=1)
    return np.concatenate([small[:, ring], histogram, spectrum], axis=1, dtype=np.float32)


def without_contradicting_styles(data: TrainingData) -> tuple[TrainingData, NDArray[np.int64]]:
    """``data`` without the training patients whose style is the other class's, and the NORMAL images among them."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    rows, labels = data.train, data.labels[data.train]
    patients = np.array(data.listing.patients)[rows]
    told: Any = cross_val_predict(
        HistGradientBoostingClassifier(max_iter=150, random_state=0),
        style_of(data.images[rows]),
        labels,
        groups=patients,
        cv=StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )
    against = told[np.arange(len(rows)), 1 - labels]
    odd = np.zeros(len(rows), bool)
    for label, share in enumerate(LEFT_OUT):
        own = np.flatnonzero(labels == label)
        odd[own[np.argsort(-against[own], kind="stable")[: max(1, round(share * len(own)))]]] = True
    kept = ~np.isin(patients, patients[odd])
    return replace(data, train=rows[kept]), rows[odd & (labels == 0)]


@dataclass(frozen=True)
class Rsna:
    """Squares and labels of the choosing half and of the other, by patient."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    choosing: NDArray[np.bool_]


def rsna(config: BenchConfig, size: int) -> Rsna | None:
    """Normal and Lung Opacity; a hash of the patient decides the half."""
    if config.rsna_dir is None:
        return None
    exams = rsna_dataset.list_exams(config.rsna_dir)
    known = {"Normal": 0, "Lung Opacity": 1}
    kept = [row for row, finding in enumerate(exams.findings) if finding in known]
    folder = config.output_dir / "decoded"
    store = reading.decode_once([exams.paths[row] for row in kept], store_size(size), folder, name="rsna")
    labels = np.array([known[exams.findings[row]] for row in kept])
    patients = [exams.patients[row] or exams.exam_ids[row] for row in kept]
    choosing = np.array([hashlib.sha256(patient.encode()).digest()[0] % 2 == 0 for patient in patients])
    return Rsna(store.images, labels, choosing)


def score(config: BenchConfig, settings: training.TrainConfig, run: runtime.Runtime) -> dict[str, Any]:
    """One training, scored after its last epoch."""
    whole = load_data(settings, run)
    data, left_out = without_contradicting_styles(whole)
    model = training.build("none")
    train_state = training.make_train_state(settings, model, len(data.train) // settings.batch_size, run)
    run = training.with_faster_precision(model, data, settings.size, settings.precision, run)
    began = time.perf_counter()
    for epoch in range(settings.epochs):
        training.train_one_epoch(train_state, data, settings, epoch, run)
    minutes = (time.perf_counter() - began) / 60

    def log_odds(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return predict_logits(train_state.average, images, rows, settings.size, settings.flip_tta, run)

    sets = {name: (log_odds(images, rows), labels) for name, (images, rows, labels) in data.validation_sets().items()}
    plain, labels = sets["val"]
    ill = plain[labels == 1]
    normal = log_odds(data.images, left_out)
    sets["left_out"] = (np.concatenate([normal, ill]), np.repeat(np.array([0, 1]), [len(normal), len(ill)]))
    films = rsna(config, settings.size)
    if films:
        for name, half in (("rsna", films.choosing), ("rsna_last_look", ~films.choosing)):
            if name == "rsna" or config.last_look:
                sets[name] = (log_odds(films.images, np.flatnonzero(half)), films.labels[half])
    point = balanced_threshold([sets["val"], sets["rsna" if films else "shifted"]])
    result: dict[str, Any] = {"minutes": round(minutes, 1), "balanced_threshold": point}
    for name, (logits, labels) in sets.items():
        called = logits >= point
        result[f"{name}_auc"] = float(metrics.roc_auc(logits, labels))
        result[f"{name}_sensitivity"] = float(called[labels == 1].mean())
        result[f"{name}_specificity"] = float((~called)[labels == 0].mean())
    return result


def main(config: BenchConfig) -> None:
    """Train what is missing, then show the table."""
    unknown = [name for name in config.recipes if name not in RECIPES]
    if unknown:
        raise ValueError(f"--recipes {' '.join(unknown)}: expected some of {', '.join(RECIPES)}")
    log = config.output_dir / "runs.jsonl"
    done = training_run.read_records(log)
    for name in config.recipes:
        for seed in config.seeds:
            settings = replace(
                training.TrainConfig(
                    data_dir=config.data_dir, output_dir=config.output_dir, weights="none", size=config.size,
                    epochs=config.epochs, seed=seed,
                ),
                **RECIPES[name],
            )  # fmt: skip
            key = {"recipe": name, "seed": seed, "size": settings.size, "epochs": settings.epochs}
            found = next((row for row in done if key.items() <= row.items()), None)
            if found is None:
                with runtime.start(config.device, "auto", seed) as run, lock_folder(config.output_dir, run):
                    found = key | score(config, settings, run)
                training_run.append_record(log, found)
            print(
                ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items()), flush=True
            )


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
