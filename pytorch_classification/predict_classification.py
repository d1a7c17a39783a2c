"""Classify chest radiographs as NORMAL or PNEUMONIA: JPEG, PNG, TIFF or DICOM; files, folders or globs.

    python pytorch_classification/predict_classification.py chest.jpeg

For one image it prints a sentence and draws Grad-CAM; for many, a line for each of the 20 with the highest probability,
and writes classification.csv with the columns path, probability (of PNEUMONIA, calibrated), class, threshold,
borderline, out_of_distribution, note (what the header states against a frontal chest radiograph), error and model. With
--dicom-output each DICOM file also gets a structured report and its picture as DICOM files, for a PACS. Exit code 0:
all predicted; 1: some files could not be read; 2: nothing could be done. Research only, not a medical device.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli


@dataclass(frozen=True)
class PredictConfig:
    """Images, model and output."""

    image: tuple[str, ...] = cli.flag(positional=True, help="one or more files, folders or globs")
    model: Path = cli.flag(cli.ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
    threshold: float | None = cli.flag(
        None, above=0, below=1, help="classify as PNEUMONIA from this probability on; by default the model's threshold"
    )
    refuse_ood: bool = cli.flag(False, help="no prediction for out-of-distribution images")
    output_dir: Path = cli.flag(
        Path("predictions"), help="where pictures and classification.csv go; by default in the current directory"
    )
    grad_cam: bool | None = cli.flag(None, help="draw Grad-CAM; by default for a single file or a PACS")
    json: bool = cli.flag(False, help="print one JSON document instead of sentences")
    dicom_output: Path | None = cli.flag(
        None, help="write DICOM reports and pictures for a PACS there; needs highdicom"
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(PredictConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
from numpy.typing import NDArray

from cxr import prediction, reading, runtime
from cxr.prediction import Prediction, Sample
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES

_BATCH = 32
_DRAWN_BATCH = 8  # whose files stay in memory until their pictures are drawn

HeatMap = NDArray[np.float32]


class Output(prediction.TaskOutput):
    """Class and probability, and Grad-CAM of the PNEUMONIA output beside the radiograph."""

    columns = ("probability", "class")

    def __init__(self, model: Path, classifier: Classifier, folder: Path) -> None:
        super().__init__(model, classifier.threshold, classifier.provenance, folder)
        self._common_scale = classifier.grad_cam_scale is not None

    def draw(self, sample: Sample, one: Prediction, heat_map: HeatMap | None) -> Prediction:
        """``one`` with its picture."""
        from pytorch_classification import plots

        assert sample.radiograph is not None and heat_map is not None
        whole = sample.radiograph.whole()
        return self.drawn(
            one,
            "_grad_cam.png",
            lambda path, title, caption: plots.grad_cam_overlay(
                whole, heat_map, title, path, caption=caption, common_scale=self._common_scale
            ),
        )

    def label(self, prediction: Prediction) -> str:
        """NORMAL or PNEUMONIA; empty without a prediction."""
        return "" if prediction.probability is None else CLASSES[prediction.probability >= self.threshold]

    def score(self, prediction: Prediction) -> float | None:
        """The probability of PNEUMONIA."""
        return prediction.probability

    def cells(self, prediction: Prediction) -> list[list[str]]:
        """One row."""
        return [["" if prediction.probability is None else f"{prediction.probability:.6f}", self.label(prediction)]]

    def record(self, prediction: Prediction) -> dict[str, Any]:
        """Probability and class."""
        return {"probability": prediction.probability, "class": self.label(prediction) or None}

    def results(self, prediction: Prediction) -> list[str]:
        """One sentence."""
        probability = f"probability of PNEUMONIA {prediction.probability:.3f}"
        return [f"{self.label(prediction)}, {probability} (threshold {self.threshold:.3f})"]

    def counts(self, predictions: Sequence[Prediction]) -> str:
        """Images of each class."""
        labels = [self.label(one) for one in predictions]
        counts = ", ".join(f"{labels.count(name)} {name}" for name in CLASSES)
        return f"{counts} ({sum(map(self.is_borderline, predictions))} borderline)"


def predict(
    classifier: Classifier, samples: list[Sample], run: runtime.Runtime, *, grad_cam: bool
) -> Iterator[tuple[Prediction, HeatMap | None]]:
    """A prediction and, with ``grad_cam``, a heat map for each of the samples, whose only squares are stacked."""
    found = classifier.predict(np.stack([sample.squares[0] for sample in samples]), run, grad_cam=grad_cam)
    for row, sample in enumerate(samples):
        is_ood = None if found.out_of_distribution is None else bool(found.out_of_distribution[row])
        predicted = replace(sample.prediction, probability=float(found.probability[row]), out_of_distribution=is_ood)
        yield predicted, None if found.grad_cam is None else found.grad_cam[row]


def main(config: PredictConfig) -> int:
    """Read, predict, write."""
    paths = reading.find_images(config.image)
    single = len(paths) == 1 and Path(config.image[0]).is_file()
    if config.dicom_output is not None:  # what could only fail after the last image is refused at once
        from cxr import dicom_results

        dicom_results.require_highdicom()
    draws = config.grad_cam if config.grad_cam is not None else single or config.dicom_output is not None
    table = None if single else config.output_dir / "classification.csv"
    with runtime.start(config.device, "fp32", seed=0) as run:
        classifier = Classifier.load(config.model, run, config.threshold)
        output = Output(config.model, classifier, config.output_dir)
        batches = prediction.predict_in_batches(
            paths,
            lambda path: prediction.load(path, [classifier.store_size], keep=draws),
            lambda samples: predict(classifier, samples, run, grad_cam=draws),
            _DRAWN_BATCH if draws else _BATCH,
            draw=output.draw if draws else None,
            refuse_ood=config.refuse_ood,
        )
        predictions = output.collect(batches, len(paths), table)
    written: list[str] = []
    if config.dicom_output is not None:
        from cxr import dicom_results

        adapted = classifier.provenance.adapted
        model = prediction.Model.of("ResNet-18 classifier", config.model, classifier.threshold, adapted)
        written.append(dicom_results.write_all(predictions, config.dicom_output, classifier=model))
    return output.show(predictions, table, written, as_json=config.json)


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
