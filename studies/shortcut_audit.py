"""Find shortcuts: predict the class without the lungs, and evaluate a model where these predictions are wrong.

    python studies/shortcut_audit.py --data-dir chest_xray/train
    python studies/shortcut_audit.py --data-dir chest_xray/test --train-dir chest_xray/train \
        --model pneumonia_resnet18.pth

Prints a table and writes shortcut_audit.json, shortcut_audit.csv (a row for each image, the most contradicting first),
shortcut_audit.png and shortcut_audit_images.png. Gradient boosting on the image border, the corners, the grey levels,
the sharpness or the file size is fitted on some patients and predicts the class of the others: an ROC AUC far above .5
is a shortcut that a network can use. With --model, sensitivity and specificity are given separately for images whose
style agrees with their class and for those whose style contradicts it; a model that uses the lungs is as good on both.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from cxr.cli import ROOT


@dataclass(frozen=True)
class AuditConfig:
    """The images, and optionally a model."""

    data_dir: Path = cli.flag(help="a folder with one folder for each of two classes, such as chest_xray/train")
    train_dir: Path | None = cli.flag(
        None, help="fit the style on this folder, the model's training images, instead of on the other patients"
    )
    model: Path | None = cli.flag(None, help="a finished model to evaluate on --data-dir")
    output_dir: Path = cli.flag(ROOT / "images" / "classification", help="folder of table, report and pictures")
    seed: int = cli.flag(0, at_least=0, at_most=2**32 - 1, help="of the folds and of the intervals")
    device: cli.Device = cli.flag("auto", help="auto: CUDA, then Apple MPS, then the CPU")
    skip_bad: bool = cli.flag(False, help="skip unreadable images")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(AuditConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr import metrics, patients, reading, runtime
from cxr.files import write_json
from cxr.messages import aligned, printable, shown_path
from cxr.model_file import run_environment
from cxr.plots import (
    BLUE,
    GREY,
    SHEET_COLUMNS,
    VERMILLION,
    WIDTH,
    Block,
    draw_score,
    image_sheet,
    saved_figure,
    shorten,
)
from cxr.tables import write_csv
from pytorch_classification import data_load
from pytorch_classification.classifier import Classifier, weights_sha256
from studies import style

_SIDE = 128  # pixels of a square where no model says otherwise
_WHOLE = "all of the picture"  # the style that a network can see


@dataclass(frozen=True)
class TwoClassImages:
    """The images of one folder of two classes.

    Attributes:
        classes: the names of their folders, sorted. listing: N files. squares: uint8 [N, S, S].
        groups: N patients; those who share a file content are one.
        features: float64 [N, D] by name, those of ``style.picture_features`` and the sizes of image and file.
    """

    classes: tuple[str, str]
    listing: data_load.Listing
    squares: NDArray[np.uint8]
    groups: list[str]
    features: dict[str, style.Floats]


def read_images(folder: Path, side: int, config: AuditConfig, name: str) -> TwoClassImages:
    """The images of ``folder`` as squares of ``side`` pixels, with their style features.

    Raises:
        FileNotFoundError: no such folder, or a class without images.
        ValueError: not two classes, unreadable images, or too few patients.
    """
    classes, listing = list_classes(folder)
    if config.model and classes != data_load.CLASSES:
        raise ValueError(
            f"{folder}: a model needs the class folders {', '.join(data_load.CLASSES)}, found {', '.join(classes)}; "
            "rename them, or leave out --model"
        )
    store = reading.decode_once(listing.paths, side, config.output_dir / "decoded", name=name, skip_bad=config.skip_bad)
    kept = np.flatnonzero(store.readable)
    listing = data_load.identify_patients(listing, store.headers).take(kept)
    groups = patients.tied(listing.patients, [store.hashes[index] for index in kept])
    try:
        style.require_patients(listing.labels, groups)
    except style.TooFewPatients as error:
        raise ValueError(f"{folder}, {classes[0]} and {classes[1]}: {error}") from error
    sizes = store.sizes[kept].astype(np.float64)
    features = style.picture_features(store.images, kept)
    features["image size"] = np.column_stack([sizes, sizes[:, 0] / sizes[:, 1]])
    features["file size"] = np.array([[float(path.stat().st_size)] for path in listing.paths])
    return TwoClassImages(classes, listing, store.images[kept], groups, features)


def list_classes(folder: Path) -> tuple[tuple[str, str], data_load.Listing]:
    """The two classes of ``folder``, sorted by name, and their images; label 1 is the second class."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.resolve()}; expected one with a folder for each of two classes")
    found = data_load.class_folders(folder)
    if len(found) != 2:
        raise ValueError(
            f"{folder}: expected two folders, one for each class, found {', '.join(found) or 'none'}; "
            "of Kaggle's set name train or test, not the folder above them"
        )
    first, second = found
    # Below the folder above: files without a patient's name may be numbered alike in train/ and test/.
    return (first, second), data_load.list_folders(folder.parent, folder.name, names=((first,), (second,)))


