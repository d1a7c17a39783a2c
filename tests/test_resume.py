import json
import os
import random
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from tiny_classification import flags, log_of, settings, start, train, write_chest_xray

from cxr import checkpoints
from pytorch_classification import report
from pytorch_classification import train_classification as training
from pytorch_classification.model import TASK

KILLED = -9
TERMINATED = 143
FAREWELL = "terminated: everything up to the last finished step is on disk"
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to end a process by")


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing is the slowest part of a tiny run."""
    monkeypatch.setattr(report, "draw", lambda *_args: None)
    monkeypatch.setattr(report.plots, "loss_curves", lambda *_args, **_kwargs: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_chest_xray(tmp_path_factory.mktemp("data") / "chest_xray", {"train": 24, "val": 2, "test": 6})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run in a process of its own that was never stopped."""
    place = tmp_path_factory.mktemp("whole")
    config = settings(data, place, epochs=3)
    assert finished(start(config)) == 0, log_of(config).read_text()
    yield config
    shutil.rmtree(place, ignore_errors=True)


def finished(process, timeout=None):
    """The exit code of a process; one that takes longer than ``timeout`` seconds is killed."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def assert_same_run(one, other, pictures=True):
    """Weights, optimizer, choices, log, scores and pictures of two runs are the same to the last bit."""
    for name in ("last.pth", "best.pth"):
        assert_same_state(
            checkpoints.load(one.out_dir / name, task=TASK), checkpoints.load(other.out_dir / name, task=TASK)
        )
    assert_same_state(checkpoints.load(one.model_file, task=TASK), checkpoints.load(other.model_file, task=TASK))
    assert (one.out_dir / "metrics.jsonl").read_bytes() == (other.out_dir / "metrics.jsonl").read_bytes()
    reports = [json.loads((config.out_dir / "test_report.json").read_text()) for config in (one, other)]
    assert_same_state(*reports)
    if pictures:
        names = {path.name for path in one.images_dir.iterdir()}
        assert len(names) == 5 and names == {path.name for path in other.images_dir.iterdir()}
        for name in names:
            assert (one.images_dir / name).read_bytes() == (other.images_dir / name).read_bytes(), name
    assert not list(other.out_dir.parent.rglob("*.partial"))


def assert_same_state(one, other, where="state"):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one.keys() - {"config", "provenance"}:  # the folders, and what was committed meanwhile
            assert_same_state(one[name], other[name], f"{where}[{name!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same_state(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


def lines_of(config):
    """What a run printed, each state of a progress bar a line."""
    return log_of(config).read_text().replace("\r", "\n").splitlines()


def has_begun(config):
    return (config.out_dir / "last.pth").exists()


def test_a_run_stopped_and_resumed_ends_like_one_that_was_not(monkeypatch, data, whole, folder, without_pictures):
    config = settings(data, folder, epochs=3)
    line_of = training.line_of

    def stop(record, *others):
        if record["epoch"] == 1:
            raise KeyboardInterrupt
        return line_of(record, *others)

    monkeypatch.setattr(training, "line_of", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(training, "line_of", line_of)
    assert checkpoints.load(config.out_dir / "last.pth", task=TASK)["epoch"] == 1
    assert not config.model_file.exists()
    train(replace(config, resume=True))
    assert_same_run(whole, config, pictures=False)


def test_a_run_stopped_between_its_log_and_its_checkpoint_forgets_the_epoch(
    monkeypatch, data, whole, folder, without_pictures
):
    config = settings(data, folder, epochs=3)
    save, saved = checkpoints.save, []

    def stop(path, **state):
        saved.append(path.name)
        if saved.count("last.pth") == 2:
            raise KeyboardInterrupt
        save(path, **state)

    monkeypatch.setattr(checkpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(checkpoints, "save", save)
    log = config.out_dir / "metrics.jsonl"
    assert len(log.read_text().splitlines()) == 2  # the second epoch is in the log and not in last.pth
    with log.open("a") as file:
        file.write('{"epoch": 3, "tr')  # and a line that a kill cut short
    train(replace(config, resume=True))
    assert_same_run(whole, config, pictures=False)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(data, whole, folder, without_pictures):
    """The first run had a process of its own, this one has not."""
    config = settings(data, folder / "same", epochs=3)
    train(config)
    assert_same_run(whole, config, pictures=False)

    def first_weights(seed):
        with training.runtime.start("cpu", "fp32", seed) as run:
            return training.make_learner(settings(data, folder), 1, run).model.fc.weight

    assert torch.equal(first_weights(0), first_weights(0)) and not torch.equal(first_weights(0), first_weights(1))


@needs_signals
def test_a_run_killed_at_any_touch_of_its_files_ends_like_one_that_was_not(whole, data, folder):
    kill_and_resume(whole, data, folder, kills=3, seed=0)


@needs_signals
@pytest.mark.slow
def test_a_run_killed_thirty_times_ends_like_one_that_was_not(whole, data, folder):
    kill_and_resume(whole, data, folder, kills=30, seed=1)


def kill_and_resume(whole, data, folder, kills, seed):
    """Kill runs at drawn moments until ``kills`` is reached, resuming each until it is done and then starting another.

    The moment is a touch of the files: between any two of them a kill leaves the same files behind. One in four draws
    a short time instead, as a check on that reasoning. Every second one asks politely, by SIGTERM.
    """
    chance = random.Random(seed)
    touches = int(log_of(whole).read_text().split()[-1])
    assert touches > 40  # decoding, checkpoints, report and pictures
    done, killed = 0, 0
    while killed < kills or not done:
        config = settings(data, folder / f"run{done}", epochs=3)
        while True:
            at, after, by = chance.randint(1, touches), None, (signal.SIGKILL, signal.SIGTERM)[killed % 2]
            if killed % 4 == 2:
                at, after, by = 0, chance.uniform(0.1, 5), signal.SIGKILL
            if killed >= kills:
                at, after = 0, None
            code = finished(start(replace(config, resume=has_begun(config)), at, by), after)
            if code == 0:
                break
            lines = lines_of(config)
            assert code == (KILLED if by == signal.SIGKILL else TERMINATED), lines
            assert by == signal.SIGKILL or lines[-1].endswith(FAREWELL)
            killed += 1
            for path in (config.out_dir / "last.pth", config.out_dir / "best.pth", config.model_file):
                if path.exists():  # then it can be read
                    checkpoints.load(path, task=TASK)
        assert_same_run(whole, config)
        shutil.rmtree(config.out_dir.parent)
        done += 1


@needs_signals
def test_sigterm_ends_a_run_with_one_line_and_what_is_saved_can_be_resumed(data, folder):
    config = settings(data, folder, epochs=200)
    process = start(config)
    while not has_begun(config) and process.is_alive():
        process.join(0.05)
    process.terminate()
    process.join()
    lines = lines_of(config)
    assert process.exitcode == TERMINATED, lines
    assert lines[-1].endswith(FAREWELL)
    assert not any("Traceback" in line or "Error" in line for line in lines)
    assert not list(folder.rglob("*.partial"))
    assert checkpoints.load(config.out_dir / "last.pth", task=TASK)["epoch"] >= 1


CHANGES = {
    "epochs": 4,
    "size": 48,
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 0.1,
    "average_share": 0.5,
    "validation_share": 0.3,
    "target_sensitivity": 0.9,
    "flip_average": False,
    "seed": 1,
    "precision": "auto",
    "skip_bad": True,
    "weights": "imagenet",
}


def test_a_resumed_run_with_another_setting_is_refused_by_the_name_of_the_setting(whole):
    saved = checkpoints.load(whole.out_dir / "last.pth", task=TASK)["config"]
    training.require_same(saved, replace(whole, resume=True))
    for name, value in CHANGES.items():
        flag = f"--{name.replace('_', '-')} was {saved[name]}, is {value}"
        with pytest.raises(ValueError, match=f"^--resume: another run than the one in .*: {flag}$"):
            training.require_same(saved, replace(whole, resume=True, **{name: value}))
    with pytest.raises(ValueError, match=r"--epochs was 3, is 4; --seed was 0, is 1$"):
        training.require_same(saved, replace(whole, epochs=4, seed=1))


def test_where_files_lie_and_what_computes_may_differ(whole, tmp_path):
    saved = checkpoints.load(whole.out_dir / "last.pth", task=TASK)["config"]
    places = {name: tmp_path / name for name in ("data_dir", "out_dir", "images_dir", "model_file")}
    training.require_same(saved, replace(whole, resume=True, device="auto", compile=True, **places))
    names = {*vars(whole)}
    assert names == {*CHANGES} | {*places} | {"device", "compile", "resume"}  # a new setting belongs to one of the two


def test_resuming_on_other_images_is_refused(whole, data, folder, command):
    other = shutil.copytree(data, folder / "data")
    (other / "train" / "NORMAL" / "IM-0000-0000.jpeg").unlink()
    config = settings(other, folder, epochs=3, resume=True)
    config.out_dir.mkdir()
    shutil.copy(whole.out_dir / "last.pth", config.out_dir)
    ended = command(training.main, *flags(config))
    assert ended.code == 2 and not config.model_file.exists()
    assert ended.err.splitlines()[-1].endswith(f"the images in {other} are not those that the run began with")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint at "),
        (b"", "last.pth: "),
        (b"PK\x03\x04 cut short", "last.pth: "),
    ],
)
def test_resuming_without_a_checkpoint_ends_in_one_line(data, tmp_path, command, content, message):
    config = settings(data, tmp_path, resume=True)
    if content is not None:
        config.out_dir.mkdir()
        (config.out_dir / "last.pth").write_bytes(content)
    ended = command(training.main, *flags(config))
    line = ended.err.splitlines()[-1]
    assert ended.code == 2 and line.startswith("error: ") and message in line
    assert str(config.out_dir / "last.pth") in line and not config.model_file.exists()
