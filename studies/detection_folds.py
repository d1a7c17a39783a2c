"""Compare recipes of the detector by repeated cross-validation, patients apart, without the held-out exams.

    python studies/detection_folds.py --data-dir dataset_det --recipes base high-rate

Each recipe is trained once for each seed and fold, on the other folds of the training and validation exams, and scored
after its last epoch on the fold it did not see. The seed decides the folds too. Appends one JSON line a training to
checkpoint/detection_folds/runs.jsonl, passes over what stands there, and keeps the boxes found in found/. Then prints
a table of the recipes, what the box rule gains by being fitted on all exams, and draws growth.png where there are
trainings on parts of the exams.

--workers trains several at once, which a GPU is too large for otherwise.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from cxr import cli, patients, runtime, training_run
from cxr.plots import LINES, WIDTH, saved_figure
from cxr.training_run import lock_folder
from pytorch_detection import rsna_dataset
from pytorch_detection import train_detection as training
from pytorch_detection.inference import find_boxes
from pytorch_detection.model import GreyFasterRCNN, build
from pytorch_detection.settings import TrainConfig
from pytorch_detection.training_data import TrainingData, epoch_order, load_data
from studies import out_of_fold
from studies.out_of_fold import COLUMNS, Answer, mean_text


@dataclass(frozen=True)
class Recipe:
    """How a training differs from the documented one.

    Attributes:
        changes: of ``TrainConfig``.
        epochs: factor for their number.
        exams: share of the training exams; epochs grow as it shrinks, so that the number of steps is the same.
        from_scratch: whether it begins with random weights, whatever --weights says.
    """

    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    epochs: float = 1.0
    exams: float = 1.0
    from_scratch: bool = False


# The most promising first, so that a run that is cut off tells the most.
RECIPES = {
    "base": Recipe(),
    "half-exams": Recipe(exams=0.5),
    "quarter-exams": Recipe(exams=0.25),
    "longer": Recipe(epochs=1.5),
    "high-rate": Recipe({"lr": 1e-3}),
    "from-scratch": Recipe(from_scratch=True),
    "large-batch": Recipe({"batch_size": 16}),
    "no-image-head": Recipe({"image_loss_weight": 0.0}),
}
GROWTH = ("quarter-exams", "half-exams", "base")
_LIGHT = TrainConfig.light_augmentation_epochs / TrainConfig.epochs  # share of the epochs with light augmentation
_SPLIT_SEED = TrainConfig.seed  # the documented one: another would draw other held-out exams


@dataclass(frozen=True)
class FoldsConfig:
    """What is trained, on what, and for how long."""

    data_dir: Path = cli.flag(TrainConfig.data_dir, help="holds the DICOM folder and the tables")
    output_dir: Path = cli.flag(cli.ROOT / "checkpoint" / "detection_folds", help="where runs.jsonl and found/ go")
    recipes: tuple[str, ...] = cli.flag(tuple(RECIPES), help=f"some of {', '.join(RECIPES)}")
    folds: int = cli.flag(3, at_least=2, help="parts of the exams, each scored by a training on the others")
    seeds: tuple[int, ...] = cli.flag((0,), help="of each the folds are drawn and trained anew")
    weights: str = cli.flag(TrainConfig.weights, help="as for train_detection")
    size: int = cli.flag(TrainConfig.size, help="side in pixels of the square the network sees")
    epochs: int = cli.flag(TrainConfig.epochs, at_least=1, help="passes over the training exams")
    workers: int = cli.flag(1, at_least=1, help="trainings at once, each a process with one thread on the CPU")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    precision: cli.Precision = cli.flag("auto", help="auto computes in bfloat16 where that trains faster")


@dataclass(frozen=True)
class Job:
    """One training: what it is called in the log, and with which settings."""

    recipe: str
    seed: int
    fold: int
    folds: int
    settings: TrainConfig

    @property
    def key(self) -> dict[str, Any]:
        """What a line of the log begins with."""
        names = "size", "epochs", "weights"
        own = {"recipe": self.recipe, "seed": self.seed, "fold": self.fold, "folds": self.folds}
        return own | {name: getattr(self.settings, name) for name in names}

    @property
    def found(self) -> Path:
        """Where the boxes of its fold are kept."""
        name = "-".join(str(value) for value in self.key.values() if value != self.settings.weights)
        return self.settings.output_dir / "found" / f"{name}-{Path(self.settings.weights).stem}.json"


def jobs_of(config: FoldsConfig) -> list[Job]:
    """Every training that ``config`` asks for; whole recipes one after the other."""
    jobs: list[Job] = []
    for seed in config.seeds:
        for name in config.recipes:
            recipe = RECIPES[name]
            epochs = max(1, round(config.epochs * recipe.epochs / recipe.exams))
            settings = replace(
                TrainConfig(
                    data_dir=config.data_dir,
                    output_dir=config.output_dir,
                    weights="none" if recipe.from_scratch else config.weights,
                    size=config.size,
                    epochs=epochs,
                    light_augmentation_epochs=round(_LIGHT * epochs),
                    seed=seed,
                    device=config.device,
                    precision=config.precision,
                ),
                **recipe.changes,
            )
            jobs += [Job(name, seed, fold, config.folds, settings) for fold in range(config.folds)]
    return jobs


# ------------------------------------------------------------------------------------------------------------ exams


def development(config: FoldsConfig, run: runtime.Runtime) -> TrainingData:
    """The training and validation exams, all as ``train``."""
    settings = TrainConfig(data_dir=config.data_dir, output_dir=config.output_dir, size=config.size, seed=_SPLIT_SEED)
    data = load_data(settings, run)
    none = np.zeros(0, np.int64)
    return replace(data, train=np.union1d(data.train, data.validation), validation=none, held_out=none)


def fold_of(data: TrainingData, job: Job) -> TrainingData:
    """``data`` with the fold of ``job`` to be scored on, and of the others the share that its recipe learns from."""
    from sklearn.model_selection import StratifiedGroupKFold

    rows, exams = data.train, data.of(data.train)
    groups = np.array(patients.tied([exam.patient for exam in exams], [data.hashes[row] for row in rows]))
    # Patients in another order: shuffle=True spreads the classes unevenly in older scikit-learn, such as 1.4.
    _, patient = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(job.seed).permutation(patient.max() + 1)[patient]
    folds = StratifiedGroupKFold(job.folds).split(rows, [exam.finding for exam in exams], shuffled)
    learn, scored = list(folds)[job.fold]
    share = RECIPES[job.recipe].exams
    if share < 1:  # of the patients; a smaller share is a part of a larger one
        drawn = np.random.default_rng([job.seed, job.fold]).permutation(np.unique(groups[learn]))
        learn = learn[np.isin(groups[learn], drawn[: round(share * len(drawn))])]
    return replace(data, train=rows[learn], validation=rows[scored])


# --------------------------------------------------------------------------------------------------------- trainings


def train(job: Job, data: TrainingData) -> dict[str, Any]:
    """One training and its scores on the fold it did not see, whose boxes are kept; a line of the log."""
    settings = job.settings
    with runtime.start(settings.device, settings.precision, settings.seed) as run:
        model = build(settings.weights, settings.backbone, settings.size, image_head=settings.image_loss_weight > 0)
        data = fold_of(data, job)
        images = len(epoch_order(data, settings.seed, 0, settings.negatives_per_positive))
        steps = runtime.steps_per_epoch(images, settings.batch_size, run)
        train_state = training.make_train_state(settings, model, steps, run)
        run = training.with_faster_precision(train_state.model, data, settings, run)
        began = time.perf_counter()
        losses: dict[str, float] = {}
        for epoch in range(settings.epochs):
            losses = training.train_one_epoch(train_state, data, settings, epoch, run)
        seconds = time.perf_counter() - began
        network = train_state.average.module
        assert isinstance(network, GreyFasterRCNN)
        found = find_boxes([network], data.images.images, data.validation, settings.flip_tta, run)
    fold = out_of_fold.answers_of(found, data.truths(data.validation), data.of(data.validation))
    out_of_fold.write(job.found, fold)
    return {
        **job.key,
        **out_of_fold.scores_of(fold),
        "train_loss": losses["loss"],
        "exams": len(data.train),
        "seconds": round(seconds, 1),
        "seconds_per_step": round(seconds / (steps * settings.epochs), 4),
        "on": str(run),
    }


_data: TrainingData | None = None  # of a worker process


def _begin(config: FoldsConfig) -> None:
    """Load the exams once in each worker, whose progress bars would write over each other on one terminal."""
    global _data
    sys.stderr = (config.output_dir / f"worker-{os.getpid()}.log").open("w", buffering=1)
    torch.set_num_threads(1)
    with runtime.start(config.device, "fp32", 0) as run:
        _data = development(config, run)


def _train_in_worker(job: Job) -> dict[str, Any]:
    assert _data is not None
    return train(job, _data)


def perform(jobs: Sequence[Job], config: FoldsConfig, data: TrainingData) -> Iterator[dict[str, Any]]:
    """The lines of the log as the trainings end."""
    if config.workers == 1:
        yield from (train(job, data) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork
    with ProcessPoolExecutor(config.workers, mp_context=spawn, initializer=_begin, initargs=(config,)) as pool:
        for ended in as_completed([pool.submit(_train_in_worker, job) for job in jobs]):
            yield ended.result()


# ------------------------------------------------------------------------------------------------------------ report


def table(rows: Sequence[dict[str, Any]], recipes: Sequence[str]) -> str:
    """Mean and standard deviation over the trainings, and below each the paired difference from the first recipe.

    A pair is the same fold of the same seed. The error of a mean difference takes pairs as independent, which folds of
    the same exams are not quite: it is somewhat too small.
    """
    by_recipe = {name: {(row["seed"], row["fold"]): row for row in rows if row["recipe"] == name} for name in recipes}
    by_recipe = {name: found for name, found in by_recipe.items() if found}
    lines = [f"{'recipe':24}{'runs':>5}" + "".join(f"{title:>27}" for title in COLUMNS.values())]
    first = by_recipe.get(recipes[0], {})
    for name, found in by_recipe.items():
        cells = [mean_text([row[column] for row in found.values()]) for column in COLUMNS]
        lines.append(f"{name:24}{len(found):>5}" + "".join(f"{cell:>27}" for cell in cells))
        pairs = [(row, first[at]) for at, row in found.items() if at in first]
        if name != recipes[0] and pairs:
            known = {
                column: [(row[column], base[column]) for row, base in pairs if None not in (row[column], base[column])]
                for column in COLUMNS
            }
            cells = [_difference_text([value - base for value, base in both]) for both in known.values()]
            lines.append(f"{'  less ' + recipes[0]:24}{len(pairs):>5}" + "".join(f"{cell:>27}" for cell in cells))
    return "\n".join(lines)


def _difference_text(values: Sequence[float]) -> str:
    if not values:
        return "-"
    error = f" (se {np.std(values, ddof=1) / len(values) ** 0.5:.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):+.3f}{error}"


def main(config: FoldsConfig) -> None:
    """Train what is missing, then report."""
    unknown = [name for name in config.recipes if name not in RECIPES]
    if unknown:
        raise ValueError(f"--recipes {' '.join(unknown)}: expected some of {', '.join(RECIPES)}")
    jobs = jobs_of(config)
    log = config.output_dir / "runs.jsonl"
    with runtime.start(config.device, config.precision, 0) as run, lock_folder(config.output_dir, run):
        data = development(config, run)
        rows = training_run.read_records(log)
        missing = [job for job in jobs if not _row_of(job, rows)]
        print(f"{rsna_dataset.describe(data.of(data.train))}; {len(missing)} of {len(jobs)} trainings are to do")
        for row in perform(missing, config, data):
            rows.append(row)
            training_run.append_record(log, row)
            print(", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    report(config, jobs, rows)


def _row_of(job: Job, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return next((row for row in rows if job.key.items() <= row.items()), None)


def report(config: FoldsConfig, jobs: Sequence[Job], rows: Sequence[dict[str, Any]]) -> None:
    """Print what is known of ``jobs``."""
    done = [job for job in jobs if _row_of(job, rows)]
    own = [row for job in done if (row := _row_of(job, rows))]
    if not own:
        print("no training has ended yet")
        return
    print(f"\n{table(own, config.recipes)}")
    for name in config.recipes:
        by_seed = [folds_of(done, name, seed) for seed in config.seeds]
        wholes = [list(chain.from_iterable(folds)) for folds in by_seed if len(folds) == config.folds]
        if len(wholes) > 1:
            scores = out_of_fold.scores_of(out_of_fold.fused(wholes))
            text = ", ".join(f"{title} {mean_text([scores[key]])}" for key, title in COLUMNS.items())
            print(f"{name}, boxes of {len(wholes)} seeds fused: {text}")
    first = config.recipes[0]
    for seed in config.seeds:
        folds = folds_of(done, first, seed)
        if len(folds) == config.folds:
            print(f"\n{first}, seed {seed}\n{out_of_fold.rule_report(folds)}")
    growth = {
        COLUMNS[column]: {
            round(float(np.mean([row["exams"] for row in some]))): [row[column] for row in some]
            for name in GROWTH
            if (some := [row for row in own if row["recipe"] == name and row[column] is not None])
        }
        for column in ("ap50", "rsna")
    }
    if all(len(by_number) > 1 for by_number in growth.values()):
        path = config.output_dir / "growth.png"
        growth_curve(growth, path, title=f"{config.folds}-fold cross-validation at {config.size} pixels")
        print(f"\nscores against the number of training exams: {path}")


def growth_curve(scores: Mapping[str, Mapping[int, Sequence[float]]], path: Path, *, title: str) -> None:
    """Draw each training as a dot, and a line through the means; the number of exams is on a logarithmic scale.

    Args:
        scores: name of a score -> number of training exams -> its value in 0..1 in each training.
        title: a line.
    """
    with saved_figure(path, (WIDTH * 0.7, 4)) as figure:
        axes = figure.subplots()
        numbers = sorted({number for by_number in scores.values() for number in by_number})
        for (name, by_number), (colour, style), mark in zip(scores.items(), LINES, "osD^vP", strict=False):
            at = sorted(by_number)
            means = [float(np.mean(by_number[number])) for number in at]
            axes.plot(at, means, color=colour, linestyle=style, marker=mark, label=name)
            for number in at:
                values = by_number[number]
                axes.plot([number] * len(values), values, mark, color=colour, alpha=0.35, markersize=4, linestyle="")
            axes.annotate(
                f"{means[-1]:.2f}", (at[-1], means[-1]), xytext=(8, -4), textcoords="offset points", color=colour
            )
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axes.set_xticks([], minor=True)
        axes.set_xlim(numbers[0] / 1.1, numbers[-1] * 1.2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training exams, with as many steps each")
        axes.set_ylabel("score on exams of other patients")
        axes.set_title(title)
        axes.legend(loc="lower center", ncols=2)


def folds_of(done: Sequence[Job], recipe: str, seed: int) -> list[list[Answer]]:
    """What was found in each fold that is ``done``."""
    return [out_of_fold.read(job.found) for job in done if (job.recipe, job.seed) == (recipe, seed)]


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(FoldsConfig, __doc__)))