def predict_from_style(audited: TwoClassImages, known: TwoClassImages | None, seed: int) -> dict[str, style.Floats]:
    """Probability [N] of the second class, predicted from each group of features and from several together."""
    parts: dict[str, Sequence[str]] = {name: (name,) for name in style.PICTURE}
    parts |= {_WHOLE: style.PICTURE, "image size": ("image size",), "file size": ("file size",)}
    parts["everything"] = list(audited.features)
    labels = audited.listing.labels
    found: dict[str, style.Floats] = {}
    for name, names in tqdm(parts.items(), "predicting from style", unit="feature set", leave=False):
        features = style.joined(audited.features, names)
        if known is None:
            found[name] = style.cross_fitted(features, labels, audited.groups, seed)
        else:
            there = style.joined(known.features, names)
            found[name] = style.predict_from_other_set(
                there, known.listing.labels, known.groups, features, audited.groups, seed
            )
    return found


def write_table(
    path: Path,
    audited: TwoClassImages,
    predicted_by: dict[str, style.Floats],
    by_model: dict[str, style.Floats],
) -> None:
    """A row for each image, the most contradicting first."""
    labels = audited.listing.labels
    other = np.where(labels == 1, 1 - predicted_by[_WHOLE], predicted_by[_WHOLE])
    contradicts = style.contradicting(predicted_by[_WHOLE], labels)
    header = ["path", "class", "patient", "style_of_other_class", "style_contradicts"]
    header += [f"{name.replace(' ', '_')}_probability" for name in predicted_by] + list(by_model)
    columns = [*predicted_by.values(), *by_model.values()]
    rows = (
        [
            shown_path(audited.listing.paths[index]),
            audited.classes[labels[index]],
            audited.listing.patients[index],
            f"{other[index]:.6f}",
            str(int(contradicts[index])),
            *(f"{column[index]:.6f}" for column in columns),
        ]
        for index in np.argsort(-other, kind="stable")
    )
    write_csv(path, header, rows)


def format_audit(report: dict[str, Any]) -> str:
    """The report as tables for the terminal."""
    first, second = report["classes"]
    images, contradicting = report["images"], report["contradicting"]
    rows = [[name, metrics.interval_text(score)] for name, score in report["roc_auc"].items()]
    blocks = [
        f"{sum(images.values())} images of {report['patients']} patients: {images[first]} {first}, "
        f"{images[second]} {second}; style {report['style']}",
        aligned([["predictor (no lungs visible)", "ROC AUC (95% interval by patient)"], *rows]),
        "The style is that of the other class in "
        + " and ".join(f"{contradicting[name]} of {images[name]} {name}" for name in images),
    ]
    if "model" in report:
        model = report["model"]
        blocks.append(
            f"{printable(model['file'])}, operating point {model['threshold']:.3f}:\n"
            + style.format_groups(model["groups"], (first, second))
        )
    return "\n\n".join(blocks)


def sheet_blocks(audited: TwoClassImages, by_style: style.Floats, by_model: style.Floats | None) -> list[Block]:
    """The images whose style contradicts their class, between the most typical ones of each class."""
    labels, contradicts = audited.listing.labels, style.contradicting(by_style, audited.listing.labels)

    def block(label: int, contradicting: bool, rows: int) -> Block:
        style_of = 1 - label if contradicting else label
        chosen = np.flatnonzero((labels == label) & (contradicts == contradicting))
        order = np.argsort(-by_style[chosen] if style_of else by_style[chosen], kind="stable")
        shown = chosen[order][: rows * SHEET_COLUMNS]
        notes = [""] * len(shown) if by_model is None else [f", model {by_model[index]:.2f}" for index in shown]
        return Block(
            f"{audited.classes[label]} in the style of {audited.classes[style_of]} "
            f"({len(chosen)} of {(labels == label).sum()})",
            [audited.squares[index] for index in shown],
            [
                f"{audited.listing.paths[index].stem}\nstyle {by_style[index]:.2f}{note}"
                for index, note in zip(shown, notes, strict=True)
            ],
        )

    return [block(0, False, 1), block(0, True, 2), block(1, True, 2), block(1, False, 1)]


