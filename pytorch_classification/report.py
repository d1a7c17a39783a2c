"""The report on labelled images: scores, trade-off, subgroups and errors, all with pictures.

Training ends with it on its test images, and evaluate_classification.py writes it for any others.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import evaluation, prediction, reading, runtime
from cxr.evaluation import EvaluatedSet
from cxr.files import write_json
from cxr.messages import aligned
from cxr.metrics import Array
from cxr.patients import with_header_columns
from cxr.plots import SHEET_COLUMNS, Block, image_sheet, thumbnail
from cxr.training_run import ERRORS
from pytorch_classification import data_load, image_metrics, operating_point, plots
from pytorch_classification.augment import corrupted
from pytorch_classification.classifier import Classifier, ClassifierOutput
from pytorch_classification.data_load import CLASSES, PNEUMONIA, Listing, patients_of_each_class
from pytorch_classification.model import to_probability

_GRID = 8  # pictures in the Grad-CAM grid
_GRID_CASES = (
    f"up to {_GRID // 2} errors, the most confident ones; of the correct predictions of each class those at the first "
    "and third quartile of their probabilities"
)
_SHEET = 2 * SHEET_COLUMNS  # pictures of each kind of error
# Of subgroups and corruptions, with their headers.
_GROUP_COUNTS = {"images": "images", "patients": "patients", "pneumonia": "PNEUMONIA", "out_of_distribution": "OOD"}
_GROUP_SCORES = {"sensitivity": "sensitivity", "specificity": "specificity", "roc_auc": "ROC AUC"}


@dataclass(frozen=True)
class EvaluatedImages(EvaluatedSet):
    """Labelled images with the predictions of a classifier.

    Attributes:
        labels: int64 [N], index into ``CLASSES``.
        images: uint8 [N, S, S].
        hashes: SHA-256 of the content of each file.
        classifier: that made the predictions.
        output: of the classifier.
    """

    labels: NDArray[np.int64]
    images: NDArray[np.uint8]
    hashes: list[str]
    classifier: Classifier
    output: ClassifierOutput


def evaluate(
    listing: Listing, name: str, classifier: Classifier, store_dir: Path, run: runtime.Runtime, *, skip_bad: bool
) -> EvaluatedImages:
    """Decode and predict the images of ``listing``; those that the model was trained on are left out.

    Raises:
        ValueError: images that cannot be read, unless ``skip_bad``, or none is left.
    """
    store = reading.decode_once(
        listing.paths, classifier.store_size, store_dir, name="test", skip_bad=skip_bad, progress=run.is_main
    )
    readable = np.flatnonzero(store.readable)
    kept = evaluation.new_images(store.hashes, readable, classifier.training_images, name)
    left_out = {"unreadable": len(listing) - len(readable), "in_training": len(readable) - len(kept)}
    if left_out["in_training"] and run.is_main:
        warnings.warn(f"{left_out['in_training']} images that the model was trained on are left out", stacklevel=2)
    images = store.images if len(kept) == len(listing) else store.images[kept]  # memory-mapped where possible
    columns = with_header_columns(listing.columns, store.headers)
    found = replace(data_load.identify_patients(listing, store.headers), columns=columns).take(kept)
    output = classifier.predict(images, run)
    flags, threshold = output.out_of_distribution, classifier.threshold
    common = (name, found.paths, found.patients, found.columns, flags, threshold, left_out)
    return EvaluatedImages(*common, found.labels, images, [store.hashes[index] for index in kept], classifier, output)


def report_on(
    evaluated: EvaluatedImages, prevalence: float, run: runtime.Runtime, *, corrupt: bool = False
) -> dict[str, Any]:
    """The report as plain values: ``scores``, ``trade_off``, ``subgroups``, what is left out and more.

    Args:
        prevalence: at which predictive values are stated too.
        corrupt: whether the images are predicted with each of ``CORRUPTIONS`` too, after ``none``.
    """
    labels, groups, output = evaluated.labels, evaluated.patients, evaluated.output
    arguments = (output.probability, labels, groups, evaluated.threshold)
    outputs = {"none": output} if corrupt else {}
    for name, images in corrupted(evaluated.images) if corrupt else ():
        outputs[name] = evaluated.classifier.predict(images, run)
    everything = np.arange(len(evaluated))
    return {
        **evaluated.frame(),
        # Patients fall ill and recover.
        "patients_of_both_classes": len(set.intersection(*patients_of_each_class(labels, groups))),
        "conflicting_duplicates": len(data_load.conflicting_duplicates(evaluated.paths, labels, evaluated.hashes)),
        "scores": image_metrics.evaluate_classifier(*arguments, prevalence=prevalence),
        "trade_off": operating_point.trade_off(*arguments, prevalence),
        "subgroups": {name: _group(evaluated, output, at) for name, at in evaluated.subgroups().items()},
        "corruptions": {name: _group(evaluated, each, everything) for name, each in outputs.items()} or None,
    }


def _group(evaluated: EvaluatedImages, output: ClassifierOutput, at: NDArray[np.int64]) -> dict[str, Any]:
    labels, groups = evaluated.labels[at], [evaluated.patients[index] for index in at]
    flags = output.out_of_distribution
    found = image_metrics.evaluate_classifier(
        output.probability[at], labels, groups, evaluated.threshold, resamples=evaluation.SUBGROUP_RESAMPLES
    )
    return {
        "images": len(at),
        "patients": found["patients"],
        "pneumonia": int(labels.sum()),
        "out_of_distribution": None if flags is None else int(flags[at].sum()),
        "scores": {name: found["scores"][name] for name in _GROUP_SCORES},
    }


def format_report(report: Mapping[str, Any]) -> str:
    """What ``report_on`` returned, for the terminal."""
    blocks = [
        image_metrics.format_report(report["scores"]),
        "Other thresholds on these images (choose one on a validation set, not by this table):\n"
        + operating_point.format_trade_off(report["trade_off"]),
        *(aligned(rows) for rows in group_tables(report).values()),
        evaluation.counts_text(counts(report)),
    ]
    return "\n\n".join(filter(None, blocks))


def counts(report: Mapping[str, Any]) -> dict[str, int | None]:
    """Numbers of images and patients that need attention, in words."""
    return {
        **evaluation.counts(report),
        "patients with images of both classes": report["patients_of_both_classes"],
        "images with identical files in both classes": report["conflicting_duplicates"],
    }


def group_tables(report: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """The tables of subgroups and of corruptions, where the report has some; their first row is the header."""
    kinds = [kind for kind in ("subgroups", "corruptions") if report.get(kind)]
    return {kind: evaluation.group_rows(kind, report[kind], _GROUP_COUNTS, _GROUP_SCORES) for kind in kinds}


def errors(probabilities: Array, labels: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Indices of the images that were predicted wrongly, the most confident first: by log-odds from the threshold."""
    wrong = np.flatnonzero((probabilities >= threshold) != (labels == PNEUMONIA))
    scores, cut = (np.log(np.clip(p, 1e-12, 1) / np.clip(1 - p, 1e-12, 1)) for p in (probabilities, threshold))
    return wrong[np.argsort(-np.abs(scores - cut)[wrong], kind="stable")]


