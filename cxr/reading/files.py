"""Which files are radiographs: by content, by size, and in the folders and patterns of a command line."""

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path

from cxr.messages import composed, first_of, one_line

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
_HEAD_BYTES = 512  # of a file, enough to recognise its format

# A 43 x 43 cm detector at 100 um has 18 megapixels, a stitched long-leg picture about 50. Pillow warns from 89 on.
MAX_PIXELS = 80_000_000
MIN_SIDE = 16

# Thumbnails, deleted files and the like of file servers and systems, whose pictures are copies or unwanted.
_OF_SYSTEMS = (
    *("@eadir", "#recycle", "#snapshot", "@recycle", "lost+found", "__macosx"),
    *("$recycle.bin", "system volume information"),
)
_MASKS = re.compile("mask|segm", re.IGNORECASE)  # in names of folders
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")


def missing(path: Path) -> str:
    """Why there is no file at ``path``."""
    return f"is a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"


def by_composed_name(folder: Path) -> dict[str, Path]:
    """What is in ``folder``, by its composed name; nothing where there is no folder."""
    return {composed(entry.name): entry for entry in folder.iterdir()} if folder.is_dir() else {}


def as_on_disk(path: Path, listed: Callable[[Path], dict[str, Path]] = by_composed_name) -> Path:
    """``path``, or where there is none, the one whose name differs in the form of its letters alone (NFC, NFD).

    ``listed`` may remember the folders, where many paths are looked up.
    """
    if path.exists() or path.parent == path:
        return path
    return listed(as_on_disk(path.parent, listed)).get(composed(path.name), path)


def check_size(width: int, height: int) -> None:
    """Raise ValueError for a size that no radiograph has, before memory is allocated."""
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ValueError(f"{width} x {height} pixels is too small for a radiograph (at least {MIN_SIDE} a side)")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels is over the limit of {MAX_PIXELS // 10**6} megapixels")


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM: by its magic, or by its first element.

    A data set without the preamble begins with group 0002 or 0008, and has a value representation (two capitals) or a
    length at whose end another element of low group begins.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\2\0", b"\x08\0", b"\0\x08"):
        return False
    if head[4:6].isalpha() and head[4:6].isupper():
        return True
    following = 8 + int.from_bytes(head[4:8], "little")
    return head[0] != 0 and head[:_HEAD_BYTES][following : following + 2] in (b"\2\0", b"\x08\0", b"\x10\0")


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be JPEG, PNG, TIFF or WebP; BMP is recognised by its suffix."""
    return head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_system_file(name: str) -> bool:
    """Whether a file or folder of this name is hidden (also .Trash-1000) or belongs to a system."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_radiograph(path: Path) -> bool:
    """By its suffix, or by its content where that is none of ``SUFFIXES``."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        return looks_like_dicom(head) or looks_like_picture(head)
    return False


def find_images(patterns: Sequence[str], left_out: Sequence[Path] = ()) -> list[Path]:
    """The files that ``patterns`` name, each once, argument by argument and sorted by path within one.

    An argument is a file (taken as it is), a folder, or a glob pattern, for shells that do not expand it (``**`` also
    matches folders). Folders give their radiographs at any depth, without files of a system; one warning counts and
    names what else was found, also folders that cannot be opened. Files in the folders ``left_out``, such as our own
    output, are ignored.

    Raises:
        FileNotFoundError: an argument that gives no file.
    """
    found: dict[Path, Path] = {}
    skipped: list[Path] = []
    own = [folder.resolve() for folder in left_out]

    def is_own(path: Path) -> bool:
        return any(map(path.resolve().is_relative_to, own))

    for pattern in patterns:
        matches = [as_on_disk(Path(pattern))]
        if not pattern or not matches[0].exists():
            matches = [Path(match) for match in sorted(glob(pattern, recursive=True))]  # noqa: PTH207
        files = [file for match in matches for file in (_in_folder(match, skipped) if match.is_dir() else [match])]
        if not files:
            what = "holds no images" if matches else "no such file or folder, and no file matches it as a pattern"
            more = f"; skipped: {_named(skipped)}" if skipped else ""
            raise FileNotFoundError(f"{Path(pattern).absolute() if pattern else repr(pattern)}: {what}{more}")
        for file in files:
            found.setdefault(file.absolute(), file)
    skipped = [path for path in skipped if not is_own(path)]
    if skipped:
        warnings.warn(f"{len(skipped)} skipped: {_named(skipped)}", stacklevel=2)
    return [file for file in found.values() if not is_own(file)]


def _named(skipped: Sequence[Path]) -> str:
    return first_of([f"{one_line(path)}{'/' * path.is_dir()}" for path in sorted(skipped)])


def _in_folder(folder: Path, skipped: list[Path]) -> list[Path]:
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
            skipped.append(parent)
            continue
        for entry in entries:
            if is_system_file(entry.name):
                if not entry.name.startswith("."):
                    skipped.append(entry)
            elif entry.is_dir():
                waiting.append(entry)
            elif is_radiograph(entry):
                files.append(entry)
            else:
                skipped.append(entry)
    return sorted(_without_masks(files, skipped))


def _without_masks(files: list[Path], skipped: list[Path]) -> list[Path]:
    """``files`` without a folder of masks, whose files have the names of those in a folder beside it."""
    names: dict[Path, set[str]] = defaultdict(set)
    for file in files:
        names[file.parent].add(file.stem)
    masks = {
        folder
        for folder in names
        if _MASKS.search(folder.name)
        and any(other.parent == folder.parent and other != folder and names[folder] <= names[other] for other in names)
    }
    skipped += masks
    return [file for file in files if file.parent not in masks]
