"""Stored DICOM pixel values -> grey levels: modality LUT, VOI, polarity and padding folded into one table.

Pixels hold at most 16 bits, so the whole pipeline (DICOM PS3.3 C.11.1 and C.11.2) runs on the values that a pixel can
have. ``pydicom.pixels.apply_voi_lut`` 3.0 wraps the index of an 8-bit LUT with more than 256 entries, cannot index by
rescaled values below 0, and warns about rescaled input.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

_ROWS_AT_ONCE = 256


def look_up(table: NDArray[np.uint8], values: NDArray[Any]) -> NDArray[np.uint8]:
    """``table[values]`` for values [H, W] in its range, in strips: numpy turns indices into 8 bytes each."""
    grey = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS_AT_ONCE):
        strip = slice(row, row + _ROWS_AT_ONCE)
        np.take(table, values[strip], out=grey[strip], mode="clip")  # "raise" would make a second copy
    return grey


def note_on_bits(used: int, declared: int) -> str:
    """A note where fewer bits are ``used`` than ``declared``; empty otherwise."""
    return f"{used} of {declared} bits used; taken as the full range" if used < declared else ""


class Lut(NamedTuple):
    """A lookup table of either kind (DICOM PS3.3 C.11.1.1.1, C.11.2.1.1).

    Fields:
        first: the input that maps to the first entry; what lies below maps there too, what lies above to the last.
        entries: uint16 [N].
    """

    first: int
    entries: NDArray[np.uint16]

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        index = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)].astype(np.float64)

    @property
    def top(self) -> int:
        """White: the largest number of as many bits as the entries need; the bits stated are often wrong."""
        return 2 ** int(self.entries.max()).bit_length() - 1


class Window(NamedTuple):
    """A VOI window in units of the modality LUT's output (DICOM PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    function: VoiFunction = "LINEAR"

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Brightness 0..1 of ``values``."""
        if self.function == "SIGMOID":  # 1 / (1 + exp(-4 z)), written so that nothing overflows
            return 0.5 + 0.5 * np.tanh(2 * (values - self.center) / self.width)
        center, width = self.center, self.width
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width == 0:
            return (values > center).astype(np.float64)
        return np.clip((values - center) / width + 0.5, 0, 1)


@dataclass(frozen=True)
class GreyScale:
    """How an image's stored values become brightness, in the terms of its DICOM header.

    Attributes:
        bits_stored: 1..16 bits of a pixel that count.
        signed: whether they are two's complement.
        modality: a table, or (slope, intercept).
        voi: None spreads the whole range that the bits can hold, as dcmtk's dcm2pnm does by default.
        inverted: MONOCHROME1, or a Presentation LUT Shape of INVERSE: the lowest value is white.
        padding: stored values from..to, both included, that fill the frame around the picture; they come out black.
        used: the lowest and highest value that the bits in use can hold, black and white without ``voi``; None for all.
    """

    bits_stored: int
    signed: bool = False
    modality: Lut | tuple[float, float] = (1.0, 0.0)
    voi: Lut | Window | None = None
    inverted: bool = False
    padding: tuple[int, int] | None = None
    used: tuple[int, int] | None = None

    def fitted(self, values: NDArray[Any]) -> "GreyScale":
        """With the bits that ``values`` [H, W] use, at least 8, where no table or window states what is white.

        Many writers declare 16 bits for 12. ``values`` are stored bits read as unsigned numbers.
        """
        if self.voi is not None or isinstance(self.modality, Lut):
            return self
        lowest, highest = int(values.min()), int(values.max())
        if self.padding is not None or self.signed:
            found = self._stored()[np.unique(values)]
            if self.padding is not None:
                found = found[(found < self.padding[0]) | (found > self.padding[1])]
            lowest, highest = (int(found.min()), int(found.max())) if found.size else (0, 0)
        bits = max(8, highest.bit_length(), (-lowest - 1).bit_length() if lowest < 0 else 0)
        return replace(self, used=(-(2**bits) if lowest < 0 else 0, 2**bits - 1))

    def note(self) -> str:
        """That fewer bits are used than declared; empty otherwise."""
        if self.used is None:
            return ""
        return note_on_bits((self.used[1] - self.used[0]).bit_length(), self.bits_stored)

    def _stored(self) -> NDArray[np.int64]:
        """The value of each combination of the stored bits."""
        stored = np.arange(2**self.bits_stored, dtype=np.int64)
        if self.signed:
            stored[stored.size // 2 :] -= stored.size
        return stored

    def table(self) -> NDArray[np.uint8]:
        """uint8 [2 ** bits_stored] grey levels, indexed by the stored bits read as an unsigned number.

        Raises:
            ValueError: a rescale that leaves no range.
        """
        stored = self._stored()
        with np.errstate(over="ignore"):  # of a window too narrow for float64, where infinity is the right answer
            brightness = self._brightness(stored.astype(np.float64))
        grey = np.rint(np.clip(brightness, 0, 1) * 255).astype(np.uint8)
        if self.inverted:
            grey = 255 - grey  # after rounding, so that MONOCHROME1 is the exact inverse of MONOCHROME2
        if self.padding is not None:
            grey[(stored >= self.padding[0]) & (stored <= self.padding[1])] = 0
        return grey

    def _brightness(self, stored: NDArray[np.float64]) -> NDArray[np.float64]:
        """0..1 (before clipping) for every stored value."""
        if isinstance(self.modality, Lut):
            values = self.modality(stored)
            low, high = 0.0, float(self.modality.top)
        else:
            slope, intercept = self.modality
            values = stored * slope + intercept
            ends = np.array(self.used or (stored.min(), stored.max())) * slope + intercept
            low, high = float(ends.min()), float(ends.max())
        if not np.isfinite(high - low) or low == high:
            raise ValueError(f"rescaling by {self.modality} leaves no range of values")
        if isinstance(self.voi, Lut):
            return self.voi(values) / self.voi.top
        if self.voi is not None:
            return self.voi(values)
        return (values - low) / (high - low)
