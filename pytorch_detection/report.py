"""What follows training: the box rule chosen on validation, the model file, the held-out patients evaluated once."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import cli, curves, origin, runtime
from cxr.files import write_atomically
from cxr.likeness import Likeness
from cxr.metrics import interval_text
from cxr.provenance import provenance
from cxr.run_folder import RunFolder
from pytorch_detection import box_metrics, plots, rsna_dataset
from pytorch_detection.detector import Array, Detector, Rule, choose_rule, load_model
from pytorch_detection.model import TASK
from pytorch_detection.settings import TrainConfig
from pytorch_detection.training_data import Data

NAME = "held_out_report.json"  # in the folder of the run
_GRID = 9  # pictures in the grid of examples
_RESAMPLES, _FEW_RESAMPLES = 2000, 500  # for all exams, and for each of the subgroups
_PARTS = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal boxes",
    "loss_classifier": "box class",
    "loss_box_reg": "box position",
    "loss_image": "image",
}


def show_progress(config: TrainConfig, records: Sequence[dict[str, Any]]) -> None:
    """Draw the curves of all epochs so far, and give their numbers to TensorBoard if the user wants it."""
    curves.loss_curves(
        records,
        config.images_dir / "loss_curve.png",
        scores={
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
    folder = RunFolder(config.out_dir, TASK, NAME)
    state = folder.load_best()
    if run.is_main:
        print(f"training is finished; the best epoch is {state['epoch']}")
    detector = Detector(load_model(state, folder.best, run), config.flip_average, Rule(0.0, 1.0, 1.0))
    exams = data.of(data.validation)
    found, like_training = detector.look(data.images.images, run, data.validation)
    truths = data.truths(data.validation)
    rule, score = choose_rule(found, truths)
    _, training = detector.look(data.images.images, run, data.train)
    detector = replace(detector, rule=rule, likeness=Likeness.fit(training, like_training))
    if run.is_main:
        detector.save(
            config.model_file,
            config=cli.plain(config),
            epoch=state["epoch"],
            validation={"images": len(exams), "rsna_score": score},
            trained_on=origin.trained_on(
                config.data_dir, len(data.train), len({exam.patient for exam in data.of(data.train)})
            ),
            provenance=provenance(run),
        )
        print(
            f"on {len(exams)} validation images: {described(rule)}; RSNA score {score:.3f}\nmodel: {config.model_file}"
        )
    held_out_report(config, data, detector, run)


def described(rule: Rule) -> str:
    """A rule in words."""
    return (
        f"box scores multiplied by the image's probability to the power {rule.gate_power:g}, boxes scaled by "
        f"{rule.shrink:g}, score threshold {rule.threshold:.4f}"
    )


def held_out_report(config: TrainConfig, data: Data, detector: Detector, run: runtime.Runtime) -> None:
    """Score the finished model on the held-out exams and draw it."""
    exams, truths = data.of(data.held_out), data.truths(data.held_out)
    found = detector.find(data.images.images, run, data.held_out)
    if not run.is_main:
        return
    boxes, scores = detector.rule.apply(found)
    threshold = detector.rule.threshold
    result = {
        "set": f"{len(exams)} held-out exams of {config.data_dir}",
        "rule": asdict(detector.rule),
        "all": evaluated(boxes, scores, truths, exams, threshold, _RESAMPLES),
        "subgroups": {
            name: evaluated(
                taken(boxes, at), taken(scores, at), taken(truths, at), taken(exams, at), threshold, _FEW_RESAMPLES
            )
            for name, at in rsna_dataset.subgroups(exams).items()
        },
        "provenance": provenance(run),
    }
    path = config.out_dir / NAME
    text = json.dumps(result, indent=2, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))
    print(f"\nheld-out exams, evaluated once:\n{format_report(result)}\n\nreport: {path}")
    draw(config.images_dir, data, boxes, scores, truths, threshold)
    print(f"pictures: {config.images_dir}")


def taken(rows: Sequence[Any], at: NDArray[np.int64]) -> list[Any]:
    """The ``rows`` at some positions."""
    return [rows[int(index)] for index in at]


def evaluated(
    boxes: Sequence[Any],
    scores: Sequence[Any],
    truths: Sequence[Any],
    exams: Sequence[rsna_dataset.Exam],
    threshold: float,
    resamples: int,
) -> dict[str, Any]:
    """``box_metrics.evaluate_detections`` by patient, with the class of every exam."""
    return box_metrics.evaluate_detections(
        boxes,
        scores,
        truths,
        [exam.patient for exam in exams],
        threshold,
        classes=[exam.finding for exam in exams],
        resamples=resamples,
    )


# The scores of the table, in this order; the JSON file holds them too.
_ROWS = {
    "rsna_score": "RSNA score",
    "ap50": "AP at IoU .50",
    "ap": "AP at IoU .50 to .95 (COCO)",
    "sensitivity_at_0.125_fp": "sensitivity at 1/8 false positives per image",
    "sensitivity_at_0.25_fp": "sensitivity at 1/4",
    "sensitivity_at_0.5_fp": "sensitivity at 1/2",
    "sensitivity_at_1_fp": "sensitivity at 1",
    "sensitivity_at_2_fp": "sensitivity at 2",
    "sensitivity_at_4_fp": "sensitivity at 4",
    "sensitivity_at_8_fp": "sensitivity at 8",
    "image_auc": "image ROC AUC",
    "box_sensitivity": "box sensitivity at the threshold",
    "box_precision": "box precision at the threshold",
    "false_positives_per_image": "false positives per image at the threshold",
    "image_sensitivity": "image sensitivity at the threshold",
    "image_specificity": "image specificity at the threshold",
}
_SUBGROUP_COLUMNS = ("rsna_score", "ap50", "image_auc", "image_specificity")


def format_report(result: dict[str, Any]) -> str:
    """The report as a table to read."""
    whole = result["all"]
    lines = [
        f"{whole['images']} exams of {whole['patients']} patients, {whole['images_with_opacity']} with opacity "
        f"({whole['true_boxes']} boxes); score threshold {whole['threshold']:.4f}; 95% intervals by patient",
        "",
    ]
    lines += [f"{name:46}{interval_text(whole['scores'][key])}" for key, name in _ROWS.items()]
    lines += ["", "false-positive rate of images without opacity (any box), by class:"]
    lines += [f"  {name:44}{interval_text(rate)}" for name, rate in whole["false_positive_rates"].items()]
    lines += ["", f"{'':18}{'exams':>6} {'opacity':>8}   " + "".join(f"{_ROWS[key]:26}" for key in _SUBGROUP_COLUMNS)]
    for name, part in result["subgroups"].items():
        cells = "".join(f"{interval_text(part['scores'][key]):26}" for key in _SUBGROUP_COLUMNS)
        lines.append(f"{name:18}{part['images']:>6} {part['images_with_opacity']:>8}   {cells}")
    return "\n".join(line.rstrip() for line in lines)


def draw(
    folder: Path,
    data: Data,
    boxes: Sequence[Array],
    scores: Sequence[Array],
    truths: Sequence[Any],
    threshold: float,
) -> None:
    """The pictures of a held-out report; all boxes are in pixels of the stored squares."""
    exams = data.of(data.held_out)
    title = f"{len(exams)} held-out exams"
    matches = box_metrics.match(boxes, scores, truths)
    rates, sensitivities, _ = box_metrics.froc_curve(matches)
    at_budget = box_metrics.froc_sensitivities(matches, np.ones((1, len(exams))))
    points = {
        budget: float(value[0])
        for budget, value in zip(box_metrics.FALSE_POSITIVES_PER_IMAGE, at_budget.values(), strict=True)
    }
    plots.froc(rates, sensitivities, folder / "froc.png", points=points, title=title)
    precision, recall, _ = box_metrics.precision_recall_curve(matches)
    plots.precision_recall(
        {"boxes with IoU above .5": (recall, precision)}, folder / "precision_recall_detection.png", title=title
    )
    shown = instructive_cases(matches, threshold)
    reported = [scores[index] >= threshold for index in shown]
    plots.detection_grid(
        list(data.images.images[data.held_out[shown]]),
        taken(truths, shown),
        [boxes[index][kept] for index, kept in zip(shown, reported, strict=True)],
        [scores[index][kept] for index, kept in zip(shown, reported, strict=True)],
        [f"{exams[index].finding}\n{exams[index].view or 'view unknown'}" for index in shown],
        folder / "detection_example.png",
    )


def instructive_cases(matches: box_metrics.Matches, threshold: float) -> NDArray[np.int64]:
    """Indices of instructive pictures: opacities found, opacities missed, and false positives, a third of each.

    Within each kind they are spread evenly from the surest to the least sure; what one kind lacks the next ones fill.
    """
    reported = matches.score >= threshold
    hits = np.bincount(matches.image[reported & matches.hit[:, 0]], minlength=matches.images)
    false = np.bincount(matches.image[reported & ~matches.hit[:, 0]], minlength=matches.images)
    highest = np.zeros(matches.images)
    np.maximum.at(highest, matches.image, matches.score)
    kinds = (
        (hits == matches.true_boxes) & (hits > 0),
        hits < matches.true_boxes,
        (false > 0) & (matches.true_boxes == 0),
        np.ones(matches.images, np.bool_),
    )
    shown: list[int] = []
    for number, kind in enumerate(kinds, 1):
        pool = np.setdiff1d(np.flatnonzero(kind), shown)
        pool = pool[np.argsort(-highest[pool], kind="stable")]
        wanted = min(_GRID, number * _GRID // 3) - len(shown)
        shown += (
            np.unique(pool[np.linspace(0, len(pool) - 1, wanted).round().astype(int)]).tolist() if len(pool) else []
        )
    return np.array(shown, np.int64)
