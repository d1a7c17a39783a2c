"""A training run: its state, its folder, its log, and what resuming it requires."""

import hashlib
import json
import math
import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxr import checkpoints, runtime
from cxr.files import write_atomically, writing
from cxr.messages import first_of
from cxr.runtime import Runtime

Network = TypeVar("Network", bound=nn.Module)


@dataclass
class TrainState(Generic[Network]):
    """A network in training, and what a checkpoint must hold for it to go on.

    ``ddp_model`` is the network as training calls it: wrapped where several processes share the work.
    """

    model: Network
    ddp_model: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def state(self) -> dict[str, Any]:
        """For ``checkpoints.save``."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` saved."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def with_average(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that holds ``TrainState.state``, with the average of the weights as its model."""
    weights = dict(state["average"])
    del weights["n_averaged"]
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return {**state, "model": weights}


def prepare(
    model: Network,
    run: runtime.Runtime,
    *,
    lr: float,
    weight_decay: float,
    ema_window: float,
    total_steps: int,
) -> TrainState[Network]:
    """``model`` on its device with AdamW, a one-cycle schedule and a running average of its weights.

    The schedule (Smith 2018, arXiv:1708.07120) reaches in twenty epochs from scratch what constant rates need many more
    for; the average smooths the last steps, so that the choice of an epoch depends less on chance.

    Args:
        ema_window: the average reaches back over this share of all steps, so that a short run does not average in
            the weights of its start.
    """
    model = model.to(run.device).to(memory_format=torch.channels_last)
    decay = 1 - 1 / max(2.0, ema_window * total_steps)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    groups = no_decay_groups(model, weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=run.device.type != "mps")
    rise = 0.25 if total_steps != 4 else 0.5  # torch divides by zero where the rise is one step long
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=total_steps, pct_start=rise)
    return TrainState(model, runtime.distribute(model, run), average, optimizer, scheduler)


