"""What follows training: calibration and operating point on validation, the model file, the report on test images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import checkpoints, cli, metrics, model_file, out_of_distribution, plots, runtime, training_run
from cxr.model_file import run_environment
from cxr.training_run import RunFolder
from pytorch_classification import data_load, image_metrics, report
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES
from pytorch_classification.image_metrics import calibration_error
from pytorch_classification.model import TASK, build, to_probability
from pytorch_classification.operating_point import fit_temperature
from pytorch_classification.settings import PREVALENCE, RESUME_IGNORES, TrainConfig
from pytorch_classification.shifted_validation import balanced_threshold
from pytorch_classification.training_data import Data

NAME = "test_report.json"  # in the folder of the run
_HOT = 90  # percentile of Grad-CAM's strength in true positives of validation that is drawn as hot


def show_progress(config: TrainConfig, records: Sequence[dict[str, Any]]) -> None:
    """Draw the curves of all epochs so far."""
    plots.loss_curves(
        records,
        config.images_dir / "loss_curve_classification.png",
        losses={"selection_loss": "calibrated (chooses)"},
        scores={"val_auc": "ROC AUC", "shifted_auc": "ROC AUC, shifted set"},
    )


def finish(config: TrainConfig, data: Data, run: runtime.Runtime) -> None:
    """Fit what is fitted on validation, write the model, then read the test folder for the first and only time."""
    folder = RunFolder(config.output_dir, TASK, NAME)
    state = folder.load_best()
    if run.is_main:
        print(f"training is finished; the best epoch is {state['epoch']}")
    model = build("none")
    model.load_state_dict(
        checkpoints.with_half_kernels(state["model"])
    )  # as the file will hold it: what is fitted fits the file
    model = model.to(run.device).eval()
    seen = model_file.image_keys(data.hashes, data.train, data.validation)
    classifier = Classifier(model, config.size, data.images.shape[-1], config.flip_tta, 1.0, 0.5, training_images=seen)
    scored = {
        name: (classifier.log_odds(images, run, rows), labels) for name, (images, rows, labels) in data.sets().items()
    }
    both = [np.concatenate(column) for column in zip(*scored.values(), strict=True)]
    temperature = fit_temperature(*both)
    threshold = float(to_probability(np.array(balanced_threshold(list(scored.values()))), temperature))
    classifier = with_likeness(replace(classifier, temperature=temperature, threshold=threshold), data, run)
    judged = {name: (to_probability(log_odds, temperature), labels) for name, (log_odds, labels) in scored.items()}
    patients = [data.listing.patients[index] for index in data.validation]
    own = image_metrics.evaluate_classifier(*judged["val"], patients, threshold)
    validation = {name: quality(*answers, threshold) for name, answers in judged.items()}
    about = {
        "config": without_places(config),
        "classes": list(CLASSES),
        "epoch": state["epoch"],
        "seconds": [
            record.get("seconds") for record in training_run.read_records(folder.log)
        ],  # none in logs of older versions
        "flow": data.flow(),
        "validation": validation,
        "validation_report": own,
        "trained_on": model_file.trained_on(config.root, len(data.train), data.patients(data.train)),
        "provenance": run_environment(run),
    }
    if run.is_main:
        classifier.save(config.model_file, **about)
        print(f"temperature {temperature:.3f}, operating point {threshold:.4f} (even odds over both):")
        for name, found in zip(("validation", data.shifted.name), validation.values(), strict=True):
            scores = ", ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "images")
            print(f"  {name}, {found['images']} images: {scores}")
        ece, brier = (metrics.interval_text(own["scores"][name]) for name in ("ece", "brier"))
        print(f"  validation with 95% intervals by patient: ECE {ece}, Brier score {brier}")
        print(f"model: {config.model_file}")
    runtime.wait(run)  # the other processes read the model file too: what is written is what is judged
    missing = data_load.missing_test(config)
    if not missing:
        tested = test_report(config, data, Classifier.load(config.model_file, run), own, run)
        if run.is_main:  # once more, so that the file alone tells how it did
            classifier.save(config.model_file, **about, test_report=tested)
    elif run.is_main:
        print(f"{missing}, so there is no test report")


def quality(probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float) -> dict[str, float]:
    """Size and scores of a validation set, at ``threshold`` where one is needed."""
    called, truth = probabilities >= threshold, labels == data_load.PNEUMONIA
    return {
        "images": len(labels),
        "roc_auc": float(metrics.roc_auc(probabilities, labels)),
        "sensitivity": float(called[truth].mean()),
        "specificity": float((~called)[~truth].mean()),
        "brier": float(np.mean((probabilities - truth) ** 2)),
        "ece": float(calibration_error(probabilities, labels)),
    }


def with_likeness(classifier: Classifier, data: Data, run: runtime.Runtime) -> Classifier:
    """``classifier`` with what its training images look like to it, and the scale of its heat maps."""

    def seen(indices: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        with out_of_distribution.features(classifier.model) as found:
            log_odds = classifier.log_odds(data.images, run, indices)
        return log_odds, found.rows(classifier.views, run)

    (_, training), (log_odds, validation) = seen(data.train), seen(data.validation)
    called = to_probability(log_odds, classifier.temperature) >= classifier.threshold
    right = data.validation[called & (data.labels[data.validation] == data_load.PNEUMONIA)]
    strength = classifier.grad_cam_strength(np.asarray(data.images[np.sort(right)]), run) if len(right) else None
    return replace(
        classifier,
        feature_distance=out_of_distribution.FeatureDistance.fit(training, validation),
        grad_cam_scale=None if strength is None else float(np.percentile(strength, _HOT)),
    )


def test_report(
    config: TrainConfig, data: Data, classifier: Classifier, own: dict[str, Any], run: runtime.Runtime
) -> dict[str, Any]:
    """Score the finished model on the test images and draw it; files that also stand in training are left out.

    ``own`` is the report on the validation images, which temperature and threshold were fitted on; it is written too.

    Returns:
        The report for the model file; empty in all processes but the first.
    """
    source, listing = config.table or config.data_dir / "test", data_load.listed(config, "test")
    judged = report.judge(
        listing, source.name, classifier, config.output_dir / "decoded", run, skip_bad=config.skip_bad
    )
    if not run.is_main:
        return {}
    found = report.evaluated(judged, PREVALENCE, run)
    result = {"set": str(source), **found, "validation": own, "provenance": run_environment(run)}
    path = config.output_dir / NAME
    print(f"\ntest images, evaluated once:\n{report.format_report(found)}")
    print(f"\nreport: {path}")
    report.write(result, path, config.images_dir, judged, run)
    print(f"pictures: {config.images_dir}")
    return {**found, "set": source.name, "provenance": result["provenance"]}


def without_places(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights; a file is told by its name, since folders are this machine's affair."""
    return {
        name: Path(value).name if isinstance(getattr(config, name), Path) or name == "weights" else value
        for name, value in cli.plain(config).items()
        if name not in RESUME_IGNORES
    }
