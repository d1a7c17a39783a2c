"""Pictures small enough for a page of a thousand exams: the radiograph, and its Grad-CAM as an overlay."""

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr import reading

FILM_SIDE = 704  # pixels at most; real radiographs of this size take 30 to 35 KB
MOST_FILM_BYTES = 36_000  # 48 KB as text in the page, so that 1,000 exams stay below 60 MB whatever they show
_QUALITIES = (75, 60, 45, 30)
_HEAT_SIDE = 64  # Grad-CAM is smooth: its cells are 8 to 16 pixels of a square of 100 to 200


def film(radiograph: reading.Radiograph, side: int = FILM_SIDE) -> bytes:
    """The radiograph as JPEG with its proportions kept, no side longer than ``side``."""
    small = radiograph.within(side)
    for quality in _QUALITIES:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality)
        if stream.tell() <= MOST_FILM_BYTES:
            return stream.getvalue()
    return film(radiograph, side // 2)  # noise


def heat(grad_cam: NDArray[np.float32]) -> bytes:
    """Grad-CAM [S, S] in 0..1 as WebP to stretch over the radiograph; transparent at 0."""
    small = Image.fromarray(grad_cam).resize((_HEAT_SIDE, _HEAT_SIDE), Image.Resampling.BILINEAR)
    levels = np.rint(np.asarray(small).clip(0, 1) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(_colours()[levels], "RGBA").save(stream, "WEBP", quality=80)
    return stream.getvalue()


@cache
def _colours() -> NDArray[np.uint8]:
    """uint8 [256, 4], as in the plots of a prediction."""
    import matplotlib

    level = np.linspace(0, 1, 256)
    colours = np.asarray(matplotlib.colormaps["inferno"](level))
    colours[:, 3] = 0.6 * np.sqrt(level)
    return np.rint(colours * 255).astype(np.uint8)
