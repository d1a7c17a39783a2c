"""Model files with code in them, through the flags that name one."""

import os

import numpy as np
import pytest
import tiny_classification
import tiny_detection
import torch
from killing import flags
from PIL import Image

from pytorch_classification import pointing_game, predict_classification, train_classification
from pytorch_detection import predict_detection, train_detection


class Mark:
    """Unpickling one makes a folder."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50), np.uint8)).save(path)
    (tmp_path / "boxes.csv").write_text(f"path,x,y,width,height\n{path.name},1,2,30,40\n")
    return path


def prediction(film, _chest_xray, evil):
    return ["--image", film, "--output-dir", film.parent / "out", "--device", "cpu", "--model", evil]


def game(film, _chest_xray, evil):
    return ["--image", film, "--boxes", film.parent / "boxes.csv", "--device", "cpu", "--model", evil]


def classification(film, chest_xray, evil):
    return flags(tiny_classification.settings(chest_xray, film.parent, weights=str(evil)))


def detection(film, _chest_xray, evil):
    data = tiny_detection.write_rsna(film.parent / "dataset_det", 24)
    return flags(tiny_detection.settings(data, film.parent, weights=str(evil)))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (predict_classification, prediction),
        (predict_detection, prediction),
        (pointing_game, game),
        (train_classification, classification),
        (train_detection, detection),
    ],
)
def test_a_model_file_with_code_ends_in_one_line(script, words, chest_xray, film, tmp_path, command):
    evil, mark = tmp_path / "evil.pth", tmp_path / "it ran"
    torch.save({"format": 1, "task": "any", "model": {"weight": torch.zeros(2), "evil": Mark(mark)}}, evil)
    ended = command(script.main, *words(film, chest_xray, evil))
    line = ended.err.replace("\r", "\n").splitlines()[-1]
    assert ended.code == 2 and line.startswith("error: ") and evil.name in line and "mkdir" in line
    assert "Traceback" not in ended.err and not mark.exists()
