"""Groups of images that may do better or worse than the rest: by the columns of a table, and by what headers say."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cxr.reading.header import Header
from cxr.text import first_of, one_line, shortened

AGE_BANDS = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (1000, "65 and over"))
_AGES = ("age", "age_years", "patientage", "patient_age")  # columns of completed years
_MOST_GROUPS = 12  # of one column; what has more is a name, a date or a text
_MOST_NUMBERS = 8  # so many different ones are groups of their own, more are divided into quarters
_UNKNOWN = "unknown"
_LONGEST = 40  # characters of a value in a name


def of_headers(headers: Sequence[Header]) -> dict[str, list[str]]:
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