def no_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: weight decay for matrices and kernels, none for biases and normalisation (1-d tensors)."""
    kernels = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add one line.

    Raises:
        ValueError: a value that JSON does not have (NaN, infinity), named.
        OSError: the line cannot be written; what part of it was, ``read`` leaves out.
    """
    line = _line(record)
    with writing(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records, oldest first; none when there is no file. A last line cut short by a kill is left out.

    Raises:
        ValueError: a line that is no JSON object, named by its number.
    """
    return [parsed(line, f"{path}, line {number}") for number, line in enumerate(whole_lines(path), 1)]


def drop_epochs_after(path: Path, epoch: int) -> None:
    """Forget epochs after ``epoch`` (the number of finished ones), which the checkpoint does not know of."""
    kept = [record for record in read_records(path) if record["epoch"] <= epoch] if epoch else []
    text = "".join(map(_line, kept))
    write_atomically(path, lambda file: file.write(text.encode()))


def _line(record: dict[str, Any]) -> str:
    undefined = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
    if undefined:
        raise ValueError(f"epoch {record.get('epoch')}: no finite number for {', '.join(undefined)}")
    return json.dumps(record, allow_nan=False) + "\n"


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file of JSON lines; what follows the last line end is nothing, or cut short by a kill."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def parsed(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a line; raises ValueError, which begins with ``where``, if it holds something else."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error}); mend or remove the line") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object; mend or remove the line")
    return cast(dict[str, Any], record)


ERRORS = "errors.csv"  # beside the report: what the finished model got wrong


@contextmanager
def lock_folder(folder: Path, run: Runtime, flag: str = "--output-dir") -> Generator[None]:
    """Hold ``folder`` for this run; the lock goes with the process, however it ends. ``flag`` names another.

    Raises:
        ValueError: another run is writing there.
        OSError: nothing can be written there.
    """
    if not run.is_main:
        yield
        return
    lock = FileLock(folder / "run.lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"another run is writing to {folder}; wait for it or give another {flag}") from error
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write to {folder.absolute()}: {reason}; give another {flag}") from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class RunFolder:
    """Where the run of a ``task`` keeps what it needs to go on, and in the end the file ``report``."""

    path: Path
    task: str
    report: str

    @property
    def last(self) -> Path:
        """All that ``--resume`` needs, after the last finished epoch."""
        return self.path / "last.pth"

    @property
    def best(self) -> Path:
        """The averaged weights of the best epoch so far, where a score chooses it."""
        return self.path / "best.pth"

    @property
    def log(self) -> Path:
        """A line for each finished epoch."""
        return self.path / "metrics.jsonl"

    def load_last(self) -> dict[str, Any]:
        """The checkpoint to go on from; raises as ``checkpoints.load``."""
        return checkpoints.load(self.last, task=self.task)

    def load_best(self) -> dict[str, Any]:
        """The best epoch so far; raises as ``checkpoints.load``."""
        return checkpoints.load(self.best, task=self.task)

    def begin(self, epoch: int) -> None:
        """Get ready for a run of which ``epoch`` epochs are finished; for a new one, remove the previous run."""
        if epoch == 0:
            self.remove_previous_run()
        drop_epochs_after(self.log, epoch)

    def remove_previous_run(self) -> None:
        """Two runs must not mix, not even if the new one is killed soon.

        A run that had not come to its report is told of, because somebody may have wanted to go on with it.
        """
        if self.last.exists() and not (self.path / self.report).exists():
            warnings.warn(
                f"the run in {self.path}, which has no {self.report} yet, is replaced by this new one; --resume would "
                "have continued it",
                stacklevel=4,
            )
        for path in (self.last, self.best, self.path / self.report, self.path / ERRORS):
            path.unlink(missing_ok=True)

    def save_epoch(self, train_state: TrainState[Any], about: dict[str, Any], record: dict[str, Any]) -> None:
        """Log the ``record`` of an epoch and write its checkpoints.

        Args:
            train_state: as the epoch left it.
            about: of the run, in every checkpoint; where a score chooses the epoch, with the best so far.
            record: with ``epoch``, the number of finished ones, and ``improved`` where that best score is new: the
                averaged weights are kept.
        """
        append_record(self.log, record)
        state = {**about, "epoch": record["epoch"]}
        if record.get("improved"):
            checkpoints.save(self.best, task=self.task, **state, model=train_state.average.module.state_dict())
        checkpoints.save(self.last, task=self.task, **state, **train_state.state())


def fingerprint(facts: Mapping[str, str]) -> dict[str, str]:
    """What a run learns from, as its checkpoint holds it: for each file a short hash of what decides about it.

    Args:
        facts: content, label and the like in any form, by the name of the file below the data folder.
    """
    return {name: hashlib.sha256(fact.encode()).hexdigest()[:16] for name, fact in facts.items()}


def require_same_run(
    saved: Mapping[str, Any], now: Mapping[str, Any], may_differ: Collection[str], output_dir: Path
) -> None:
    """Refuse to continue the run in ``output_dir`` under what would make it another run.

    Args:
        saved: its checkpoint: ``config`` as ``cli.plain`` gives it, ``processes``, ``data`` as ``fingerprint`` gives
            it, and the number of finished epochs.
        now: the first three of these as they are now.
        may_differ: settings that do not decide the weights. The number of processes does while an epoch is left: it
            divides the batches.

    Raises:
        ValueError: names each setting that differs, with both values, or the first files that do; or the checkpoint is
            of a version that did not keep what is compared.
    """
    if not {"config", "processes", "epoch", "bf16"} <= saved.keys() or not isinstance(saved.get("data"), dict):
        raise ValueError(
            f"--resume: the run in {output_dir} was begun by another version, or its checkpoint is not of a training; "
            "train anew without --resume"
        )
    settings, current = saved["config"], now["config"]
    differing = [
        f"--{name.replace('_', '-')} was {settings.get(name)}, is {value}"
        for name, value in current.items()
        if name not in may_differ and settings.get(name) != value
    ]
    if saved["processes"] != now["processes"] and saved["epoch"] < current["epochs"]:
        differing.append(f"the number of processes was {saved['processes']}, is {now['processes']}")
    if differing:
        raise ValueError(f"--resume: another run than the one in {output_dir}: {'; '.join(differing)}")
    changes = _changes(saved["data"], now["data"])
    if changes:
        raise ValueError(
            f"--resume: the images in {current['data_dir']} are not those that the run began with: {changes}"
        )


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    kinds = {
        "gone": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "changed": [name for name in now if name in before and now[name] != before[name]],
    }
    return "; ".join(f"{kind}: {first_of(names)}" for kind, names in kinds.items() if names)
