"""Both training scripts in processes of their own, killed at any touch of their files, and what equal runs share.

Also two processes that know each other as those of torchrun do.
"""

import functools
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints
from unittest.mock import patch

import pytest
import tiny_classification
import tiny_detection

from cxr import cli, plots, training_run

ROOT = Path(__file__).resolve().parents[1]
KILLED = -9
TERMINATED = 143
UNHEARD = -15  # SIGTERM before the script listens
FAREWELL = "terminated: finished work is kept; a training continues after its last finished epoch with --resume"
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to end a process by")

detection_is_slow = pytest.mark.parametrize(
    "script", ["classification", pytest.param("detection", marks=pytest.mark.slow)], indirect=True
)

# Processes that start at once and can be killed: the parent of them all has imported what takes long, and nothing else.
CONTEXT = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
if os.name == "posix":
    CONTEXT.set_forkserver_preload(
        [
            "torch",
            "torchvision",
            "pytorch_grad_cam",
            "matplotlib.figure",
            "matplotlib.backends.backend_agg",
            "pandas",
            "pydicom",
            "scipy.ndimage",
            "scipy.spatial",
            "sklearn.covariance",
            "sklearn.linear_model",
        ]
    )


@contextmanager
def quick() -> Iterator[None]:
    """Pictures have few pixels and new networks draw few boxes for their losses: there the time of a tiny run goes."""
    with patch.object(plots, "DPI", 40), tiny_detection.few_samples():
        yield


@dataclass(frozen=True)
class Script:
    """A training script, data and settings with which it runs in seconds, and what it leaves in the end.

    ``settings(data_dir, folder, **changes)`` gives a config that writes under ``folder`` alone, where ``checkpoints``
    and ``report`` then lie.
    """

    name: str
    write_data: Callable[[Path], Path]
    settings: Callable[..., Any]
    train: Callable[[Any], object]
    checkpoints: tuple[str, ...]
    report: str
    pictures: int

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.name)

    def load(self, path: Path) -> dict[str, Any]:
        """A checkpoint, which must be readable."""
        from cxr import checkpoints

        return checkpoints.load(path, task=self.module.TASK)


SCRIPTS = {
    "classification": Script(
        "pytorch_classification.train_classification",
        lambda folder: tiny_classification.write_chest_xray(folder / "data", {"train": 24, "val": 2, "test": 6}),
        tiny_classification.settings,
        tiny_classification.train,
        ("run/last.pth", "run/best.pth", "model.pth"),
        "run/test_report.json",
        7,
    ),
    "detection": Script(
        "pytorch_detection.train_detection",
        lambda folder: tiny_detection.write_rsna(folder / "data"),
        functools.partial(tiny_detection.settings, epochs=2, negatives_per_positive=0.25),
        tiny_detection.train,
        ("run/last.pth", "model.pth"),
        "run/held_out_report.json",
        6,
    ),
}


def flags(config: Any) -> list[str]:
    """The command line that gives ``config``, but for settings without a flag."""
    words: list[str] = []
    for name in (field.name for field in fields(config) if field.metadata):
        value = getattr(config, name)
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def start(script: Script, config: Any, die_at: tuple[str, int] = ("", 0), die_by: int = signal.SIGTERM) -> Any:
    """The training script in a process of its own; what it prints goes to ``log_of(config)``.

    With ``die_at`` the process sends itself the signal ``die_by`` when it touches the file of that name, below the
    folder of all its files, for the time of that number.
    """
    process = CONTEXT.Process(target=_run, args=(script.name, config, log_of(config), die_at, int(die_by)))
    process.start()
    return process


def log_of(config: Any) -> Path:
    """Where a process of ``start`` prints; the last line of a run that ended counts its touches of each file."""
    return config.output_dir.parent / "log.txt"


def lines_of(config: Any) -> list[str]:
    """What a run printed, each state of a progress bar a line."""
    return log_of(config).read_text(encoding="utf-8").replace("\r", "\n").splitlines()


def _run(script: str, config: Any, log: Path, die_at: tuple[str, int], die_by: int) -> None:
    sys.path.insert(0, str(ROOT))

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main = importlib.import_module(script).main
    folder, touched = f"{log.parent}{os.sep}", Counter[str]()

    def hook(event: str, details: tuple[object, ...]) -> None:
        if event in ("open", "os.mkdir", "os.rename", "os.remove") and str(details[0]).startswith(folder):
            name = re.sub(r"(\.[0-9a-f]{8})?\.partial$", "", str(details[0]).removeprefix(folder))
            name = re.sub(r"(?<=decoded)/.*", "", Path(name).as_posix())
            touched[name] += 1
            if (name, touched[name]) == die_at:
                os.kill(os.getpid(), die_by)

    sys.addaudithook(hook)
    with quick():
        code = cli.run(main, config)
    if code == 0:
        print(json.dumps(touched))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: the log is to end here


def finished(process: Any, timeout: float | None = None, by: int = signal.SIGTERM) -> int:
    """The exit code of a process; one that takes longer than ``timeout`` seconds gets the signal ``by``."""
    process.join(timeout)
    if process.is_alive():
        os.kill(process.pid, by)
        process.join()
    return process.exitcode


