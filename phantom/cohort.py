"""Who is in the sample data sets, decided by one seed, and rendering many images on all cores."""

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from phantom import anatomy, chance
from phantom.chance import Chance, Condition
from phantom.disease import Kind
from phantom.picture import Radiograph, render

CLASSIFICATION, DETECTION = 1, 2  # second word of every seed: no picture of one set depends on the other
VAL_IMAGES_A_CLASS = 8  # as published
TEST_SHARE = 0.25
PNEUMONIA_SHARE = 0.55


@dataclass(frozen=True)
class PlannedImage:
    """One classification image to be.

    path: below the data folder. kind: of pneumonia, None for a normal chest.
    patient, number: seeds of who it is and which of their pictures.
    """

    path: str
    kind: Kind | None
    patient: int
    number: int


@dataclass(frozen=True)
class PlannedExam:
    """One detection exam to be.

    uid: the RSNA set's "patientId", which is an exam. nih_name: file in the NIH set, whose first part is the patient.
    patient, number: seeds of who it is and which of their pictures.
    """

    uid: str
    nih_name: str
    condition: Condition
    patient: int
    number: int


def plan_images(seed: int, images: int) -> list[PlannedImage]:
    """Who gets how many images under which name; a patient is in one split only."""
    rng = np.random.default_rng([seed, CLASSIFICATION])
    sick = round(PNEUMONIA_SHARE * images)
    images_planned: list[PlannedImage] = []
    patient, counters = 1, {"bacteria": 0, "virus": 0, "IM": 114, "NORMAL2-IM": 6}
    for folder, total in (("NORMAL", images - sick), ("PNEUMONIA", sick)):
        test = round(TEST_SHARE * total)
        for split, quota in (
            ("train", total - test - VAL_IMAGES_A_CLASS),
            ("val", VAL_IMAGES_A_CLASS),
            ("test", test),
        ):
            while quota > 0:
                count = min(quota, int(rng.choice(4, p=[0.55, 0.25, 0.13, 0.07])) + 1)
                kind = _draw_kind(rng, 0.3) if folder == "PNEUMONIA" else None
                if kind:
                    germ = "virus" if kind == "interstitial" else "bacteria"
                    names = [f"person{patient}_{germ}_{counters[germ] + i + 1}" for i in range(count)]
                    counters[germ] += count
                else:
                    prefix = "IM" if rng.random() < 0.45 else "NORMAL2-IM"
                    counters[prefix] += int(rng.integers(1, 4))
                    stem = f"{prefix}-{counters[prefix]:04d}-0001"
                    names = [stem] + [f"{stem}-{i:04d}" for i in range(1, count)]
                for number, name in enumerate(names, start=1):
                    path = f"{split}/{folder}/{name}.jpeg"
                    images_planned.append(PlannedImage(path, kind, patient, number))
                patient, quota = patient + 1, quota - count
    return images_planned


def plan_exams(seed: int, total: int) -> list[PlannedExam]:
    """Who comes how often with what; most of a patient's exams show the same condition."""
    rng = np.random.default_rng([seed, DETECTION])
    conditions: list[Condition] = ["normal", "abnormal", "pneumonia"]
    shares = np.array([0.27, 0.28, 0.45])
    exams: list[PlannedExam] = []
    patient = 1
    while len(exams) < total:
        usual = conditions[rng.choice(3, p=shares)]
        visits = int(rng.choice(5, p=[0.66, 0.18, 0.09, 0.04, 0.03])) + 1
        nih_patient = 37 * patient + int(rng.integers(37))
        first = int(rng.integers(0, 4))
        for number in range(1, 1 + min(visits, total - len(exams))):
            condition = usual if rng.random() < 0.7 else conditions[rng.choice(3, p=shares)]
            uid = str(uuid.UUID(bytes=rng.bytes(16), version=4))
            exams.append(
                PlannedExam(uid, f"{nih_patient:08d}_{first + number - 1:03d}.png", condition, patient, number)
            )
        patient += 1
    return exams


