"""The pointing game: how often the maximum of Grad-CAM is inside a ground-truth box.

    python studies/pointing_game.py --image sample/chest_xray/test/PNEUMONIA \
        --boxes sample/chest_xray/opacity_boxes.csv
    python studies/pointing_game.py --image dataset_det/stage_2_train_images \
        --boxes dataset_det/stage_2_train_labels.csv

The table names an image by ``path`` (relative to the table) or by ``patientId`` (the file name without its ending) and
gives x, y, width and height in pixels of that image; images without a box are left out. Zhang et al. 2018, "Top-down
neural attention by excitation backprop", doi:10.1007/s11263-017-1059-x; here without their tolerance of 15 pixels.
"""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from cxr.cli import ROOT


@dataclass(frozen=True)
class PointingConfig:
    """The images, their boxes, and the model."""

    image: tuple[str, ...] = cli.flag(help="one or more files, folders or globs")
    boxes: Path = cli.flag(help="CSV with the columns path or patientId, and x, y, width, height")
    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model")
    json: bool = cli.flag(False, help="print one JSON document instead of a sentence")
    device: cli.Device = cli.flag("auto", help="auto: CUDA, then Apple MPS, then the CPU")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(PointingConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from cxr import reading, runtime, tables
from cxr.metrics import interval_text, wilson_interval
from pytorch_classification.classifier import Classifier

_BATCH = 32


def read_boxes(table: Path) -> dict[str, NDArray[np.float64]]:
    """Boxes float64 [N, 4] as x, y, width, height by image: a resolved path, or a file name without ending.

    Raises:
        FileNotFoundError, ValueError: no such table, or one that is refused by column, reason and lines.
    """
    sides = ("x", "y", "width", "height")
    rows = tables.as_numbers(table, tables.read_table(table, ("path", "patientId"), sides), sides)
    key = rows.columns[0]
    rows = rows[rows[list(sides)].notna().any(axis=1)]
    tables.refuse(table, rows[list(sides)].isna().any(axis=1), "x, y, width or height is missing")
    tables.refuse(table, rows[key].str.contains("\0", regex=False), f"{key} holds a NUL")
    found: dict[str, list[list[float]]] = defaultdict(list)
    for name, *box in rows.itertuples(index=False):
        found[str((table.parent / name).resolve()) if key == "path" else name].append(box)
    return {name: np.array(boxes) for name, boxes in found.items()}


def peak(heatmap: NDArray[np.float32]) -> tuple[float, float]:
    """The maximum of ``heatmap`` [H, W] as fractions (x, y) of width and height; the mean of several."""
    rows, columns = np.nonzero(heatmap >= heatmap.max())
    return float((columns.mean() + 0.5) / heatmap.shape[1]), float((rows.mean() + 0.5) / heatmap.shape[0])


def is_inside(x: ArrayLike, y: ArrayLike, boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Whether points, in fractions of the image, are in one of ``boxes``, in pixels of an image of that size."""
    across, down = np.multiply(x, width)[..., None], np.multiply(y, height)[..., None]
    left, top, wide, tall = boxes.T
    return ((left <= across) & (across <= left + wide) & (top <= down) & (down <= top + tall)).any(axis=-1)


def covered_share(boxes: NDArray[np.float64], width: int, height: int) -> float:
    """Fraction of the image that ``boxes`` cover together, the chance level of a random point."""
    grid = (np.arange(100) + 0.5) / 100
    return float(is_inside(grid, grid[:, None], boxes, width, height).mean())


def play(
    classifier: Classifier, paths: list[Path], boxes: list[NDArray[np.float64]], run: runtime.Runtime
) -> tuple[list[bool], list[float]]:
    """For each image whether the maximum is in a box, and the chance level."""
    own_scale = replace(classifier, grad_cam_scale=None)

    def load(path: Path) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        radiograph = reading.read(path)
        return radiograph.square(classifier.store_size), radiograph.size

    hits: list[bool] = []
    chances: list[float] = []
    waiting = iter(boxes)
    with tqdm(total=len(paths), desc="pointing", unit="image") as progress:
        for batch in reading.in_batches(load, paths, _BATCH):
            heatmaps = own_scale.predict(np.stack([square for square, _ in batch]), run, grad_cam=True).grad_cam
            assert heatmaps is not None
            for (_, (height, width)), heatmap in zip(batch, heatmaps, strict=True):
                truth = next(waiting)
                hits.append(bool(is_inside(*peak(heatmap), truth, width, height)))
                chances.append(covered_share(truth, width, height))
            progress.update(len(batch))
    return hits, chances


def main(config: PointingConfig) -> None:
    """Play and print."""
    truth = read_boxes(config.boxes)
    found = [(path, truth.get(str(path.resolve()), truth.get(path.stem))) for path in reading.find_images(config.image)]
    chosen = [(path, boxes) for path, boxes in found if boxes is not None]
    if not chosen:
        raise ValueError(f"none of the {len(found)} images has a box in {config.boxes}")
    with runtime.start(config.device, "fp32", seed=0) as run:
        # Each map is scaled by its own peak: its place counts, not its strength.
        classifier = replace(Classifier.load(config.model, run), grad_cam_scale=None)
        hits, chances = play(classifier, [path for path, _ in chosen], [boxes for _, boxes in chosen], run)
    low, high = wilson_interval(sum(hits), len(hits))
    share, chance = sum(hits) / len(hits), float(np.mean(chances))
    if config.json:
        print(
            json.dumps(
                {"images": len(hits), "hits": sum(hits), "share": share, "interval": [low, high], "chance": chance}
            )
        )
    else:
        print(
            f"Grad-CAM has its maximum inside a ground-truth box in {sum(hits)} of {len(hits)} images: "
            f"{interval_text({'value': share, 'low': low, 'high': high})}, with its 95% interval; "
            f"chance level {chance:.3f}"
        )


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
