"""Judge a finished classifier on labelled images of your own, and set its operating point for them.

    python pytorch_classification/evaluate_classification.py --data-dir my_images --normal healthy --pneumonia ill
    python pytorch_classification/evaluate_classification.py --table labels.csv
    python pytorch_classification/evaluate_classification.py --table labels.csv --set-sensitivity 0.95 \
        --save-model my_model.pth
    python pytorch_classification/evaluate_classification.py --unlabelled inbox --prevalence 0.3 \
        --save-model inbox_model.pth

Prints the report that training ends with, and writes it as report.json with errors.csv (the most confident error first)
and pictures. The table has the columns path (from its own folder on) and label, and if you like patient, split (then
the rows ``test`` are judged) and any others, for whose values results are given apart. Patients are told by the table,
else by the Patient ID of DICOM files, else by Kaggle's file names. With --set-sensitivity or --set-specificity,
temperature and operating point are fitted to these images, and what is said of them is cross-fitted: each patient is
judged by what was fitted to others. --unlabelled moves the operating point alone, by the share of PNEUMONIA that you
state. --corruptions also says how the model does when the images are noisy, blurred, compressed, darker, brighter or
cropped.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_classification.settings import PREVALENCE, EvaluateConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(EvaluateConfig, __doc__) if __name__ == "__main__" else None

import numpy as np

from cxr import prediction, reading, runtime
from cxr.model_file import run_environment
from pytorch_classification import data_load, image_metrics, operating_point, report
from pytorch_classification.classifier import Classifier, weights_sha256
from pytorch_classification.operating_point import Measure

LEAST_UNLABELLED = 100  # images


def require_sensible(config: EvaluateConfig) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: not one source of images, or a new operating point without a file for it, or the reverse.
    """
    sources = [name for name in ("data_dir", "table", "unlabelled") if getattr(config, name) is not None]
    if len(sources) != 1:
        raise ValueError("expected one of --data-dir, --table and --unlabelled, which say where the images are")
    targets = [name for name in ("set_sensitivity", "set_specificity") if getattr(config, name) is not None]
    if len(targets) > 1:
        raise ValueError("--set-sensitivity and --set-specificity set the same operating point; give one of them")
    if config.unlabelled is not None and (targets or config.prevalence is None):
        raise ValueError(
            "--unlabelled sets the operating point by --prevalence, the share of PNEUMONIA among these images; "
            "sensitivity and specificity need labels"
        )
    if (config.save_model is not None) != bool(targets or config.unlabelled):
        raise ValueError(
            "--save-model FILE goes with one of --set-sensitivity, --set-specificity and --unlabelled, which set the "
            "operating point that it keeps"
        )
    if config.save_model is not None and config.save_model.resolve() == config.model.resolve():
        raise ValueError(f"--save-model {config.save_model}: would replace the model itself; give another file")
    if config.save_model is not None and config.save_model.is_dir():
        raise ValueError(f"--save-model {config.save_model}: is a folder; give a file in it")


def evaluate(config: EvaluateConfig, classifier: Classifier, run: runtime.Runtime) -> None:
    """The report on labelled images; and the operating point set by them, where it is wanted."""
    state = operating_point.require_original_threshold(config.model) if config.save_model else {}
    prevalence = PREVALENCE if config.prevalence is None else config.prevalence
    source, names = config.table or config.data_dir, (config.normal, config.pneumonia)
    assert source is not None
    if config.table:
        listing = data_load.list_table(source, "test", names=names)
    else:
        listing = data_load.list_folders(source.parent, source.name, names=names)
    if classifier.training_images is None:
        warnings.warn(f"{config.model}: does not say which images it was trained on; none is left out", stacklevel=2)
    judged = report.judge(
        listing, source.resolve().name, classifier, config.output_dir / "decoded", run, skip_bad=config.skip_bad
    )
    if goal := wanted(config):
        operating_point.require_patients(judged.listing.labels, judged.tied_patients, goal[0])
    found = report.evaluated(judged, prevalence, run, grad_cam=config.grad_cam, corrupt=config.corruptions)
    about = {**classifier.provenance.record(), "weights_sha256": weights_sha256(classifier.model.state_dict())}
    result: dict[str, Any] = {"set": str(source), **found, "model": about}
    print(f"{report.format_report(found)}\n")
    if goal:
        result["operating_point"] = set_operating_point(config, judged, *goal, prevalence, state)
    path = config.output_dir / "report.json"
    report.write({**result, "provenance": run_environment(run)}, path, config.output_dir, judged, run)
    print(f"report, errors.csv and pictures: {config.output_dir}")
    print(f"model: {classifier.provenance.sentence(classifier.threshold)}")


