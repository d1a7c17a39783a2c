"""Predictions of the bundled classifier for a few synthetic chests, recorded when it is replaced.

    python tests/shipped_model.py && python model_card.py --external-report docs/results/pneumonia_resnet18_on_rsna.json

writes shipped_model.json beside this file, from ``pneumonia_resnet18.pth`` at the root of the repository, and
MODEL_CARD.md beside the model. Both are committed with it, and so is the report, which evaluate_classification.py
wrote with --corruptions on RSNA's images; tests compare all four.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from PIL import Image

from cxr import reading
from cxr.cli import ROOT
from cxr.files import sha256_of
from cxr.runtime import Runtime
from phantom.cohort import PlannedImage, render_image
from pytorch_classification.classifier import Classifier

MODEL = ROOT / "pneumonia_resnet18.pth"
RECORDED = Path(__file__).with_suffix(".json")
ON_RSNA = ROOT / "docs" / "results" / "pneumonia_resnet18_on_rsna.json"
_IMAGES = {
    "normal": PlannedImage("", None, 1, 1),
    "another normal": PlannedImage("", None, 2, 1),
    "lobar": PlannedImage("", "lobar", 3, 1),
    "patchy": PlannedImage("", "patchy", 4, 1),
    "interstitial": PlannedImage("", "interstitial", 5, 1),
}


def predictions(folder: Path) -> dict[str, Any]:
    """The hash of the model file, and its prediction for each chest, which is rendered into ``folder``."""
    processor = Runtime(torch.device("cpu"), bf16=False)
    classifier = Classifier.load(MODEL, processor)
    found: dict[str, Any] = {}
    for name, image in _IMAGES.items():
        picture, _ = render_image(image, seed=0, widest=600)
        path = folder / f"{name}.png"
        Image.fromarray(picture.pixels).save(path)
        output = classifier.predict(reading.read(path).square(classifier.store_size)[None], processor)
        found[name] = {
            "probability": float(output.probability[0]),
            "out_of_distribution": None if output.out_of_distribution is None else bool(output.out_of_distribution[0]),
        }
    return {"sha256": sha256_of(MODEL), "predictions": found}


def is_committed() -> bool:
    """Whether the model is part of this checkout."""
    return bool(_git("ls-files", "--", MODEL.name))


def is_replaced() -> bool:
    """Whether another model replaces the committed one, as after a training."""
    return is_committed() and bool(_git("diff", "--name-only", "HEAD", "--", MODEL.name))


def _git(*arguments: str) -> str:
    """The output of git; empty outside a checkout or without git."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        recorded = predictions(Path(temporary))
    RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    print(f"{RECORDED}: {len(recorded['predictions'])} predictions of {MODEL.name}")
