"""A classifier as an ONNX file, which predicts as torch does and needs no torch."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_classification import chest

import export_onnx
from cxr import reading
from cxr.cli import ROOT
from pytorch_classification.classifier import Classifier

SIZES = ((36, 36), (37, 61), (255, 31), (17, 16), (19, 501), (301, 455))  # width, height


@pytest.fixture(scope="module")
def model(trained):
    """The exported model."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="requirements-onnx.txt is not installed")
    return export_onnx.exported(load(trained))


def opened(model):
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def load(trained):
    return Classifier.load(trained.config.model_file, export_onnx.CPU)


def squares(folder, side):
    """uint8 [N, side, side] of pictures of odd sizes, read from files."""
    found = []
    for number, size in enumerate(SIZES):
        path = folder / f"{number}.png"
        Image.fromarray(chest(number % 2, number)).resize(size).save(path)
        found.append(reading.read(path).square(side))
    return np.stack(found)


def test_onnxruntime_predicts_as_torch_does_for_any_batch_and_image_size(trained, model, tmp_path):
    classifier = load(trained)
    images = squares(tmp_path, classifier.store_size)
    expected = classifier.probabilities(images, export_onnx.CPU)
    assert np.ptp(expected) > 0.01
    session = opened(model)
    for part in (slice(0, 6), slice(2, 3), slice(1, 4)):
        (found,) = session.run(None, {"pixels": images[part]})
        assert found.shape == (len(images[part]),) and np.abs(found - expected[part]).max() < 1e-4


def test_the_mirror_image_counts_only_with_flip_tta(trained, model):
    assert opened(model).get_modelmeta().custom_metadata_map["mirror_image"].startswith("averaged with the image")
    classifier = replace(load(trained), flip_tta=False)
    assert export_onnx.largest_difference(model, classifier) > 1e-4
    single = export_onnx.exported(classifier)
    assert export_onnx.largest_difference(single, classifier) < 1e-4
    assert opened(single).get_modelmeta().custom_metadata_map["mirror_image"] == "not used"


def test_the_script_writes_beside_the_model_and_prints_the_largest_difference(
    trained, model, tmp_path, command, monkeypatch
):
    monkeypatch.setattr(export_onnx, "exported", lambda _classifier: model)  # which takes seconds
    (tmp_path / "my.pth").symlink_to(trained.config.model_file)
    ended = command(export_onnx.main, "--model", tmp_path / "my.pth")
    assert (ended.code, ended.err) == (0, "")
    first, second, third = ended.out.splitlines()[-3:]  # an older onnxscript speaks too
    assert first == f"{tmp_path / 'my.onnx'}: opset 18, 45 MB" and (tmp_path / "my.onnx").is_file()
    assert float(re.search(r"from torch's probabilities: (\S+)$", second)[1]) < 1e-4
    assert third.startswith("model: my.pth, trained on 52 images")


def test_a_file_that_predicts_otherwise_is_not_written(trained, model, tmp_path, command, monkeypatch):
    classifier = load(trained)
    replace(classifier, temperature=1.01 * classifier.temperature).save(tmp_path / "other.pth")
    monkeypatch.setattr(export_onnx, "exported", lambda _other: model)
    ended = command(export_onnx.main, "--model", tmp_path / "other.pth")
    assert ended.code == 2 and re.search(
        r"differ from torch's by 0.\d+, more than 0.0001; nothing is written", ended.err
    )
    assert not (tmp_path / "other.onnx").exists()


def test_the_documented_lines_predict_without_torch(trained, model, tmp_path):
    page = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len([line for line in program.splitlines() if line]) <= 10
    picture = tmp_path / "chest.jpeg"
    Image.fromarray(chest(1, 5)).save(picture)
    (tmp_path / "pneumonia_resnet18.onnx").write_bytes(model)
    without_torch = "import sys\nsys.modules['torch'] = None\n" + program
    ended = subprocess.run([sys.executable, "-c", without_torch], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    classifier = load(trained)
    expected = classifier.probabilities(reading.read(picture).square(classifier.store_size)[None], export_onnx.CPU)
    answer, probability = re.fullmatch(r"(\w+), probability of PNEUMONIA ([\d.]+)\n", ended.stdout).groups()
    assert float(probability) == pytest.approx(expected[0], abs=6e-4)  # three digits are printed
    assert answer == ("PNEUMONIA" if expected[0] >= classifier.threshold else "NORMAL")
