"""The end of a training: operating point on validation, the model file, the report on the held-out exams."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr import checkpoints, model_file, plots, runtime, training_run
from cxr.model_file import run_environment
from cxr.out_of_distribution import FeatureDistance
from cxr.training_run import RunFolder, with_average
from pytorch_detection import report
from pytorch_detection.detector import Detector, Rule, choose_rule, load_network
from pytorch_detection.model import TASK
from pytorch_detection.settings import RESUME_IGNORES, TrainConfig
from pytorch_detection.training_data import TrainingData

REPORT = "held_out_report.json"  # in the folder of the run
_LOSSES = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal boxes",
    "loss_classifier": "box class",
    "loss_box_reg": "box position",
    "loss_image": "image (weighted)",
}


def draw_curves(records: Sequence[dict[str, Any]], images_dir: Path) -> None:
    """Plot losses and scores of all epochs so far."""
    plots.loss_curves(
        records,
        images_dir / "loss_curve.png",
        scores={
            "val_ap": "COCO AP",
            "val_ap50": "AP50",
            "val_rsna_score": "RSNA score",
            "val_image_auc": "image ROC AUC",
            "val_sensitivity_at_1_fp": "sensitivity at 1 FP/image",
        },
        parts={name: label for name, label in _LOSSES.items() if f"train_{name}" in records[0]},
    )


def finish(config: TrainConfig, data: TrainingData, run: runtime.Runtime) -> None:
    """Choose the operating point on validation, write the model file, then evaluate on the held-out exams once."""
    folders = [RunFolder(each.output_dir, TASK, REPORT) for each in config.each_network()]
    known = model_file.image_keys(data.hashes, data.train, data.validation)
    # The last epoch, not the one with the best scores: on a hundred exams that is chance (docs/experiments.md).
    states = [with_average(folder.load_last()) for folder in folders]
    for state in states:  # as in the file: calibrated for the file
        state["model"] = checkpoints.with_half_kernels(state["model"])
    networks = tuple(load_network(state, folder.last, run) for state, folder in zip(states, folders, strict=True))
    detector = Detector(networks, config.flip_tta, Rule(0.0, 1.0, 1.0), training_images=known)
    found, validation_features = detector.predict(data.images.images, run, data.validation)
    rule, score = choose_rule(found, data.truths(data.validation))
    first = replace(detector, networks=networks[:1])  # whose features decide what is out of distribution
    _, training_features = first.predict(data.images.images, run, data.train)
    detector = replace(
        detector, rule=rule, feature_distance=FeatureDistance.fit(training_features, validation_features)
    )
    if run.is_main:
        patients = {exam.patient for exam in data.of(data.train)}
        detector.save(
            config.model_file,
            config=training_run.without_paths(config, RESUME_IGNORES),
            validation={"images": len(data.validation), "rsna_score": score},
            trained_on=model_file.trained_on(config.root, len(data.train), len(patients)),
            provenance=run_environment(run),
        )
        print(
            f"on {len(data.validation)} validation images: box scores multiplied by the image's probability to the "
            f"power {rule.gate_power:g}, boxes scaled by {rule.shrink:g}, score threshold {rule.threshold:.4f}; RSNA "
            f"score {score:.3f}"
        )
        if score == 0:
            print("no box matched a ground-truth box, so this threshold means nothing; train longer or on more exams")
        print(f"model: {config.model_file}")
        print(training_run.how_to_predict(TASK, config.model_file))
    held_out_report(config, data, detector, run)


def held_out_report(config: TrainConfig, data: TrainingData, detector: Detector, run: runtime.Runtime) -> None:
    """Evaluate the finished model on the held-out exams, and write the report and its pictures."""
    evaluated = report.evaluate(data, detector, run, data.held_out)
    if not run.is_main:
        return
    result = {"set": str(data.source), **detector.record(), **report.report_on(evaluated)}
    path = config.output_dir / REPORT
    report.write({**result, "provenance": run_environment(run)}, path, config.images_dir, evaluated)
    print(f"\nheld-out exams, evaluated once:\n{report.format_report(result)}\n")
    print(f"report and errors.csv: {path.parent}\npictures: {config.images_dir}")
