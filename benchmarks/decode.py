"""Images per second from files to grey squares, against what plain Pillow and plain pydicom give.

    python benchmarks/decode.py --images chest_xray/train --dicoms dataset_det/stage_2_train_images

Alternates, over several rounds in one process and on the same files: Radiograph.square on all cores; decode, which also
hashes the files and writes the store; and Pillow or pydicom with a resize from the whole picture, on one core and on
all. Prints median ratios with their range, and how far in grey levels the squares of Radiograph.square
are from those of the whole pictures.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import generated
from benchmarks.alternating import alternate, rates, speedups, spread
from cxr import cli, reading

Reader = Callable[[Path, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class BenchConfig:
    """What is read, and how often."""

    rounds: int = cli.flag(5, help="measurements of each kind, alternating")
    files: int = cli.flag(80, help="files of each kind that are read")
    images: Path | None = cli.flag(None, help="folder of JPEG files; without it they are generated")
    dicoms: Path | None = cli.flag(None, help="folder of DICOM files; without it they are generated")
    size: int = cli.flag(256, help="side in pixels of the squares")


def ours(path: Path, size: int) -> NDArray[np.uint8]:
    """The project's square."""
    return reading.read(path).square(size)


def squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """With the antialiasing of torchvision's Resize and of Radiograph.square, the cheapest there is."""
    return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))


def with_pillow(path: Path, size: int) -> NDArray[np.uint8]:
    """The whole picture, then the square."""
    with Image.open(path) as image:
        return squash(image, size)


def with_pydicom(path: Path, size: int) -> NDArray[np.uint8]:
    """The stored values as they are, no window and no polarity, then the square."""
    from pydicom.pixels.utils import pixel_array

    return squash(Image.fromarray(pixel_array(path)), size)


def measure(kind: str, paths: Sequence[Path], plain: str, reader: Reader, config: BenchConfig) -> None:
    """Print how fast the squares of ``paths`` are made by us and by ``reader``, the ``plain`` way."""

    def on_all_cores(reader: Reader) -> None:
        with ThreadPoolExecutor(reading.cores()) as pool:
            list(pool.map(lambda path: reader(path, config.size), paths))

    def into_store() -> None:
        with tempfile.TemporaryDirectory() as place:
            reading.decode_once(paths, config.size, Path(place), name=kind, progress=False)

    peers: dict[str, Callable[[], object]] = {
        f"{plain} on one core": lambda: [reader(path, config.size) for path in paths],
        plain: lambda: on_all_cores(reader),
    }
    taken = alternate({"Radiograph.square": lambda: on_all_cores(ours), "store": into_store, **peers}, config.rounds)
    print(f"{kind}, {len(paths)} files to {config.size} px on {reading.cores()} cores")
    print(f"images/s: {rates(taken, dict.fromkeys(taken, len(paths)))}")
    for mine in ("Radiograph.square", "store"):
        for other in peers:
            print(spread(f"{kind}: speed of {mine} / {other}", speedups(taken, mine, other)))
    pairs = ((ours(path, config.size).astype(np.int16), reader(path, config.size)) for path in paths)
    apart = [float(np.abs(mine - whole).mean()) for mine, whole in pairs]
    print(spread(f"{kind}: grey levels between Radiograph.square and {plain}, mean of a picture", apart))


def main(config: BenchConfig) -> None:
    """Measure JPEG, then DICOM."""
    with tempfile.TemporaryDirectory() as place:
        jpegs = generated.files(config.images, Path(place), ".jpeg", generated.write_jpegs, config.files)
        measure("JPEG", jpegs[: config.files], "Pillow", with_pillow, config)
        dicoms = generated.files(config.dicoms, Path(place), ".dcm", generated.write_dicoms, config.files)
        measure("DICOM", dicoms[: config.files], "pydicom", with_pydicom, config)


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
