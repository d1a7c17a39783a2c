"""One patient's chest: its measures, drawn by chance, and its bones and vessels as tubes.

Everything is in millimetres of an average adult; ``scale`` makes a child of it. x runs to the patient's left (right in
the picture), y down from the lung apices, z to the front.
"""

from dataclasses import dataclass

import numpy as np

from phantom.tubes import Tubes, along, evenly
from phantom.view_exposure import Array

SIDES = (-1, 1)  # right, left
_MIRROR = np.array([[side, 1.0, 1.0] for side in SIDES])[:, None]


@dataclass(frozen=True)
class Anatomy:
    """The measures that make one patient look unlike another; adult millimetres unless said otherwise.

    scale: own millimetres per adult millimetre.
    half_width, half_depth: of the inside of the rib cage at its widest.
    dome: how far the right diaphragm stands below the apices at full inspiration; the left stands 9 mm lower.
    wall: fat and muscle outside the ribs.
    heart: size, 1 is average. knob: prominence of the aortic arch.
    slope: how steeply ribs fall towards the front, 1 is an adult's.
    pulled: sideways swing of the spine.
    arms: 0 hanging, 1 raised, 2 spread.
    vessels: each branching order of the pulmonary tree, the thickest first.
    gas: (x, depth under the dome, half width, half height) of bubbles in the stomach and the colon, [G, 4].
    """

    child: bool
    female: bool
    scale: float
    half_width: float
    half_depth: float
    dome: float
    wall: float
    heart: float
    knob: float
    slope: float
    spacing: float
    rib_radius: float
    collarbone: float
    pulled: float
    arms: int
    vessels: tuple[Tubes, ...]
    gas: Array

    def width(self, y: Array) -> Array:
        """Half width of the inside of the rib cage at height ``y``."""
        dome = np.sqrt(np.maximum(1 - (1 - np.clip(y / 188, 0, 1)) ** 2.5, 0))
        return np.maximum(self.half_width * dome, 26) * (1 - 0.04 * smooth((y - 210) / 80))

    def depth(self, y: Array) -> Array:
        """Half depth of the inside of the rib cage at height ``y``."""
        return np.maximum(self.half_depth * np.sqrt(1 - (1 - np.clip(y / 230, 0, 1)) ** 2), 22)