def kill_and_resume(script: Script, whole: Any, seconds: float, folder: Path, kills: int, seed: int) -> None:
    """Kill runs at drawn moments until ``kills`` is reached, resuming each until it is done and then starting another.

    The moment is a touch of a file, of all files in turn: between any two touches a kill leaves the same files behind.
    One in four is a moment within the ``seconds`` that the run ``whole`` took instead, as a check on that reasoning.
    Every second one asks politely, by SIGTERM, which ends a run with one line. Each run that is done must equal ``whole``.
    """
    chance = random.Random(seed)
    touches = json.loads(lines_of(whole)[-1])
    assert {"run/decoded", "run/metrics.jsonl", script.report, *script.checkpoints} <= {*touches}
    assert len([*whole.images_dir.iterdir()]) == script.pictures
    names = chance.sample(sorted(touches), len(touches))
    done, met = 0, []
    while len(met) < kills or not done:
        config = script.settings(whole.data_dir, folder / f"run{done}")
        while True:
            at, after, by = ("", 0), None, (signal.SIGKILL, signal.SIGTERM)[len(met) % 2]
            if len(met) < kills and len(met) % 8 in (2, 5):
                after = chance.uniform(0, seconds)
            elif len(met) < kills:
                name = names[sum(map(bool, met)) % len(names)]  # again, where a resumed run had no need to touch it
                at = (name, chance.randint(1, touches[name]))
            resume = (config.output_dir / "last.pth").exists()
            code = finished(start(script, replace(config, resume=resume), at, by), after, by)
            if code == 0:
                break
            lines = lines_of(config)
            assert code in ((KILLED,) if by == signal.SIGKILL else (TERMINATED, UNHEARD)), lines
            if code == TERMINATED:
                assert lines[-1].endswith(FAREWELL), lines
                assert not any("Traceback" in line or "Error" in line for line in lines), lines
                assert not list(config.output_dir.rglob("*.partial"))
            met.append(at[0])
            for name in script.checkpoints:
                path = config.output_dir.parent / name
                if path.exists():
                    script.load(path)
        assert_same_run(script, whole, config)
        shutil.rmtree(config.output_dir.parent)
        done += 1
        assert done <= 3 * kills, "a file is never touched as often as it was in the whole run"
    print(f"{len(met)} kills in {done} runs: {dict(Counter(name or 'a moment' for name in met))}")
    assert kills < 30 or {*met} == {*touches, ""}


def assert_same_run(script: Script, one: Any, other: Any, pictures: bool = True) -> None:
    """Weights, optimizer, choices, log, scores and pictures of two runs are the same to the last bit."""
    places = [config.output_dir.parent for config in (one, other)]
    for name in script.checkpoints:
        assert_same_state(*(script.load(place / name) for place in places), where=name)
    assert_same_state(
        *(training_run.read_records(config.output_dir / "metrics.jsonl") for config in (one, other)), where="the log"
    )
    assert_same_state(*(json.loads((place / script.report).read_text()) for place in places), where=script.report)
    if pictures:
        drawn = [{path.name: path.read_bytes() for path in config.images_dir.iterdir()} for config in (one, other)]
        assert len(drawn[0]) == script.pictures and drawn[0].keys() == drawn[1].keys()
        assert [name for name, content in drawn[0].items() if content != drawn[1][name]] == []
    assert not list(other.output_dir.rglob("*.partial"))


def assert_same_state(one: Any, other: Any, where: str) -> None:
    import torch

    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one.keys() - {"config", "provenance", "commit", "date", "seconds"}:  # folders, time
            assert_same_state(one[name], other[name], f"{where}[{name!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same_state(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


def run_in_two(work: Callable[..., object], *arguments: object) -> None:
    """``work(rank, *arguments)`` in two processes; what it raises in one is raised here."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = CONTEXT.get_start_method()
    torch.multiprocessing.start_processes(_begin, (port, work, arguments), nprocs=2, start_method=method)


def train_in_two(script: Script, config: Any) -> list[str]:
    """What each of two processes of torchrun prints that train by ``config``."""
    folder = config.output_dir.parent
    run_in_two(_train_in_one_of_two, script.name, config, folder)
    return [(folder / f"printed {rank}").read_text(encoding="utf-8") for rank in range(2)]


def _train_in_one_of_two(rank: int, script: str, config: Any, folder: Path) -> None:
    main = importlib.import_module(script).main
    with (folder / f"printed {rank}").open("w", encoding="utf-8") as file, redirect_stdout(file), quick():
        assert cli.run(main, config) == 0


def _begin(rank: int, port: int, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    import torch

    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    work(rank, *arguments)


def run_main(main):
    """The exit code of a script's ``main`` for ``sys.argv``, parsed as its last lines do."""
    from cxr import cli

    config_type = get_type_hints(main)["config"]
    return cli.run(main, cli.parse(config_type, summary=sys.modules[main.__module__].__doc__))
