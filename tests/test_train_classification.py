import hashlib
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_classification import chest, settings, train, write_chest_xray
from torch import nn

from cxr import checkpoints, metrics, training_run
from cxr.runtime import Squares
from pytorch_classification import model, report
from pytorch_classification import train_classification as training
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import Listing
from pytorch_classification.model import TASK, as_input, predict_logits, to_probability
from pytorch_classification.operating_point import fit_temperature
from pytorch_classification.shifted_validation import ShiftedSet, balanced_threshold
from pytorch_classification.training_data import TrainingData, load_data

PICTURES = {
    *("confusion_matrix", "errors", "grad_cam", "loss_curve_classification", "reliability", "roc_pr"),
    "threshold_sweep",
}


def in_memory(count, label_of, picture_of=lambda number: chest(number % 2, number)):
    """``count`` squares that are both training and validation."""
    squares = [np.array(Image.fromarray(picture_of(number)).resize((36, 36))) for number in range(count)]
    labels = np.array([label_of(number) for number in range(count)])
    indices = np.arange(count)
    paths = [Path(f"image{number}.jpeg") for number in range(count)]
    listing = Listing(paths, labels, [path.stem for path in paths])
    return TrainingData(
        listing,
        Squares(np.stack(squares), torch.device("cpu")),
        labels,
        [path.stem for path in paths],
        indices,
        indices,
        ShiftedSet("the same again", np.stack(squares), labels),
    )


def weights_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def finished_copy(trained, folder, **changes):
    """Settings that take up the finished run from a copy of its folder; it has only its report left to write."""
    config = replace(
        trained.config,
        output_dir=folder / "run",
        model_file=folder / "model.pth",
        resume=True,
        **changes,
    )
    kept = shutil.ignore_patterns("run.lock", "decoded", "test_report.json", "images")
    shutil.copytree(trained.config.output_dir, config.output_dir, ignore=kept, copy_function=os.link)
    return config


def report_of(config):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((config.output_dir / "test_report.json").read_text(), parse_constant=refuse)


# ------------------------------------------------------------------------------------------------------------ learning


def test_eight_images_are_overfitted(monkeypatch, tmp_path, processor):
    """Eight pictures of one kind with labels that nothing in them explains."""
    monkeypatch.setattr(training, "augmented", lambda stored, size, *_args, **_probs: as_input(stored, size))
    data = in_memory(8, lambda number: int(number in (1, 4, 6, 7)), lambda number: chest(0, number))
    config = settings(tmp_path, tmp_path, epochs=48, batch_size=8)
    torch.manual_seed(0)
    train_state = training.make_train_state(config, training.build("none"), 1, processor)
    losses = [training.train_one_epoch(train_state, data, config, epoch, processor) for epoch in range(config.epochs)]
    assert losses[0] > 0.5 and losses[-1] < 0.05
    logits = predict_logits(train_state.average, data.images, data.train, 32, False, processor)
    assert ((logits > 0) == data.labels).all()


