"""A training run: its state, its folder, its log, and whether it may be resumed."""

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

from cxr import checkpoints, cli, runtime
from cxr.cli import flag_name
from cxr.files import remove_partials, write_atomically, writing
from cxr.messages import first_of
from cxr.runtime import Runtime

ERRORS = "errors.csv"  # beside the report: the wrong predictions of the finished model

Network = TypeVar("Network", bound=nn.Module)


@dataclass
class TrainState(Generic[Network]):
    """Training state, as a checkpoint keeps it.

    ``average`` is the EMA of the weights of ``model``; ``ddp_model`` is ``model``, wrapped where several processes
    average their gradients.
    """

    model: Network
    ddp_model: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def state(self) -> dict[str, Any]:
        """For ``checkpoints.save``."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "average": self.average,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }


def prepare(
    model: Network, run: Runtime, *, lr: float, weight_decay: float, ema_window: float, total_steps: int
) -> TrainState[Network]:
    """``model`` on its device with AdamW, a one-cycle schedule and an EMA of its weights.

    The schedule (Smith 2018, arXiv:1708.07120) reaches in twenty epochs from scratch what constant rates need many more
    for; the EMA smooths the last steps, which makes the choice of an epoch less noisy.

    Args:
        ema_window: EMA window as a fraction of all steps, so that a short run does not average in its initial weights.
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


def with_average(state: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint ``state`` with the EMA weights as its model."""
    weights = dict(state["average"])
    del weights["n_averaged"]
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return {**state, "model": weights}


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append ``record`` to a file of JSON lines.

    Raises:
        ValueError: a value that JSON does not have (NaN, infinity), named.
        OSError: the line cannot be written; ``read_records`` ignores a part of a line.
    """
    line = _line(record)
    with writing(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records, oldest first; none without a file. A last line cut short by a kill is ignored.

    Raises:
        ValueError: a line that is no JSON object, named by its number.
    """
    return [parsed(line, f"{path}, line {number}") for number, line in enumerate(whole_lines(path), 1)]


def drop_epochs_after(path: Path, epoch: int) -> None:
    """Remove the records of epochs after ``epoch``, the last one that the checkpoint has."""
    kept = [record for record in read_records(path) if record["epoch"] <= epoch] if epoch else []
    text = "".join(map(_line, kept))
    write_atomically(path, lambda file: file.write(text.encode()))


def _line(record: dict[str, Any]) -> str:
    undefined = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
    if undefined:
        raise ValueError(f"epoch {record.get('epoch')}: no finite number for {', '.join(undefined)}")
    return json.dumps(record, allow_nan=False) + "\n"


def whole_lines(path: Path) -> list[bytes]:
    """The complete lines of a file, none without one; text after the last line end was cut short by a kill."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def parsed(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a line; else raises ValueError, which begins with ``where``."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error}); correct or remove the line") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object; correct or remove the line")
    return cast(dict[str, Any], record)


