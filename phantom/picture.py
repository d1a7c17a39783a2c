"""One radiograph: the parts of a chest put together, X-rayed and shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phantom import devices, disease
from phantom.anatomy import Anatomy, airways, arms, girdle, ribs, smooth
from phantom.disease import FILLED_DENSITY, LUNG_DENSITY, Opacity
from phantom.exposure import BLOCK, Exposure, expose
from phantom.grid import enlarge, texture
from phantom.organs import organs
from phantom.tubes import Cloud, Tubes, along, cloud, splat
from phantom.view import View

# Per adult mm of soft tissue after the beam has hardened in the body; children are taken at a lower tube voltage.
ADULT_ABSORPTION, CHILD_ABSORPTION = 0.0185, 0.0215
BONE = 2.25  # what a millimetre of cortex absorbs more than the soft tissue it displaces, in the same measure
FINE_GRID = 352  # pictures up to this many pixels are worked out at full resolution throughout


@dataclass(frozen=True)
class Findings:
    """What one picture shows beside a healthy chest.

    opacities: pneumonia, at most one a side.
    effusion: height of fluid in the right and the left costophrenic angle, mm.
    heart: enlargement, 1 is none. crowding: of the vessels, 1 is none.
    nodules: x, y, radius of each. scars: from x, y to x, y. All in adult mm.
    leads: ECG electrodes and wires. tubes: breathing tube, feeding tube, central line, each by chance.
    marker: letter, place of its corner as a fraction of width and height, height in adult mm.
    """

    opacities: tuple[Opacity, ...] = ()
    effusion: tuple[float, float] = (0.0, 0.0)
    heart: float = 1.0
    crowding: float = 1.0
    nodules: tuple[tuple[float, float, float], ...] = ()
    scars: tuple[tuple[float, float, float, float], ...] = ()
    leads: bool = False
    tubes: bool = False
    marker: tuple[str, float, float, float] | None = None


@dataclass(frozen=True)
class Radiograph:
    """pixels: uint8 [H, W], bone white. boxes: x, y, width, height in pixels, one per opacity."""

    pixels: NDArray[np.uint8]
    boxes: tuple[tuple[int, int, int, int], ...]


def render(body: Anatomy, view: View, shot: Exposure, findings: Findings, seed: Sequence[int]) -> Radiograph:
    """Take one radiograph.

    Args:
        seed: words for ``numpy.random.SeedSequence``. Tissue, disease, devices and noise are drawn apart, so that two
            pictures of one seed that differ in their findings differ in nothing else that is drawn by chance.
    """
    tissue, illness, hardware, noise = (np.random.default_rng([*seed, stream]) for stream in range(1, 5))
    height, width = view.shape
    body = replace(body, heart=body.heart * findings.heart)
    view = replace(view, shape=(-(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK))
    step = 2 if max(view.shape) > FINE_GRID else 1
    coarse = view.coarser(step)
    parts = organs(body, coarse, findings.effusion)
    shares = [disease.involvement(opacity, parts, illness) for opacity in findings.opacities]
    density = LUNG_DENSITY + (FILLED_DENSITY - LUNG_DENSITY) * np.clip(sum(shares, np.zeros(coarse.shape)), 0, 1)
    soft = parts.body * (1 + 0.015 * texture(tissue, coarse.shape, 16)) - parts.lung * (1 - density) - parts.gas
    for x, y, radius in findings.nodules:
        ball = np.maximum(radius**2 - (parts.x - x) ** 2 - (parts.y - y) ** 2, 0)
        soft += (parts.lung > 0) * (1 - density) * 2 * np.sqrt(ball)
    presence = smooth((parts.lung - 12) / 70)  # no vessel shows where next to no lung is
    wide, thin = _vessels(body, view, findings)
    beside_filled = presence * np.maximum(density - 0.45, 0)
    filled = [cloud(airway, coarse, beside_filled) for airway in _aired(wide, findings)]
    wide_clouds = [cloud(part, coarse, presence * (1 - density)) for part in wide]
    wide_clouds += [*filled, cloud(airways(body), coarse), *_bones([arms(body)], coarse)]
    soft += splat(wide_clouds, coarse.shape) + BONE * parts.spine
    thin_clouds = [cloud(part, view, presence * (1 - density)) for part in thin + _scars(findings)]
    thin_clouds += [cloud(part, view) for part in _devices(body, view, findings, hardware)]
    thin_clouds += _bones([*girdle(body), ribs(body)], view)
    attenuation = enlarge(soft, step) + splat(thin_clouds, view.shape)
    attenuation *= body.scale * (CHILD_ABSORPTION if body.child else ADULT_ABSORPTION)
    boxes = tuple(disease.box(one, parts, step, (height, width)) for one in shares)
    return Radiograph(expose(attenuation, view, shot, noise)[:height, :width], boxes)


def _bones(parts: Sequence[Tubes], view: View) -> list[Cloud]:
    clouds = [cloud(bone, view) for bone in parts]
    return [part._replace(length=BONE * part.length) for part in clouds]


def _devices(body: Anatomy, view: View, findings: Findings, rng: np.random.Generator) -> list[Tubes]:
    leads = devices.ecg_leads(body, rng) if findings.leads else []
    tubes = devices.lines_and_tubes(body, rng) if findings.tubes else []
    mark = findings.marker
    return leads + tubes + (devices.marker(view, mark[0], mark[1:3], mark[3]) if mark else [])


def _vessels(body: Anatomy, view: View, findings: Findings) -> tuple[list[Tubes], list[Tubes]]:
    """The thick orders of the pulmonary tree and the thin ones; a high diaphragm crowds those below the hila."""
    tree: list[Tubes] = []
    for branches in body.vessels:
        path = branches.path.copy()
        path[..., 1] -= np.maximum(path[..., 1] - 118, 0) * (view.lift / 110)
        tree.append(branches._replace(path=path, radius=branches.radius * findings.crowding))
    return tree[:4], tree[4:]


def _aired(thick: list[Tubes], findings: Findings) -> list[Tubes]:
    """Bronchi beside their arteries; they show where the lung around them is filled (air bronchogram)."""
    if not findings.opacities:
        return []
    beside = np.array([0, 3.5, 0])
    return [Tubes(part.path + beside, 0.55 * part.radius, -part.strength) for part in thick[1:3]]


def _scars(findings: Findings) -> list[Tubes]:
    return [
        along([[x0, y0, 0.0], [(x0 + x1) / 2 + 4, (y0 + y1) / 2, 0.0], [x1, y1, 0.0]], [1.0, 2.0, 0.9], 2.5)
        for x0, y0, x1, y1 in findings.scars
    ]
