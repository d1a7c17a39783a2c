"""The folder of a training: one run at a time writes there its checkpoints, its log and its report."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cxr import checkpoints, runlog
from cxr.learner import Learner
from cxr.runtime import Runtime

ERRORS = "errors.csv"  # beside the report: what the finished model got wrong


@contextmanager
def only_run_in(folder: Path, run: Runtime, flag: str = "--out-dir") -> Generator[None]:
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
        runlog.drop_from(self.log, epoch)

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

    def save_epoch(self, learner: Learner[Any], about: dict[str, Any], record: dict[str, Any]) -> None:
        """Log the ``record`` of an epoch and write its checkpoints.

        Args:
            learner: as the epoch left it.
            about: of the run, in every checkpoint; where a score chooses the epoch, with the best so far.
            record: with ``epoch``, the number of finished ones, and ``improved`` where that best score is new: the
                averaged weights are kept.
        """
        runlog.append(self.log, record)
        state = {**about, "epoch": record["epoch"]}
        if record.get("improved"):
            checkpoints.save(self.best, task=self.task, **state, model=learner.average.module.state_dict())
        checkpoints.save(self.last, task=self.task, **state, **learner.state())