def write(
    report: Mapping[str, Any],
    path: Path,
    images_dir: Path,
    evaluated: EvaluatedImages,
    run: runtime.Runtime,
    *,
    grad_cam: bool = True,
) -> None:
    """``report`` to the JSON file ``path``, beside it ``errors.csv``, and the pictures."""
    write_json(path, report)
    labels, probabilities, threshold = evaluated.labels, evaluated.output.probability, evaluated.threshold
    rows = (
        (index, (CLASSES[label], CLASSES[1 - label], f"{probabilities[index]:.6f}", f"{threshold:.6f}"))
        for index in errors(probabilities, labels, threshold).tolist()
        for label in (int(labels[index]),)
    )
    header = ("class", "predicted", "probability", "threshold")
    evaluation.write_errors(path.parent / ERRORS, evaluated, header, rows)
    draw(images_dir, evaluated, report, run, grad_cam)


def draw(
    folder: Path, evaluated: EvaluatedImages, report: Mapping[str, Any], run: runtime.Runtime, grad_cam: bool
) -> None:
    """The pictures of a report."""
    data = evaluated.labels, evaluated.output.probability
    threshold, groups = evaluated.threshold, evaluated.patients
    title = f"{evaluated.title}, operating point {threshold:.3f}"
    plots.confusion_matrix(report["scores"]["confusion_matrix"], folder / "confusion_matrix.png", title=title)
    plots.roc_and_precision_recall(*data, threshold, folder / "roc_pr.png", patients=groups, title=title)
    before = to_probability(evaluated.output.log_odds, 1.0)
    plots.reliability(*data, folder / "reliability.png", before=before, title=evaluated.title)
    at: dict[str, Any] = {"patients": groups, "prevalence": report["trade_off"]["prevalence"]}
    plots.threshold_sweep(*data, threshold, folder / "threshold_sweep.png", title=evaluated.title, **at)
    draw_errors(folder / "errors.png", evaluated)
    everything = {"all": report["scores"]} if report["subgroups"] else {}
    evaluation.draw_groups(folder / "subgroups.png", everything | report["subgroups"], _GROUP_SCORES, title)
    corruptions = report["corruptions"] or {}
    evaluation.draw_groups(folder / "corruptions.png", corruptions, _GROUP_SCORES, f"Corrupted images: {title}")
    (folder / "grad_cam.png").unlink(missing_ok=True)  # of an earlier report
    if grad_cam:
        draw_grad_cam(folder / "grad_cam.png", evaluated, run)


