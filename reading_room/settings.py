"""What the command line of ``worklist.py`` sets."""

from dataclasses import dataclass
from pathlib import Path

from cxr import cli

ROOT = Path(__file__).resolve().parents[1]
DETECTOR = ROOT / "pneumonia_fasterrcnn.pth"  # where training leaves it


@dataclass(frozen=True)
class WorklistConfig:
    """What to read, with which models, and where the page goes."""

    image: tuple[str, ...] = cli.flag(help="one or more files, folders or globs; with --watch, folders")
    classifier: Path = cli.flag(ROOT / "pneumonia_resnet18.pth", help="the finished classifier")
    detector: Path | None = cli.flag(
        None, help=f"the finished detector; else {DETECTOR.name} in the repository, once training has written it"
    )
    output_dir: Path = cli.flag(Path("worklist"), help="where page, table and pictures go")
    identifiers: bool = cli.flag(False, help="show patients' names and ids, and whole paths")
    watch: bool = cli.flag(False, help="keep looking for new files until interrupted; go on where it was interrupted")
    stable_seconds: float = cli.flag(
        5.0, at_least=0, help="with --watch: a file is read once it has not changed for so long"
    )
    dicom_output: Path | None = cli.flag(
        None, help="write a DICOM report and picture for each DICOM file there, for a PACS; needs highdicom"
    )
    device: cli.Device = cli.flag("auto", help="auto takes CUDA, then Apple MPS, then the CPU")

    @property
    def own_folders(self) -> list[Path]:
        """What is written there is no input."""
        return [self.output_dir, *([] if self.dicom_output is None else [self.dicom_output])]
