"""One radiograph: the parts of a chest put together with devices and marker, X-rayed and displayed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phantom import disease
from phantom.anatomy import Anatomy, airways, arms, girdle, ribs, smooth
from phantom.disease import FILLED_DENSITY, LUNG_DENSITY, Opacity
from phantom.organs import organs
from phantom.tubes import Cloud, Tubes, along, cloud, splat
from phantom.view_exposure import BLOCK, Exposure, View, enlarge, expose, texture

METAL = 14.0  # one millimetre of wire or lead against one of soft tissue, at chest energies about this or more
PLASTIC = 2.2

# Strokes in a box one wide (x) and 1.4 high (y, down).
_LETTERS = {
    "R": (
        [[0, 1.4], [0, 0.7], [0, 0]],
        [[0, 0], [0.65, 0.02], [0.85, 0.35], [0.65, 0.68], [0, 0.7]],
        [[0.4, 0.7], [0.65, 1.05], [0.9, 1.4]],
    ),
    "L": ([[0, 0], [0, 0.7], [0, 1.4]], [[0, 1.4], [0.4, 1.4], [0.85, 1.4]]),
}


def marker(view: View, letter: str, place: tuple[float, float], height: float) -> list[Tubes]:
    """A lead letter lying flat on the detector.

    Args:
        letter: R or L. place: fraction of the picture's width and height where its corner lies. height: adult mm.
    """
    x0 = (place[0] * view.shape[1] - view.origin[0]) * view.pitch
    y0 = (place[1] * view.shape[0] - view.origin[1]) * view.pitch
    x0 -= float(view.midline(np.array(y0)))
    size = height / 1.4
    thick = max(0.085 * height, 0.8 * view.pitch)
    return [
        along([[x0 + size * x, y0 + size * y, 0.0] for x, y in stroke], thick, METAL * 8, 24)
        for stroke in _LETTERS[letter]
    ]


def ecg_leads(body: Anatomy, rng: np.random.Generator) -> list[Tubes]:
    """Electrodes on the skin and the wires that leave the picture from them."""
    front = body.half_depth + body.wall
    parts: list[Tubes] = []
    for x, y in ((-90, 45), (88, 48), (-98, 190), (105, 185))[: int(rng.integers(2, 5))]:
        x, y = x + rng.normal(0, 14), y + rng.normal(0, 14)
        turn = np.linspace(0, 2 * np.pi, 13)
        ring = np.stack([x + 4.2 * np.cos(turn), y + 4.2 * np.sin(turn), np.full(13, front)], -1)
        snap = [[x - 1.6, y, front], [x, y, front], [x + 1.6, y, front]]
        parts += [along(ring, 1.0, 1.0 * METAL, 32), along(snap, 2.2, 1.2 * METAL, 8)]
        out = np.sign(x) * rng.uniform(150, 260)
        wire = [
            [x, y, front],
            [0.7 * x + 0.3 * out + rng.normal(0, 12), y + rng.uniform(10, 50), front],
            [0.35 * x + 0.65 * out, y + rng.uniform(40, 120), front],
            [out, y + rng.uniform(90, 240), front],
        ]
        parts.append(along(wire, 0.75, 1.1 * METAL, 48))
    return parts


def lines_and_tubes(body: Anatomy, rng: np.random.Generator) -> list[Tubes]:
    """A breathing tube, a feeding tube or a central line, each with its own chance."""
    parts: list[Tubes] = []
    if rng.random() < 0.5:
        depth = rng.uniform(45, 75)
        parts += [
            along([[side, -80, 2], [side, -20, 0], [side - 2, 20, -6], [side - 4, depth, -14]], 0.7, 2 * PLASTIC, 32)
            for side in (-4.5, 4.5)
        ]
    if rng.random() < 0.5:
        end = body.dome + rng.uniform(25, 60)
        feeding = [[3, -80, -20], [4, 20, -25], [6, 120, -25], [12, 190, -10], [40, end, 10], [70, end + 12, 15]]
        parts.append(along(feeding, 1.7, PLASTIC, 48))
    if rng.random() < 0.5:
        line = [
            [-120, 60, 60],
            [-95, 10, 45],
            [-60, 2, 35],
            [-28, 22, 15],
            [-21, 60, 8],
            [-20, rng.uniform(95, 130), 5],
        ]
        parts.append(along(line, 1.0, 1.6 * PLASTIC, 48))
    return parts


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
    leads = ecg_leads(body, rng) if findings.leads else []
    tubes = lines_and_tubes(body, rng) if findings.tubes else []
    mark = findings.marker
    return leads + tubes + (marker(view, mark[0], mark[1:3], mark[3]) if mark else [])


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
