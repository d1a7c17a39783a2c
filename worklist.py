"""Sort the radiographs of a folder, or of an inbox that keeps filling, by urgency on one page.

    python worklist.py --image folder_of_dicoms
    python worklist.py --image inbox --watch

The classifier predicts each file and, if there is a detector, the page shows its boxes. Writes worklist/worklist.html,
which needs no other file, and worklist.csv; both are made from exams.jsonl and pictures/ beside them. Input files are
only read. Exit code 0: all predicted; 1: some files could not be read; 2: nothing could be done. Research only, not a
medical device.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from cxr import cli

DETECTOR = cli.ROOT / "pneumonia_fasterrcnn.pth"  # where training writes it


@dataclass(frozen=True)
class WorklistConfig:
    """Input, models and output."""

    image: tuple[str, ...] = cli.flag(help="one or more files, folders or globs; with --watch, folders")
    classifier: Path = cli.flag(cli.ROOT / "pneumonia_resnet18.pth", help="the finished classifier")
    detector: Path | None = cli.flag(None, help=f"the finished detector; else {DETECTOR.name} in the repository")
    output_dir: Path = cli.flag(Path("worklist"), help="gets page, table and pictures")
    identifiers: bool = cli.flag(False, help="show patients' names and IDs, and whole paths")
    watch: bool = cli.flag(False, help="run until interrupted and add files as they arrive; resumes on restart")
    stable_seconds: float = cli.flag(5.0, at_least=0, help="with --watch: wait until a file has stopped changing")
    dicom_output: Path | None = cli.flag(None, help="gets DICOM report and picture of each DICOM file; needs highdicom")
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")

    @property
    def own_folders(self) -> list[Path]:
        """Folders of output, which is no input."""
        return [self.output_dir, *([] if self.dicom_output is None else [self.dicom_output])]


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(WorklistConfig, __doc__) if __name__ == "__main__" else None

import time
from datetime import datetime
from itertools import chain, product
from typing import NoReturn
from warnings import warn

from tqdm import tqdm

from cxr import dicom_results, reading, runtime
from cxr.model_file import commit
from cxr.prediction import Model
from cxr.training_run import lock_folder
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES
from pytorch_detection.detector import Detector
from reading_room import page
from reading_room.exams import Journal, Naming
from reading_room.watch import Inbox, Predictor, state_of

_PAGE_SHARE = 0.1  # of the time at most goes into writing the page while files keep arriving


def open_worklist(config: WorklistConfig, run: runtime.Runtime) -> tuple[Predictor, page.About]:
    """Load the models, and with --watch the exams of earlier runs."""
    classifier, detector, second = Classifier.load(config.classifier, run), None, None
    first = Model.of("ResNet-18 classifier", config.classifier, classifier.threshold, classifier.provenance.adapted)
    if path := config.detector or (DETECTOR if DETECTOR.exists() else None):
        detector = Detector.load(path, run)
        second = Model.of("Faster R-CNN detector", path, detector.threshold, detector.provenance.adapted)
    settings = {
        "models": [model.sha256 for model in (first, second) if model],
        "identifiers": config.identifiers,
        "watched": config.watch,
        "dicom_output": config.dicom_output is not None,
    }
    journal = Journal.open(config.output_dir, settings)
    naming = Naming(tuple(Path(name) for name in config.image if Path(name).is_dir()), config.identifiers)
    predictor = Predictor(classifier, detector, run, (first, second), journal, naming, config.dicom_output)
    return predictor, page.About(first, second, commit(), config.identifiers, config.watch)


def summary(journal: Journal, about: page.About) -> str:
    """The number of exams of each class, and of files without a prediction."""
    groups = [about.groups_of(exam) for exam in journal.exams.values()]
    above, borderline, ood = (sum(name in each for each in groups) for name in ("above", "borderline", "ood"))
    normal, pneumonia = CLASSES
    return (
        f"{len(groups)} exams: {above} {pneumonia}, {len(groups) - above} {normal} ({borderline} borderline), "
        f"{ood} out of distribution, {len(journal.failed)} without a prediction"
    )


def predict_once(config: WorklistConfig, run: runtime.Runtime) -> int:
    """Predict the files that are there now; an interruption leaves a page of those before it."""
    paths = reading.find_images(config.image, config.own_folders)
    predictor, about = open_worklist(config, run)
    try:
        with tqdm(total=len(paths), desc="predicting", unit="image") as progress:
            for count in predictor.predict([(path, state_of(path)) for path in paths]):
                progress.update(count)
    finally:
        page.write(predictor.journal, about)
    files = f"page: {config.output_dir / page.PAGE}   table: {config.output_dir / page.TABLE}"
    print(f"{summary(predictor.journal, about)}\n{files}")
    return 1 if predictor.journal.failed else 0


def watch(config: WorklistConfig, run: runtime.Runtime) -> NoReturn:
    """Predict files as they arrive, until interrupted."""
    predictor, about = open_worklist(config, run)
    known = {exam.state for exam in predictor.journal.exams.values()}  # failed files are tried again
    inbox = Inbox(config.image, config.own_folders, config.stable_seconds, known)
    print(f"watching {', '.join(config.image)}   page: {config.output_dir / page.PAGE}", flush=True)
    pause = min(max(config.stable_seconds / 4, 0.05), 1.0)  # seconds between two listings of the inbox
    outdated, due = True, 0.0  # whether the page must be written, and when at the earliest
    try:
        while True:
            began = time.monotonic()
            for count in chain(predictor.predict(inbox.arrived(began)), [0]):
                if count:
                    outdated = True
                    now = datetime.now()
                    print(f"{now:%H:%M:%S} {count} files read. {summary(predictor.journal, about)}", flush=True)
                if outdated and (start := time.monotonic()) >= due:
                    try:
                        page.write(predictor.journal, about)
                        outdated = False
                    except OSError as error:  # on Windows a spreadsheet may hold the table open
                        warn(f"{error}; another attempt follows", stacklevel=2)
                    due = start + (time.monotonic() - start) / _PAGE_SHARE
            time.sleep(max(pause, time.monotonic() - began))  # a slow network share is not listed all the time
    finally:
        if outdated:
            page.write(predictor.journal, about)


def main(config: WorklistConfig) -> int:
    """Refuse what could only fail later, then predict.

    Raises:
        FileNotFoundError: no folder to watch.
        ValueError: highdicom is not installed, or input lies in a folder of output.
    """
    if config.dicom_output is not None:
        dicom_results.require_highdicom()
    for name, own in product(config.image, config.own_folders):
        if Path(name).resolve().is_relative_to(own.resolve()):
            raise ValueError(f"{name} lies in {own.absolute()}, where results go; give another folder for these")
    for folder in config.image if config.watch else ():
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"--watch: no folder {Path(folder).absolute()}")
    with runtime.start(config.device, "fp32", seed=0) as run, lock_folder(config.output_dir, run, "--output-dir"):
        return watch(config, run) if config.watch else predict_once(config, run)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
