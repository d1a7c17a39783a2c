"""Both trainings where the disk is full or read-only, data goes, or the folder is another run's."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from killing import detection_is_slow, quick
from small_disk import remount, small_disk

from cxr import training_run
from cxr.training_run import lock_folder


def last_line(text):
    return text.replace("\r", "\n").splitlines()[-1]


def at_epoch(script, number, monkeypatch, do):
    """Call ``do`` when the epoch of that number is about to begin."""
    train_one_epoch = script.module.train_one_epoch

    def hooked(train_state, data, config, epoch, run):
        if epoch + 1 == number:
            do(config)
        return train_one_epoch(train_state, data, config, epoch, run)

    monkeypatch.setattr(script.module, "train_one_epoch", hooked)


def stop(_config):
    raise KeyboardInterrupt


@detection_is_slow
def test_a_disk_that_fills_up_costs_one_epoch(script, data, folder, without_pictures, monkeypatch, command):
    """The last good checkpoint survives, the message names the file and the space; with room again the run goes on."""
    with small_disk(folder, 2**21) as disk:
        config = script.settings(data, disk)

        def fill(config):
            used = sum(path.stat().st_size for path in disk.rglob("*"))
            remount(disk, f"size={used // 2**10 + 4 * 2**10}k")

        with monkeypatch.context() as patched, quick():
            at_epoch(script, 2, patched, fill)
            ended = command(script.module.main, config)
        assert ended.code == 2
        line = last_line(ended.err)
        assert line.startswith(f"error: cannot write {config.output_dir}"), line
        assert ".pth: No space left on device; " in line and line.endswith(" MiB are free"), line
        assert script.load(config.output_dir / "last.pth")["epoch"] == 1 and not list(disk.rglob("*.partial"))
        remount(disk, "size=2g")
        script.train(replace(config, resume=True))
        assert (disk / script.report).exists()


def test_a_folder_that_is_read_only_is_named_before_anything_is_read(script, folder, command):
    with small_disk(folder, 64) as disk:
        remount(disk, "ro")
        config = script.settings(folder / "no data", disk)
        ended = command(script.module.main, config)
        expected = f"error: cannot write to {config.output_dir}: Read-only file system; give another --output-dir\n"
        assert (ended.code, ended.out, ended.err) == (2, "", expected)


def test_a_second_run_in_the_same_folder_is_refused(script, data, folder, command, processor):
    config = script.settings(data, folder)
    with lock_folder(config.output_dir, processor):
        ended = command(script.module.main, config)
    expected = f"error: another run is writing to {config.output_dir}; wait for it or give another --output-dir\n"
    assert (ended.code, ended.out, ended.err) == (2, "", expected)
    assert [path.name for path in config.output_dir.iterdir()] == ["run.lock"]


def test_a_run_is_replaced_only_when_asked(script, data, folder, monkeypatch, command):
    config = script.settings(folder / "no data", folder)
    old = [folder / name for name in (*script.checkpoints[:-1], script.report)]
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    ended = command(script.module.main, config)  # before the data are looked for
    assert ended.code == 2 and "holds a run: continue it with --resume, replace it with --overwrite" in ended.err
    at_epoch(script, 1, monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        script.train(replace(config, data_dir=data, overwrite=True))
    assert not any(path.exists() for path in old)


@detection_is_slow
def test_data_that_goes_in_the_middle_of_a_run_does_not_stop_it(
    script, data, folder, without_pictures, monkeypatch, command
):
    """Training reads what was decoded once; the folder is named where the end of a run needs it."""
    mine = shutil.copytree(data, folder / "data")
    config = script.settings(mine, folder)
    at_epoch(script, 2, monkeypatch, lambda config: shutil.rmtree(config.data_dir))
    with quick():
        ended = command(script.module.main, config)
    assert ended.code == 0, ended.err
    assert script.load(config.output_dir / "last.pth")["epoch"] == config.epochs
    missed = f"no folder {mine / 'test'}, so there is no test report"
    assert (folder / script.report).exists() != (missed in ended.out)


def test_a_lock_goes_with_the_run_however_it_ends(tmp_path, processor):
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path, processor):
        raise ZeroDivisionError
    body = "import sys, filelock\nlock = filelock.FileLock(sys.argv[1], timeout=0).acquire()\nprint('held', flush=True)\ninput()"
    command = [sys.executable, "-c", body, tmp_path / "run.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another run is writing"), lock_folder(tmp_path, processor):
            pass
        other.kill()
        other.wait()
    with lock_folder(tmp_path, processor):
        pass


def test_curves_can_be_watched_after_the_first_epoch(script, data, folder, monkeypatch):
    at_epoch(script, 2, monkeypatch, stop)
    config = script.settings(data, folder)
    with pytest.raises(KeyboardInterrupt):
        script.train(config)
    (picture,) = config.images_dir.iterdir()
    assert picture.name.startswith("loss_curve")


# --------------------------------------------------------------------------------------------------------------- the log


def epochs_in(path):
    return [record["epoch"] for record in training_run.read_records(path)]


def written(path, *epochs):
    for epoch in epochs:
        training_run.append_record(path, {"epoch": epoch, "val_auc": epoch / 10})
    return path


def test_a_last_line_cut_at_any_place_is_left_out(tmp_path):
    path = written(tmp_path / "metrics.jsonl", 1, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert epochs_in(path) == [1]
    path.write_bytes(whole)
    assert epochs_in(path) == [1, 2]


def test_epochs_that_the_checkpoint_does_not_know_are_dropped(tmp_path):
    path = written(tmp_path / "metrics.jsonl", 1, 2, 3)
    training_run.drop_epochs_after(path, 3)
    assert epochs_in(path) == [1, 2, 3]
    training_run.drop_epochs_after(path, 2)
    assert epochs_in(path) == [1, 2]
    training_run.drop_epochs_after(path, 0)
    assert path.read_bytes() == b""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("-inf")])
def test_what_json_does_not_have_is_refused_by_name_and_nothing_is_written(tmp_path, value):
    with pytest.raises(ValueError, match=r"epoch 4: no finite number for val_auc$"):
        training_run.append_record(tmp_path / "metrics.jsonl", {"epoch": 4, "val_auc": value, "loss": 0.1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        training_run.append_record(tmp_path / "metrics.jsonl", {"epoch": 4, "deep": [float(value)]})
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'epoch': 1}", r"metrics\.jsonl, line 2: not JSON .*; correct or remove the line"),
        (b"[1, 2]", r"metrics\.jsonl, line 2: expected an object"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=message):
        training_run.read_records(path)
    with pytest.raises(ValueError, match=message):
        training_run.drop_epochs_after(path, 2)
