"""Export a finished classifier to ONNX, which runs without torch and in other languages.

    python export_onnx.py --model pneumonia_resnet18.pth

Writes pneumonia_resnet18.onnx beside the model, or to --output. The input is whole radiographs as grey squares, bone
white; the output is calibrated probabilities of PNEUMONIA. Scaling, standardisation, mirror image and temperature are
part of the graph, and its metadata state what else a user needs. The file is written only if the predictions of
onnxruntime agree with torch on test images. Research only, not a medical device.
"""

import sys
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cxr import cli
from cxr.cli import ROOT


@dataclass(frozen=True)
class ExportConfig:
    """The model and the exported file."""

    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model")
    output: Path | None = cli.flag(None, help="the ONNX file; by default beside the model, ending in .onnx")


# Before torch is imported, so that --help and mistakes are answered at once.
CONFIG = cli.start(ExportConfig, __doc__) if __name__ == "__main__" else None

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.files import write_atomically
from cxr.runtime import Runtime
from pytorch_classification.classifier import Classifier
from pytorch_classification.data_load import CLASSES

OPSET = 18
LARGEST_DIFFERENCE = 1e-4  # of a probability
CPU = Runtime(torch.device("cpu"), bf16=False)


class ExportedClassifier(nn.Module):
    """The whole computation: uint8 [B, S, S], S being the classifier's ``store_size``, to probability float32 [B]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.model
        self.temperature, self.flip_tta = classifier.temperature, classifier.flip_tta
        # Scaling with antialiasing as a product on each side: as one operator, the exporter of torch 2.11 uses other
        # weights at the border, which changes probabilities by up to .001.
        identity = torch.eye(classifier.store_size)[None, None]
        shape = (classifier.size, classifier.store_size)
        self.scaling = nn.Buffer(functional.interpolate(identity, shape, mode="bilinear", antialias=True)[0, 0])

    def forward(self, pixels: Tensor) -> Tensor:
        """Calibrated probability of PNEUMONIA."""
        images = (self.scaling @ (pixels.float() / 255) @ self.scaling.T).unsqueeze(1)
        if self.flip_tta:  # as one batch: the exporter of torch 2.11 loses the weights of a second call
            log_odds = self.network(torch.cat([images, images.flip(3)])).reshape(2, -1).mean(0)
        else:
            log_odds = self.network(images)[:, 0]
        return torch.sigmoid(log_odds / self.temperature)


def exported(classifier: Classifier) -> bytes:
    """``classifier`` as an ONNX model for batches of any size."""
    squares = torch.zeros((2, classifier.store_size, classifier.store_size), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 warns of its own call
        program: Any = torch.onnx.export(
            ExportedClassifier(classifier).eval(),
            (squares,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["probability"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    program.model.metadata_props.update(
        {
            "input_size": str(classifier.store_size),
            "input": "whole grey radiographs as uint8 squares, bone white, squashed bilinearly with antialiasing",
            "network_size": str(classifier.size),
            "standardisation": "mean 0 and standard deviation 1 within each image; part of the graph",
            "mirror_image": "averaged with the image; part of the graph" if classifier.flip_tta else "not used",
            "temperature": repr(classifier.temperature),
            "temperature_is_applied": "yes, in the graph",
            "threshold": repr(classifier.threshold),
            "classes": ",".join(CLASSES),
            "decision": f"{CLASSES[1]} where the probability is at or above the threshold",
            "opset": str(OPSET),
            "provenance": classifier.provenance.sentence(classifier.threshold),
        }
    )
    return program.model_proto.SerializeToString()


def largest_difference(model: bytes, classifier: Classifier) -> float:
    """Between the probabilities of onnxruntime and torch, over noise and smooth images in batches of 5, 4 and 1."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    side, random = classifier.store_size, np.random.default_rng(0)
    noise = random.integers(0, 256, (5, side, side), dtype=np.uint8)
    across, down = np.meshgrid(np.linspace(0, 4, side), np.linspace(0, 4, side))
    waves = [127 * (1 + np.sin(k * across) * np.cos(down / k)) for k in (0.5, 1, 2)]
    smooth = np.stack([np.zeros((side, side)), *waves]).astype(np.uint8)
    differences: list[float] = []
    for squares in (noise, smooth, noise[:1]):
        (found,) = session.run(None, {"pixels": squares})
        differences.append(float(np.abs(found - classifier.probabilities(squares, CPU)).max()))
    return max(differences)


def main(config: ExportConfig) -> None:
    """Export, compare, write."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise ValueError(f"export needs {name}, which is not installed: pip install -r requirements-onnx.txt")
    output = config.output or config.model.with_suffix(".onnx")
    if output.resolve() == config.model.resolve():
        raise ValueError(f"--output {output}: would replace the model itself; give another file")
    classifier = Classifier.load(config.model, CPU)
    model = exported(classifier)
    difference = largest_difference(model, classifier)
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"{config.model}: onnxruntime's probabilities differ from torch's by {difference:.2g}, more than "
            f"{LARGEST_DIFFERENCE:g}; nothing is written"
        )
    write_atomically(output, lambda file: file.write(model))
    print(f"{output}: opset {OPSET}, {len(model) / 1e6:.0f} MB")
    print(f"largest difference from torch's probabilities: {difference:.1g}")
    print(f"model: {classifier.provenance.sentence(classifier.threshold)}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
