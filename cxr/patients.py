"""Patient identity, splits and cross-validation folds by patient, and subgroups of images."""

import hashlib
import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.messages import first_of, one_line, shortened
from cxr.reading import Header
from cxr.reading.picture import is_placeholder

FOLDS = 5
_ANONYMISED = 10  # so many DICOM files, most of all, of a single Patient ID: anonymisation has replaced it
_CUT_NUMBER = re.compile(r"\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_AGE_BANDS = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (1000, "65 and over"))
_AGE_COLUMNS = ("age", "age_years", "patientage", "patient_age")  # completed years
_MOST_GROUPS = 12  # of one column; a column with more is a name, a date or a text
_MOST_NUMBERS = 8  # more different numbers are divided into quarters
_UNKNOWN = "unknown"
_LONGEST = 40  # characters of a value in a name


def identify(
    paths: Sequence[Path],
    headers: Sequence[Header],
    *,
    stated: Sequence[str],
    named: Sequence[str],
    otherwise: Sequence[str],
) -> list[str]:
    """The patient of each image: ``stated`` by a table, or by its DICOM header, or ``named`` by the file.

    Where all three are empty the image counts as the patient ``otherwise``, and one warning counts such images.
    """
    in_header = distinguishing([header.patient for header in headers])
    found = [table or header or name for table, header, name in zip(stated, in_header, named, strict=True)]
    unknown = [path for path, patient in zip(paths, found, strict=True) if not patient]
    if unknown:
        warnings.warn(
            f"the patient of {len(unknown)} of {len(paths)} images is unknown (first: {unknown[0].name}); each counts "
            "as one patient. If a patient has several of them, scores are too optimistic",
            stacklevel=3,
        )
    return [patient or other for patient, other in zip(found, otherwise, strict=True)]


def distinguishing(in_header: Sequence[str]) -> list[str]:
    """Patients of DICOM headers, without one that most files share, of which a warning counts the files."""
    known = Counter(filter(None, in_header))
    shared, count = (known.most_common(1) or [("", 0)])[0]
    if count < _ANONYMISED or count <= known.total() / 2:
        return list(in_header)
    warnings.warn(
        f"{count} of {len(in_header)} files have the same Patient ID, so it does not identify patients", stacklevel=4
    )
    return ["" if patient == shared else patient for patient in in_header]


def without_placeholders(stated: Sequence[str]) -> list[str]:
    """Patients of a table, empty where a value identifies nobody; a warning counts these.

    Such values are the words of ``is_placeholder``, and long numbers that a spreadsheet has cut to 2.02301E+11; a whole
    number may be an index.
    """

    def identifies(value: str) -> bool:
        return value.isdigit() or not (is_placeholder(value) or _CUT_NUMBER.fullmatch(value))

    kept = [value if identifies(value) else "" for value in stated]
    if lost := [value for value, patient in zip(stated, kept, strict=True) if value and not patient]:
        warnings.warn(
            f"{len(lost)} rows have a patient that identifies nobody: {first_of(sorted({*lost}))}; if a spreadsheet "
            "has cut long numbers, format the column as text and fill it in again",
            stacklevel=3,
        )
    return kept


def tied(patients: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Each image's group: patients with a file content in common, directly or through others, are one group."""
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
    split depends on the patients' names and the seed only, not on the order of files, the platform or a library's
    random numbers.

    Args:
        patients: [N] names.
        labels: [N], the class of each image.
        hashes: [N], of the content of each file; patients with equal ones are ``tied``.
        shares: part -> fraction of the images of each label.
        seed: of the draw.
        needed: labels that every part must have.

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
            # Exceed the share by at most half of the group, in each label of the group.
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
                f"{len(members)} patients are too few for a split with {wanted}"
            )
    return {part: np.array(indices, dtype=np.int64) for part, indices in parts.items()}


def folds(
    labels: NDArray[np.int64], groups: Sequence[str], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices (others, held out) of each fold: every image is held out once, no group is on both sides."""
    from sklearn.model_selection import StratifiedGroupKFold

    return list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels, np.asarray(groups)))


def with_header_columns(columns: Mapping[str, list[str]], headers: Sequence[Header]) -> dict[str, list[str]]:
    """The columns of a table, and those of ``view``, ``sex`` and ``age`` in DICOM headers that it does not have."""
    own = {name.casefold() for name in columns}
    found = {
        "view": [header.view or "" for header in headers],
        "sex": [header.sex or "" for header in headers],
        "age": ["" if header.age_years is None else str(header.age_years) for header in headers],
    }
    return {**columns, **{name: values for name, values in found.items() if name not in own}}


def subgroups(columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.int64]]:
    """Indices of the images of each value of each of ``columns``, such as ``site A``; ``unknown`` is a value too.

    Ages are divided into bands, other columns of many numbers into quarters. A column with one value gives no subgroup;
    one of many different texts gives none either, and a warning names it.

    Args:
        columns: name -> a value for each image, empty where it is unknown.
    """
    found: dict[str, NDArray[np.int64]] = {}
    crowded: list[str] = []
    for column, values in columns.items():
        name = shortened(one_line(column), _LONGEST)
        groups, order = _grouped(column, [value.strip() for value in values])
        if len(order) > _MOST_GROUPS:
            crowded.append(name)
        elif len(order) > 1:
            for group in order:
                title = f"{name} {shortened(one_line(group), _LONGEST)}"
                found[title] = np.flatnonzero(np.array([other == group for other in groups]))
    if crowded:
        warnings.warn(f"no subgroups for {first_of(crowded)}: more than {_MOST_GROUPS} different values", stacklevel=2)
    return found


def _grouped(column: str, values: Sequence[str]) -> tuple[list[str], list[str]]:
    """The group of each image, and the groups in the order in which they are shown."""
    numbers = [_number(value) for value in values]
    known = np.array([number for number in numbers if number is not None], np.float64)
    all_numbers = 0 < len(known) == sum(map(bool, values))
    is_age = all_numbers and column.casefold() in _AGE_COLUMNS
    if is_age or (all_numbers and len({*values} - {""}) > _MOST_NUMBERS):
        if is_age:
            edges, names = [limit for limit, _ in _AGE_BANDS[:-1]], [name for _, name in _AGE_BANDS]
        else:
            edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75])).tolist()
            between = [f"{low:g} to under {high:g}" for low, high in pairwise(edges)]
            names = [f"under {edges[0]:g}", *between, f"{edges[-1]:g} and over"]
        groups = [
            _UNKNOWN if number is None else names[np.searchsorted(edges, number, side="right")] for number in numbers
        ]
        order = [name for name in names if name in groups]
    else:
        groups = [value or _UNKNOWN for value in values]
        order = sorted({*groups} - {_UNKNOWN}, key=lambda group: (_number(group) or 0.0, group))
    return groups, order + [_UNKNOWN] * (_UNKNOWN in groups)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
