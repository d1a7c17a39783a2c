"""The radiographs that a command line names: files, folders and patterns."""

import warnings
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from cxr.reading.kind import HEAD_BYTES, looks_like_dicom, looks_like_picture
from cxr.text import first_of, one_line

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")

# Thumbnails, deleted files and other belongings of file servers and systems, whose pictures are copies or unwanted.
_OF_SYSTEMS = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "lost+found", "__macosx"),
    *("$recycle.bin", "system volume information"),
}


def is_of_a_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden (.Trash-1000 too) or a system's own."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_radiograph(path: Path) -> bool:
    """By its suffix; one that is not of ``SUFFIXES`` leaves the content to tell."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return looks_like_dicom(head) or looks_like_picture(head)


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The files that ``patterns`` name, each once, argument by argument and sorted by path within one.

    An argument is a file (taken as it is), a folder, or a glob pattern as a Unix shell would expand it (``**`` goes
    through folders too), for shells that do not. In folders, at any depth, count files that ``is_radiograph`` knows and
    that are not ``is_of_a_system``; one warning counts and names what else was met, also folders that cannot be opened.

    Raises:
        FileNotFoundError: an argument that gives no file, named.
    """
    found: dict[str, Path] = {}
    passed_over: list[str] = []
    for pattern in patterns:
        matches = [Path(pattern)] if pattern and Path(pattern).exists() else _expand(pattern)
        files = [file for match in matches for file in (_in_folder(match, passed_over) if match.is_dir() else [match])]
        if not files:
            what = "holds no images" if matches else "no such file or folder, nor does it match one as a pattern"
            met = f"; passed over: {first_of(passed_over)}" if passed_over else ""
            raise FileNotFoundError(f"{Path(pattern).absolute() if pattern else repr(pattern)}: {what}{met}")
        for file in files:
            found.setdefault(str(file.absolute()), file)
    if passed_over:
        warnings.warn(f"{len(passed_over)} passed over: {first_of(sorted(passed_over))}", stacklevel=2)
    return list(found.values())


def _expand(pattern: str) -> list[Path]:
    return [Path(match) for match in sorted(glob(pattern, recursive=True))]  # noqa: PTH207 (Path.glob: relative only)


def _in_folder(folder: Path, passed_over: list[str]) -> list[Path]:
    files: list[Path] = []
    waiting, visited = [folder], set[Path]()
    while waiting:
        parent = waiting.pop()
        real = parent.resolve()  # links may lead in circles
        if real in visited:
            continue
        visited.add(real)
        try:
            entries = list(parent.iterdir())
        except PermissionError:
            passed_over.append(f"{one_line(parent)} (may not be opened)")
            continue
        for entry in entries:
            if is_of_a_system(entry.name):
                if not entry.name.startswith("."):
                    passed_over.append(one_line(entry))
            elif entry.is_dir():
                waiting.append(entry)
            elif is_radiograph(entry):
                files.append(entry)
            else:
                passed_over.append(one_line(entry))
    return sorted(files)
