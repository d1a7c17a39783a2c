"""The report on labelled images: scores, trade-off, subgroups and errors, all with pictures.

Training ends with it on its test images, and evaluate_classification.py writes it for any others.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import messages, patients, prediction, reading, runtime, tables
from cxr.files import write_json
from cxr.metrics import interval_text
from cxr.model_file import image_key
from cxr.plots import SHEET_COLUMNS, Block, forest_plot, image_sheet, thumbnail
from cxr.training_run import ERRORS
from pytorch_classification import data_load, image_metrics, operating_point, plots
from pytorch_classification.augment import corrupted
from pytorch_classification.classifier import Classifier, ClassifierOutput
from pytorch_classification.data_load import CLASSES, PNEUMONIA, Listing, patients_of_each_class
from pytorch_classification.model import to_probability

_GRID = 8  # pictures in the Grad-CAM grid
_INSTRUCTIVE = (
    f"up to {_GRID // 2} errors, the most confident ones; of the right answers of each class those at a quarter and "
    "three quarters of their probabilities"
)
_SHEET = 2 * SHEET_COLUMNS  # pictures of each kind of error
_FEW_RESAMPLES = 500  # for each of the subgroups
_BY_GROUP = {"sensitivity": "sensitivity", "specificity": "specificity", "roc_auc": "ROC AUC"}
_COUNTED = {  # beside those scores
    "subgroups": {"images": "images", "patients": "patients", "pneumonia": "PNEUMONIA"},
    "corruptions": {"out_of_distribution": "unlike training"},
}
_NO_GROUPS = ("patient", "split")  # columns of a table that mean something of their own


@dataclass(frozen=True)
class Judged:
    """Labelled images and what a model says of them.

    Attributes:
        name: what they are called in pictures.
        listing: N images that can be read and that the model was not trained on.
        images: uint8 [N, S, S].
        hashes: of the content of each file.
        classifier: that judged them.
        answers: of it.
        left_out: how many images are not among them, by the reason.
    """

    name: str
    listing: Listing
    images: NDArray[np.uint8]
    hashes: list[str]
    classifier: Classifier
    answers: ClassifierOutput
    left_out: dict[str, int]

    @property
    def title(self) -> str:
        """For pictures."""
        return f"{len(self.listing)} images ({self.name})"

    @property
    def errors(self) -> NDArray[np.int64]:
        """Indices of the images that were predicted wrongly, as ``errors`` gives them."""
        return errors(self.answers.probability, self.listing.labels, self.classifier.threshold)

    @property
    def tied_patients(self) -> list[str]:
        """Of each image; those who share a file byte for byte are one, so that no fold holds it twice."""
        return patients.tied(self.listing.patients, self.hashes)


def judge(
    listing: Listing, name: str, classifier: Classifier, store_dir: Path, run: runtime.Runtime, *, skip_bad: bool
) -> Judged:
    """Decode the images of ``listing`` and ask the model; those that it was trained on are left out.

    Raises:
        ValueError: images that cannot be read, unless ``skip_bad``, or none is left.
    """
    store = reading.decode_once(
        listing.paths, classifier.store_size, store_dir, name="test", skip_bad=skip_bad, progress=run.is_main
    )
    listing = data_load.identify_patients(listing, store.headers)
    own = {column.casefold() for column in listing.columns}
    said = {name: values for name, values in patients.header_columns(store.headers).items() if name not in own}
    listing = replace(listing, columns={**listing.columns, **said})
    known = classifier.training_images or frozenset()
    repeated = np.array([image_key(content) in known for content in store.hashes])
    kept = np.flatnonzero(store.readable & ~repeated)
    if repeated.any() and run.is_main:
        warnings.warn(f"{repeated.sum()} test files equal a training file byte for byte and are left out", stacklevel=2)
    if not len(kept):
        raise ValueError(
            f"{name}: none of its {len(listing)} images is left to report on; the model was trained on all that can be "
            "read"
        )
    images = store.images if len(kept) == len(listing) else store.images[kept]  # as it lies on disk, if it can be
    hashes = [store.hashes[index] for index in kept]
    left_out = {"unreadable": int((~store.readable).sum()), "in_training": int(repeated.sum())}
    return Judged(name, listing.take(kept), images, hashes, classifier, classifier.predict(images, run), left_out)


def evaluated(
    judged: Judged, prevalence: float, run: runtime.Runtime, *, grad_cam: bool = True, corrupt: bool = False
) -> dict[str, Any]:
    """The report as plain values: what is left out, ``scores``, ``trade_off``, ``subgroups``, ``grad_cam`` and more.

    Args:
        prevalence: at which predictive values are stated too.
        grad_cam: whether Grad-CAM is drawn.
        corrupt: whether the images are judged with each of ``CORRUPTIONS`` too; likewise.
    """
    listing, unlike = judged.listing, judged.answers.out_of_distribution
    arguments = (judged.answers.probability, listing.labels, listing.patients, judged.classifier.threshold)
    columns: dict[str, Sequence[str]] = {
        name: values for name, values in listing.columns.items() if name not in _NO_GROUPS
    }
    if unlike is not None:
        columns["unlike training:"] = list(map(prediction.in_words, unlike.tolist()))
    return {
        "left_out": judged.left_out,
        # Patients fall ill and recover.
        "patients_of_both_classes": len(set.intersection(*patients_of_each_class(listing.labels, listing.patients))),
        "conflicting_duplicates": len(data_load.conflicting_duplicates(listing, judged.hashes)),
        "out_of_distribution": None if unlike is None else int(unlike.sum()),
        "scores": image_metrics.evaluate_classifier(*arguments, prevalence=prevalence),
        "trade_off": operating_point.trade_off(*arguments, prevalence),
        "subgroups": {name: _of_group(judged, at) for name, at in patients.subgroups(columns).items()},
        "grad_cam": grad_cam,
        "corruptions": when_corrupted(judged, run) if corrupt else None,
    }


def when_corrupted(judged: Judged, run: runtime.Runtime) -> dict[str, Any]:
    """Scores as of a subgroup, and how many images are flagged, by name of the corruption; the first is none."""
    seen = {"none": judged.answers}
    seen |= {name: judged.classifier.predict(images, run) for name, images in corrupted(judged.images)}
    everything = np.arange(len(judged.listing))
    return {
        name: {
            **_of_group(replace(judged, answers=answers), everything),
            "out_of_distribution": None
            if answers.out_of_distribution is None
            else int(answers.out_of_distribution.sum()),
        }
        for name, answers in seen.items()
    }


def _of_group(judged: Judged, at: NDArray[np.int64]) -> dict[str, Any]:
    listing, probabilities = judged.listing.take(at), judged.answers.probability[at]
    found = image_metrics.evaluate_classifier(
        probabilities, listing.labels, listing.patients, judged.classifier.threshold, resamples=_FEW_RESAMPLES
    )
    counts = {"images": found["images"], "patients": found["patients"], "pneumonia": int(listing.labels.sum())}
    return counts | {name: found["scores"][name] for name in _BY_GROUP}


def format_report(report: Mapping[str, Any]) -> str:
    """What ``evaluated`` returned, for the terminal."""
    blocks = [
        image_metrics.format_report(report["scores"]),
        "What other thresholds give on these images, which were not set apart to choose one by:\n"
        + operating_point.format_trade_off(report["trade_off"]),
    ]
    blocks += [image_metrics.aligned(rows) for rows in group_rows(report).values()]
    blocks.append("\n".join(f"{name}: {count}" for name, count in counts(report).items() if count))
    return "\n\n".join(block for block in blocks if block)


def counts(report: Mapping[str, Any]) -> dict[str, int | None]:
    """How many images and patients stand out, by what is said of them."""
    return {
        "left out, cannot be read": report["left_out"]["unreadable"],
        "left out, the model was trained on them or chosen by them": report["left_out"]["in_training"],
        "unlike the images the model was trained on": report["out_of_distribution"],
        "patients with images of both classes": report["patients_of_both_classes"],
        "images that stand in both classes with the same content": report["conflicting_duplicates"],
    }


def group_rows(report: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """The tables of subgroups and of corruptions, where the report has some; their first row is the header."""
    found: dict[str, list[list[str]]] = {}
    for kind, numbers in _COUNTED.items():
        if groups := report.get(kind):
            rows = [
                [name, *("" if group[key] is None else str(group[key]) for key in numbers), *_group_scores(group)]
                for name, group in groups.items()
            ]
            found[kind] = [[kind, *numbers.values(), *_BY_GROUP.values()], *rows]
    return found


def _group_scores(group: Mapping[str, Any]) -> list[str]:
    return [interval_text(group[name]) for name in _BY_GROUP]


def write(report: Mapping[str, Any], path: Path, images_dir: Path, judged: Judged, run: runtime.Runtime) -> None:
    """``report`` to the JSON file ``path``, beside it ``errors.csv``, and the pictures."""
    write_json(path, report)
    write_errors(path.parent / ERRORS, judged)
    draw(images_dir, judged, report, run)


def errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Indices of the images that were predicted wrongly, the most confident first: by odds against the threshold's."""
    wrong = np.flatnonzero((probabilities >= threshold) != (labels == PNEUMONIA))
    logit = [np.log(np.clip(values, 1e-12, 1) / np.clip(1 - values, 1e-12, 1)) for values in (probabilities, threshold)]
    return wrong[np.argsort(-np.abs(logit[0] - logit[1])[wrong], kind="stable")]


