"""The radiographs that a command line names: files, folders and patterns."""

import string
import warnings
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from cxr.messages import first_of, one_line

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
    """By its suffix, or by its content where that is none of ``SUFFIXES``."""
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


def find_images(patterns: Sequence[str], left_out: Sequence[Path] = ()) -> list[Path]:
    """The files that ``patterns`` name, each once, argument by argument and sorted by path within one.

    An argument is a file (taken as it is), a folder, or a glob pattern as a Unix shell would expand it (``**`` goes
    through folders too), for shells that do not. In folders, at any depth, count files that ``is_radiograph`` knows and
    that are not ``is_of_a_system``; one warning counts and names what else was met, also folders that cannot be opened.
    What lies in the folders ``left_out``, our own output say, is neither given nor named.

    Raises:
        FileNotFoundError: an argument that gives no file, named.
    """
    found: dict[str, Path] = {}
    passed_over: list[Path] = []
    own = [folder.resolve() for folder in left_out]
    for pattern in patterns:
        matches = [Path(pattern)] if pattern and Path(pattern).exists() else _expand(pattern)
        files = [file for match in matches for file in (_in_folder(match, passed_over) if match.is_dir() else [match])]
        if not files:
            what = "holds no images" if matches else "no such file or folder, nor does it match one as a pattern"
            met = f"; passed over: {_named(passed_over)}" if passed_over else ""
            raise FileNotFoundError(f"{Path(pattern).absolute() if pattern else repr(pattern)}: {what}{met}")
        for file in files:
            found.setdefault(str(file.absolute()), file)
    passed_over = [path for path in passed_over if not _is_in(path, own)]
    if passed_over:
        warnings.warn(f"{len(passed_over)} passed over: {_named(passed_over)}", stacklevel=2)
    return [file for file in found.values() if not _is_in(file, own)]


def _is_in(path: Path, folders: Sequence[Path]) -> bool:
    return any(map(path.resolve().is_relative_to, folders))


def _named(passed_over: Sequence[Path]) -> str:
    return first_of([f"{one_line(path)}{'/' * path.is_dir()}" for path in sorted(passed_over)])


def _expand(pattern: str) -> list[Path]:
    return [Path(match) for match in sorted(glob(pattern, recursive=True))]  # noqa: PTH207 (Path.glob: relative only)


def _in_folder(folder: Path, passed_over: list[Path]) -> list[Path]:
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
            passed_over.append(parent)
            continue
        for entry in entries:
            if is_of_a_system(entry.name):
                if not entry.name.startswith("."):
                    passed_over.append(entry)
            elif entry.is_dir():
                waiting.append(entry)
            elif is_radiograph(entry):
                files.append(entry)
            else:
                passed_over.append(entry)
    return sorted(files)


HEAD_BYTES = 512
_UPPER = string.ascii_uppercase.encode()
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")
_BMP_HEADERS = (12, 40, 64, 108, 124)  # bytes of the second header, of which there are some versions


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM: by its magic, or by its first element.

    A data set without the preamble begins with group 0002 or 0008, and names a value representation (two capitals) or
    gives a length at whose end another element of low group begins.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\2\0", b"\x08\0", b"\0\x08"):
        return False
    if head[4] in _UPPER and head[5] in _UPPER:
        return True
    following = 8 + int.from_bytes(head[4:8], "little")
    return head[0] != 0 and head[following : following + 2] in (b"\2\0", b"\x08\0", b"\x10\0")


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be JPEG, PNG, TIFF, BMP or WebP."""
    if head.startswith(b"BM"):  # as many a text may
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


# A 43 x 43 cm detector at 100 um has 18 megapixels, a stitched long-leg picture about 50. Pillow warns from 89 on.
MAX_PIXELS = 80_000_000
MIN_SIDE = 16


def check_size(width: int, height: int) -> None:
    """Refuse what no radiograph measures, before memory is taken for it.

    Raises:
        ValueError: a side under ``MIN_SIDE`` pixels, or more than ``MAX_PIXELS`` pixels.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ValueError(f"{width} x {height} pixels is too small for a radiograph (at least {MIN_SIDE} a side)")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels is over the limit of {MAX_PIXELS // 10**6} megapixels")
