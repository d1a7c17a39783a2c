"""The end of a training: calibration and operating point on validation, the model file, the test report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import checkpoints, metrics, model_file, out_of_distribution, plots, runtime, training_run
from cxr.model_file import run_environment
from cxr.training_run import RunFolder
from pytorch_classification import data_load, image_metrics, report
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES, PNEUMONIA
from pytorch_classification.image_metrics import calibration_error
from pytorch_classification.model import TASK, build, to_probability
from pytorch_classification.operating_point import fit_temperature
from pytorch_classification.settings import PREVALENCE, RESUME_IGNORES, TrainConfig
from pytorch_classification.shifted_validation import balanced_threshold
from pytorch_classification.training_data import TrainingData

REPORT = "test_report.json"  # in the folder of the run
_HOT = 90  # percentile of Grad-CAM strength in true positives of validation that is drawn as hot


def draw_curves(records: Sequence[dict[str, Any]], images_dir: Path) -> None:
    """Plot losses and scores of all epochs so far."""
    plots.loss_curves(
        records,
        images_dir / "loss_curve_classification.png",
        losses={"selection_loss": "calibrated (chooses)"},
        scores={"val_auc": "ROC AUC", "shifted_auc": "ROC AUC, shifted set"},
    )


def finish(config: TrainConfig, data: TrainingData, run: runtime.Runtime) -> None:
    """Calibrate on validation, write the model file, then evaluate on the test images for the only time."""
    folder = RunFolder(config.output_dir, TASK, REPORT)
    state = folder.load_best()
    model = build("none")
    model.load_state_dict(checkpoints.with_half_kernels(state["model"]))  # as in the file: calibrated for the file
    model = model.to(run.device).eval()
    known = model_file.image_keys(data.hashes, data.train, data.validation)
    classifier = Classifier(model, config.size, data.images.shape[-1], config.flip_tta, 1.0, 0.5, training_images=known)
    sets = {
        name: (classifier.log_odds(images, run, indices), labels)
        for name, (images, indices, labels) in data.validation_sets().items()
    }
    temperature = fit_temperature(*(np.concatenate(column) for column in zip(*sets.values(), strict=True)))
    threshold = float(to_probability(np.array(balanced_threshold(list(sets.values()))), temperature))
    classifier = with_training_statistics(replace(classifier, temperature=temperature, threshold=threshold), data, run)
    calibrated = {name: (to_probability(log_odds, temperature), labels) for name, (log_odds, labels) in sets.items()}
    patients = [data.listing.patients[index] for index in data.validation]
    validation_report = image_metrics.evaluate_classifier(*calibrated["val"], patients, threshold)
    validation = {name: scores_at(*predictions, threshold) for name, predictions in calibrated.items()}
    about = {
        "config": training_run.without_paths(config, RESUME_IGNORES),
        "classes": list(CLASSES),
        "epoch": state["epoch"],
        "seconds": [record["seconds"] for record in training_run.read_records(folder.log)],
        "flow": data.flow(),
        "validation": validation,
        "validation_report": validation_report,
        "trained_on": model_file.trained_on(config.root, len(data.train), data.count_patients(data.train)),
        "provenance": run_environment(run),
    }
    if run.is_main:
        classifier.save(config.model_file, **about)
        print(f"training is finished; the best epoch is {state['epoch']}")
        print(f"temperature {temperature:.3f}, threshold {threshold:.4f} (both classes equally likely over both sets):")
        for name, found in zip(("validation", data.shifted.name), validation.values(), strict=True):
            scores = ", ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "images")
            print(f"  {name}, {found['images']} images: {scores}")
        ece, brier = (metrics.interval_text(validation_report["scores"][name]) for name in ("ece", "brier"))
        print(f"  validation with 95% intervals by patient: ECE {ece}, Brier score {brier}")
        print(f"model: {config.model_file}")
        print(training_run.how_to_predict(TASK, config.model_file))
    runtime.wait(run)  # for the model file of the first process: the file is evaluated, not the model in memory
    if missing := data_load.missing_test(config.data_dir, config.table):
        if run.is_main:
            print(f"{missing}, so there is no test report")
        return
    tested = test_report(config, Classifier.load(config.model_file, run), validation_report, run)
    if run.is_main:
        classifier.save(config.model_file, **about, test_report=tested)


def scores_at(probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float) -> dict[str, float]:
    """Size and scores of a validation set, at ``threshold`` where one is needed."""
    called, truth = probabilities >= threshold, labels == PNEUMONIA
    return {
        "images": len(labels),
        "roc_auc": float(metrics.roc_auc(probabilities, labels)),
        "sensitivity": float(called[truth].mean()),
        "specificity": float((~called)[~truth].mean()),
        "brier": float(np.mean((probabilities - truth) ** 2)),
        "ece": float(calibration_error(probabilities, labels)),
    }


def with_training_statistics(classifier: Classifier, data: TrainingData, run: runtime.Runtime) -> Classifier:
    """``classifier`` with the distribution of its features on the training images, and the scale of its heat maps."""

    def predict(indices: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        with out_of_distribution.features(classifier.model) as found:
            log_odds = classifier.log_odds(data.images, run, indices)
        return log_odds, found.rows(classifier.views, run)

    (_, training), (log_odds, validation) = predict(data.train), predict(data.validation)
    called = to_probability(log_odds, classifier.temperature) >= classifier.threshold
    right = data.validation[called & (data.labels[data.validation] == PNEUMONIA)]
    strength = classifier.grad_cam_strength(np.asarray(data.images[np.sort(right)]), run) if len(right) else None
    return replace(
        classifier,
        feature_distance=out_of_distribution.FeatureDistance.fit(training, validation),
        grad_cam_scale=None if strength is None else float(np.percentile(strength, _HOT)),
    )


def test_report(
    config: TrainConfig, classifier: Classifier, validation_report: dict[str, Any], run: runtime.Runtime
) -> dict[str, Any]:
    """Evaluate the finished model on the test images, without files of the training data, and write the report.

    Returns:
        The report for the model file; empty in all processes but the first.
    """
    source = config.table or config.data_dir / "test"
    names = (config.normal, config.pneumonia)
    listing = data_load.list_splits(config.data_dir, config.table, "test", names=names)
    evaluated = report.evaluate(
        listing, source.name, classifier, config.output_dir / "decoded", run, skip_bad=config.skip_bad
    )
    if not run.is_main:
        return {}
    found = report.report_on(evaluated, PREVALENCE, run)
    print(f"\ntest images, evaluated once:\n{report.format_report(found)}")
    path = config.output_dir / REPORT
    result = {"set": str(source), **found, "validation": validation_report, "provenance": run_environment(run)}
    report.write(result, path, config.images_dir, evaluated, run)
    print(f"\nreport: {path}\npictures: {config.images_dir}")
    return {**found, "set": source.name, "provenance": result["provenance"]}
