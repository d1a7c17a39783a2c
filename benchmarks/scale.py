"""Memory and time of what grows with the number of exams, at the size of the RSNA data set and at ten times that.

    python benchmarks/scale.py --tables dataset_det

For each size, in a process of its own: reading the tables, opening the store with its boxes, dividing by patient, and
scoring the held-out tenth with intervals. Prints seconds, and the most memory up to then in MiB.

The tables are generated or, with --tables, read; every exam of the larger set is a copy of one of the smaller with
another id and patient. The DICOM files are empty, linked under many names, and the store is a file of holes, so that a
data set of 70 GB takes 2 GB of the disk (on Linux or macOS, and a file system that has both).
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.own_process import peak_mib, run_alone
from benchmarks.rsna_sized import BYTES_AN_EXAM, Tables, write_store
from cxr import cli, reading
from pytorch_detection import box_metrics, rsna_dataset
from pytorch_detection.rsna_dataset import Exam, Listing, RsnaDetectionDataset
from pytorch_detection.training_data import divided

_BOXES_FOUND = 5  # in each image, about what a detector gives


@dataclass(frozen=True)
class BenchConfig:
    """Size of the measurement."""

    exams: int = cli.flag(26_684, help="exams of the smaller data set, where tables are generated")
    growth: int = cli.flag(10, help="how many times as large the other one is")
    tables: Path | None = cli.flag(None, help="folder with the tables of the challenge; without it they are generated")
    size: int = cli.flag(512, help="side in pixels of the stored squares")
    resamples: int = cli.flag(2000, help="bootstrap draws of the intervals")
    work_dir: Path = cli.flag(Path(tempfile.gettempdir()), help="where the files are made, and removed in the end")


def measure(folder: Path, size: int, resamples: int) -> list[tuple[str, float, float]]:
    """What is measured, its seconds, and the most memory in MiB so far; first, what the imports needed."""
    measured = [("imports", 0.0, peak_mib())]

    def stage(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        measured.append((name, time.perf_counter() - begun, peak_mib()))
        return result

    listing = stage("tables", lambda: rsna_dataset.list_exams(folder))
    exams, data = stage("store and boxes", lambda: open_store(listing, size, folder / "decoded"))
    parts = stage("split", lambda: divided(exams, listing.exam_ids, seed=0))
    found = [data[int(index)][1]["boxes"].numpy() for index in parts["held_out"]]
    stage("scores of the held-out tenth", lambda: score([exams[i] for i in parts["held_out"]], found, size, resamples))
    return measured


def open_store(listing: Listing, size: int, folder: Path) -> tuple[list[Exam], RsnaDetectionDataset]:
    """As ``load_data`` does once the images are decoded."""
    store = reading.decode_once(listing.paths, size, folder, name="exams", progress=False)
    exams = rsna_dataset.read_exams(listing, store)
    return exams, RsnaDetectionDataset(store.images, store.sizes, exams)


def score(exams: list[Exam], truths: list[Any], size: int, resamples: int) -> None:
    """The final report on boxes drawn by chance."""
    chance = np.random.default_rng(0)
    corners = chance.uniform(0, 0.7 * size, (len(exams), _BOXES_FOUND, 2))
    boxes = np.concatenate([corners, corners + chance.uniform(0.1, 0.3, corners.shape) * size], axis=-1)
    scores = chance.uniform(size=boxes.shape[:2])
    patients, findings = [exam.patient for exam in exams], [exam.finding for exam in exams]
    box_metrics.evaluate_detections(
        list(boxes), list(scores), truths, patients, 0.5, classes=findings, resamples=resamples
    )


def main() -> None:
    """Make, measure, remove; then print."""
    config = cli.parse(BenchConfig)
    base = Tables.generate(config.exams) if config.tables is None else Tables.read(config.tables)
    count = len(base.exams)
    needed, free = count * config.growth * BYTES_AN_EXAM, shutil.disk_usage(config.work_dir).free
    if free < needed:
        raise OSError(
            f"{needed / 2**30:.1f} GiB are needed in {config.work_dir} and {free / 2**30:.1f} GiB are free; "
            "give another --work-dir or a lower --growth"
        )
    print(f"{'exams':>9}  {'':<30} {'seconds':>9} {'most MiB':>9}")
    for copies in (1, config.growth):
        with tempfile.TemporaryDirectory(dir=config.work_dir) as name:
            folder = Path(name) / "dataset_det"
            write_store(base.write(folder, copies), config.size, folder / "decoded")
            for what, seconds, peak in run_alone(measure, folder, config.size, config.resamples):
                print(f"{count * copies:>9,}  {what:<30} {seconds:>9.2f} {peak:>9.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
