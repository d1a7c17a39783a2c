"""Evaluate a finished classifier on your own labelled images, and set its operating point for them.

    python pytorch_classification/evaluate_classification.py --data-dir my_images --normal healthy --pneumonia ill
    python pytorch_classification/evaluate_classification.py --table labels.csv
    python pytorch_classification/evaluate_classification.py --table labels.csv --set-sensitivity 0.95 \
        --save-model my_model.pth
    python pytorch_classification/evaluate_classification.py --unlabelled inbox --prevalence 0.3 \
        --save-model inbox_model.pth

Prints the same report as training, and writes it as report.json with errors.csv (the most confident error first) and
pictures. The table has the columns path (relative to its own folder) and label, and optionally patient, split (then
only the rows ``test`` are used) and others, whose values define subgroups. Patients are identified by the table, or
else by the DICOM Patient ID, or else by Kaggle's file names. --set-sensitivity and --set-specificity fit temperature
and operating point to these images and report cross-fitted scores: each patient is evaluated with what was fitted to
others. --unlabelled moves only the operating point, by the prevalence of PNEUMONIA that you state. --corruptions also
evaluates noisy, blurred, compressed, darker, brighter and cropped images.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from cxr.cli import ROOT
from pytorch_classification.settings import PREVALENCE

LEAST_UNLABELLED = 100  # images


@dataclass(frozen=True)
class EvaluateConfig:
    """Which images, which model, and how its operating point is set."""

    data_dir: Path | None = cli.flag(None, help="labelled images: a folder that holds one folder for each class")
    table: Path | None = cli.flag(
        None, help="labelled images: CSV with path, label, and optionally patient and columns that define subgroups"
    )
    unlabelled: Path | None = cli.flag(
        None, help="images without labels to set the operating point by: needs --prevalence and --save-model"
    )
    normal: tuple[str, ...] = cli.flag(("NORMAL",), help="the folders or labels that stand for NORMAL")
    pneumonia: tuple[str, ...] = cli.flag(("PNEUMONIA",), help="the folders or labels that stand for PNEUMONIA")
    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
    prevalence: float | None = cli.flag(
        None, above=0, below=1, help="prevalence of PNEUMONIA where the model is to be used; .1 in reports by default"
    )
    set_sensitivity: float | None = cli.flag(
        None, above=0, at_most=1, help="set the operating point for this sensitivity, cross-fitted by patient"
    )
    set_specificity: float | None = cli.flag(
        None, above=0, at_most=1, help="set the operating point for this specificity, cross-fitted by patient"
    )
    save_model: Path | None = cli.flag(None, help="the model file to write with the new operating point")
    output_dir: Path = cli.flag(
        Path("evaluation") / "classification", help="for report, errors.csv and pictures; in the current directory"
    )
    grad_cam: bool = cli.flag(True, help="draw Grad-CAM of some images")
    corruptions: bool = cli.flag(
        False, help="also evaluate noisy, blurred, compressed, darker, brighter and cropped images; 11 times the work"
    )
    seed: int = cli.flag(0, at_least=0, at_most=2**32 - 1, help="of the cross-fitting folds")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")
    skip_bad: bool = cli.flag(False, help="skip unreadable images")


# Before torch is imported, so that --help and errors appear at once.
CONFIG = cli.start(EvaluateConfig, __doc__) if __name__ == "__main__" else None

import numpy as np

from cxr import patients, reading, runtime
from cxr.model_file import run_environment
from pytorch_classification import data_load, image_metrics, operating_point, report
from pytorch_classification.classifier import Classifier, weights_sha256
from pytorch_classification.operating_point import Measure


def target_of(config: EvaluateConfig) -> tuple[Measure, float] | None:
    """The score and its value that the operating point is to be set for; None keeps that of the model.

    Raises:
        ValueError: not exactly one source of images, or a new operating point without a file for it, or the reverse.
    """
    if sum(source is not None for source in (config.data_dir, config.table, config.unlabelled)) != 1:
        raise ValueError("expected one of --data-dir, --table and --unlabelled, which name the images")
    goals: list[tuple[Measure, float | None]] = [
        ("sensitivity", config.set_sensitivity),
        ("specificity", config.set_specificity),
    ]
    targets: list[tuple[Measure, float]] = [(measure, value) for measure, value in goals if value is not None]
    if len(targets) > 1:
        raise ValueError("--set-sensitivity and --set-specificity set the same operating point; give one of them")
    if config.unlabelled is not None and (targets or config.prevalence is None):
        raise ValueError("--unlabelled needs --prevalence; --set-sensitivity and --set-specificity need labels")
    if (config.save_model is not None) != bool(targets or config.unlabelled):
        raise ValueError(
            "--save-model goes with one of --set-sensitivity, --set-specificity and --unlabelled, which set the "
            "operating point that it stores"
        )
    if config.save_model is not None and config.save_model.resolve() == config.model.resolve():
        raise ValueError(f"--save-model {config.save_model}: would replace the model itself; give another file")
    return targets[0] if targets else None


def evaluate(
    config: EvaluateConfig, target: tuple[Measure, float] | None, classifier: Classifier, run: runtime.Runtime
) -> None:
    """The report on labelled images; with a ``target`` also the operating point set by them."""
    state = operating_point.require_original_threshold(config.model) if target else {}
    prevalence = PREVALENCE if config.prevalence is None else config.prevalence
    source, names = config.table or config.data_dir, (config.normal, config.pneumonia)
    assert source is not None
    if config.table:
        listing = data_load.list_table(source, "test", names=names)
    else:
        listing = data_load.list_folders(source.parent, source.name, names=names)
    store_dir, name = config.output_dir / "decoded", source.resolve().name
    evaluated = report.evaluate(listing, name, classifier, store_dir, run, skip_bad=config.skip_bad)
    groups = patients.tied(evaluated.patients, evaluated.hashes)
    if target:
        operating_point.require_patients(evaluated.labels, groups, target[0])
    found = report.report_on(evaluated, prevalence, run, corrupt=config.corruptions)
    about = {**classifier.provenance.record(), "weights_sha256": weights_sha256(classifier.model.state_dict())}
    result: dict[str, Any] = {"set": str(source), **found, "model": about}
    print(f"{report.format_report(found)}\n")
    if target:
        result["operating_point"] = set_operating_point(config, evaluated, groups, *target, prevalence, state)
    result["provenance"] = run_environment(run)
    path = config.output_dir / "report.json"
    report.write(result, path, config.output_dir, evaluated, run, grad_cam=config.grad_cam)
    print(f"report, errors.csv and pictures: {config.output_dir}")
    print(f"model: {classifier.provenance.sentence(classifier.threshold)}")


def set_operating_point(
    config: EvaluateConfig,
    evaluated: report.EvaluatedImages,
    groups: list[str],
    measure: Measure,
    target: float,
    prevalence: float,
    state: dict[str, Any],
) -> dict[str, Any]:
    """Fit temperature and threshold to all images, cross-fit their scores, and write the model file."""
    assert config.save_model is not None
    log_odds, labels, name = evaluated.output.log_odds, evaluated.labels, evaluated.name
    temperature, threshold = operating_point.set_by_labels(log_odds, labels, measure, target)
    found = operating_point.cross_fitted(
        log_odds, labels, groups, measure, target, prevalence=prevalence, seed=config.seed
    )
    scores = {key: found["scores"][key]["value"] for key in ("roc_auc", "sensitivity", "specificity", "brier", "ece")}
    text = operating_point.save_with_threshold(
        config.save_model,
        state,
        f"operating point set for {measure} {target:g} on {len(labels)} labelled images of {len(set(groups))} patients "
        f"({name})",
        {"threshold": threshold, "temperature": temperature},
        {f"{name}, cross-fitted": {"images": len(labels), **scores}},
    )
    print(f"{text}: threshold {threshold:.4f}, temperature {temperature:.3f}")
    print("cross-fitted, each patient evaluated with what was fitted to others:\n")
    print(f"{image_metrics.format_report(found)}\n\nmodel with this operating point: {config.save_model}\n")
    fitted = {"threshold": threshold, "temperature": temperature}
    return {"measure": measure, "target": target, **fitted, "cross_fitted": found}


def adapt(config: EvaluateConfig, classifier: Classifier, run: runtime.Runtime) -> None:
    """Set the operating point by images without labels and a stated prevalence."""
    assert config.unlabelled is not None and config.prevalence is not None and config.save_model is not None
    state = operating_point.require_original_threshold(config.model)
    rates = operating_point.validation_rates(state, config.model)
    paths = reading.find_images([str(config.unlabelled)], left_out=[config.output_dir])
    store = reading.decode_once(
        paths, classifier.store_size, config.output_dir / "decoded", name="unlabelled", skip_bad=config.skip_bad
    )
    readable = np.flatnonzero(store.readable)
    _, first = np.unique([store.hashes[index] for index in readable], return_index=True)
    different = np.sort(readable[first])
    if len(different) < LEAST_UNLABELLED:
        raise ValueError(f"--unlabelled needs at least {LEAST_UNLABELLED} different images, found {len(different)}")
    output = classifier.predict(store.images[different], run)
    threshold = operating_point.set_by_prevalence(output.probability, config.prevalence, *rates)
    text = operating_point.save_with_threshold(
        config.save_model,
        state,
        f"operating point set without labels, for a prevalence of {config.prevalence:g} among {len(different)} images "
        f"({config.unlabelled.resolve().name})",
        {"threshold": threshold},
    )
    now, before = (float((output.probability >= cut).mean()) for cut in (threshold, classifier.threshold))
    print(f"{text}: threshold {threshold:.4f}, was {classifier.threshold:.4f}")
    print(f"{now:.1%} of these images are predicted as PNEUMONIA, {before:.1%} with the previous threshold")
    if output.out_of_distribution is not None and output.out_of_distribution.any():
        print(f"{output.out_of_distribution.sum()} of them are out of distribution: results unreliable")
    print("no score was measured with this threshold; evaluate it on labelled images when there are some")
    print(f"model with this operating point: {config.save_model}")


def main(config: EvaluateConfig) -> None:
    """Load the model and evaluate it, or set its operating point."""
    target = target_of(config)
    with runtime.start(config.device, "fp32", seed=0) as run:
        classifier = Classifier.load(config.model, run)
        if config.unlabelled is None:
            evaluate(config, target, classifier, run)
        else:
            adapt(config, classifier, run)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
