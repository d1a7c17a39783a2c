"""Tell NORMAL from PNEUMONIA on chest radiographs: JPEG, PNG, TIFF or DICOM; files, folders or globs.

    python pytorch_classification/predict_classification.py --image chest.jpeg

For one image it prints a sentence and draws Grad-CAM; for many it writes predictions.csv with the columns
path, probability (of PNEUMONIA, calibrated), class, error. With --dicom-output each DICOM file also gets a structured
report and its picture as DICOM files, for a PACS. Exit code 0: all answered; 1: some files could not be read;
2: nothing could be done. Research only, not a medical device.
"""

import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from pytorch_classification.settings import PredictConfig

if __name__ == "__main__":
    cli.parse(PredictConfig, summary=__doc__)  # --help and mistakes are answered before torch is imported: seconds

import numpy as np
from tqdm import tqdm

from cxr import names, reading, runtime, tables
from pytorch_classification.data_load import CLASSES
from pytorch_classification.model import Classifier

_BATCH = 32
_NEAR = math.log(2)  # odds within a factor of two of the operating point's


@dataclass(frozen=True)
class Answer:
    """What is said of one file; ``probability`` of PNEUMONIA is None when ``error`` says why."""

    path: Path
    probability: float | None
    threshold: float
    error: str
    picture: Path | None

    @property
    def label(self) -> str:
        """NORMAL or PNEUMONIA; empty without a probability."""
        return "" if self.probability is None else CLASSES[self.probability >= self.threshold]

    @property
    def near(self) -> bool:
        """Whether the odds lie within a factor of two of those at the operating point."""
        return self.probability is not None and abs(_log_odds(self.probability) - _log_odds(self.threshold)) < _NEAR

    def row(self) -> list[str]:
        """For the CSV."""
        probability = "" if self.probability is None else f"{self.probability:.6f}"
        return [names.shown_path(self.path), probability, self.label, self.error]

    def sentence(self) -> str:
        """For a person."""
        doubt = "; near the operating point: treat as undecided" if self.near else ""
        return (
            f"{names.shown_path(self.path)}: {self.label}, probability of PNEUMONIA {self.probability:.3f} "
            f"(operating point {self.threshold:.3f}{doubt})"
        )

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "probability": self.probability,
            "class": self.label or None,
            "near_operating_point": self.near,
            "picture": None if self.picture is None else str(self.picture),
            "error": self.error or None,
        }


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-12), 1 - 1e-12)
    return math.log(clipped / (1 - clipped))


def predict(
    classifier: Classifier, paths: list[Path], config: PredictConfig, draw: bool, run: runtime.Runtime
) -> list[Answer]:
    """An answer for each of ``paths``, in order."""
    answers: list[Answer] = []
    taken: set[str] = set()
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=len(paths) == 1) as progress:
        for batch in reading.read_ahead(paths, classifier.store_size, _BATCH):
            squares = [read.image for read in batch if read.image is not None]
            found = iter(classifier.probabilities(np.stack(squares), run).tolist() if squares else [])
            for read in batch:
                probability = next(found) if read.image is not None else None
                answer = Answer(read.path, probability, classifier.threshold, read.error, None)
                if draw and read.image is not None:
                    answer = draw_answer(classifier, answer, read, config, taken, run)
                answers.append(answer)
            progress.update(len(batch))
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
        return replace(answer, probability=None, error=error)
    assert read.image is not None
    heatmap = classifier.explain(read.image[None], run)[0]
    picture = names.free_name(config.output_dir, answer.path.stem, "_grad_cam.png", taken)
    title = f"{answer.path.name}: {answer.label}, probability of PNEUMONIA {answer.probability:.3f}"
    plots.grad_cam_overlay(radiograph, heatmap, title, picture)
    return replace(answer, picture=picture)


def require_for_dicom(config: PredictConfig) -> None:
    """Refuse at once what could only fail after the last image.

    Raises:
        ValueError: --dicom-3d alone, or highdicom is not installed.
    """
    if config.dicom_output is not None:
        from cxr import dicom_output

        dicom_output.require_highdicom()
    elif config.dicom_3d:
        raise ValueError("--dicom-3d is a form of what --dicom-output writes; give both")


def write_dicom(answers: list[Answer], folder: Path, config: PredictConfig) -> str:
    """A report, and a picture where one was drawn, for each answered DICOM file; a sentence that counts them."""
    from cxr import dicom_output

    model = dicom_output.Model.of("ResNet-18 classifier", config.model)
    results = [
        (
            answer.path,
            dicom_output.Results(
                dicom_output.Classification(model, answer.probability, answer.threshold, answer.near),
                picture=answer.picture,
            ),
        )
        for answer in answers
        if answer.probability is not None
    ]
    return dicom_output.write_all(results, folder, three_dimensional=config.dicom_3d)


def summary(answers: list[Answer], table: Path) -> str:
    """How many of which class, and how many could not be read."""
    counts = [sum(answer.label == name for answer in answers) for name in CLASSES]
    failed = sum(bool(answer.error) for answer in answers)
    near = sum(answer.near for answer in answers)
    return (
        f"{len(answers)} files: {counts[0]} {CLASSES[0]}, {counts[1]} {CLASSES[1]} ({near} near the operating point), "
        f"{failed} not readable\ntable: {table}"
    )


def main() -> int:
    """Parse, load, answer."""
    config = cli.parse(PredictConfig, summary=__doc__)
    paths = reading.find_images(config.image)
    single = len(paths) == 1 and Path(config.image[0]).is_file()
    require_for_dicom(config)
    with runtime.start(config.device, "fp32", seed=0) as run:
        classifier = load(config, run)
        wanted = single or config.dicom_output is not None
        draw = wanted if config.grad_cam is None else config.grad_cam
        answers = predict(classifier, paths, config, draw, run)
    failed = [answer for answer in answers if answer.error]
    if single and failed:
        raise ValueError(failed[0].error)
    table = config.output_dir / "predictions.csv"
    if not single:
        header = ("path", "probability", "class", "error")
        tables.write_csv(table, header, (answer.row() for answer in answers))
    documents = write_dicom(answers, config.dicom_output, config) if config.dicom_output else ""
    if config.json:
        shown = {"model": str(config.model), "operating_point": classifier.threshold}
        print(json.dumps({**shown, "images": [answer.record() for answer in answers]}, indent=2))
    elif single:
        print(answers[0].sentence())
        if answers[0].picture:
            print(f"picture: {names.shown_path(answers[0].picture)}")
    else:
        print(summary(answers, table))
    if documents and not config.json:
        print(documents)
    return 1 if failed else 0


def load(config: PredictConfig, run: runtime.Runtime) -> Classifier:
    """The model, or an error that says how to get one."""
    if not config.model.exists():
        raise FileNotFoundError(
            f"no model at {config.model.resolve()}; train one with "
            "`python pytorch_classification/train_classification.py` or name one with --model"
        )
    return Classifier.load(config.model, run)


if __name__ == "__main__":
    sys.exit(cli.run(main))
