"""Put the sickest first: one page with an answer for each radiograph in a folder, or in an inbox that keeps filling.

    python worklist.py --image folder_of_dicoms
    python worklist.py --image inbox --watch

The classifier judges each file and, where one is at hand, the detector draws boxes. Writes worklist/worklist.html,
which needs nothing else, and worklist.csv; both are put together from answers.jsonl and pictures/ beside them. What is
judged is only read. Exit code 0: all answered; 1: some files could not be read; 2: nothing could be done. Research
only, not a medical device.
"""

import sys

from cxr import cli
from reading_room.settings import DETECTOR, WorklistConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(WorklistConfig, __doc__) if __name__ == "__main__" else None

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import NoReturn
from warnings import warn

from tqdm import tqdm

from cxr import dicom_results, reading, runtime
from cxr.files import sha256_of
from cxr.model_file import commit
from cxr.prediction import Model
from cxr.training_run import lock_folder
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES
from pytorch_detection.detector import Detector
from reading_room import page
from reading_room.answers import Answers
from reading_room.documents import Documents
from reading_room.header import Naming
from reading_room.inbox import Inbox, state_of
from reading_room.judging import Judges, answer

_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.05  # seconds between two looks into the inbox
_PAGE_SHARE = 0.1  # of the time at most goes into writing the page anew while files keep coming


def check(config: WorklistConfig) -> None:
    """Refuse what could only fail later.

    Raises:
        FileNotFoundError: no folder to watch.
        ValueError: highdicom is not installed, or something to read lies where results go.
    """
    if config.dicom_output is not None:
        dicom_results.require_highdicom()
    for name in config.image:
        for own in config.own_folders:
            if Path(name).resolve().is_relative_to(own.resolve()):
                raise ValueError(f"{name} lies in {own.absolute()}, where results go; give another folder for these")
    for folder in config.image if config.watch else ():
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"--watch: no folder {Path(folder).absolute()}")


def load(config: WorklistConfig, run: runtime.Runtime) -> tuple[Judges, dict[str, Path]]:
    """The models and the files they are from, or an error that says how to get one."""
    files = {"classifier": config.classifier}
    detector = config.detector or (DETECTOR if DETECTOR.exists() else None)
    if detector is not None:
        files["detector"] = detector
    for name, file in files.items():
        if not file.exists():
            raise FileNotFoundError(
                f"no {name} at {file.resolve()}; train one with the script of its folder or name one with --{name}"
            )
    found = None if detector is None else Detector.load(detector, run)
    return Judges(Classifier.load(config.classifier, run), found, run), files


@dataclass(frozen=True)
class Room:
    """What both ways of running need: who judges, where answers are kept, what the page says of itself."""

    judges: Judges
    answers: Answers
    naming: Naming
    documents: Documents | None
    made: page.Made

    def answer(self, paths: Sequence[tuple[Path, str]]) -> Iterator[int]:
        """Answer files (path and state); yields how many each batch had."""
        return answer(self.judges, paths, self.answers, self.naming, self.documents)

    def written(self) -> bool:
        """``write``, and whether that worked: on Windows a spreadsheet may hold the table open."""
        try:
            self.write()
        except OSError as error:
            warn(f"{error}; it is tried again", stacklevel=2)
            return False
        return True

    def write(self) -> None:
        """Page and table as things stand."""
        written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
        page.write(self.answers, replace(self.made, written=written))


def open_room(config: WorklistConfig, run: runtime.Runtime) -> Room:
    """Load the models, and take up the answers that are there."""
    judges, files = load(config, run)
    classifier, detector = judges.classifier, judges.detector
    hashes = {name: sha256_of(file) for name, file in files.items()}
    made = {"models": hashes, "identifiers": config.identifiers, "watched": config.watch}
    made |= {"dicom_output": config.dicom_output is not None}
    answers = Answers.go_on(config.output_dir, made) if config.watch else Answers.start(config.output_dir, made)
    first = Model(
        "ResNet-18 classifier",
        files["classifier"].name,
        hashes["classifier"],
        classifier.threshold,
        classifier.provenance.adapted,
    )
    second = detector and Model(
        "Faster R-CNN detector",
        files["detector"].name,
        hashes["detector"],
        detector.threshold,
        detector.provenance.adapted,
    )
    told = page.Made(first, second, CLASSES, commit(), "", config.identifiers, config.watch)
    documents = None if config.dicom_output is None else Documents(config.dicom_output, first, second)
    naming = Naming(tuple(Path(name) for name in config.image if Path(name).is_dir()), config.identifiers)
    return Room(judges, answers, naming, documents, told)


def answer_once(config: WorklistConfig, run: runtime.Runtime) -> int:
    """Answer what is there now; an interruption leaves a page of what was answered before it."""
    paths = reading.find_images(config.image, config.own_folders)
    room = open_room(config, run)
    try:
        with tqdm(total=len(paths), desc="judging", unit="image") as progress:
            for done in room.answer([(path, state_of(path)) for path in paths]):
                progress.update(done)
    finally:
        room.write()
    print(f"{summary(room)}\npage: {config.output_dir / page.PAGE}   table: {config.output_dir / page.TABLE}")
    return 1 if room.answers.failed else 0


def watch(config: WorklistConfig, run: runtime.Runtime) -> NoReturn:
    """Answer what arrives, until interrupted."""
    room = open_room(config, run)
    inbox = Inbox(config.image, config.own_folders, config.stable_seconds, room.answers.states())
    print(f"watching {', '.join(config.image)}   page: {config.output_dir / page.PAGE}", flush=True)
    changed, due = True, 0.0  # whether the page is behind, and when it may be written next
    try:
        while True:
            began = time.monotonic()
            arrived = inbox.arrived(began)
            for done in chain(room.answer(arrived), [0]):
                if done:
                    changed = True
                    print(f"{datetime.now():%H:%M:%S} {done} files read. {summary(room)}", flush=True)
                if changed and (now := time.monotonic()) >= due:
                    changed = not room.written()
                    due = now + (time.monotonic() - now) / _PAGE_SHARE
            pause = min(max(config.stable_seconds / 4, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            time.sleep(max(pause, time.monotonic() - began))  # a slow share is not asked all the time
    finally:
        if changed:
            room.write()


def summary(room: Room) -> str:
    """How many of which class, and how many without an answer."""
    exams = room.answers.exams.values()
    above = sum(map(room.made.above, exams))
    borderline, unlike = sum(exam.borderline for exam in exams), sum(bool(exam.out_of_distribution) for exam in exams)
    normal, pneumonia = room.made.classes
    return (
        f"{len(exams)} exams: {above} {pneumonia}, {len(exams) - above} {normal} ({borderline} borderline), "
        f"{unlike} unlike training's images, {len(room.answers.failed)} not answered"
    )


def main(config: WorklistConfig) -> int:
    """Parse, load, answer."""
    check(config)
    with runtime.start(config.device, "fp32", seed=0) as run, lock_folder(config.output_dir, run, "--output-dir"):
        return watch(config, run) if config.watch else answer_once(config, run)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