def draw_errors(path: Path, evaluated: EvaluatedImages) -> None:
    """The most confident errors of both kinds."""
    labels, paths, probabilities = evaluated.labels, evaluated.paths, evaluated.output.probability
    wrong = errors(probabilities, labels, evaluated.threshold)
    blocks: list[Block] = []
    for label in (PNEUMONIA, 1 - PNEUMONIA):
        of_class = wrong[labels[wrong] == label]
        shown = of_class[:_SHEET]
        heading = f"{CLASSES[label]}, predicted {CLASSES[1 - label]} ({len(of_class)} of {(labels == label).sum()})"
        images = [thumbnail(reading.read(paths[index]).whole(), 300) for index in shown]
        blocks.append(Block(heading, images, [f"{paths[i].stem}\nP = {probabilities[i]:.3f}" for i in shown]))
    point = f"operating point {evaluated.threshold:.3f}"
    image_sheet(blocks, path, note=f"P: probability of PNEUMONIA ({point}); the most confident errors of each class")


def draw_grad_cam(path: Path, evaluated: EvaluatedImages, run: runtime.Runtime) -> None:
    """Grad-CAM of the cases that ``_GRID_CASES`` describes."""
    labels, probabilities, threshold = evaluated.labels, evaluated.output.probability, evaluated.threshold
    shown = grid_cases(probabilities, labels, threshold)
    predicted = (probabilities >= threshold).astype(np.int64)
    titles = [
        f"True {CLASSES[labels[i]]} / Predicted {CLASSES[predicted[i]]}\n"
        f"probability of PNEUMONIA {probabilities[i]:.3f}"
        + ", borderline"
        * prediction.is_borderline(float(probabilities[i]), threshold)
        for i in shown
    ]
    alone = replace(run, rank=0, world_size=1)  # the other processes draw nothing
    heat = evaluated.classifier.predict(evaluated.images[shown], alone, grad_cam=True).grad_cam
    assert heat is not None
    plots.grad_cam_grid(
        [reading.read(evaluated.paths[i]).whole() for i in shown],
        list(heat),
        titles,
        path,
        correct=(predicted == labels)[shown].tolist(),
        caption=f"{evaluated.title}, operating point {threshold:.3f}. Shown: {_GRID_CASES}.",
        common_scale=evaluated.classifier.grad_cam_scale is not None,
    )


def grid_cases(probabilities: Array, labels: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Indices of the cases that ``_GRID_CASES`` describes."""
    shown = errors(probabilities, labels, threshold)[: _GRID // 2].tolist()
    for label in (1, 0):
        correct = np.flatnonzero((labels == label) & ((probabilities >= threshold) == label))
        ranked = correct[np.argsort(probabilities[correct], kind="stable")]
        shown += [ranked[int(quartile * (len(ranked) - 1))] for quartile in (0.25, 0.75) if len(ranked)]
    return np.unique(np.array(shown, dtype=np.int64))
