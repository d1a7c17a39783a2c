"""Export a finished classifier to ONNX, which runs without torch and in other languages.

    python export_onnx.py --model pneumonia_resnet18.pth

Writes pneumonia_resnet18.onnx beside the model, unless --output names another file. The graph takes whole radiographs
as grey squares, bone white, and gives calibrated probabilities of PNEUMONIA; scaling, standardisation, mirror image and
temperature are part of it, and its metadata say what else a user must know. Before the file is written, onnxruntime
answers a few images with it, which must agree with torch. Research only, not a medical device.
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
    """Which model, and where it goes."""

    model: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished model that training wrote")
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
PROCESSOR = Runtime(torch.device("cpu"), bf16=False)


class Whole(nn.Module):
    """All that stands between a square and its probability.

    Takes uint8 [B, S, S], S being the ``store_size`` of the classifier, and gives float32 [B].
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.model
        self.temperature, self.flip_average = classifier.temperature, classifier.flip_tta
        # Scaling with antialiasing as a product on each side: as one operator, the exporter of torch 2.11 translates it
        # with other weights at the border, which moves probabilities by up to .001.
        identity = torch.eye(classifier.store_size)[None, None]
        wanted = (classifier.size, classifier.store_size)
        self.scaling = nn.Buffer(functional.interpolate(identity, wanted, mode="bilinear", antialias=True)[0, 0])

    def forward(self, pixels: Tensor) -> Tensor:
        """Calibrated probability of PNEUMONIA."""
        seen = (self.scaling @ (pixels.float() / 255) @ self.scaling.T).unsqueeze(1)
        if self.flip_average:  # as one batch: the exporter of torch 2.11 loses the weights of a second call
            log_odds = self.network(torch.cat([seen, seen.flip(3)])).reshape(2, -1).mean(0)
        else:
            log_odds = self.network(seen)[:, 0]
        return torch.sigmoid(log_odds / self.temperature)


def require_packages() -> None:
    """Raise ValueError unless the packages that export needs are installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise ValueError(f"export needs {name}, which is not installed: pip install -r requirements-onnx.txt")


def exported(classifier: Classifier) -> bytes:
    """``classifier`` as an ONNX model that takes batches of any number."""
    squares = torch.zeros((2, classifier.store_size, classifier.store_size), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 warns of what it calls itself
        program: Any = torch.onnx.export(
            Whole(classifier).eval(),
            (squares,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["probability"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    program.model.metadata_props.update(about(classifier))
    return program.model_proto.SerializeToString()


def about(classifier: Classifier) -> dict[str, str]:
    """What a user of the file must know, as its metadata."""
    return {
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
        "origin": classifier.provenance.sentence(classifier.threshold),
    }


def largest_difference(model: bytes, classifier: Classifier) -> float:
    """Between the probabilities of onnxruntime and torch, over batches of several sizes of images of all kinds."""
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
        differences.append(float(np.abs(found - classifier.probabilities(squares, PROCESSOR)).max()))
    return max(differences)


def main(config: ExportConfig) -> None:
    """Parse, export, compare, write."""
    require_packages()
    output = config.output or config.model.with_suffix(".onnx")
    if output.resolve() == config.model.resolve():
        raise ValueError(f"--output {output}: would replace the model itself; give another file")
    classifier = Classifier.load(config.model, PROCESSOR)
    model = exported(classifier)
    difference = largest_difference(model, classifier)
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"{config.model}: onnxruntime's probabilities differ from torch's by {difference:.2g}, more than "
            f"{LARGEST_DIFFERENCE:g}; nothing is written"
        )
    write_atomically(output, lambda file: file.write(model))
    print(f"{output}: opset {OPSET}, {len(model) / 1e6:.0f} MB")
    print(f"its probabilities differ from torch's by {difference:.1g} at most")
    print(f"model: {classifier.provenance.sentence(classifier.threshold)}")


if CONFIG is not None:
    sys.exit(cli.run(main, CONFIG))