def write_errors(path: Path, judged: Judged) -> None:
    """A line for each error, the most confident first."""
    listing, answers = judged.listing, judged.answers
    further = [name for name in listing.columns if name != "patient" and any(listing.columns[name])]
    rows = (
        [
            messages.shown_path(listing.paths[index]),
            CLASSES[listing.labels[index]],
            CLASSES[1 - listing.labels[index]],
            f"{answers.probability[index]:.6f}",
            f"{judged.classifier.threshold:.6f}",
            ""
            if answers.out_of_distribution is None
            else prediction.in_words(bool(answers.out_of_distribution[index])),
            listing.patients[index],
            *(listing.columns[name][index] for name in further),
        ]
        for index in judged.errors
    )
    header = ("path", "class", "predicted", "probability", "threshold", "out_of_distribution", "patient", *further)
    tables.write_csv(path, header, rows)


def draw(folder: Path, judged: Judged, report: Mapping[str, Any], run: runtime.Runtime) -> None:
    """The pictures of a report."""
    listing, probabilities, threshold = judged.listing, judged.answers.probability, judged.classifier.threshold
    labels, title = listing.labels, f"{judged.title}, operating point {threshold:.3f}"
    plots.confusion_matrix(report["scores"]["confusion_matrix"], folder / "confusion_matrix.png", title=title)
    plots.roc_and_precision_recall(
        labels, probabilities, threshold, folder / "roc_pr.png", patients=listing.patients, title=title
    )
    before = to_probability(judged.answers.log_odds, 1.0)
    plots.reliability(labels, probabilities, folder / "reliability.png", before=before, title=judged.title)
    plots.threshold_sweep(
        labels,
        probabilities,
        threshold,
        folder / "threshold_sweep.png",
        patients=listing.patients,
        prevalence=report["trade_off"]["prevalence"],
        title=judged.title,
    )
    draw_errors(folder / "errors.png", judged)
    for name in ("subgroups", "corruptions", "grad_cam"):
        if not report[name] and (folder / f"{name}.png").exists():
            (folder / f"{name}.png").unlink()  # of another report
    if report["subgroups"]:
        whole = report["scores"]
        rows = {f"all ({whole['images']} images)": whole["scores"]}
        rows |= {f"{name} ({group['images']})": group for name, group in report["subgroups"].items()}
        forest_plot(rows, _BY_GROUP, folder / "subgroups.png", title=title)
    if report["corruptions"]:
        forest_plot(report["corruptions"], _BY_GROUP, folder / "corruptions.png", title=f"Corrupted: {title}")
    if report["grad_cam"]:
        draw_grad_cam(folder / "grad_cam.png", judged, run)


