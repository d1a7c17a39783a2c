import shutil
from dataclasses import replace

import pytest
import torch
from killing import assert_same_run, detection_is_slow, kill_and_resume, needs_signals

from cxr import checkpoints, cli, runtime, training_run

# ------------------------------------------------------------------------------------------------------ stopped, killed


def test_a_run_stopped_between_its_log_and_its_checkpoint_forgets_the_epoch_and_ends_as_if_never_stopped(
    monkeypatch, script, data, whole, folder, without_pictures
):
    """The whole run had a process of its own, this one has not."""
    config = script.settings(data, folder)
    save, saved = checkpoints.save, []

    def stop(path, **state):
        saved.append(path.name)
        if saved.count("last.pth") == 2:
            raise KeyboardInterrupt
        save(path, **state)

    monkeypatch.setattr(checkpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        script.train(config)
    monkeypatch.setattr(checkpoints, "save", save)
    log = config.output_dir / "metrics.jsonl"
    assert len(log.read_text().splitlines()) == 2  # the second epoch is in the log and not in last.pth
    assert script.load(config.output_dir / "last.pth")["epoch"] == 1
    assert not (folder / script.checkpoints[-1]).exists()
    with log.open("a") as file:
        file.write('{"epoch": 3, "tr')  # and a line that a kill cut short
    script.train(replace(config, resume=True))
    assert_same_run(script, whole.config, config, pictures=False)


@detection_is_slow
def test_a_run_that_chose_bf16_for_itself_goes_on_in_it(monkeypatch, script, data, folder, capsys):
    """Whatever a new trial would say."""
    train_one_epoch, epochs = script.module.train_one_epoch, []

    def only_the_first(train_state, data, config, epoch, run):
        epochs.append((epoch, run.bf16))
        if epoch == 1:
            raise KeyboardInterrupt
        return train_one_epoch(train_state, data, config, epoch, run)

    monkeypatch.setattr(script.module, "train_one_epoch", only_the_first)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    config = script.settings(data, folder, precision="auto")
    for speedup, again in ((1.8, False), (1.0, True)):
        monkeypatch.setattr(runtime, "_bf16_speedup", lambda step, speedup=speedup: speedup)
        with pytest.raises(KeyboardInterrupt):
            script.train(replace(config, resume=again))
        assert "bf16 (bf16 is 1.80 times as fast as fp32)" in capsys.readouterr().out
    assert epochs == [(0, True), (1, True), (1, True)]


def test_another_seed_begins_with_other_weights():
    from pytorch_classification.model import build

    def first_weights(seed):
        with runtime.start("cpu", "fp32", seed):
            return build("none").fc.weight

    assert torch.equal(first_weights(0), first_weights(0)) and not torch.equal(first_weights(0), first_weights(1))


@needs_signals
@detection_is_slow
def test_a_run_killed_at_any_touch_of_its_files_ends_like_one_that_was_not(script, whole, folder):
    kill_and_resume(script, whole.config, whole.seconds, folder, kills=2, seed=0)


@needs_signals
@pytest.mark.slow
def test_a_run_killed_thirty_times_ends_like_one_that_was_not(script, whole, folder):
    kill_and_resume(script, whole.config, whole.seconds, folder, kills=30, seed=1)


# ----------------------------------------------------------------------------------------------------- another run


CHANGES = {
    "epochs": 4,
    "size": 96,
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 0.1,
    "ema_window": 0.5,
    "seed": 1,
    "precision": "auto",
    "skip_bad": True,
    "weights": "imagenet",
}
MORE_CHANGES = {
    "classification": {
        "validation_share": 0.3,
        "ood_val_dir": "clinic",
        "crop_prob": 0.9,
        "style_mix_prob": 0.9,
        "randconv_prob": 0.9,
        "flip_tta": False,
    },
    "detection": {
        "backbone": "resnet50_v2",
        "negatives_per_positive": 3.0,
        "image_loss_weight": 0.1,
        "light_augmentation_epochs": 0,
        "allow_missing": True,
    },
}


def test_a_resumed_run_with_another_setting_is_refused_by_the_name_of_the_setting(script, whole):
    saved = script.load(whole.config.output_dir / "last.pth")

    def check(**changes):
        now = {**saved, "config": {**cli.plain(whole.config), "resume": True, **changes}}
        training_run.require_same_run(saved, now, script.module.RESUME_IGNORES, whole.config.output_dir)

    check(**dict.fromkeys(script.module.RESUME_IGNORES, "another"))  # where files lie, and what computes them
    changes = CHANGES | MORE_CHANGES[script.name.rpartition("_")[2]]
    for name, value in changes.items():
        flag = f"--{name.replace('_', '-')} was {saved['config'][name]}, is {value}"
        with pytest.raises(ValueError, match=f"^--resume: another run than the one in .*: {flag}$"):
            check(**{name: value})
    with pytest.raises(ValueError, match=r"--epochs was \d, is 4; --seed was 0, is 1$"):
        check(epochs=4, seed=1)
    assert {*vars(whole.config)} == {*changes, *script.module.RESUME_IGNORES}  # a new setting belongs to one of the two


def test_another_number_of_processes_is_refused_while_an_epoch_is_left(script, whole):
    """It divides the batches otherwise; a run that is trained has only its report to write, which is the same."""
    saved = script.load(whole.config.output_dir / "last.pth")
    two = {**saved, "processes": 2}
    training_run.require_same_run(saved, two, script.module.RESUME_IGNORES, whole.config.output_dir)
    with pytest.raises(ValueError, match=r"another run than the one in .*: the number of processes was 1, is 2$"):
        training_run.require_same_run({**saved, "epoch": 1}, two, script.module.RESUME_IGNORES, whole.config.output_dir)


def test_files_that_are_gone_new_or_changed_are_named():
    config = {"data_dir": "here", "epochs": 1}
    before = {f"{number}.png": "content" for number in range(9)}

    def check(now):
        states = [
            {"config": config, "processes": 1, "bf16": False, "epoch": 1, "data": training_run.fingerprint(facts)}
            for facts in (before, now)
        ]
        training_run.require_same_run(*states, (), None)

    check(dict(before))
    with pytest.raises(ValueError, match=r"^--resume: the images in here are not .*: missing: 8\.png; new: a\nb\.png$"):
        check({**{name: fact for name, fact in before.items() if name != "8.png"}, "a\nb.png": "content"})
    with pytest.raises(ValueError, match=r": changed: 0\.png, 1\.png, 2\.png, 3\.png, 4\.png and 4 more$"):
        check(dict.fromkeys(before, "other"))


def test_resuming_on_other_images_is_refused(script, data, whole, folder, command):
    other = shutil.copytree(data, folder / "data")
    images = (path for path in sorted(other.rglob("*.*")) if path.suffix in (".jpeg", ".dcm"))
    changed = next(path for path in images if "test" not in path.parts)  # which training does not read
    content = bytearray(changed.read_bytes())
    content[-40] ^= 1
    changed.write_bytes(content)
    config = script.settings(other, folder, resume=True)
    config.output_dir.mkdir()
    shutil.copy(whole.config.output_dir / "last.pth", config.output_dir)
    ended = command(script.module.main, config)
    assert ended.code == 2 and not (folder / script.checkpoints[-1]).exists()
    line = ended.err.splitlines()[-1]
    assert f"the images in {other} are not those that the run began with: changed: " in line
    assert line.endswith(changed.name)


@pytest.mark.parametrize("changes", [{"processes": None}, {"data": "of an earlier form"}])
def test_resuming_a_run_of_another_version_ends_in_one_line(script, data, whole, folder, command, changes):
    config = script.settings(data, folder, resume=True)
    config.output_dir.mkdir()
    state = script.load(whole.config.output_dir / "last.pth") | changes
    not_asked_for = ("format", "task", "model", "average", "optimizer", "scheduler")
    kept = {name: value for name, value in state.items() if value is not None and name not in not_asked_for}
    checkpoints.save(config.output_dir / "last.pth", task=state["task"], **kept)
    ended = command(script.module.main, config)
    assert ended.code == 2 and "was begun by another version" in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint at "),
        (b"", "last.pth: "),
        (b"PK\x03\x04 cut short", "last.pth: "),
    ],
)
def test_resuming_without_a_checkpoint_ends_in_one_line(script, data, tmp_path, command, content, message):
    config = script.settings(data, tmp_path, resume=True)
    if content is not None:
        config.output_dir.mkdir()
        (config.output_dir / "last.pth").write_bytes(content)
    ended = command(script.module.main, config)
    line = ended.err.splitlines()[-1]
    assert ended.code == 2 and line.startswith("error: ") and message in line
    assert str(config.output_dir / "last.pth") in line and not (tmp_path / script.checkpoints[-1]).exists()
