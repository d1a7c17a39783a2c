"""Out-of-domain validation images, for model selection only: of another source, or style-transferred validation.

Validation images of the training source do not predict the performance elsewhere: in Kaggle's set tone, sharpness and
borders alone give the label away, and a network that relies on them is right there and wrong elsewhere.
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

# The layout of the RSNA Pneumonia Detection Challenge 2018, and the labels of its findings.
_RSNA_IMAGES, _RSNA_FINDINGS = "stage_2_train_images", "stage_2_detailed_class_info.csv"
_RSNA_LABELS = {"Normal": CLASSES.index("NORMAL"), "Lung Opacity": PNEUMONIA}
_BATCH = 64
_INNER, _EDGE = 0.8, 8.0  # of the border that is swapped: half width of the part kept, hardness of its edge
_BANDS, _LARGEST_GAIN = 24, 2.5  # of the spectrum that is swapped: frequency bands, natural logarithm of a gain


@dataclass(frozen=True)
class ShiftedSet:
    """Squares ``images`` uint8 [N, S, S] with ``labels`` int64 [N].

    Attributes:
        name: in a few words, or the folder.
        external: of another source than the training images.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    external: bool = False

    def digest(self) -> str:
        """A hash of all pixels and labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


def list_ood_images(folder: Path) -> Listing:
    """The images of ``folder/{NORMAL,PNEUMONIA}``, or of a folder as the RSNA challenge's zip unpacks.

    Of RSNA's three findings ``Normal`` and ``Lung Opacity`` are taken; each exam counts as a patient.

    Raises:
        FileNotFoundError: no folder, or not both classes in it.
        ValueError: other class folders, or a finding table that does not fit.
    """
    table = folder / _RSNA_FINDINGS
    if not table.is_file():
        return data_load.list_folders(folder.parent, folder.name)
    rows = read_table(table, ("patientId",), ("class",)).drop_duplicates()
    rows = rows[rows["class"].isin(list(_RSNA_LABELS))]
    labels = {exam: _RSNA_LABELS[finding] for exam, finding in zip(rows["patientId"], rows["class"], strict=True)}
    paths = [path for path in sorted((folder / _RSNA_IMAGES).glob("*.dcm")) if path.stem in labels]
    numbers = np.array([labels[path.stem] for path in paths], dtype=np.int64)
    for finding, label in _RSNA_LABELS.items():
        if label not in numbers:
            raise FileNotFoundError(
                f"{(folder / _RSNA_IMAGES).resolve()}: no DICOM file of an exam with {finding} in {_RSNA_FINDINGS}"
            )
    return Listing(paths, numbers, [path.stem for path in paths])


def style_transferred(images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int) -> ShiftedSet:
    """The validation set with each NORMAL in the tone, sharpness and border of a randomly drawn PNEUMONIA.

    PNEUMONIA is unchanged. Images of healthy patients from another source are a style that the network has not met on
    NORMAL; predictions of PNEUMONIA on these images follow the style.
    """
    normal, pneumonia = (np.flatnonzero(labels == label) for label in range(len(CLASSES)))
    partners = np.random.default_rng(seed).choice(pneumonia, len(normal))
    images = np.array(images)
    for first in range(0, len(normal), _BATCH):
        batch = slice(first, first + _BATCH)
        stored, others = (torch.from_numpy(images[rows[batch]]) for rows in (normal, partners))
        levels = augment.matching_levels(augment.cumulative_histograms(stored), augment.cumulative_histograms(others))
        toned, other = augment.apply_curves(stored, levels / 255), others[:, None] / 255
        middle, half = torch.zeros(len(stored)), torch.full((len(stored),), _INNER)
        blended = augment.blend_borders(
            _with_spectrum(toned, other), other, (middle, middle), (half, half), middle + _EDGE
        )
        images[normal[batch]] = (blended[:, 0].clamp(0, 1) * 255).round().byte().numpy()
    return ShiftedSet("validation, NORMAL in the style of PNEUMONIA", images, labels)


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
    gain[:, 0] = 0  # the lowest band is the chest itself
    return torch.fft.irfft2(here * gain.exp()[:, band].view_as(here), s=(size, size))[:, None]


def balanced_threshold(sets: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> float:
    """The log-odds at which both classes are equally likely, over several sets of (log-odds, labels).

    A logistic curve is fitted through all sets, with equal weight for each set and each class in it, and this is where
    it crosses one half (Platt 1999). The threshold with the best score on so few images would vary more from one
    training to the next. 0 where the log-odds do not rise with the label.
    """
    from sklearn.linear_model import LogisticRegression

    weights = [1 / np.bincount(labels, minlength=len(CLASSES))[labels] for _, labels in sets]
    scores, labels = (np.concatenate(column) for column in zip(*sets, strict=True))
    weight = np.concatenate(weights)
    curve = LogisticRegression(C=1e4).fit(scores[:, None], labels, sample_weight=weight * len(weight) / weight.sum())
    slope, offset = float(curve.coef_[0, 0]), float(curve.intercept_[0])
    return float(np.clip(-offset / slope, scores.min(), scores.max())) if slope > 0 else 0.0
