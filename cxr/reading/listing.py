"""The radiographs that a command line names: files, folders and patterns."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from cxr.reading.kind import HEAD_BYTES, looks_like_dicom

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".dcm", ".dicom")


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does, with the preamble and its magic or with a data set at once."""
    with path.open("rb") as file:
        return looks_like_dicom(file.read(HEAD_BYTES))


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The files that ``patterns`` name, each once, argument by argument and sorted by path within one.

    An argument is a file (taken as it is), a folder, or a glob pattern as a Unix shell would expand it (``**`` goes
    through folders too), for shells that do not. In folders, at any depth, count files of ``SUFFIXES`` and DICOM files
    whose names are UIDs or have no suffix; hidden files, ``__MACOSX`` and DICOMDIR do not.

    Raises:
        FileNotFoundError: an argument that gives no file, named.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        matches = [Path(pattern)] if pattern and Path(pattern).exists() else _expand(pattern)
        files = [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]
        if not files:
            what = "holds no images" if matches else "no such file or folder, nor does it match one as a pattern"
            raise FileNotFoundError(f"{Path(pattern).absolute() if pattern else repr(pattern)}: {what}")
        for file in files:
            found.setdefault(str(file.absolute()), file)
    return list(found.values())


def _expand(pattern: str) -> list[Path]:
    return [Path(match) for match in sorted(glob(pattern, recursive=True))]  # noqa: PTH207 (Path.glob: relative only)


def _in_folder(folder: Path) -> list[Path]:
    files: list[Path] = []
    waiting, visited = [folder], set[Path]()
    while waiting:
        parent = waiting.pop()
        real = parent.resolve()  # links may lead in circles
        if real in visited:
            continue
        visited.add(real)
        for entry in parent.iterdir():
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                waiting.append(entry)
            elif _is_radiograph(entry):
                files.append(entry)
    return sorted(files)


def _is_radiograph(path: Path) -> bool:
    """By its suffix; one that says nothing (none, or the tail of a UID) leaves the content to tell."""
    suffix = path.suffix.lower()
    if suffix and not suffix[1:].isdigit():
        return suffix in SUFFIXES
    return path.name.upper() != "DICOMDIR" and path.is_file() and is_dicom(path)