@contextmanager
def lock_folder(folder: Path, run: Runtime, flag: str = "--output-dir") -> Generator[None]:
    """Lock ``folder`` for this run and remove what killed runs left; the lock ends with the process.

    Args:
        folder: created where missing.
        run: its main process holds the lock.
        flag: by which the user can name another folder.

    Raises:
        ValueError: another run holds the lock.
        OSError: the folder is not writable.
    """
    if not run.is_main:
        yield
        return
    lock = FileLock(folder / "run.lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        remove_partials(folder)
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
    """The files of a training run of the ``task``, which ends by writing the file ``report``."""

    path: Path
    task: str
    report: str

    @property
    def last(self) -> Path:
        """The checkpoint after the last finished epoch, from which ``--resume`` continues."""
        return self.path / "last.pth"

    @property
    def best(self) -> Path:
        """The EMA weights of the best epoch so far, where a score chooses it."""
        return self.path / "best.pth"

    @property
    def log(self) -> Path:
        """One record for each finished epoch."""
        return self.path / "metrics.jsonl"

    def load_last(self) -> dict[str, Any]:
        """The checkpoint ``last``; raises as ``checkpoints.load``."""
        return checkpoints.load(self.last, task=self.task)

    def load_best(self) -> dict[str, Any]:
        """The checkpoint ``best``; raises as ``checkpoints.load``."""
        return checkpoints.load(self.best, task=self.task)

    def require_free(self, may_hold_a_run: bool, model_file: Path) -> None:
        """Raise ValueError where a run is in the folder, unless it may be.

        A warning states that the run will replace a bundled model.
        """
        if self.last.exists() and not may_hold_a_run:
            raise ValueError(
                f"{self.path.resolve()} holds a run: continue it with --resume, replace it with --overwrite, or give "
                "another --output-dir"
            )
        if model_file.exists() and model_file.resolve().parent == cli.ROOT:
            warnings.warn(f"{model_file}, the bundled model, will be replaced by this training's", stacklevel=3)

    def begin(self, epoch: int) -> None:
        """Prepare for a run after ``epoch`` finished epochs; for a new one (0), remove those of the previous run."""
        if epoch == 0:
            for path in (self.last, self.best, self.path / self.report, self.path / ERRORS):
                path.unlink(missing_ok=True)
        drop_epochs_after(self.log, epoch)

    def save_epoch(self, train_state: TrainState[Any], about: dict[str, Any], record: dict[str, Any]) -> None:
        """Log the ``record`` of an epoch and write its checkpoints.

        Args:
            train_state: after the epoch.
            about: facts of the run for every checkpoint, with the best score so far where a score chooses the epoch.
            record: with ``epoch``, the number of finished ones, and ``improved`` where the score is the best so far,
                which writes ``best``.
        """
        append_record(self.log, record)
        state = {**about, "epoch": record["epoch"]}
        if record.get("improved"):
            checkpoints.save(self.best, task=self.task, **state, model=train_state.average.module.state_dict())
        checkpoints.save(self.last, task=self.task, **state, **train_state.state())


def without_paths(config: Any, left_out: Collection[str]) -> dict[str, Any]:
    """The settings that decide the weights, for the model file; paths are reduced to file names."""
    return {
        name: Path(value).name if isinstance(getattr(config, name), Path) or name == "weights" else value
        for name, value in cli.plain(config).items()
        if name not in left_out
    }


def how_to_predict(task: str, model: Path) -> str:
    """The command that predicts with a finished model."""
    return f"predict: python pytorch_{task}/predict_{task}.py --model {model} --image FILE"


def fingerprint(facts: Mapping[str, str]) -> dict[str, str]:
    """The training data, as a checkpoint keeps them: for each file a short hash.

    Args:
        facts: content, label and the like in any form, by the name of the file below the data folder.
    """
    return {name: hashlib.sha256(fact.encode()).hexdigest()[:16] for name, fact in facts.items()}


def require_same_run(
    saved: Mapping[str, Any], now: Mapping[str, Any], may_differ: Collection[str], output_dir: Path
) -> None:
    """Refuse to resume the run in ``output_dir`` with settings or data that would make it another run.

    Args:
        saved: its checkpoint: ``config`` as ``cli.plain`` gives it, ``processes``, ``data`` as ``fingerprint`` gives
            it, and the number of finished epochs.
        now: the current ``config``, ``processes`` and ``data``.
        may_differ: settings that do not affect the weights. The number of processes does while an epoch is left: it
            divides the batches.

    Raises:
        ValueError: names each setting that differs, with both values, or the first files that do; or the checkpoint
            is of a version that did not keep what is compared.
    """
    if not {"config", "processes", "epoch", "bf16"} <= saved.keys() or not isinstance(saved.get("data"), dict):
        raise ValueError(
            f"--resume: the run in {output_dir} was begun by another version, or its checkpoint is not of a training; "
            "train anew without --resume"
        )
    settings, current = saved["config"], now["config"]
    differing = [
        f"{flag_name(name)} was {settings.get(name)}, is {value}"
        for name, value in current.items()
        if name not in may_differ and settings.get(name) != value
    ]
    if saved["processes"] != now["processes"] and saved["epoch"] < current["epochs"]:
        differing.append(f"the number of processes was {saved['processes']}, is {now['processes']}")
    if differing:
        raise ValueError(f"--resume: another run than the one in {output_dir}: {'; '.join(differing)}")
    before, after = saved["data"], now["data"]
    changes = {
        "missing": [name for name in before if name not in after],
        "new": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and after[name] != before[name]],
    }
    text = "; ".join(f"{kind}: {first_of(names)}" for kind, names in changes.items() if names)
    if text:
        source = current.get("table") or current["data_dir"]
        raise ValueError(f"--resume: the images in {source} are not those that the run began with: {text}")
