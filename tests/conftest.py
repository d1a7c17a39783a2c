"""What several test files share: one tiny data set and one model trained on it."""

import os
import shutil
import signal
import sys
import warnings
from types import SimpleNamespace

import pytest

# Before torch is imported here or in a child: on pictures this small several threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def folder(tmp_path):
    """``tmp_path`` that is gone after the test: a training leaves 300 MB of checkpoints."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="session")
def chest_xray(tmp_path_factory):
    """The tiny data set, to be read only."""
    from tiny_classification import write_chest_xray

    return write_chest_xray(tmp_path_factory.mktemp("data") / "chest_xray")


@pytest.fixture(scope="session")
def trained(chest_xray, tmp_path_factory):
    """A finished training on ``chest_xray``, its files to be read only: ``config`` and what it ``printed``."""
    from contextlib import redirect_stdout
    from io import StringIO

    from tiny_classification import only_after, settings, train

    place = tmp_path_factory.mktemp("trained")
    config = settings(chest_xray, place, epochs=6, batch_size=16)
    with redirect_stdout(StringIO()) as printed, only_after(config.epochs):
        train(config)
    yield SimpleNamespace(config=config, printed=printed.getvalue())
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session", params=["classification", "detection"])
def script(request):
    """Each of the two trainings."""
    from killing import SCRIPTS

    return SCRIPTS[request.param]


@pytest.fixture(scope="session")
def data(script, tmp_path_factory):
    """Data for ``script``, to be read only."""
    return script.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing is the slowest part of a tiny run."""
    from cxr import curves
    from pytorch_classification import evaluation
    from pytorch_detection import evaluation as detection

    for report in (evaluation, detection):
        monkeypatch.setattr(report, "draw", lambda *_args: None)
    monkeypatch.setattr(curves, "loss_curves", lambda *_args, **_kwargs: None)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are put together, in order; not rendered, which is most of the work."""
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    return kept


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the ``main`` of a script as its last lines do, in this process: gives exit code, stdout and stderr."""
    from cxr import cli

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # cli.run sets both for its process
    before = signal.getsignal(signal.SIGTERM)

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        capsys.readouterr()
        code = cli.run(main)
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
