"""Pictures of an exam: small ones for a page of a thousand exams, and the plots for DICOM results."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr import reading
from cxr.prediction import BORDERLINE, Prediction, is_borderline, remarks
from pytorch_classification.classifier import Classifier
from pytorch_detection.detector import Detector

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


def plot(
    film: bytes,
    grad_cam: NDArray[np.float32],
    found: Prediction,
    classifier: Classifier,
    detector: Detector | None,
    folder: Path,
) -> Path:
    """The plots of both predict scripts in one picture in ``folder``: Grad-CAM and, with a detector, boxes."""
    from pytorch_classification.plots import grad_cam_overlay
    from pytorch_detection.plots import detection_overlay, number_of_boxes

    assert found.probability is not None
    borderline = [BORDERLINE] * is_borderline(found.probability, classifier.threshold)
    score = f"probability of PNEUMONIA {found.probability:.3f}, operating point {classifier.threshold:.3f}"
    path, boxed = folder / "grad_cam.png", folder / "boxes.png"
    with Image.open(io.BytesIO(film)) as jpeg:
        image = np.asarray(jpeg)
    grad_cam_overlay(
        image,
        grad_cam,
        "\n".join([score, *borderline, *remarks(found.out_of_distribution, found.note)]),
        path,
        caption=classifier.provenance.sentence(classifier.threshold),
        common_scale=classifier.grad_cam_scale is not None,
    )
    if detector is None:
        return path
    scale = image.shape[1] / found.width
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in found.boxes]
    detection_overlay(
        image,
        scale * np.array(corners).reshape(-1, 4),
        [box.score for box in found.boxes],
        boxed,
        title=number_of_boxes(len(corners), detector.threshold),
        caption=detector.provenance.sentence(detector.threshold),
    )
    with Image.open(path) as left, Image.open(boxed) as right:
        both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
        both.paste(left)
        both.paste(right, (left.width, 0))
    both.save(path)
    return path