def smooth(t: Array | float) -> Array:
    """0 below 0, 1 above 1, and a soft step between."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def draw(rng: np.random.Generator, *, child: bool) -> Anatomy:
    """A patient: a grown-up of either sex, or a child of one to five years."""

    def about(mean: float, spread: float) -> float:
        return mean + spread * float(np.clip(rng.standard_normal(), -2, 2))

    bubbles = [(about(72, 8), about(24, 5), about(24, 5), about(11, 3))] if rng.random() < 0.75 else []
    for _ in range(rng.integers(0, 5)):
        bubbles.append((about(70, 35) * (1 if rng.random() < 0.7 else -1), about(62, 16), about(13, 4), about(9, 2)))
    return Anatomy(
        child=child,
        female=bool(rng.random() < 0.45),
        scale=about(0.54, 0.05) if child else about(1, 0.05),
        half_width=about(144, 6) if child else about(138, 7),
        half_depth=about(90, 5) if child else about(88, 7),
        dome=about(195, 9) if child else about(212, 11),
        wall=about(17, 3) if child else about(29, 8),
        heart=about(1.10, 0.07) if child else about(0.93, 0.08),
        knob=about(0.5, 0.15) if child else about(1, 0.25),
        slope=about(0.66, 0.1) if child else about(1, 0.12),
        spacing=about(23, 0.7),
        rib_radius=about(5.2, 0.4) if child else about(6.2, 0.5),
        collarbone=about(0, 5),
        pulled=about(0, 3.5),
        arms=int(rng.integers(1, 3)) if child else 0,
        vessels=_pulmonary_tree(rng),
        gas=np.array(bubbles).reshape(-1, 4),
    )


def _pulmonary_tree(rng: np.random.Generator, orders: int = 6) -> tuple[Tubes, ...]:
    """Arteries and veins fanning out from both hila; every order splits each branch in two."""
    trunks = 16
    side = np.repeat(SIDES, trunks).astype(np.float64)
    angle = np.tile(np.linspace(-1.3, 1.42, trunks), 2) + rng.normal(0, 0.1, 2 * trunks)
    downward = np.sin(angle)
    forward = rng.normal(0, 0.5, 2 * trunks)
    radius = rng.uniform(3.6, 6.4, 2 * trunks) * np.interp(downward, [-1, 0, 1], [0.72, 0.78, 1.1])
    length = rng.uniform(34, 58, 2 * trunks)
    start = np.stack(
        [
            side * (27 + rng.uniform(0, 12, 2 * trunks)),
            117 - 5 * side + 20 * downward + rng.uniform(-6, 6, 2 * trunks),
            rng.uniform(-14, 14, 2 * trunks),
        ],
        -1,
    )
    u = np.linspace(0, 1, 8)[:, None]
    tree: list[Tubes] = []
    for _ in range(orders):
        flat = np.cos(forward)
        heading = np.stack([side * np.cos(angle) * flat, np.sin(angle) * flat, np.sin(forward)], -1)
        sideways = np.stack([-heading[:, 1], heading[:, 0], 0 * angle], -1) * side[:, None]
        bend = rng.normal(0, 0.15, len(side))
        path = start[:, None] + length[:, None, None] * (
            heading[:, None] * u + (sideways * bend[:, None])[:, None] * u * u
        )
        taper = radius[:, None] * (1 - 0.25 * u[:, 0])
        strength = np.broadcast_to(1.2 if tree else smooth(u[:, 0] / 0.4), taper.shape)
        tree.append(Tubes(path, taper, strength))
        fork, share = rng.uniform(0.2, 0.5, len(side)), rng.uniform(0.6, 0.8, len(side))
        angle = np.concatenate([angle + bend - fork, angle + bend + 0.8 * fork])
        radius = np.concatenate([radius * share, radius * (1.42 - share)])
        start, side = np.tile(path[:, -1], (2, 1)), np.tile(side, 2)
        forward = 0.8 * np.tile(forward, 2) + rng.normal(0, 0.25, len(side))
        length = np.tile(length, 2) * rng.uniform(0.6, 0.82, len(side))
        thick = radius > 0.48
        angle, radius, start = angle[thick], radius[thick], start[thick]
        side, forward, length = side[thick], forward[thick], length[thick]
    return tuple(tree)


def ribs(body: Anatomy) -> Tubes:
    """Twelve pairs, each an arc round the chest wall from its vertebra back, down and forward to its cartilage."""
    number = np.arange(12.0)
    end = np.interp(number, [0, 1, 2, 6, 9, 10, 11], [2.5, 2.6, 2.62, 2.55, 2.1, 1.55, 1.0])[:, None]
    fall = np.interp(number, [0, 1, 2, 4, 7, 11], [42, 66, 88, 104, 118, 100])[:, None] * body.slope
    u = np.linspace(0, 1, 64)
    turn = 0.13 + u * (end - 0.13)  # 0 is the middle of the back, pi / 2 the side
    y = -4 + body.spacing * number[:, None] + fall * ((turn - 0.13) / 2.45) ** 1.55
    y = y - 3 * np.sin(np.minimum(2.2 * turn, np.pi))
    x = (body.width(y + 6) + 3) * np.sin(turn)
    z = -body.depth(y) * np.cos(turn)
    size = np.interp(number, [0, 2, 9, 11], [1.0, 1, 0.95, 0.7])[:, None]
    radius = body.rib_radius * size * (1 + 0.12 * smooth((turn - 1.7) / 0.8))
    strength = (
        (1.15 if body.child else 0.95)
        * (1 - 0.92 * smooth((u - 0.84) / 0.16))
        * smooth((u + 0.02) / 0.07)
        * np.interp(number, [0, 9, 11], [1, 1, 0.7])[:, None]
    )
    path = np.concatenate([np.stack([side * x, y, z], -1) for side in SIDES])
    return evenly(Tubes(path, np.tile(radius, (2, 1)), np.tile(strength, (2, 1)), shell=1.0, core=0.12, flat=0.5))


# x, y, z of the right half; the left is its mirror image. Five points each, so that a set is one array.
_COLLAR = [[10, 30, 62], [28, 25, 66], [62, 10, 58], [100, -5, 26], [135, -8, -6], [158, -6, -14]]
_BLADE = [
    [[120, 8, -60], [114, 50, -82], [110, 100, -88], [118, 142, -84], [126, 158, -80]],  # inner border
    [[126, 158, -80], [138, 120, -74], [150, 75, -62], [160, 38, -46], [162, 20, -40]],  # outer border
    [[117, 20, -75], [133, 12, -72], [152, -3, -60], [170, -8, -36], [176, -4, -26]],  # spine and acromion
    [[120, 8, -60], [132, 1, -45], [148, 4, -20], [152, 9, -12], [154, 14, -8]],  # upper border, coracoid
    [[162, 8, -36], [164, 15, -38], [165, 22, -38], [164, 30, -41], [162, 38, -42]],  # socket
]
_BLADE_RADIUS = [2.0, 4.0, 4.0, 3.4, 3.5]
_BLADE_STRENGTH = [0.8, 1.1, 0.85, 0.85, 1.1]
_ARMS = [
    [[172, 12, -30], [176, 40, -27], [181, 75, -20], [194, 210, -8], [214, 440, 0]],  # hanging
    [[170, 16, -30], [194, 6, -24], [224, -10, -15], [266, -40, -5], [330, -95, 0]],  # raised
    [[170, 18, -30], [194, 24, -24], [228, 34, -15], [270, 46, -5], [340, 72, 0]],  # spread
]


def girdle(body: Anatomy) -> list[Tubes]:
    """Collar bones and shoulder blades."""
    small = 0.86 if body.child else 1.0
    collar = np.array(_COLLAR, np.float64)
    collar[:, 1] += body.collarbone * np.minimum(1, collar[:, 0] / 62)
    blade = np.concatenate([np.array(_BLADE) * half for half in _MIRROR])
    radius, strength = (np.tile(value, 2)[:, None] for value in (_BLADE_RADIUS, _BLADE_STRENGTH))
    collars = along(collar * _MIRROR, np.multiply([8.3, 6.4, 5.2, 5.2, 5.8, 6.6], small), 1.15, 40, shell=1.2, core=0.2)
    return [evenly(part) for part in (collars, along(blade, radius * small, strength, shell=1.2, core=0.2))]


def arms(body: Anatomy) -> Tubes:
    """Upper arms, with the ball of the shoulder."""
    radius = np.multiply([21, 22, 13, 11, 10.5], 0.86 if body.child else 1.0)
    return evenly(_rounded(along(np.array(_ARMS[body.arms]) * _MIRROR, radius, 1.1, 120, shell=1.8)))


def _rounded(tubes: Tubes) -> Tubes:
    """The same with a half ball for its first end."""
    length = np.zeros(tubes.radius.shape)
    length[:, 1:] = np.cumsum(np.sqrt((np.diff(tubes.path, axis=1) ** 2).sum(-1)), axis=1)
    ball = np.maximum(tubes.radius**2 - np.maximum(tubes.radius - length, 0) ** 2, 1.0)
    return tubes._replace(radius=np.sqrt(ball))


def airways(body: Anatomy) -> Tubes:
    """Windpipe and main bronchi, as air in soft tissue."""
    size = 6.8 if body.child else 8.4
    courses = [
        [[0, -75, 5], [0, -20, 0], [-2, 30, -8], [-4, 70, -15], [-3, 94, -18]],
        [[-3, 88, -18], [-10, 97, -18], [-20, 110, -18], [-29, 121, -18], [-36, 142, -18]],
        [[-3, 88, -18], [8, 99, -17], [22, 111, -16], [34, 121, -16], [44, 136, -16]],
    ]
    narrowing = np.array([[1, 1, 1, 1, 1], [0.8, 0.77, 0.7, 0.62, 0.5], [0.8, 0.74, 0.66, 0.58, 0.5]])
    return along(courses, size * narrowing, np.array([[-1.0], [-0.8], [-0.8]]))
