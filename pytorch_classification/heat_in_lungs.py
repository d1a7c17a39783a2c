"""How much of Grad-CAM lies where the lungs are: a classifier that takes a shortcut also looks elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from cxr import metrics, runtime
from pytorch_classification.classifier import Classifier
from pytorch_classification.image_metrics import aligned
from pytorch_classification.lung_finder import find_lungs

_BATCH = 32


def shares(
    classifier: Classifier, images: NDArray[np.uint8], run: runtime.Runtime
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``inside_field`` of squares uint8 [N, store_size, store_size], by Grad-CAM and the lung finder."""
    inside, even = np.full((2, len(images)), np.nan)
    for first in tqdm(range(0, len(images), _BATCH), "Grad-CAM", leave=False):
        part = slice(first, first + _BATCH)
        inside[part], even[part] = inside_field(classifier.explain(images[part], run), find_lungs(images[part]).fields)
    return inside, even


def inside_field(
    heat: NDArray[np.float32], fields: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of ``heat`` [N, S, S], from 0 up, that lies in ``fields`` [N, F, F], and of an even map; both [N].

    Both are NaN without a field, and the first also without heat.
    """
    coarse = torch.from_numpy(fields)[:, None].double()
    field = functional.interpolate(coarse, size=heat.shape[1:], mode="bilinear", align_corners=False)[:, 0].numpy()
    even = field.mean(axis=(1, 2))
    even[even == 0] = np.nan
    inside = metrics.ratio((heat * field).sum(axis=(1, 2)), heat.sum(axis=(1, 2), dtype=np.float64))
    return np.where(np.isnan(even), np.nan, inside), even


def by_group(
    inside: NDArray[np.float64],
    even: NDArray[np.float64],
    groups: Mapping[str, NDArray[np.bool_]],
    patients: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Means of ``inside_field`` over the images of each of ``groups``, name -> bool [N].

    Returns:
        ``images``; ``no_lungs``, ``no_heat``: how many of them are left out because no lungs were found, or because
        nothing speaks for PNEUMONIA; ``groups``: for each name ``inside``, a score as in ``metrics.bootstrap`` with its
        interval by patient, ``even`` (None without an image) and ``images``.
    """
    told = np.isfinite(inside)
    among = {name: told & group for name, group in groups.items()}
    known = np.where(told, inside, 0)
    scores = metrics.bootstrap(
        lambda weights: {name: metrics.ratio(weights @ (known * of), weights @ of) for name, of in among.items()},
        patients,
        seed=seed,
    )
    return {
        "images": len(told),
        "no_lungs": int(np.isnan(even).sum()),
        "no_heat": int((~np.isnan(even) & ~told).sum()),
        "groups": {
            name: {
                "inside": scores[name],
                "even": float(even[of].mean()) if of.any() else None,
                "images": int(of.sum()),
            }
            for name, of in among.items()
        },
    }


def formatted(report: Mapping[str, Any]) -> str:
    """What ``by_group`` returned, for the terminal."""
    left_out = f"left out: {report['no_lungs']} of {report['images']} images in which no lungs were found"
    if report["no_heat"]:
        left_out += f", {report['no_heat']} in which nothing speaks for PNEUMONIA"
    return f"{aligned(rows(report))}\n{left_out}"


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The groups of ``by_group`` as a table; the first row is the header."""
    found = [["Grad-CAM in the lung field", "share", "an even map", "images"]]
    for name, of in report["groups"].items():
        even = metrics.interval_text({"value": of["even"], "low": None})
        found.append([name, metrics.interval_text(of["inside"]), even, str(of["images"])])
    return found