def test_the_tiny_data_set_is_learnt(trained):
    scores = report_of(trained.config)["scores"]
    assert scores["images"] == 24
    assert scores["scores"]["roc_auc"]["value"] >= 0.9  # .5 is chance
    assert scores["scores"]["accuracy"]["value"] >= 0.8
    records = training_run.read_records(trained.config.output_dir / "metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["val_loss"] < 0.5 < records[0]["train_loss"]  # ln 2 is what knowing nothing costs


@pytest.mark.slow
def test_shuffled_labels_are_not_learnt(folder):
    """Half of the pictures of each class and split are swapped: only chance is left."""
    data = write_chest_xray(folder / "data", {"train": 80, "val": 2, "test": 60})
    for split in ("train", "val", "test"):
        normal, pneumonia = (sorted((data / split / name).iterdir()) for name in ("NORMAL", "PNEUMONIA"))
        for one, other in list(zip(normal, pneumonia, strict=True))[::2]:
            one.rename(data / "swap.jpeg")
            other.rename(one)
            (data / "swap.jpeg").rename(other)
    config = settings(data, folder, epochs=6, batch_size=16)
    train(config)
    auc = report_of(config)["scores"]["scores"]["roc_auc"]
    assert auc["low"] < 0.5 < auc["high"] and auc["high"] - auc["low"] < 0.4


# ------------------------------------------------------------------------------------------------------- parts of a step


def test_class_weights_balance_the_classes_and_have_mean_one():
    labels = np.array([0, 1, 1, 1])
    weights = training.class_weights(labels)
    assert weights.dtype == torch.float32 and weights.tolist() == pytest.approx([2, 2 / 3])
    assert weights[labels].mean() == pytest.approx(1)
    assert training.class_weights(np.array([0, 1])).tolist() == [1, 1]


def test_the_loss_is_the_mean_over_images_of_their_weighted_cross_entropy():
    logits, labels, weights = torch.tensor([0.0, math.log(3)]), torch.tensor([0, 1]), torch.tensor([2.0, 0.5])
    expected = (2 * math.log(2) + 0.5 * math.log(4 / 3)) / 2
    assert training.weighted_loss(logits, labels, weights).item() == pytest.approx(expected)
    many, chosen = torch.randn(12), torch.tensor([0, 1, 1] * 4)
    whole = training.weighted_loss(many, chosen, weights)
    parts = [training.weighted_loss(many[i : i + 4], chosen[i : i + 4], weights) for i in (0, 4, 8)]
    assert torch.stack(parts).mean() == pytest.approx(whole.item())


@pytest.mark.parametrize("steps", [2, 3, 13])
def test_the_schedule_rises_and_ends_at_zero_for_any_number_of_steps(tmp_path, processor, steps):
    config = settings(tmp_path, tmp_path, epochs=1, lr=1e-3)
    train_state = training.make_train_state(config, nn.Conv2d(1, 1, 1), steps, processor)
    rates = []
    for _ in range(steps):
        rates.append(train_state.scheduler.get_last_lr()[0])
        train_state.optimizer.step()
        train_state.scheduler.step()
    assert 0.5e-3 < max(rates) <= 1e-3 and rates[-1] < 1e-7
    assert rates[np.argmax(rates) :] == sorted(rates[np.argmax(rates) :], reverse=True)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_it(monkeypatch, tmp_path, processor):
    data = in_memory(12, lambda number: number % 2)
    config = settings(tmp_path, tmp_path, batch_size=4)
    train_state = training.make_train_state(config, training.build("none"), 3, processor)
    seen, before = [], []

    def spoilt(stored, size, *_args, **_probs):
        seen.append(stored.numpy())
        before[:] = [weights_of(train_state.model)]
        return as_input(stored, size) * (float("nan") if len(seen) == 2 else 1)

    monkeypatch.setattr(training, "augmented", spoilt)
    with pytest.raises(FloatingPointError, match=r"^epoch 5, step 2: the loss is nan on the images ") as caught:
        training.train_one_epoch(train_state, data, config, 4, processor)
    names = {
        f"image{number}.jpeg" for number in range(12) for square in seen[1] if (data.images[number] == square).all()
    }
    assert len(names) == 4 and {*str(caught.value).split("images ")[1].split(", ")} == names
    # Normalisation has counted the bad batch; the parameters have not.
    parameters = dict(train_state.model.named_parameters())
    assert all(torch.equal(value, before[0][name]) for name, value in parameters.items())
    assert train_state.average.n_averaged == 1


def test_validation_scores_are_computed_over_all_predictions_at_once(monkeypatch, tmp_path, processor):
    data = in_memory(14, lambda number: int(number % 3 > 0))
    config = settings(tmp_path, tmp_path)
    train_state = training.make_train_state(config, training.build("none"), 1, processor)
    whole = training.validate(train_state, data, 32, True, processor)
    logits = predict_logits(train_state.average, data.images, data.validation, 32, True, processor)
    losses = np.logaddexp(0, np.where(data.labels == 1, -logits, logits))
    by_class = [losses[data.labels == label].mean() for label in (0, 1)]
    assert whole["val_loss"] == pytest.approx(np.mean(by_class), rel=1e-6)
    assert whole["shifted_auc"] == whole["val_auc"] and whole["selection_loss"] == whole["val_calibrated_loss"]
    assert whole["val_auc"] == pytest.approx(float(metrics.roc_auc(logits, data.labels)))
    monkeypatch.setattr(model, "_BATCH", 3)
    assert training.validate(train_state, data, 32, True, processor) == pytest.approx(whole, rel=1e-4)


# ------------------------------------------------------------------------------------------------------- the whole run


def test_the_best_epoch_is_kept_as_a_copy(monkeypatch, chest_xray, folder, without_pictures):
    losses, weights = iter([0.5, 0.4, 0.6]), []

    def validate(train_state, *_args):
        weights.append(weights_of(train_state.average.module))
        loss = next(losses)
        return {"val_loss": loss, "selection_loss": loss, "val_auc": 0.9, "shifted_auc": 0.8}

    monkeypatch.setattr(training, "validate", validate)
    config = settings(chest_xray, folder, epochs=3, flip_tta=False)
    train(config)
    best = checkpoints.load(config.output_dir / "best.pth", task=TASK)
    assert (best["epoch"], best["best"]) == (2, 0.4)
    assert same(best["model"], weights[1]) and not same(weights[1], weights[2])
    finished = checkpoints.load(config.model_file, task=TASK)
    assert finished["epoch"] == 2 and same(finished["model"], checkpoints.with_half_kernels(weights[1]))
    assert finished["prediction"]["flip_average"] is False
    last = checkpoints.load(config.output_dir / "last.pth", task=TASK)
    assert (last["epoch"], last["best"]) == (3, 0.4)
    assert same(
        {f"module.{name}": value for name, value in weights[2].items()},
        {name: value for name, value in last["average"].items() if name != "n_averaged"},
    )


def test_the_model_file_holds_the_flow_of_images_the_time_and_the_test_report(trained):
    config = trained.config
    finished = checkpoints.load(config.model_file, task=TASK)
    flow = finished["flow"]
    assert (flow["listed"], flow["unreadable"], flow["repeated"], flow["named_as_kaggle"]) == (68, 0, 0, True)
    assert flow["parts"]["train"] == {"images": {"NORMAL": 26, "PNEUMONIA": 26}, "patients": 26}
    assert flow["parts"]["validation"] == {"images": {"NORMAL": 8, "PNEUMONIA": 8}, "patients": 8}
    assert flow["shifted"]["external"] is False and flow["shifted"]["images"] == {"NORMAL": 8, "PNEUMONIA": 8}
    assert len(finished["seconds"]) == 6 and all(seconds > 0 for seconds in finished["seconds"])
    tested, written = finished["test_report"], report_of(config)
    assert tested["set"] == "test" and tested["scores"] == written["scores"]
    assert finished["validation_report"] == written["validation"]
    assert finished["config"].keys().isdisjoint({"data_dir", "output_dir", "model_file"})
    kept = {name: value for name, value in finished.items() if name not in ("model", "likeness", "provenance")}
    assert str(config.output_dir.parent) not in str(kept) and str(config.data_dir) not in str(kept)


def test_a_run_prints_its_steps_and_draws_its_pictures(trained):
    config = trained.config
    for line in (
        "train 26 NORMAL + 26 PNEUMONIA of 26 patients; validation 8 NORMAL + 8 PNEUMONIA of 8 patients",
        "6 epochs at 32 px from weights none on cpu, fp32, 1 process",
        "epoch   6/6  train loss ",
        "training is finished; the best epoch is ",
        "(both classes equally likely over both sets):",
        "  validation, 16 images: roc_auc ",
        "  validation, NORMAL in the style of PNEUMONIA, 16 images: roc_auc ",
        "test images, evaluated once:",
        f"model: {config.model_file}",
        f"pictures: {config.images_dir}",
    ):
        assert line in trained.printed
    drawn = {path.stem for path in config.images_dir.iterdir()} - {"subgroups"}  # if any image is out of distribution
    assert drawn == PICTURES
    for path in config.images_dir.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 200 and len(picture.convert("L").getcolors()) > 10, path.name


def test_threshold_and_temperature_are_fitted_on_plain_and_shifted_validation(trained, processor):
    config = trained.config
    state = checkpoints.load(config.model_file, task=TASK)
    data = load_data(config, processor)
    classifier = Classifier.load(config.model_file, processor)
    scored = [
        (classifier.log_odds(images[rows], processor), labels)
        for images, rows, labels in data.validation_sets().values()
    ]
    temperature = fit_temperature(*(np.concatenate(column) for column in zip(*scored, strict=True)))
    threshold = float(to_probability(np.array(balanced_threshold(scored)), temperature))
    assert state["prediction"]["temperature"] == pytest.approx(temperature, rel=1e-4)
    assert state["prediction"]["threshold"] == pytest.approx(threshold, rel=1e-4)
    for (logits, labels), found in zip(scored, state["validation"].values(), strict=True):
        called = to_probability(logits, temperature) >= threshold
        assert found["sensitivity"] == pytest.approx(called[labels == 1].mean())
        assert found["specificity"] == pytest.approx((~called)[labels == 0].mean())
        assert found["images"] == 16 and found["roc_auc"] == pytest.approx(float(metrics.roc_auc(logits, labels)))


def test_without_out_of_domain_images_normal_validation_images_are_style_transferred(trained, processor):
    data = load_data(trained.config, processor)
    before, found = data.images[data.validation], data.shifted
    normal = found.labels == 0
    assert np.array_equal(found.labels, data.labels[data.validation]) and not found.external
    assert np.array_equal(found.images[~normal], before[~normal])
    assert all((one != other).any() for one, other in zip(found.images[normal], before[normal], strict=True))


def test_out_of_domain_images_select_and_are_never_trained_on(trained, folder, processor):
    """Two training images are in that folder too and are left out; the others decide what resuming compares."""
    clinic = write_chest_xray(folder / "clinic", {"train": 46, "test": 9}) / "test"
    for name in ("NORMAL", "PNEUMONIA"):
        first = next((trained.config.data_dir / "train" / name).iterdir())
        shutil.copy(first, clinic / name / "person77_virus_1.jpeg")
    plain = load_data(trained.config, processor)
    data = load_data(replace(trained.config, ood_val_dir=clinic, output_dir=folder / "run"), processor)
    assert data.shifted.external and data.shifted.name == str(clinic)
    assert np.bincount(data.shifted.labels).tolist() == [9, 9]
    assert np.array_equal(data.train, plain.train) and data.hashes == plain.hashes
    assert {*data.facts(trained.config.data_dir)} - {*plain.facts(trained.config.data_dir)} == {str(clinic)}


def test_the_test_folder_is_not_read_before_training_is_done(chest_xray, folder, without_pictures, capsys):
    """An empty test/ cannot even be listed; training reaches its last line, and --resume then has only to report."""
    data = shutil.copytree(chest_xray, folder / "data")
    (data / "test").rename(data / "later")
    (data / "test").mkdir()
    config = settings(data, folder, epochs=1)
    with pytest.raises(ValueError, match=r"expected the class folders NORMAL, PNEUMONIA .*, found none"):
        train(config)
    printed = capsys.readouterr().out
    assert "training is finished; the best epoch is 1" in printed and f"model: {config.model_file}" in printed
    chosen = checkpoints.load(config.model_file, task=TASK)["prediction"]
    assert not (config.output_dir / "test_report.json").exists()
    (data / "test").rmdir()
    (data / "later").rename(data / "test")
    train(replace(config, resume=True))
    assert "train loss" not in capsys.readouterr().out
    assert report_of(config)["scores"]["images"] == 24
    assert checkpoints.load(config.model_file, task=TASK)["prediction"] == chosen


def test_a_new_run_that_is_refused_leaves_the_older_one_as_it_was(trained, folder):
    config = finished_copy(trained, folder, data_dir=folder / "none")
    before = {path.name: path.stat().st_mtime_ns for path in config.output_dir.iterdir()}
    with pytest.raises(FileNotFoundError, match="no folder"):
        train(replace(config, resume=False, overwrite=True))
    assert {
        path.name: path.stat().st_mtime_ns for path in config.output_dir.iterdir() if path.name != "run.lock"
    } == before


def test_grid_cases_are_the_most_confident_errors_and_typical_correct_predictions():
    probabilities = np.array([0.99, 0.6, 0.1, 0.2, 0.3, 0.95, 0.9, 0.8, 0.05])
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert report.grid_cases(probabilities, labels, 0.5).tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert report.grid_cases(np.array([0.1, 0.9]), np.array([0, 1]), 0.5).tolist() == [0, 1]
    assert report.grid_cases(np.array([0.9, 0.1]), np.array([0, 1]), 0.5).tolist() == [0, 1]


def test_a_table_trains_as_its_folders_do_and_keeps_patients_together(trained, folder, processor, without_pictures):
    """The same images under a patient of four images each, instead of two as by their names."""
    rows = ["path,label,patient,split"]
    for split in ("train", "val", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            for number, path in enumerate(sorted((trained.config.data_dir / split / label).iterdir())):
                rows.append(f"{path},{'ill' if label == 'PNEUMONIA' else 'well'},{split}{label}{number // 4},{split}")
    (folder / "labels.csv").write_text("\n".join(rows))
    config = settings(
        folder / "none", folder, table=folder / "labels.csv", normal=("well",), pneumonia=("ill",), epochs=1
    )
    data = load_data(config, processor)
    plain = load_data(trained.config, processor)
    assert {*zip(data.hashes, data.labels.tolist(), strict=True)} == {
        *zip(plain.hashes, plain.labels.tolist(), strict=True)
    }
    parts = [{data.listing.patients[index] for index in part} for part in (data.train, data.validation)]
    assert not parts[0] & parts[1] and len(parts[0]) + len(parts[1]) == 18
    train(config)
    found = report_of(config)["scores"]
    assert (found["images"], found["patients"]) == (24, 6)
    assert checkpoints.load(config.model_file, task=TASK)["trained_on"]["folder"] == folder.name


def test_images_of_one_patient_id_stay_on_one_side(folder, processor):
    """DICOM files with uninformative names, three of each patient."""
    from dicom_files import dataset, save

    for label, name in enumerate(("NORMAL", "PNEUMONIA")):
        (folder / "data" / "train" / name).mkdir(parents=True)
        for number in range(24):
            pixels = chest(label, number).astype(np.uint16)
            path = folder / "data" / "train" / name / f"{number}.dcm"
            save(path, dataset(pixels, bits=8, PatientID=f"{name[:2]}-{number % 8}"))
    with pytest.warns(UserWarning, match="the run will end without a test report"):
        data = load_data(settings(folder / "data", folder), processor)
    parts = [{data.listing.patients[index] for index in part} for part in (data.train, data.validation)]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 16 and len(data.train) + len(data.validation) == 48


# ----------------------------------------------------------------------------------------------------------- bad input


def test_a_missing_folder_ends_in_one_line(tmp_path, command):
    config = settings(tmp_path / "none", tmp_path)
    ended = command(training.main, config)
    assert ended.code == 2 and ended.out == ""
    assert ended.err.count("\n") == 1 and ended.err.startswith("error: no folder ")
    assert [path.name for path in config.output_dir.rglob("*")] == ["run.lock"] and not config.model_file.exists()


@pytest.fixture
def with_bad_files(chest_xray, tmp_path):
    """The tiny data set with four files in train/ and val/ that hold no picture."""
    data = shutil.copytree(chest_xray, tmp_path / "data")
    good = (data / "train" / "NORMAL" / "IM-0000-0000.jpeg").read_bytes()
    contents = {
        "train/NORMAL/IM-0900-0001.jpeg": b"",
        "train/PNEUMONIA/person900_virus_1.jpeg": b"just a text",
        "train/PNEUMONIA/person901_virus_2.jpeg": good[: len(good) // 2],
        "val/NORMAL/IM-0902-0001.jpeg": bytes(1000),
    }
    for name, content in contents.items():
        (data / name).write_bytes(content)
    return data, list(contents)


def test_bad_images_are_left_out_and_counted_when_asked(with_bad_files, tmp_path, processor):
    data, names = with_bad_files
    config = settings(data, tmp_path, skip_bad=True)
    with pytest.warns(UserWarning, match="^4 unreadable images are skipped$"):
        loaded = load_data(config, processor)
    used = [*loaded.train, *loaded.validation]
    assert len(used) == len({*used}) == 68
    assert not {data / name for name in names} & {loaded.listing.paths[index] for index in used}
    for index in (used[0], used[40], used[67]):  # images, paths and hashes belong together
        path = loaded.listing.paths[index]
        assert loaded.hashes[index] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (loaded.labels[index] == 1) == (path.parent.name == "PNEUMONIA")


def test_the_same_file_in_both_classes_gives_a_warning(chest_xray, tmp_path, processor):
    data = shutil.copytree(chest_xray, tmp_path / "data")
    shutil.copy(data / "train" / "NORMAL" / "IM-0000-0000.jpeg", data / "train" / "PNEUMONIA" / "person77_virus_1.jpeg")
    with pytest.warns(UserWarning, match="^2 files are in both classes with the same content"):
        load_data(settings(data, tmp_path), processor)
