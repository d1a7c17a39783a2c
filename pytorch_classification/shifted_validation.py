"""Radiographs unlike training's, to choose by and never to learn from: another source's, or validation's style_transferred.

A validation set of the same source as training says nothing about films of another: in Kaggle's set the label can be
told from tone, sharpness and borders alone, and a network that does so is right there and wrong elsewhere.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr import augment
from cxr.tables import read_table
from pytorch_classification import data_load
from pytorch_classification.data_load import CLASSES, PNEUMONIA, Listing

# The layout of the RSNA Pneumonia Detection Challenge 2018, and the class that its findings stand for here.
_RSNA_IMAGES, _RSNA_FINDINGS = "stage_2_train_images", "stage_2_detailed_class_info.csv"
_RSNA_CLASSES = {"Normal": CLASSES.index("NORMAL"), "Lung Opacity": PNEUMONIA}
_BATCH = 64
_INNER, _EDGE = 0.8, 8.0  # of the frame that is exchanged: half of the part kept, hardness of its border
_BANDS, _LARGEST_GAIN = 24, 2.5  # of the spectrum that is exchanged: frequency bands, natural logarithm of a gain


@dataclass(frozen=True)
class Labelled:
    """Squares uint8 [N, S, S] with labels int64 [N].

    Attributes:
        name: what they are, in a few words or as a folder.
        external: they come from another source than training's images.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    external: bool = False

    def digest(self) -> str:
        """Changes with any pixel or label."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


def list_external(folder: Path) -> Listing:
    """The images of ``folder/{NORMAL,PNEUMONIA}``, or of a folder as the RSNA challenge's zip unpacks.

    Of RSNA's three findings ``Normal`` and ``Lung Opacity`` are taken; each exam counts as a patient.

    Raises:
        FileNotFoundError: no folder, or not both classes in it.
        ValueError: other class folders, or a finding table that does not fit.
    """
    table = folder / _RSNA_FINDINGS
    if not table.is_file():
        return data_load.list_images(folder.parent, folder.name)
    rows = read_table(table, ("patientId",), ("class",)).drop_duplicates()
    known = rows[rows["class"].isin(list(_RSNA_CLASSES))]
    labels = {exam: _RSNA_CLASSES[finding] for exam, finding in zip(known["patientId"], known["class"], strict=True)}
    there = [path for path in sorted((folder / _RSNA_IMAGES).glob("*.dcm")) if path.stem in labels]
    numbers = np.array([labels[path.stem] for path in there], dtype=np.int64)
    for finding, number in _RSNA_CLASSES.items():
        if number not in numbers:
            raise FileNotFoundError(
                f"{(folder / _RSNA_IMAGES).resolve()}: no DICOM file of an exam that {_RSNA_FINDINGS} calls {finding}"
            )
    return Listing(there, numbers, [path.stem for path in there])


def style_transferred(validation: Labelled, seed: int) -> Labelled:
    """``validation`` with each NORMAL in the tone, sharpness and frame of a PNEUMONIA drawn for it.

    PNEUMONIA stays as it is. To a network that has met healthy children of one source alone, those of another look like
    this: what it predicts as PNEUMONIA here, it predicts for the style.
    """
    normal, ill = (np.flatnonzero(validation.labels == label) for label in range(len(CLASSES)))
    partners = np.random.default_rng(seed).choice(ill, len(normal))
    images = np.array(validation.images)
    for first in range(0, len(normal), _BATCH):
        part = slice(first, first + _BATCH)
        stored, others = (torch.from_numpy(images[rows[part]]) for rows in (normal, partners))
        levels = augment.matching_levels(augment.cumulative_histograms(stored), augment.cumulative_histograms(others))
        toned, other = augment.apply_curves(stored, levels / 255), others[:, None] / 255
        middle, half = torch.zeros(len(stored)), torch.full((len(stored),), _INNER)
        seen = augment.blend_borders(
            _with_spectrum(toned, other), other, (middle, middle), (half, half), middle + _EDGE
        )
        images[normal[part]] = (seen[:, 0].clamp(0, 1) * 255).round().byte().numpy()
    return Labelled(f"{validation.name}, NORMAL in the style of PNEUMONIA", images, validation.labels)


def _with_spectrum(images: Tensor, others: Tensor) -> Tensor:
    """``images`` [B, 1, S, S] with the radial amplitude spectrum of ``others``: their blur, noise and sharpening."""
    size = images.shape[-1]
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    band = (frequency * 2 * _BANDS).long().clamp(max=_BANDS).flatten()
    here, there = torch.fft.rfft2(images[:, 0]), torch.fft.rfft2(others[:, 0])
    count = torch.bincount(band)

    def profile(spectrum: Tensor) -> Tensor:
        amplitude = spectrum.abs().log1p().flatten(1)
        return torch.zeros(len(amplitude), len(count)).index_add_(1, band, amplitude) / count

    gain = (profile(there) - profile(here)).clamp(-_LARGEST_GAIN, _LARGEST_GAIN)
    gain[:, 0] = 0  # the coarsest band is the chest itself
    return torch.fft.irfft2(here * gain.exp()[:, band].view_as(here), s=(size, size))[:, None]


def balanced_threshold(sets: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> float:
    """The log-odds at which a chest is as likely to be of either class, over several sets of (log-odds, labels).

    Both classes of each set have the same say, and so have the sets: a logistic curve is fitted through all of them,
    and this is where it crosses one half (Platt 1999). Unlike the threshold with the best score on so few images it
    moves little from one training to the next. 0 where the log-odds do not rise with the label.
    """
    from sklearn.linear_model import LogisticRegression

    weights = [1 / np.bincount(labels, minlength=len(CLASSES))[labels] for _, labels in sets]
    scores, labels = (np.concatenate(column) for column in zip(*sets, strict=True))
    weight = np.concatenate(weights)
    curve = LogisticRegression(C=1e4).fit(scores[:, None], labels, sample_weight=weight * len(weight) / weight.sum())
    slope, offset = float(curve.coef_[0, 0]), float(curve.intercept_[0])
    return float(np.clip(-offset / slope, scores.min(), scores.max())) if slope > 0 else 0.0
