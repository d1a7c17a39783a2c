"""Judge the lung finder on real radiographs, which have no masks.

    python benchmarks/lung_finder.py --image chest_xray/train --data-dir dataset_det --sheet lungs.png

Prints in how many images it finds lungs; how many of RSNA's opacities have their centre in what it found; how far it
agrees with itself on an image and on the same image turned, dimmed or cropped (of a mirror image it gives the mirrored
answer by construction); and what it finds where there is no chest. --sheet draws 25 of the images with what was found.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from cxr import augment, cli, pictures, reading
from pytorch_classification.lung_finder import SIZE, LungFields, find_lungs
from pytorch_detection import rsna_dataset

STORED = 2 * SIZE  # pixels along each side of an image
COMPARED = 500  # images, for the agreement
_TURN = np.deg2rad(10)
_TURNED = [[np.cos(_TURN), -np.sin(_TURN), 0], [np.sin(_TURN), np.cos(_TURN), 0]]
# What is done to an image, as a map from output to input over -1 to 1, and a power and a factor of the grey.
CHANGES: dict[str, tuple[Sequence[Sequence[float]], float, float]] = {
    "turned by 10 degrees": (_TURNED, 1, 1),
    "turned by -10 degrees": (np.linalg.inv([*_TURNED, [0, 0, 1]])[:2].tolist(), 1, 1),
    "dimmed to 40 %": ([[1, 0, 0], [0, 1, 0]], 1, 0.4),
    "gamma 2": ([[1, 0, 0], [0, 1, 0]], 2, 1),
    "cropped to the central 80 %": ([[0.8, 0, 0], [0, 0.8, 0]], 1, 1),
    "cropped to a corner of 85 %": ([[0.85, 0, 0.15], [0, 0.85, -0.15]], 1, 1),
}


@dataclass(frozen=True)
class LungBenchConfig:
    """Which images."""

    image: tuple[str, ...] = cli.flag(help="one or more files, folders or globs of chest radiographs")
    data_dir: Path | None = cli.flag(None, help="RSNA's folder, for the opacities")
    sheet: Path | None = cli.flag(None, help="PNG of 25 images with lungs (red) and field (blue), to look at")
    seed: int = cli.flag(0, at_least=0, help="decides which images are compared and drawn")


def squares(paths: Sequence[Path]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images, uint8 [N, S, S], and the height and width of each file, int64 [N, 2].

    Raises:
        ValueError: one that cannot be read.
    """
    images: list[NDArray[np.uint8]] = []
    sizes: list[tuple[int, int]] = []
    for batch in reading.read_ahead(paths, STORED, 64):
        for read in batch:
            if read.image is None:
                raise ValueError(read.error)
            images.append(read.image)
            sizes.append((read.height, read.width))
    return np.stack(images), np.array(sizes, np.int64)


def opacities_found(data_dir: Path) -> str:
    """The share of opacities whose centre is in the lungs, in the field, in the rectangle round both lungs."""
    listing = rsna_dataset.list_exams(data_dir, allow_missing=True)
    images, sizes = squares(listing.paths)
    found = find_lungs(images)
    masks = (found.lungs, found.fields, _filled(found.lungs))
    place = {exam_id: index for index, exam_id in enumerate(listing.exam_ids)}
    inside: list[list[bool]] = []
    ill = listing.labels[listing.labels["Target"] == 1]
    for exam_id, x, y, width, height in ill[["patientId", "x", "y", "width", "height"]].itertuples(index=False):
        index = place[exam_id]
        across, down = (x + width / 2) / sizes[index, 1], (y + height / 2) / sizes[index, 0]
        inside.append([bool(mask[index, int(down * SIZE), int(across * SIZE)]) for mask in masks])
    lungs, field, box = np.mean(inside, axis=0)
    return (
        f"{len(images)} exams: lungs found in {found.found.mean():.4f}, the field covers {_area(found)}\n"
        f"{len(inside)} opacities: centre in the lungs {lungs:.4f}, in the field {field:.4f}, in the box {box:.4f}"
    )


def _area(found: LungFields) -> str:
    return f"{found.fields[found.found].mean():.3f} of the image"


def agreement(images: NDArray[np.uint8]) -> Iterator[str]:
    """For each change: intersection over union of what is found in the changed image and what was found, moved."""
    whole, found = torch.from_numpy(images)[:, None].float() / 255, find_lungs(images)
    for name, (matrix, power, factor) in CHANGES.items():
        changed = find_lungs(_as_stored(_moved(whole, matrix) ** power * factor))
        pairs = {"lungs": (found.lungs, changed.lungs), "field": (found.fields, changed.fields)}
        shares = [f"{part} {_overlap(_moved_mask(before, matrix), after)}" for part, (before, after) in pairs.items()]
        yield f"{name}: IoU of {', of '.join(shares)}"


