"""Model files with code or bombs in them, through every flag of every script that names one."""

import os
import pickle
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tiny_classification
import tiny_detection
import torch
from killing import flags
from PIL import Image

from cxr import checkpoints
from pytorch_classification import pointing_game, predict_classification, train_classification
from pytorch_classification.model import TASK as CLASSIFICATION
from pytorch_detection import predict_detection, train_detection
from pytorch_detection.model import TASK as DETECTION


class Mark:
    """Unpickling one makes a folder."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


class MarkLater:
    """Unpickling one makes a folder when its state is set, after it was made without harm."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return dict, (), None, None, iter([("a", Mark(self.place))])


def nested(evil, good):
    """``good`` with ``evil`` somewhere in the middle of it."""
    part = "prediction" if "prediction" in good else "optimizer"
    return {**good, part: {**good[part], "threshold": [({"a": evil},)]}}


def tensor_key(evil, good):
    return {**good, "model": {**good["model"], "evil": evil}}


def compressed(path, good):
    torch.save(good, path)
    with zipfile.ZipFile(path) as whole:
        members = [(member.filename, whole.read(member)) for member in whole.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)


def pickled(path, evil):
    with path.open("wb") as file:
        pickle.dump(evil, file, 2)


def expanded(path, good):
    torch.save({**good, "model": {**good["model"], "fc.weight": torch.zeros(1).expand(2**33)}}, path)


def lists(path, good):
    deep = [0]
    for _ in range(40):
        deep = [deep, deep]
    torch.save({**good, "model": deep}, path)


def hole(path, _good):
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(2**32)


HOSTILE = {
    "code alone": lambda path, _good, mark: torch.save(Mark(mark), path),
    "code in the middle": lambda path, good, mark: torch.save(nested(Mark(mark), good), path),
    "code among the weights": lambda path, good, mark: torch.save(tensor_key(Mark(mark), good), path),
    "code that comes later": lambda path, good, mark: torch.save(tensor_key(MarkLater(mark), good), path),
    "code in the old format": lambda path, good, mark: torch.save(nested(Mark(mark), good), path, _use_new_zipfile_serialization=False),
    "code without torch": lambda path, _good, mark: pickled(path, {"model": Mark(mark)}),
    "four bytes for gigabytes": lambda path, good, _mark: expanded(path, good),
    "lists without end": lambda path, good, _mark: lists(path, good),
    "a compressed archive": lambda path, good, _mark: compressed(path, good),
    "four gigabytes": lambda path, good, _mark: hole(path, good),
}  # fmt: skip


@pytest.fixture(scope="module")
def detector():
    return tiny_detection.finished()


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50), np.uint8)).save(path)
    return path


def resumed(config, folder, path, **changes):
    """The command line of a finished run that is taken up in ``folder``, where ``path`` may be its checkpoint."""
    kept = shutil.ignore_patterns("run.lock", "decoded", "*report.json")
    shutil.copytree(config.out_dir, folder / "run", ignore=kept, copy_function=os.link)
    if path.parent == folder / "run":
        path.unlink()
    return flags(replace(config, out_dir=folder / "run", images_dir=folder / "images", resume=True, **changes))


@pytest.fixture
def ways(trained, detector, tmp_path, film):
    """For each flag: the script, its words, the file that it names, and a good state of that kind."""
    evil, last, config = tmp_path / "evil.pth", tmp_path / "run" / "last.pth", trained.config
    best = detector.config.out_dir / "best.pth"
    asked = ("--image", film, "--output-dir", tmp_path / "out", "--device", "cpu")
    fresh = {"data_dir": config.data_dir, "folder": tmp_path, "weights": str(evil)}

    def of(path, task):
        return evil, checkpoints.load(path, task=task)

    return {
        "predict_classification --model": lambda: (predict_classification, [*asked, "--model", evil], *of(config.model_file, CLASSIFICATION)),
        "predict_detection --model": lambda: (predict_detection, [*asked, "--model", evil], *of(best, DETECTION)),
        "predict_detection --classifier": lambda: (predict_detection, [*asked, "--model", best, "--classifier", evil], *of(config.model_file, CLASSIFICATION)),
        "pointing_game --model": lambda: (pointing_game, ["--image", film.parent, "--boxes", boxes(film), "--model", evil], *of(config.model_file, CLASSIFICATION)),
        "train_classification --weights": lambda: (train_classification, lambda: flags(tiny_classification.settings(**fresh)), *of(config.model_file, CLASSIFICATION)),
        "train_detection --weights": lambda: (train_detection, lambda: flags(tiny_detection.settings(**{**fresh, "data_dir": detector.data})), *of(best, DETECTION)),
        "train_detection --weights of a classifier": lambda: (train_detection, lambda: flags(tiny_detection.settings(**{**fresh, "data_dir": detector.data})), *of(config.model_file, CLASSIFICATION)),
        "train_detection --classifier": lambda: (train_detection, lambda: resumed(detector.config, tmp_path, evil, classifier=evil), *of(config.model_file, CLASSIFICATION)),
        "train_classification --resume": lambda: (train_classification, resumed(replace(config, model_file=tmp_path / "model.pth"), tmp_path, last), last, checkpoints.load(config.out_dir / "last.pth", task=CLASSIFICATION)),
        "train_detection --resume": lambda: (train_detection, resumed(detector.config, tmp_path, last), last, checkpoints.load(detector.config.out_dir / "last.pth", task=DETECTION)),
    }  # fmt: skip


def boxes(film):
    path = film.parent / "boxes.csv"
    path.write_text(f"path,x,y,width,height\n{film.name},1,2,30,40\n")
    return path


FLAGS = (
    "predict_classification --model",
    "predict_detection --model",
    "predict_detection --classifier",
    "pointing_game --model",
    "train_classification --weights",
    "train_detection --weights",
    "train_detection --weights of a classifier",
    "train_detection --classifier",
    "train_classification --resume",
    "train_detection --resume",
)


@pytest.mark.parametrize("kinds", [("code in the middle",), pytest.param(tuple(HOSTILE), marks=pytest.mark.slow)])
@pytest.mark.parametrize("flag", FLAGS)
def test_no_flag_runs_code_or_unfolds_a_bomb(ways, tmp_path, flag, kinds, command):
    assert {*ways} == {*FLAGS}
    script, words, path, good = ways[flag]()
    mark = tmp_path / "it ran"
    for name in kinds:
        HOSTILE[name](path, good, mark)
        if callable(words):  # which needs the file to be there
            words = words()
        ended = command(script.main, *words)
        line = ended.err.replace("\r", "\n").splitlines()[-1]
        assert ended.code == 2 and line.startswith("error: ") and path.name in line and len(line) < 1000, (name, line)
        assert "Traceback" not in ended.err and not mark.exists(), name
        path.unlink()


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("code")])
def test_the_code_would_have_run_for_a_careless_reader(tmp_path, name):
    good = {"model": {}, "prediction": {}}
    HOSTILE[name](tmp_path / "evil.pth", good, tmp_path / "it ran")
    with (tmp_path / "evil.pth").open("rb") as file:
        pickle.load(file) if name == "code without torch" else torch.load(file, weights_only=False)
    assert (tmp_path / "it ran").is_dir()
