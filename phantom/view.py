"""How the patient stands before the detector: from millimetres in the chest to pixels of the picture."""

from dataclasses import dataclass, replace

import numpy as np

from phantom.grid import Array

LEVEL_OF_BEAM = 120.0  # adult mm below the apices, about the seventh thoracic vertebra


@dataclass(frozen=True)
class View:
    """One positioning. Lengths in adult millimetres, angles in radians.

    shape: (height, width) in pixels.
    pitch: adult millimetres per pixel.
    origin: (column, row) in pixels where the midline meets the level of the lung apices.
    from_front: AP: what lies in front is further from the detector, hence larger.
    rotation: about the body's axis; positive brings what lies in front to the patient's left.
    tilt: leaning back (lordotic); what lies in front moves up.
    lean: sideways, millimetres per millimetre.
    lift: how much higher the diaphragm stands than at full inspiration.
    """

    shape: tuple[int, int]
    pitch: float
    origin: tuple[float, float]
    from_front: bool = False
    rotation: float = 0.0
    tilt: float = 0.0
    lean: float = 0.0
    lift: float = 0.0

    def enlargement(self, depth: Array | float) -> Array | float:
        """Of what lies ``depth`` mm before the middle: tube to detector 1.1 m from the front, 1.8 m from the back."""
        return 1 + depth * (1 / 1100 if self.from_front else -1 / 1800)

    def sideways(self, depth: float) -> float:
        """How far rotation moves what lies ``depth`` mm in front of the body's axis."""
        return depth * float(np.sin(self.rotation))

    def midline(self, y: Array) -> Array:
        """Where the body's axis lies at height ``y``."""
        return self.lean * (y - LEVEL_OF_BEAM)

    def pose(self, points: Array) -> Array:
        """Points [..., 3] of the chest, turned, tilted and enlarged; the last coordinate is left as it was."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        large = self.enlargement(z)
        down = LEVEL_OF_BEAM + (y - LEVEL_OF_BEAM) * large - z * np.tan(self.tilt)
        across = (x * np.cos(self.rotation) + z * np.sin(self.rotation)) * large + self.midline(down)
        return np.stack([across, down, z], -1)

    def pixel(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Columns and rows of posed places; whole numbers are pixel centres."""
        return x / self.pitch + self.origin[0], y / self.pitch + self.origin[1]

    def coarser(self, step: int) -> "View":
        """The same picture in blocks of ``step`` x ``step`` pixels."""
        column, row = ((place + 0.5) / step - 0.5 for place in self.origin)
        height, width = self.shape
        return replace(self, shape=(height // step, width // step), pitch=self.pitch * step, origin=(column, row))

    def grid(self) -> tuple[Array, Array]:
        """Centres of the pixels: x [H, W] from the body's axis, y [H, 1]."""
        y = ((np.arange(self.shape[0]) - self.origin[1]) * self.pitch)[:, None]
        x = ((np.arange(self.shape[1]) - self.origin[0]) * self.pitch)[None]
        return x - self.midline(y), y