def draw_shortcut_auc(
    predictors: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]] | None,
    path: Path,
    *,
    title: str,
) -> None:
    """ROC AUC of each predictor with its interval and, of a model, its scores where the style agrees and contradicts.

    Args:
        predictors: name -> ROC AUC with ``value``, ``low``, ``high``.
        groups: as ``style.group_scores`` returns them; None draws the predictors alone.
    """
    with saved_figure(path, (WIDTH, 4.2)) as figure:
        figure.suptitle(shorten(title, WIDTH))
        panels = figure.subplots(1, 1 if groups is None else 2, squeeze=False)[0]
        _dots(panels[0], {name: (score, BLUE, "o") for name, score in predictors.items()})
        panels[0].axvline(0.5, color=GREY, linestyle=":", label="chance")
        panels[0].set(title="predictor (no lungs visible)", xlabel="ROC AUC", xlim=(None, 1.01))
        panels[0].legend(loc="lower left")
        if groups is not None:
            styles = {"all": (GREY, "s"), "agrees": (BLUE, "o"), "contradicts": (VERMILLION, "D")}
            shown = {
                f"{name}\n{group}" if group == "all" else f"{name}\nstyle {group}": (score, *styles[group])
                for name, of in groups.items()
                for group, score in of.items()
            }
            _dots(panels[1], shown)
            panels[1].set(title="the model at its operating point", xlabel="fraction correct", xlim=(None, 1.01))


def _dots(axes: Any, rows: Mapping[str, tuple[Mapping[str, Any], str, str]]) -> None:
    """One line for each score with its colour and marker; the first row is on top."""
    for line, (score, colour, marker) in enumerate(rows.values()):
        draw_score(axes, line, score, colour, marker)
    axes.set_yticks(range(len(rows)), [shorten(name, 2.0) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def audit(
    audited: TwoClassImages,
    known: TwoClassImages | None,
    config: AuditConfig,
    classifier: Classifier | None,
    run: runtime.Runtime,
) -> tuple[dict[str, Any], dict[str, style.Floats], dict[str, style.Floats]]:
    """The report, the probabilities [N] of each predictor, and those of the model by column of the CSV."""
    labels = audited.listing.labels
    predicted_by = predict_from_style(audited, known, config.seed)
    contradicts = style.contradicting(predicted_by[_WHOLE], labels)
    shortcut_auc = metrics.bootstrap(
        lambda weights: {name: metrics.roc_auc(values, labels, weights) for name, values in predicted_by.items()},
        audited.groups,
        seed=config.seed,
    )
    report: dict[str, Any] = {
        "data_dir": str(config.data_dir),
        "classes": list(audited.classes),
        "images": dict(zip(audited.classes, np.bincount(labels).tolist(), strict=True)),
        "patients": len(set(audited.groups)),
        "style": f"fitted on {config.train_dir}" if known else f"cross-fitted by patient in {patients.FOLDS} folds",
        "roc_auc": shortcut_auc,
        "contradicting": {name: int(contradicts[labels == label].sum()) for label, name in enumerate(audited.classes)},
    }
    by_model: dict[str, style.Floats] = {}
    if classifier:
        probabilities = classifier.probabilities(audited.squares, run)
        predicted = probabilities >= classifier.threshold
        groups = style.group_scores(predicted, labels, contradicts, audited.groups, config.seed)
        report["model"] = {
            "file": str(config.model),
            "weights_sha256": weights_sha256(classifier.model.state_dict()),
            "threshold": classifier.threshold,
            "groups": groups,
        }
        by_model = {"model_probability": probabilities}
    return {**report, "seed": config.seed, "provenance": run_environment(run)}, predicted_by, by_model


def main(config: AuditConfig) -> None:
    """Read, audit, write."""
    with runtime.start(config.device, "fp32", config.seed) as run:
        classifier = Classifier.load(config.model, run) if config.model else None
        side = classifier.store_size if classifier else _SIDE
        audited = read_images(config.data_dir, side, config, "audited")
        known = read_images(config.train_dir, side, config, "training") if config.train_dir else None
        report, predicted_by, by_model = audit(audited, known, config, classifier, run)
    write_json(config.output_dir / "shortcut_audit.json", report)
    write_table(config.output_dir / "shortcut_audit.csv", audited, predicted_by, by_model)
    probabilities = by_model.get("model_probability")
    note = f"numbers: probability of {audited.classes[1]} from the style alone" + ", and by the model" * bool(by_model)
    blocks = sheet_blocks(audited, predicted_by[_WHOLE], probabilities)
    image_sheet(blocks, config.output_dir / "shortcut_audit_images.png", note=note)
    title = f"{len(audited.listing)} images, style {report['style']}"
    groups = report["model"]["groups"] if "model" in report else None
    draw_shortcut_auc(report["roc_auc"], groups, config.output_dir / "shortcut_audit.png", title=title)
    print(f"{format_audit(report)}\n\nreport, table and pictures: {config.output_dir}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
