"""Patient identity, splits and folds by patient, and subgroups of images."""

import hashlib
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.messages import first_of, one_line, shortened
from cxr.reading import Header

FOLDS = 5
_LEAST_OF_ONE = 10  # DICOM files, none of them with another Patient ID: it is what anonymising has left


def identify(
    paths: Sequence[Path],
    headers: Sequence[Header],
    *,
    stated: Sequence[str],
    named: Sequence[str],
    otherwise: Sequence[str],
) -> list[str]:
    """The patient of each image: as ``stated``, else as its header says, else as ``named``, else ``otherwise``.

    An empty text says nothing. One warning counts the images of which neither table nor header nor name tells the
    patient; ``otherwise`` holds another name for each.
    """
    in_header = [header.patient for header in headers]
    if len({*in_header} - {""}) == 1 and len(in_header) - in_header.count("") >= _LEAST_OF_ONE:
        warnings.warn("all DICOM files have the same Patient ID, so it tells no patients apart", stacklevel=3)
        in_header = [""] * len(in_header)
    known = [told or found or name for told, found, name in zip(stated, in_header, named, strict=True)]
    unknown = [path for path, patient in zip(paths, known, strict=True) if not patient]
    if unknown:
        warnings.warn(
            f"nothing tells the patient of {len(unknown)} of {len(paths)} images (first: {unknown[0].name}); each "
            "counts as a patient of its own. If one patient has several of them, scores are too optimistic",
            stacklevel=3,
        )
    return [patient or other for patient, other in zip(known, otherwise, strict=True)]


def split(
    patients: Sequence[str],
    labels: Sequence[str],
    hashes: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    *,
    needed: Collection[str],
) -> dict[str, NDArray[np.int64]]:
    """Ascending indices of the images of each part in ``shares``, drawn in that order, and of the rest, ``train``.

    No patient and no file content is in two parts, and each part has about its share of the images of each label. The
    choice depends on the patients' names and the seed alone, not on the order of listing, the platform or a library's
    random numbers.

    Args:
        patients: [N] names.
        labels: [N], the class of each image.
        hashes: [N], of the content of each file; equal ones tie their patients together.
        shares: part -> share of the images of each label.
        seed: another one draws other patients.
        needed: labels that no part may lack.

    Raises:
        ValueError: a part would lack one of ``needed``.
    """
    groups = tied(patients, hashes)
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = sorted(members, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    counts = {group: Counter(labels[index] for index in members[group]) for group in order}
    totals = Counter(labels)
    part_of: dict[str, str] = {}
    for part, share in shares.items():
        taken: Counter[str] = Counter()
        for group in order:
            # At most half of a group over the share, in each label that the group has.
            if group not in part_of and all(
                taken[label] + number / 2 <= share * totals[label] for label, number in counts[group].items()
            ):
                part_of[group] = part
                taken += counts[group]
    parts: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for index, group in enumerate(groups):
        parts[part_of.get(group, "train")].append(index)
    for part, indices in parts.items():
        missing = [label for label in needed if not any(labels[index] == label for index in indices)]
        if missing:
            wanted = " and ".join(f"{share:.0%} for {name.replace('_', ' ')}" for name, share in shares.items())
            raise ValueError(
                f"no {missing[0]} image is left for {part.replace('_', ' ')}: {len(labels)} images of "
                f"{len(members)} patients are too few to set apart {wanted}"
            )
    return {part: np.array(indices, dtype=np.int64) for part, indices in parts.items()}


def tied(patients: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Each image's group: the patients that share a file content, directly or through others, are one."""
    parent = {patient: patient for patient in patients}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for patient, content in zip(patients, hashes, strict=True):
        one, other = sorted((root(patient), root(first.setdefault(content, patient))))
        parent[other] = one
    return [root(patient) for patient in patients]


AGE_BANDS = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (1000, "65 and over"))
_AGES = ("age", "age_years", "patientage", "patient_age")  # columns of completed years
_MOST_GROUPS = 12  # of one column; what has more is a name, a date or a text
_MOST_NUMBERS = 8  # so many different ones are groups of their own, more are divided into quarters
_UNKNOWN = "unknown"
_LONGEST = 40  # characters of a value in a name


def header_columns(headers: Sequence[Header]) -> dict[str, list[str]]:
    """What DICOM headers say, as columns ``view``, ``sex`` and ``age``, empty where they do not."""
    return {
        "view": [header.view or "" for header in headers],
        "sex": [header.sex or "" for header in headers],
        "age": ["" if header.age_years is None else str(header.age_years) for header in headers],
    }


def subgroups(columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.int64]]:
    """Positions of the images of each value of each of ``columns``, such as ``site A``; unknown ones are a group too.

    Ages are divided into bands, other columns of many numbers into quarters. A column that divides nothing gives no
    group; one of many different texts gives none either, and a warning names it.

    Args:
        columns: name -> a value for each image, empty where it is unknown.
    """
    found: dict[str, NDArray[np.int64]] = {}
    crowded: list[str] = []
    for column, values in columns.items():
        name = shortened(one_line(column), _LONGEST)
        labels, order = _labels(column, [value.strip() for value in values])
        if len(order) > _MOST_GROUPS:
            crowded.append(name)
        elif len(order) > 1:
            for label in order:
                group = f"{name} {shortened(one_line(label), _LONGEST)}"
                found[group] = np.flatnonzero(np.array([other == label for other in labels]))
    if crowded:
        warnings.warn(
            f"no results for each value of {first_of(crowded)}: more than {_MOST_GROUPS} different ones", stacklevel=2
        )
    return found


def _labels(column: str, values: Sequence[str]) -> tuple[list[str], list[str]]:
    """The group of each image, and the groups in the order in which they are shown."""
    numbers = _numbers(values)
    is_age = column.casefold() in _AGES and numbers is not None
    if numbers is not None and (is_age or len({*values} - {""}) > _MOST_NUMBERS):
        known = numbers[~np.isnan(numbers)]
        names = [name for _, name in AGE_BANDS] if is_age else _quarters(known)
        edges = [limit for limit, _ in AGE_BANDS[:-1]] if is_age else _edges(known)
        places = np.searchsorted(edges, numbers, side="right")
        labels = [
            _UNKNOWN if math.isnan(number) else names[place] for number, place in zip(numbers, places, strict=True)
        ]
        order = [name for name in names if name in labels]
    else:
        labels = [value or _UNKNOWN for value in values]
        order = sorted({*labels} - {_UNKNOWN}, key=lambda label: (_number(label) or 0.0, label))
    return labels, order + [_UNKNOWN] * (_UNKNOWN in labels)


def _edges(known: NDArray[np.float64]) -> list[float]:
    return np.unique(np.quantile(known, [0.25, 0.5, 0.75])).tolist()


def _quarters(known: NDArray[np.float64]) -> list[str]:
    edges = _edges(known)
    between = [f"{low:g} to under {high:g}" for low, high in pairwise(edges)]
    return [f"under {edges[0]:g}", *between, f"{edges[-1]:g} and over"]


def _numbers(values: Sequence[str]) -> NDArray[np.float64] | None:
    """The values as numbers, NaN where there is none; None if one is something else, or all are unknown."""
    known = [value for value in values if value]
    if not known or any(_number(value) is None for value in known):
        return None
    return np.array([_number(value) if value else math.nan for value in values], np.float64)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def folds(
    labels: NDArray[np.int64], groups: Sequence[str], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices (others, held out) of each fold: every image is held out once, no patient is on both sides."""
    from sklearn.model_selection import StratifiedGroupKFold

    return list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels, np.asarray(groups)))
