"""Things on and in the patient that are not anatomy, and the side marker."""

import numpy as np

from phantom.anatomy import Anatomy
from phantom.tubes import Tubes, along
from phantom.view import View

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
