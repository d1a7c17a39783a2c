"""Ribs, vessels, wires: whatever is long and thin is a tube along a curve in space, drawn as a cloud of points.

A point of the cloud carries the length of the ray through the tube there, shared out over the four pixels around it,
so one ``bincount`` draws any number of tubes at subpixel places and overlaps add up as attenuation does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from phantom.view_exposure import Array, View

# A ray that runs along a tube stays in it for long; real ribs curve away from it after about this many widths.
LONGEST_PASSAGE = 2.4


class Tubes(NamedTuple):
    """M curves of N points each; all lengths in adult millimetres.

    path: [M, N, 3] x to the patient's left, y down from the lung apices, z to the front.
    radius: [M, N].
    strength: [M, N], what one millimetre of it counts for (negative takes tissue away: air).
    shell: thickness of the solid rind; infinite for a solid tube.
    core: what the inside counts for, as a fraction of the rind.
    flat: thickness sideways as a fraction of that up and down; a rib is a band that stands on its edge.
    """

    path: Array
    radius: Array
    strength: Array
    shell: float = np.inf
    core: float = 0.3
    flat: float = 1.0


class Cloud(NamedTuple):
    """Points on the detector: [P] columns, rows (pixels) and the path length (adult mm) each adds to a pixel."""

    columns: Array
    rows: Array
    length: Array


def along(controls: ArrayLike, radius: ArrayLike, strength: ArrayLike = 1.0, count: int = 32, **rind: float) -> Tubes:
    """Smooth tubes through control points (Catmull-Rom).

    Args:
        controls: [M, C, 3], or [C, 3] for one tube.
        radius: what broadcasts to [M, C].
        strength: as ``radius``.
        count: points of the curve.
        rind: ``shell``, ``core`` and ``flat`` of ``Tubes``.
    """
    points = np.asarray(controls, np.float64)
    points = points[None] if points.ndim == 2 else points
    last = points.shape[1] - 1
    place = np.linspace(0, last, count)
    index = np.minimum(place.astype(np.int64), last - 1)
    u = (place - index)[:, None]
    # One point more at each end, straight on, so that a straight line is run through at an even pace.
    ends = np.concatenate([2 * points[:, :1] - points[:, 1:2], points, 2 * points[:, -1:] - points[:, -2:-1]], axis=1)
    before, here, after, beyond = (ends[:, index + ahead] for ahead in range(4))
    path = here + 0.5 * u * (
        after - before + u * (2 * before - 5 * here + 4 * after - beyond + u * (3 * (here - after) + beyond - before))
    )

    def between(value: ArrayLike) -> Array:
        knots = np.broadcast_to(np.asarray(value, np.float64), points.shape[:2])
        return knots[:, index] * (1 - u[:, 0]) + knots[:, index + 1] * u[:, 0]

    return Tubes(path, between(radius), between(strength), **rind)


def evenly(tubes: Tubes) -> Tubes:
    """The same curves with their points at even distances in the plane of the picture, as ``cloud`` wants them."""
    steps = np.sqrt((np.diff(tubes.path[..., :2], axis=1) ** 2).sum(-1))
    along_curve = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
    points = tubes.path.shape[1]
    place = np.stack([np.interp(np.linspace(0, one[-1], points), one, np.arange(points)) for one in along_curve])
    index = np.minimum(place.astype(np.int64), points - 2)
    part, row = place - index, np.arange(len(steps))[:, None]

    def between(values: Array) -> Array:
        return values[row, index] * (1 - part) + values[row, index + 1] * part

    path = np.stack([between(tubes.path[..., axis]) for axis in range(3)], -1)
    return tubes._replace(path=path, radius=between(tubes.radius), strength=between(tubes.strength))


def cloud(tubes: Tubes, view: View, field: Array | None = None) -> Cloud:
    """The tubes as the detector sees them, about one point per pixel of length and of width.

    Points of a curve that lie unevenly leave it striped.

    Args:
        field: [h, w] of the same picture, perhaps coarser; the strength is multiplied by what it holds.
    """
    posed = view.pose(tubes.path).astype(np.float32)
    longest = float(np.sqrt((np.diff(posed[..., :2], axis=1) ** 2).sum(-1)).sum(-1).max())
    # At one point per pixel the points do not beat with the pixels; in thin vessels a beat is too weak to see.
    thin = field is not None and float(tubes.radius.max()) < 4 * view.pitch
    dense = 0.75 if thin else 1.0
    place = np.linspace(0, posed.shape[1] - 1, max(2, int(dense * longest / view.pitch)))
    index = np.minimum(place.astype(np.int64), posed.shape[1] - 2)
    part = (place - index).astype(np.float32)

    def resample(values: Array) -> Array:
        weight = part.reshape(-1, *(1,) * (values.ndim - 2))
        return values[:, index] * (1 - weight) + values[:, index + 1] * weight

    path = resample(posed)
    radius, strength = resample(tubes.radius.astype(np.float32)), resample(tubes.strength.astype(np.float32))
    x, y = view.pixel(path[..., 0], path[..., 1])
    if field is not None:
        coarse = view.shape[1] // field.shape[1]
        columns = np.clip(x / coarse, 0, field.shape[1] - 1).astype(np.int32)
        rows = np.clip(y / coarse, 0, field.shape[0] - 1).astype(np.int32)
        strength = strength * field.astype(np.float32)[rows, columns]
    step = np.gradient(path, axis=1)
    seen = np.sqrt(step[..., 0] ** 2 + step[..., 1] ** 2) + 1e-9
    passage = np.minimum(np.sqrt(seen**2 + step[..., 2] ** 2), LONGEST_PASSAGE * seen)
    if tubes.flat != 1:
        radius = radius * np.sqrt((tubes.flat * step[..., 1]) ** 2 + step[..., 0] ** 2) / seen
    widest = float(radius.mean() if thin else radius.max())
    across = max(1, int(np.ceil(2 * widest / view.pitch)))
    offset = ((np.arange(across) + 0.5) / across * 2 - 1).astype(np.float32)
    wide = radius[..., None]
    chord = np.sqrt(1 - offset**2) * wide
    if np.isfinite(tubes.shell):
        inner = np.maximum(wide - tubes.shell, 0)
        chord = chord - (1 - tubes.core) * np.sqrt(np.maximum(inner**2 - (wide * offset) ** 2, 0))
    turning = np.gradient(step, axis=1)
    bend = (step[..., 0] * turning[..., 1] - step[..., 1] * turning[..., 0]) / seen**3
    # A pixel of width covers less ground on the inner side of a bend, none beyond the bend's centre.
    chord *= np.maximum(1 - (bend * radius)[..., None] * offset, 0)
    share = strength * passage * radius * (4 / across / view.pitch**2)
    aside = radius / seen
    columns = x[..., None] - (step[..., 1] * aside / view.pitch)[..., None] * offset
    rows = y[..., None] + (step[..., 0] * aside / view.pitch)[..., None] * offset
    return Cloud(columns.ravel(), rows.ravel(), (chord * share[..., None]).ravel())


def splat(clouds: Sequence[Cloud], shape: tuple[int, int]) -> Array:
    """The sum of the clouds as path length, [H, W] adult mm; what falls outside is lost."""
    height, width = shape
    row = width + 3  # one pixel more on the left and two on the right and below take in what falls outside
    x = np.clip(np.concatenate([part.columns for part in clouds]), -1, width) + 1
    y = np.clip(np.concatenate([part.rows for part in clouds]), -1, height) + 1
    length = np.concatenate([part.length for part in clouds])
    left, top = x.astype(np.int32), y.astype(np.int32)
    corner = (top * row + left).astype(np.intp)
    y -= top
    right = length * (x - left)
    below_right = right * y
    below = length * y - below_right
    right -= below_right
    length = length - right - below - below_right
    total = np.zeros((height + 3) * row)
    for step, part in ((0, length), (1, right), (row, below), (row + 1, below_right)):
        total[step:] += np.bincount(corner, part, len(total))[: len(total) - step]
    return total.reshape(-1, row)[1 : height + 1, 1 : width + 1]