def wanted(config: EvaluateConfig) -> tuple[Measure, float] | None:
    """What the operating point is to be set for by labels."""
    if config.set_sensitivity is not None:
        return "sensitivity", config.set_sensitivity
    return None if config.set_specificity is None else ("specificity", config.set_specificity)


def set_operating_point(
    config: EvaluateConfig,
    judged: report.Judged,
    measure: Measure,
    target: float,
    prevalence: float,
    state: dict[str, Any],
) -> dict[str, Any]:
    """Fit temperature and threshold to all images, say how such a fit does on others, and write the model file."""
    assert config.save_model is not None
    labels, groups = judged.listing.labels, judged.tied_patients
    log_odds = judged.answers.log_odds
    temperature, threshold = operating_point.set_by_labels(log_odds, labels, measure, target)
    found = operating_point.cross_fitted(
        log_odds, labels, groups, measure, target, prevalence=prevalence, seed=config.seed
    )
    shown = ("roc_auc", "sensitivity", "specificity", "brier", "ece")
    scores = {name: found["scores"][name]["value"] for name in shown}
    text = operating_point.save(
        config.save_model,
        state,
        f"operating point set for {measure} {target:g} on {len(labels)} labelled images of {len(set(groups))} patients "
        f"({judged.name})",
        {"threshold": threshold, "temperature": temperature},
        {f"{judged.name}, cross-fitted": {"images": len(labels), **scores}},
    )
    print(f"{text}: threshold {threshold:.4f}, temperature {temperature:.3f}")
    print("cross-fitted, each patient judged by what was fitted to others:\n")
    print(f"{image_metrics.format_report(found)}\n\nmodel with this operating point: {config.save_model}\n")
    return {
        "measure": measure,
        "target": target,
        "threshold": threshold,
        "temperature": temperature,
        "cross_fitted": found,
    }


def adapt(config: EvaluateConfig, classifier: Classifier, run: runtime.Runtime) -> None:
    """Set the operating point by images without labels and a stated prevalence."""
    assert config.unlabelled is not None and config.prevalence is not None and config.save_model is not None
    state = operating_point.require_original_threshold(config.model)
    sensitivity, specificity = operating_point.measured(state, config.model)
    paths = reading.find_images([str(config.unlabelled)], left_out=[config.output_dir])
    store = reading.decode_once(
        paths, classifier.store_size, config.output_dir / "decoded", name="unlabelled", skip_bad=config.skip_bad
    )
    readable = np.flatnonzero(store.readable)
    _, first = np.unique([store.hashes[index] for index in readable], return_index=True)
    different = np.sort(readable[first])
    if len(different) < LEAST_UNLABELLED:
        raise ValueError(
            f"--unlabelled needs at least {LEAST_UNLABELLED} different images, found {len(different)}: fewer do not "
            "tell where the operating point lies"
        )
    judged = classifier.predict(store.images[different], run)
    threshold = operating_point.set_by_prevalence(judged.probability, config.prevalence, sensitivity, specificity)
    text = operating_point.save(
        config.save_model,
        state,
        f"operating point set without labels, for a prevalence of {config.prevalence:g} among {len(different)} images "
        f"({config.unlabelled.resolve().name})",
        {"threshold": threshold},
    )
    called = float((judged.probability >= threshold).mean())
    before = float((judged.probability >= classifier.threshold).mean())
    print(f"{text}: threshold {threshold:.4f}, was {classifier.threshold:.4f}")
    print(f"it calls {called:.1%} of these images PNEUMONIA, the one before {before:.1%}")
    if judged.out_of_distribution is not None and judged.out_of_distribution.any():
        print(f"{judged.out_of_distribution.sum()} of them are {prediction.UNLIKE}")
    print("nothing was measured with it: evaluate it on labelled images as soon as there are some")
    print(f"model with this operating point: {config.save_model}")


def main(config: EvaluateConfig) -> None:
    """Parse, load, evaluate."""
    require_sensible(config)
    with runtime.start(config.device, "fp32", seed=0) as run:
        classifier = Classifier.load(config.model, run)
        (evaluate if config.unlabelled is None else adapt)(config, classifier, run)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
