"""Tell NORMAL from PNEUMONIA on chest radiographs: JPEG, PNG, TIFF or DICOM; files, folders or globs.

    python pytorch_classification/predict_classification.py chest.jpeg

For one image it prints a sentence and draws Grad-CAM; for many, a line for each of the 20 with the
highest probability, and predictions.csv with the columns path, probability (of PNEUMONIA, calibrated), class,
threshold, borderline, out_of_distribution, note (what the header says against a frontal chest), error and model. With
--dicom-output each DICOM file also gets a structured report and its picture as DICOM files, for a PACS. Exit code 0:
all answered; 1: some files could not be read; 2: nothing could be done. Research only, not a medical device.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_classification.settings import PredictConfig

# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(PredictConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
from tqdm import tqdm

from cxr import messages, prediction, reading, runtime, tables
from cxr.messages import first_lines
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES

_BATCH = 32
_HEADER = ("path", "probability", "class", "threshold", "borderline", "out_of_distribution", "note", "error", "model")


@dataclass(frozen=True)
class Answer:
    """What is said of one file.

    Attributes:
        probability: of PNEUMONIA; None when ``error`` says why, or when an unlike image was refused.
        unlike: whether the image is unlike those of training; None where nobody can tell.
        note: what the header says against a frontal chest radiograph.
    """

    path: Path
    probability: float | None
    threshold: float
    error: str
    picture: Path | None
    unlike: bool | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """NORMAL or PNEUMONIA; empty without a probability."""
        return "" if self.probability is None else CLASSES[self.probability >= self.threshold]

    @property
    def borderline(self) -> bool:
        """Whether the probability is so near the operating point that it could as well be the other class."""
        return self.probability is not None and prediction.is_borderline(self.probability, self.threshold)

    @property
    def warnings(self) -> list[str]:
        """What must be said with the answer."""
        said = {prediction.BORDERLINE: self.borderline, prediction.UNLIKE: self.unlike, self.note: bool(self.note)}
        return [warning for warning, holds in said.items() if holds]

    def row(self, origin: str) -> list[str]:
        """For the CSV."""
        probability = "" if self.probability is None else f"{self.probability:.6f}"
        borderline = None if self.probability is None else self.borderline
        flags = [prediction.in_words(flag) for flag in (borderline, self.unlike)]
        answer = [probability, self.label, f"{self.threshold:.6f}", *flags]
        return [messages.shown_path(self.path), *answer, self.note, self.error, origin]

    def sentence(self) -> str:
        """For a person."""
        if self.probability is None:
            return self.error or f"{messages.shown_path(self.path)}: no answer, {prediction.REFUSED}"
        said = f"{self.label}, probability of PNEUMONIA {self.probability:.3f} (operating point {self.threshold:.3f})"
        return "; ".join([f"{messages.shown_path(self.path)}: {said}", *self.warnings])

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "probability": self.probability,
            "class": self.label or None,
            "borderline": self.borderline,
            "out_of_distribution": self.unlike,
            "note": self.note or None,
            "picture": None if self.picture is None else str(self.picture),
            "error": self.error or None,
        }


def predict(
    classifier: Classifier,
    paths: list[Path],
    config: PredictConfig,
    draw: bool,
    run: runtime.Runtime,
    answers: list[Answer],
) -> None:
    """Append an answer for each of ``paths``, in order, to ``answers``; those of a stop before the end are there."""
    taken: set[str] = set()
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=len(paths) == 1) as progress:
        for batch in reading.read_ahead(paths, classifier.store_size, _BATCH):
            for read, answer in zip(batch, judged(classifier, batch, run), strict=True):
                if answer.unlike and config.refuse_ood:
                    answer = replace(answer, probability=None)
                elif draw and not answer.error:
                    answer = draw_answer(classifier, answer, read, config, taken, run)
                answers.append(answer)
            progress.update(len(batch))


def judged(classifier: Classifier, batch: list[reading.Read], run: runtime.Runtime) -> list[Answer]:
    """An answer without picture for each of ``batch``."""
    answers = [Answer(read.path, None, classifier.threshold, read.error, None, note=read.note) for read in batch]
    good = {place: read.image for place, read in enumerate(batch) if read.image is not None}
    if good:
        found = classifier.predict(np.stack([*good.values()]), run)
        for row, place in enumerate(good):
            unlike = None if found.out_of_distribution is None else bool(found.out_of_distribution[row])
            answers[place] = replace(answers[place], probability=float(found.probability[row]), unlike=unlike)
    return answers


def draw_answer(
    classifier: Classifier,
    answer: Answer,
    read: reading.Read,
    config: PredictConfig,
    taken: set[str],
    run: runtime.Runtime,
) -> Answer:
    """``answer`` with a picture beside it: the radiograph, and over it Grad-CAM of the PNEUMONIA output.

    A file that is gone or another by now is answered with an error: its picture would not show what was judged.
    """
    from pytorch_classification import plots

    radiograph, error = reading.read_again(read)
    if radiograph is None:
        return replace(answer, probability=None, unlike=None, error=error)
    assert read.image is not None
    heat = classifier.predict(read.image[None], run, grad_cam=True).grad_cam
    assert heat is not None
    picture = messages.free_name(config.output_dir, answer.path.stem, "_grad_cam.png", taken)
    title = (
        f"{answer.path.name}: {answer.label}, probability of PNEUMONIA {answer.probability:.3f}, "
        f"operating point {answer.threshold:.3f}"
    )
    plots.grad_cam_overlay(
        radiograph,
        heat[0],
        "\n".join([title, *answer.warnings]),
        picture,
        caption=classifier.provenance.sentence(classifier.threshold),
        common_scale=classifier.grad_cam_scale is not None,
    )
    return replace(answer, picture=picture)


def write_dicom(answers: list[Answer], folder: Path, config: PredictConfig, classifier: Classifier) -> str:
    """A report, and a picture where one was drawn, for each answered DICOM file; a sentence that counts them."""
    from cxr import dicom_results

    model = prediction.Model.of(
        "ResNet-18 classifier", config.model, classifier.threshold, classifier.provenance.adapted
    )
    predictions = [
        prediction.Prediction(
            answer.path,
            note=answer.note,
            probability=answer.probability,
            out_of_distribution=answer.unlike,
            picture=answer.picture,
        )
        for answer in answers
    ]
    return dicom_results.write_all(predictions, folder, classifier=model)


def summary(answers: list[Answer]) -> str:
    """A line for the most suspicious, for what could not be read, and how many there are of each kind."""
    answered = [answer for answer in answers if answer.probability is not None]
    answered.sort(key=lambda answer: -(answer.probability or 0))
    failed = [answer.error for answer in answers if answer.error]
    counts = [f"{sum(answer.label == name for answer in answers)} {name}" for name in CLASSES]
    borderline = sum(answer.borderline for answer in answers)
    unlike = sum(answer.unlike is True for answer in answers)
    refused = len(answers) - len(answered) - len(failed)
    lines = first_lines([answer.sentence() for answer in answered])
    lines += [f"not readable: {error}" for error in first_lines(failed)]
    lines.append(
        f"{len(answers)} files: {', '.join(counts)} ({borderline} borderline), {unlike} unlike training's images"
        f"{f' ({refused} refused)' if refused else ''}, {len(failed)} not readable"
    )
    return "\n".join(lines)


def main(config: PredictConfig) -> int:
    """Parse, load, answer."""
    paths = reading.find_images(config.image)
    single = len(paths) == 1 and Path(config.image[0]).is_file()
    if config.dicom_output is not None:  # what could only fail after the last image is refused at once
        from cxr import dicom_results

        dicom_results.require_highdicom()
    table = config.output_dir / "predictions.csv"
    answers: list[Answer] = []
    with runtime.start(config.device, "fp32", seed=0) as run:
        classifier = Classifier.load(config.model, run, config.threshold)
        wanted = single or config.dicom_output is not None
        draw = wanted if config.grad_cam is None else config.grad_cam
        try:
            predict(classifier, paths, config, draw, run, answers)
        except (KeyboardInterrupt, cli.Terminated) as stop:
            raise type(stop)(stopped(answers, len(paths), table, classifier)) from stop
    failed = [answer for answer in answers if answer.error]
    if single and failed:
        raise ValueError(failed[0].error)
    if not single:
        write_table(table, answers, classifier)
    documents = write_dicom(answers, config.dicom_output, config, classifier) if config.dicom_output else ""
    origin = classifier.provenance
    if config.json:
        shown = {"model": str(config.model), "operating_point": classifier.threshold, "origin": origin.record()}
        print(json.dumps({**shown, "images": [answer.record() for answer in answers]}, indent=2))
        return 1 if failed else 0
    if single:
        print(answers[0].sentence())
        if answers[0].picture:
            print(f"picture: {messages.shown_path(answers[0].picture)}")
    else:
        print(f"{summary(answers)}\ntable: {table}")
    if documents:
        print(documents)
    print(f"model: {origin.sentence(classifier.threshold)}")
    return 1 if failed else 0


def write_table(table: Path, answers: list[Answer], classifier: Classifier) -> None:
    """predictions.csv."""
    tables.write_csv(table, _HEADER, (answer.row(classifier.provenance.short()) for answer in answers))


def stopped(answers: list[Answer], wanted: int, table: Path, classifier: Classifier) -> str:
    """What there is after a stop before the end, which is written first."""
    if not answers:
        return "no image was answered, and no table written"
    write_table(table, answers, classifier)
    return f"{len(answers)} of {wanted} files were answered; {table} holds them"


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
