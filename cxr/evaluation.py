"""The frame of both reports: which images are evaluated or left out, subgroups, tables and errors.csv."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr import messages, patients, prediction, tables
from cxr.metrics import interval_text
from cxr.model_file import image_key
from cxr.plots import forest_plot

RESAMPLES, SUBGROUP_RESAMPLES = 2000, 500  # of the bootstrap, for all images and for each subgroup
_NO_SUBGROUPS = ("patient", "split")  # columns of a table that have a meaning of their own


@dataclass(frozen=True)
class EvaluatedSet:
    """N labelled images with their predictions; each task adds its own.

    Attributes:
        name: of the set, for titles.
        paths: N files.
        patients: N names.
        columns: name -> N values of the table or the DICOM headers, empty where unknown; they define the subgroups.
        out_of_distribution: bool [N]; None where the model cannot state it.
        threshold: the operating point of the predictions.
        left_out: number of images that were not evaluated, by reason: ``unreadable``, ``in_training``.
    """

    name: str
    paths: list[Path]
    patients: list[str]
    columns: Mapping[str, list[str]]
    out_of_distribution: NDArray[np.bool_] | None
    threshold: float
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def title(self) -> str:
        """For pictures."""
        return f"{len(self)} images ({self.name})"

    def subgroups(self) -> dict[str, NDArray[np.int64]]:
        """Positions of the images of each subgroup: values of the columns, and inside or outside the distribution."""
        columns = {name: values for name, values in self.columns.items() if name not in _NO_SUBGROUPS}
        if self.out_of_distribution is not None:
            columns["out of distribution"] = [prediction.in_words(bool(flag)) for flag in self.out_of_distribution]
        return patients.subgroups(columns)

    def frame(self) -> dict[str, Any]:
        """How many images a report is not of, and how many of its images are out of distribution."""
        flags = self.out_of_distribution
        return {"left_out": self.left_out, "out_of_distribution": None if flags is None else int(flags.sum())}


def new_images(
    hashes: Sequence[str], readable: NDArray[np.int64], training_images: frozenset[str] | None, source: str
) -> NDArray[np.int64]:
    """Those of the ``readable`` indices whose content the model was neither trained nor selected on.

    Args:
        hashes: SHA-256 of the content of each file.
        training_images: keys in the model file; None leaves nothing out, with a warning.
        source: of the images, for the error.

    Raises:
        ValueError: there is none.
    """
    if training_images is None:
        warnings.warn("the model file does not state its training images; none is left out", stacklevel=2)
        return readable
    kept = [index for index in readable if image_key(hashes[int(index)]) not in training_images]
    if not kept:
        raise ValueError(
            f"{source}: nothing to evaluate; all {len(readable)} readable images are training or validation images of "
            "the model"
        )
    return np.array(kept, np.int64)


def counts(report: Mapping[str, Any]) -> dict[str, int | None]:
    """What ``EvaluatedSet.frame`` returned, in words."""
    return {
        "left out, unreadable": report["left_out"]["unreadable"],
        "left out, training or validation images of the model": report["left_out"]["in_training"],
        "out of distribution": report["out_of_distribution"],
    }


def counts_text(counts: Mapping[str, int | None]) -> str:
    """A line for each that is known and not 0."""
    return "\n".join(f"{name}: {count}" for name, count in counts.items() if count)


def group_rows(
    title: str, groups: Mapping[str, Mapping[str, Any]], counts: Mapping[str, str], scores: Mapping[str, str]
) -> list[list[str]]:
    """A table of subgroups, its header first; a count that no group has gives no column.

    Args:
        title: of the first column, which holds the names.
        groups: name -> the ``counts``, and under ``scores`` the intervals of the ``scores``.
        counts, scores: key -> header of its column.
    """
    counts = {key: name for key, name in counts.items() if any(group[key] is not None for group in groups.values())}
    rows = [[title, *counts.values(), *scores.values()]]
    for name, group in groups.items():
        rows.append(
            [name, *(str(group[key]) for key in counts), *(interval_text(group["scores"][key]) for key in scores)]
        )
    return rows


def write_errors(
    path: Path, evaluated: EvaluatedSet, header: Sequence[str], errors: Iterable[tuple[int, Sequence[str]]]
) -> None:
    """A CSV with a line for each error: its file, the task's columns, and what is known of the image.

    Args:
        header: the task's columns.
        errors: index of the image, and the values of these columns; the most confident first.
    """
    flags = evaluated.out_of_distribution
    further = [name for name, values in evaluated.columns.items() if name != "patient" and any(values)]
    rows = (
        [
            messages.shown_path(evaluated.paths[index]),
            *values,
            prediction.in_words(None if flags is None else bool(flags[index])),
            evaluated.patients[index],
            *(evaluated.columns[name][index] for name in further),
        ]
        for index, values in errors
    )
    tables.write_csv(path, ("path", *header, "out_of_distribution", "patient", *further), rows)


def draw_groups(path: Path, groups: Mapping[str, Mapping[str, Any]], scores: Mapping[str, str], title: str) -> None:
    """A forest plot of ``groups``, as for ``group_rows``; an old plot is removed where there are none."""
    path.unlink(missing_ok=True)
    if groups:
        rows = {f"{name} ({group['images']})": group["scores"] for name, group in groups.items()}
        forest_plot(rows, scores, path, title=title)
