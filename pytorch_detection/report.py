"""What follows training: the box rule chosen on validation, the model file, the held-out patients evaluated once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cxr import cli, curves, known_images, origin, runtime
from cxr.learner import with_average
from cxr.likeness import Likeness
from cxr.provenance import provenance
from cxr.run_folder import RunFolder
from pytorch_detection import evaluation
from pytorch_detection.box_rule import Rule, choose_rule
from pytorch_detection.detector import Detector, load_model
from pytorch_detection.model import TASK
from pytorch_detection.settings import TrainConfig
from pytorch_detection.training_data import Data

NAME = "held_out_report.json"  # in the folder of the run
_PARTS = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal boxes",
    "loss_classifier": "box class",
    "loss_box_reg": "box position",
    "loss_image": "image (weighted)",
}


def show_progress(config: TrainConfig, records: Sequence[dict[str, Any]]) -> None:
    """Draw the curves of all epochs so far, and give their numbers to TensorBoard if the user wants it."""
    curves.loss_curves(
        records,
        config.images_dir / "loss_curve.png",
        scores={
            "val_ap": "COCO AP",
            "val_ap50": "AP50",
            "val_rsna_score": "RSNA score",
            "val_image_auc": "image ROC AUC",
            "val_sensitivity_at_1_fp": "sensitivity at 1 FP/image",
        },
        parts=_PARTS if config.image_loss_weight else {k: v for k, v in _PARTS.items() if k != "loss_image"},
    )
    if config.tensorboard:
        curves.write_scalars(records, config.out_dir / "tensorboard")


def finish(config: TrainConfig, data: Data, run: runtime.Runtime) -> None:
    """Choose on validation, write the model, then evaluate the held-out exams for the first and only time."""
    folders = [RunFolder(member.out_dir, TASK, NAME) for member in config.each_member()]
    known = known_images.known(data.hashes, data.train, data.validation)
    # Not of the epoch with the best scores: on a hundred exams that is a matter of chance (benchmarks/RECIPES.md).
    networks = tuple(load_model(with_average(folder.load_last()), folder.last, run) for folder in folders)
    detector = Detector(networks, config.flip_average, Rule(0.0, 1.0, 1.0), known=known)
    exams = data.of(data.validation)
    found, like_training = detector.look(data.images.images, run, data.validation)
    truths = data.truths(data.validation)
    rule, score = choose_rule(found, truths)
    first = replace(detector, networks=networks[:1])  # which alone tells what is unlike
    _, training = first.look(data.images.images, run, data.train)
    detector = replace(detector, rule=rule, likeness=Likeness.fit(training, like_training))
    if run.is_main:
        detector.save(
            config.model_file,
            config=cli.plain(config),
            validation={"images": len(exams), "rsna_score": score},
            trained_on=origin.trained_on(
                config.root, len(data.train), len({exam.patient for exam in data.of(data.train)})
            ),
            provenance=provenance(run),
        )
        print(f"on {len(exams)} validation images: {described(rule)}; RSNA score {score:.3f}")
        if score == 0:
            print("no box was right there, so this threshold means nothing; train for longer or on more exams")
        print(f"model: {config.model_file}")
    held_out_report(config, data, detector, run)


def described(rule: Rule) -> str:
    """A rule in words."""
    return (
        f"box scores multiplied by the image's probability to the power {rule.gate_power:g}, boxes scaled by "
        f"{rule.shrink:g}, score threshold {rule.threshold:.4f}"
    )


def held_out_report(config: TrainConfig, data: Data, detector: Detector, run: runtime.Runtime) -> None:
    """Score the finished model on the held-out exams and draw it."""
    judged = evaluation.judge(data, detector, run, data.held_out)
    if not run.is_main:
        return
    result = {"set": str(data.source), **detector.record(), **evaluation.evaluated(judged)}
    path = config.out_dir / NAME
    evaluation.write({**result, "provenance": provenance(run)}, path, config.images_dir, judged)
    print(f"\nheld-out exams, evaluated once:\n{evaluation.format_report(result)}\n")
    print(f"report and errors.csv: {path.parent}\npictures: {config.images_dir}")
