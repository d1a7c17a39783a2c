import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from cxr import checkpoints, cli
from studies import readme_pictures


@pytest.fixture
def demo(tmp_path):
    """What a demo leaves, with two images a data set and models without weights."""
    run = tmp_path / "sample" / "run"
    for part in readme_pictures.PARTS:
        folder = tmp_path / "sample" / part.data
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / part.kind.replace("*", str(number))).touch()
        (folder / "sample_data.json").write_text(json.dumps({"made_by": "make_sample_data.py", part.counted: 2}))
        write_model(run, part, folder)
        (run / part.task / "images").mkdir(parents=True)
        for name in part.pictures:
            save_png(run / part.task / "images" / name)
    return tmp_path / "sample"


def save_png(path):
    Image.new("RGBA", (40, 30), "grey").save(path, "PNG")


def write_model(run, part, data_dir, *, synthetic=True):
    checkpoints.save(run / part.model, task=part.task, trained_on={"synthetic": synthetic, "folder": data_dir.name})


def draw(demo, command, monkeypatch, film="chest_xray/0.jpeg", out="out"):
    """The ended command; other scripts and Chromium only write what they were asked for."""

    def write(words, **_):
        if "--output-dir" in words:
            folder, image = Path(words[words.index("--output-dir") + 1]), Path(words[words.index("--image") + 1])
            folder.mkdir(exist_ok=True)
            save_png(folder / ("worklist.html" if words[1] == "worklist.py" else f"{image.stem}_drawn.png"))
        for word in words:
            if word.startswith("--screenshot="):
                save_png(word.removeprefix("--screenshot="))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", write)
    monkeypatch.setattr(readme_pictures.shutil, "which", str)
    (demo / out).mkdir()
    words = ("--film", demo / film, "--exam", demo / "dataset_det" / "0.dcm", "--demo-dir", demo)
    ended = command(readme_pictures.main, *words, "--images-dir", demo / out)
    return ended, sorted(path.name for path in (demo / out).iterdir())


def test_all_pictures_of_readme_and_docs_are_written(demo, command, monkeypatch):
    ended, written = draw(demo, command, monkeypatch)
    assert ended.code == 0, ended.err
    pages = [cli.ROOT / "README.md", *(cli.ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = {path.name for path in (cli.ROOT / "images").glob("*.png") if f"images/{path.name}" in text}
    assert written == sorted(shown - {"growth.png"})  # that one is of a study on real exams


def folder_of_patients(demo):
    (demo / "chest_xray" / "sample_data.json").unlink()


def one_image_more(demo):
    (demo / "dataset_det" / "patient.dcm").touch()


def real_model(demo):
    write_model(demo / "run", readme_pictures.PARTS[0], demo / "chest_xray", synthetic=False)


def other_data(demo):
    write_model(demo / "run", readme_pictures.PARTS[1], demo / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (folder_of_patients, "chest_xray is not sample data of make_sample_data.py"),
        (one_image_more, "dataset_det holds 3 files *.dcm, where make_sample_data.py drew 2"),
        (real_model, "pneumonia_resnet18.pth was trained on"),
        (other_data, "pneumonia_fasterrcnn.pth was trained on"),
    ],
)
def test_what_is_not_of_the_sample_data_alone_is_refused(demo, command, monkeypatch, change, message):
    change(demo)
    ended, written = draw(demo, command, monkeypatch)
    assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1
    assert written == []