def _draw_kind(rng: np.random.Generator, interstitial: float) -> Kind:
    if rng.random() < interstitial:
        return "interstitial"
    return "lobar" if rng.random() < 0.6 else "patchy"


def _patient(seed: int, data_set: int, patient: int, *, child: bool) -> tuple[anatomy.Anatomy, Chance]:
    """The patient's body, and chance for what stays the same through all of the patient's pictures."""
    whole = Chance((seed, data_set, patient))
    return anatomy.draw(whole.rng, child=child), whole


def render_image(planned: PlannedImage, seed: int, widest: int) -> tuple[Radiograph, int]:
    """One classification picture, and the JPEG quality it is stored with."""
    body, lasting = _patient(seed, CLASSIFICATION, planned.patient, child=True)
    opacities = chance.draw_opacities(lasting, planned.kind) if planned.kind else ()
    picture_seed = (seed, CLASSIFICATION, planned.patient, planned.number)
    today = Chance(picture_seed)
    width = round(widest * today.between(0.7, 1))
    height = round(width / today.between(1.12, 1.5))
    view = chance.draw_view(today, body, (height, width), from_front=True)
    shot = chance.draw_exposure(today, from_front=True)
    condition: Condition = "pneumonia" if planned.kind else "normal"
    findings = chance.draw_findings(today, body, condition, opacities, from_front=True)
    return render(body, view, shot, findings, picture_seed), int(today.rng.integers(78, 95))


def render_exam(planned: PlannedExam, seed: int, size: int) -> tuple[Radiograph, dict[str, Any]]:
    """One detection picture and what its DICOM header says."""
    body, lasting = _patient(seed, DETECTION, planned.patient, child=False)
    age = int(lasting.rng.integers(18, 92))
    picture_seed = (seed, DETECTION, planned.patient, planned.number)
    today = Chance(picture_seed)
    from_front = today.maybe(0.65 if planned.condition == "pneumonia" else 0.38)  # the bedridden are sicker
    kind = _draw_kind(today.rng, 0.15)
    opacities = chance.draw_opacities(today, kind) if planned.condition == "pneumonia" else ()
    view = chance.draw_view(today, body, (size, size), from_front=from_front)
    shot = chance.draw_exposure(today, from_front=from_front)
    findings = chance.draw_findings(today, body, planned.condition, opacities, from_front=from_front)
    header = {
        "PatientSex": "F" if body.female else "M",
        "PatientAge": f"{age:03d}Y",
        "ViewPosition": "AP" if from_front else "PA",
        "PhotometricInterpretation": "MONOCHROME1" if today.maybe(0.25) else "MONOCHROME2",
        "PixelSpacing": [round(view.pitch * body.scale, 4)] * 2,
    }
    compressed = today.maybe(0.7)
    header["LossyImageCompression"] = "01" if compressed else "00"
    return render(body, view, shot, findings, picture_seed), header


Item = TypeVar("Item")
Drawn = TypeVar("Drawn")


def draw(take: Callable[[Item], Drawn], items: Sequence[Item], workers: int, name: str) -> Iterator[Drawn]:
    """``take`` of every item in order, drawn by ``workers`` processes, with a progress bar."""
    workers = min(workers or os.cpu_count() or 1, len(items))
    bar = partial(tqdm, total=len(items), desc=name, unit="image")
    if workers == 1:
        keep_freed_memory()
        yield from bar(map(take, items))
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker) as pool:
        try:
            yield from bar(pool.map(take, items, chunksize=4))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of handing it back to the system.

    A picture takes hundreds of arrays of 2 MB. glibc hands back what is freed beyond twice the largest block freed so
    far, and taking it again page by page costs half as much as the arithmetic (64 ms against 42 at 512 pixels).
    Freeing one block of 30 MB, which is never touched, raises that limit; elsewhere this does nothing.
    """
    np.empty(30 * 2**20, np.uint8)
