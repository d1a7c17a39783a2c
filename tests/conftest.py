"""What several test files share: tiny data sets and the models trained on them."""

import os
import shutil
import signal
import sys
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import is_dataclass
from io import StringIO
from types import SimpleNamespace

import pytest
from filelock import FileLock

# Before torch is imported here or in a child: on pictures this small several threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def folder(tmp_path):
    """``tmp_path`` that is gone after the test: a training leaves 300 MB of checkpoints."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """``made_once(name, fill)``: a folder that one process of the session fills, while those that want it too wait."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # each process has a folder of its own in there

    def made(name, fill):
        folder, done = place / name, place / f"{name}.done"
        with FileLock(place / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed or was killed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


def finished_training(made_once, tiny, data, **changes):
    """Of six epochs: its ``config``, and what it ``printed``."""
    from tiny_classification import only_after

    def settings(folder):
        return tiny.settings(data, folder, epochs=6, **changes)

    def fill(folder):
        with redirect_stdout(StringIO()) as printed, only_after(6):
            tiny.train(settings(folder))
        (folder / "printed.txt").write_text(printed.getvalue(), encoding="utf-8")

    folder = made_once(tiny.__name__, fill)
    return SimpleNamespace(config=settings(folder), printed=(folder / "printed.txt").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def chest_xray(made_once):
    """The tiny data set, to be read only."""
    from tiny_classification import write_chest_xray

    return made_once("chest_xray", write_chest_xray)


@pytest.fixture(scope="session")
def trained(chest_xray, made_once):
    """A finished training on ``chest_xray``, its files to be read only."""
    import tiny_classification

    return finished_training(made_once, tiny_classification, chest_xray, batch_size=16)


@pytest.fixture(scope="session")
def finished(made_once):
    """A finished training of the detector, its files to be read only."""
    import tiny_detection

    return finished_training(made_once, tiny_detection, made_once("dataset_det", tiny_detection.write_rsna))


@pytest.fixture(scope="session", params=["classification", "detection"])
def script(request):
    """Each of the two trainings."""
    from killing import SCRIPTS

    return SCRIPTS[request.param]


@pytest.fixture(scope="session")
def data(script, made_once):
    """Data for ``script``, to be read only."""
    return made_once(f"data for {script.name}", script.write_data) / "data"


@pytest.fixture(scope="session")
def whole(script, data, made_once):
    """A run in a process of its own that was never stopped: its ``config``, and the ``seconds`` that it took."""
    from killing import finished, log_of, start

    def run(folder):
        config, began = script.settings(data, folder), time.monotonic()
        assert finished(start(script, config)) == 0, log_of(config).read_text()
        (folder / "seconds").write_text(str(time.monotonic() - began))

    folder = made_once(script.name, run)
    return SimpleNamespace(config=script.settings(data, folder), seconds=float((folder / "seconds").read_text()))


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing is the slowest part of a tiny run."""
    from cxr import plots
    from pytorch_classification import report
    from pytorch_detection import report as detection

    for module in (report, detection):
        monkeypatch.setattr(module, "draw", lambda *_args: None)
    monkeypatch.setattr(plots, "loss_curves", lambda *_args, **_kwargs: None)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are put together, in order; not rendered, which is most of the work."""
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    return kept


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the ``main`` of a script in this process, by a command line or a config: exit code, stdout and stderr."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # cli.run sets both for its process
    before = signal.getsignal(signal.SIGTERM)

    from killing import run_main

    from cxr import cli

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = cli.run(main, *arguments) if arguments and is_dataclass(arguments[0]) else run_main(main)
        except SystemExit as stop:  # a command line that does not fit
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def processor():
    """The CPU alone, in float32."""
    import torch

    from cxr.runtime import Runtime

    return Runtime(torch.device("cpu"), bf16=False)