def draw_errors(path: Path, judged: Judged) -> None:
    """The most confident errors of both kinds."""
    labels, paths, wrong = judged.listing.labels, judged.listing.paths, judged.errors
    blocks: list[Block] = []
    for label in (PNEUMONIA, 1 - PNEUMONIA):
        of_kind = wrong[labels[wrong] == label]
        shown = of_kind[:_SHEET]
        blocks.append(
            Block(
                f"{CLASSES[label]}, predicted {CLASSES[1 - label]} ({len(of_kind)} of {(labels == label).sum()})",
                [thumbnail(reading.read_grey(paths[index]), 300) for index in shown],
                [f"{paths[index].stem}\nP = {judged.answers.probability[index]:.3f}" for index in shown],
            )
        )
    point = f"operating point {judged.classifier.threshold:.3f}"
    note = f"P: probability of PNEUMONIA ({point}); the most confident of each kind first"
    image_sheet(blocks, path, note=note)


def draw_grad_cam(path: Path, judged: Judged, run: runtime.Runtime) -> None:
    """Instructive cases, and where the model looked."""
    classifier, labels, probabilities = judged.classifier, judged.listing.labels, judged.answers.probability
    threshold = classifier.threshold
    shown = instructive_cases(probabilities, labels, threshold)
    called = probabilities[shown] >= threshold
    titles = [
        f"True {CLASSES[labels[i]]} / Predicted {CLASSES[int(call)]}\n"
        f"probability of PNEUMONIA {probabilities[i]:.3f}"
        + ", borderline"
        * prediction.is_borderline(float(probabilities[i]), threshold)
        for i, call in zip(shown, called, strict=True)
    ]
    alone = replace(run, rank=0, world_size=1)  # the other processes draw nothing
    heat = classifier.predict(judged.images[shown], alone, grad_cam=True).grad_cam
    assert heat is not None
    plots.grad_cam_grid(
        [reading.read_grey(judged.listing.paths[i]) for i in shown],
        list(heat),
        titles,
        path,
        correct=(called == labels[shown]).tolist(),
        caption=f"{judged.title}, operating point {threshold:.3f}. Shown: {_INSTRUCTIVE}.",
        common_scale=classifier.grad_cam_scale is not None,
    )


def instructive_cases(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    """Indices of instructive pictures, as ``_INSTRUCTIVE`` says."""
    called = probabilities >= threshold
    worst = errors(probabilities, labels, threshold)[: _GRID // 2]
    right: list[np.int64] = []
    for label in (1, 0):
        hits = np.flatnonzero((called == labels) & (labels == label))
        hits = hits[np.argsort(probabilities[hits], kind="stable")]
        right += [hits[int(share * (len(hits) - 1))] for share in (0.25, 0.75)] if len(hits) else []
    return np.unique(np.concatenate([worst, np.array(right, dtype=np.int64)]))
