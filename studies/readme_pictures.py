"""Write the pictures that README shows into images/, from the demo and nothing else: none may show a person.

    make pictures

runs the demo and then this script. It refuses a demo whose data were not all drawn by make_sample_data.py, or whose
models or pictures come from other data; then nothing is written. The page of the worklist is photographed by Chromium.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Works from a bare clone and from any directory: the repository root holds the shared package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli
from cxr.cli import ROOT

_MADE_BY = "make_sample_data.py"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PAGE_SIZE = (1440, 900)  # pixels
_LISTED = 16  # exams on the page of the worklist
_LARGEST = 2**20  # bytes of a picture
_NARROWER = 1200  # pixels; README shows 800


@dataclass(frozen=True)
class PicturesConfig:
    """Which demo, and which two images of it are predicted."""

    film: Path = cli.flag(help="the image of the demo that the classifier is shown with")
    exam: Path = cli.flag(help="the exam of the demo that the detector is shown with")
    demo_dir: Path = cli.flag(ROOT / "sample", help="what make demo wrote")
    images_dir: Path = cli.flag(ROOT / "images", help="where README's pictures lie")


@dataclass(frozen=True)
class Part:
    """What the demo has of one task.

    Attributes:
        kind: of the files that the record of the sample counts under ``counted``.
        pictures: of its evaluation that README shows.
    """

    task: str
    data: str
    kind: str
    counted: str
    model: str
    pictures: tuple[str, ...]


PARTS = (
    Part(
        "classification",
        "chest_xray",
        "*.jpeg",
        "images",
        "pneumonia_resnet18.pth",
        ("confusion_matrix.png", "grad_cam.png"),
    ),
    Part(
        "detection",
        "dataset_det",
        "*.dcm",
        "exams",
        "pneumonia_fasterrcnn.pth",
        ("loss_curve.png", "detection_example.png"),
    ),
)


def require_sample(folder: Path, part: Part) -> None:
    """Raise ValueError unless ``folder`` holds what make_sample_data.py drew, and no image more."""
    try:
        record = json.loads((folder / "sample_data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or record.get("made_by") != _MADE_BY:
        raise ValueError(f"{folder} is not sample data of {_MADE_BY}; README's pictures show nothing else")
    found = sum(1 for _ in folder.rglob(part.kind))
    if found != record.get(part.counted):
        raise ValueError(f"{folder} holds {found} files {part.kind}, where {_MADE_BY} drew {record.get(part.counted)}")


def require_made_from(folder: Path, run: Path, part: Part) -> None:
    """Raise ValueError unless the model in ``run`` learnt from synthetic images in a folder of that name."""
    from cxr import checkpoints

    model = run / part.model
    learnt: dict[str, Any] = checkpoints.load(model, task=part.task).get("trained_on", {})
    if not learnt.get("synthetic") or learnt.get("folder") != folder.resolve().name:
        raise ValueError(f"{model} was trained on {learnt.get('folder', 'no known folder')}; expected {folder}")


def require_within(file: Path, folder: Path) -> None:
    """Raise ValueError unless ``file`` is one of the images in ``folder``."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{file} is no image of {folder}")


def call(*words: str | Path) -> None:
    """Run a script of this project; raises ValueError with its last line if it fails."""
    ended = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ValueError(f"{words[0]} failed: {(ended.stderr.splitlines() or ['without a word'])[-1]}")


def photograph(page: Path, picture: Path) -> None:
    """What Chromium shows of ``page``, as PNG.

    Raises:
        FileNotFoundError: no Chromium is installed.
        ValueError: it wrote no picture.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError("the worklist's picture needs Chromium, which is not installed (none on PATH)")
    width, height = _PAGE_SIZE
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en"]
    command += [f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode or not picture.exists():
        raise ValueError(f"{browser} took no picture of {page}: {ended.stderr[-300:]}")


def draw(config: PicturesConfig, run: Path, folder: Path) -> None:
    """All of README's pictures, in ``folder``."""
    classifier, detector = (run / part.model for part in PARTS)
    for part in PARTS:
        for name in part.pictures:
            shutil.copy(run / part.task / "images" / name, folder / name)
    for script, image, model, name in (
        ("pytorch_classification/predict_classification.py", config.film, classifier, "predicted_class.png"),
        ("pytorch_detection/predict_detection.py", config.exam, detector, "predicted_boxes.png"),
    ):
        call(script, "--image", image.resolve(), "--model", model.resolve(), "--output-dir", folder)
        (drawn,) = folder.glob(f"{image.stem}_*.png")
        drawn.replace(folder / name)
    exams = sorted((config.demo_dir / "dataset_det").resolve().rglob("*.dcm"))[:_LISTED]
    models = ("--classifier", classifier.resolve(), "--detector", detector.resolve())
    call("worklist.py", "--image", *exams, *models, "--output-dir", folder / "worklist")
    photograph(folder / "worklist" / "worklist.html", folder / "worklist.png")


def compact(path: Path) -> None:
    """Write the PNG at ``path`` anew in fewer bytes: without its alpha channel, and narrower if it is very large."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")  # all of it is opaque
    picture.save(path, optimize=True)
    if path.stat().st_size > _LARGEST:
        picture.thumbnail((_NARROWER, picture.height), Image.Resampling.LANCZOS)
        picture.save(path, optimize=True)


def main(config: PicturesConfig) -> None:
    """Check where everything comes from, make all of it, then put it in place."""
    run = config.demo_dir / "run"
    for part, image in zip(PARTS, (config.film, config.exam), strict=True):
        folder = config.demo_dir / part.data
        require_sample(folder, part)
        require_made_from(folder, run, part)
        require_within(image, folder)
    with tempfile.TemporaryDirectory() as side:
        draw(config, run, Path(side))
        for picture in sorted(Path(side).glob("*.png")):
            compact(picture)
            shutil.copy(picture, config.images_dir / picture.name)
            print(f"wrote {config.images_dir / picture.name}")


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(PicturesConfig, __doc__)))