def _moved(images: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    return augment.warp(images, torch.tensor(matrix, dtype=torch.float32).expand(len(images), 2, 3), images.shape[-1])


def _as_stored(images: Tensor) -> NDArray[np.uint8]:
    return (images[:, 0] * 255).round().to(torch.uint8).numpy()


def _moved_mask(masks: NDArray[np.bool_], matrix: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    return (_moved(torch.from_numpy(masks)[:, None].float(), matrix)[:, 0] > 0.5).numpy()


def _filled(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The smallest upright rectangle that holds each mask."""
    rows, columns = masks.any(axis=2), masks.any(axis=1)
    spans = [
        np.logical_or.accumulate(span, axis=1) & np.logical_or.accumulate(span[:, ::-1], axis=1)[:, ::-1]
        for span in (rows, columns)
    ]
    return spans[0][:, :, None] & spans[1][:, None, :]


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> str:
    shares = (one & other).sum((1, 2)) / np.maximum((one | other).sum((1, 2)), 1)
    return f"{shares.mean():.3f} (5th percentile {np.quantile(shares, 0.05):.3f})"


def no_chests(seed: int) -> dict[str, NDArray[np.uint8]]:
    """What shows no lungs: even pictures, noise, plots, photographs and parts of them."""
    random = np.random.default_rng(seed)
    photographs = [Image.fromarray(photo).convert("L") for photo in load_sample_images().images]
    parts: list[Image.Image] = []
    for number in range(200):
        photo, side = photographs[number % 2], int(random.integers(60, 400))
        left, top = (int(random.integers(0, length - side + 1)) for length in photo.size)
        parts.append(photo.crop((left, top, left + side, top + side)))
    small = [[np.asarray(photo.resize((STORED, STORED))) for photo in some] for some in (photographs, parts)]
    return {
        "even pictures": np.stack([np.full((STORED, STORED), grey, np.uint8) for grey in (0, 128, 255)]),
        "noise": random.integers(0, 256, (50, STORED, STORED), dtype=np.uint8),
        "plots": np.stack([_plot(number % 3, random) for number in range(30)]),
        "photographs": np.stack(small[0]),
        "parts of photographs": np.stack(small[1]),
    }


def _plot(kind: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Lines, bars or points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4))
    axes, values = figure.subplots(), random.normal(size=(2, int(random.integers(5, 50)))).cumsum(axis=1)
    match kind:
        case 0:
            axes.plot(values.T)
        case 1:
            axes.bar(range(values.shape[1]), values[0])
        case _:
            axes.scatter(*values)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L")
    return np.asarray(drawn.resize((STORED, STORED), Image.Resampling.BOX))


def draw_sheet(images: NDArray[np.uint8], found: LungFields, path: Path) -> None:
    """Five rows of five images with the outline of what was found."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 15), layout="constrained")
    for index, axes in enumerate(figure.subplots(5, 5).flat):
        axes.axis("off")
        if index < len(images):
            axes.imshow(images[index], cmap="gray", extent=(0, SIZE, SIZE, 0))
            if found.found[index]:
                centres = np.arange(SIZE) + 0.5
                axes.contour(centres, centres, found.lungs[index], [0.5], colors=["red"])
                axes.contour(centres, centres, found.fields[index], [0.5], colors=[pictures.SKY])
    figure.savefig(path, dpi=80)


def main() -> None:
    """Measure and print what the command line asks for."""
    config = cli.parse(LungBenchConfig)
    images, _ = squares(reading.find_images(config.image))
    fields = find_lungs(images)
    print(f"{len(images)} images: lungs found in {fields.found.mean():.4f}, the field covers {_area(fields)}")
    some = np.random.default_rng(config.seed).permutation(len(images))[:COMPARED]
    if config.data_dir:
        print(opacities_found(config.data_dir))
    for line in agreement(images[some]):
        print(line)
    for name, pictured in no_chests(config.seed).items():
        print(f"{name}: lungs found in {find_lungs(pictured).found.sum()} of {len(pictured)}")
    if config.sheet:
        drawn = images[some[:25]]
        draw_sheet(drawn, find_lungs(drawn), config.sheet)
        print(f"wrote {config.sheet}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
