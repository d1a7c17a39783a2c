"""Decode once: radiographs as one memory-mapped uint8 array on disk, from which every epoch is read.

Beside the array ``<name>-<size>px-<key>.npy`` lies a JSON file of the same name with what else was learnt of each file.
"""

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from cxr import files
from cxr.reading import radiograph
from cxr.reading.header import Header

# The packages that decode: another version may give other pixels, a new one may read what could not be read.
_DECODERS = ("Pillow", "pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm")
_SHOWN = 10  # files named in an error; more would scroll the reason away


@dataclass(frozen=True)
class Decoded:
    """Radiographs in the order of the paths they were decoded from.

    Attributes:
        images: uint8 [N, S, S], bone white, squashed to a square; a read-only view of the file on disk.
        sizes: int32 [N, 2], height and width of the original in pixels.
        hashes: sha256 of each file's bytes as hexadecimal text.
        headers: what DICOM files say of themselves.
        readable: bool [N]; False where the file could not be read and was let pass (black, size 0, no hash).
    """

    images: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    hashes: list[str]
    headers: list[Header]
    readable: NDArray[np.bool_]


def decode_once(
    paths: Sequence[Path], size: int, store_dir: Path, *, name: str, skip_bad: bool = False, progress: bool = True
) -> Decoded:
    """The ``paths`` as squares of ``size`` pixels, from the store when it holds them as they are now.

    The store is rebuilt when a path, a file's length or time of change, the size, or the code that decodes has changed;
    the one before is removed first. Two processes that start together build it once: the second waits. A build that is
    killed leaves no store.

    Args:
        name: what the images are, in the file name and on the progress bar; one store is kept for a name and size.

    Raises:
        ValueError: a file that changes meanwhile, or files that cannot be read (all of them are tried first), unless
            ``skip_bad``.
        FileNotFoundError: a file that has gone since it was listed.
        OSError: the store cannot be written.
    """
    stem = f"{name}-{size}px"
    store = store_dir / f"{stem}-{key(paths, size)}.npy"
    store_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(store_dir / f"{stem}.lock"):
        if not store.with_suffix(".json").exists():  # which is written last
            _remove_stale(store_dir, stem)
            _build(paths, size, store, f"decoding {name}", progress)
        images = np.load(store, mmap_mode="r")
        facts: list[dict[str, Any]] = json.loads(store.with_suffix(".json").read_text(encoding="utf-8"))
    errors = [fact["error"] for fact in facts if "error" in fact]
    if errors and not skip_bad:
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise ValueError(
            f"{len(errors)} of {len(paths)} images cannot be read: {'; '.join(errors[:_SHOWN])}{more}. "
            "Mend or remove them, or leave them out with --skip-bad"
        )
    headers = [Header(**fact.get("header", {})) for fact in facts]
    if notes := Counter(header.note for header in headers if header.note):
        (note, _), *_ = notes.most_common(1)
        warnings.warn(f"of {notes.total()} {name} images something is to be noted, such as: {note}", stacklevel=2)
    return Decoded(
        images,
        np.array([(fact.get("height", 0), fact.get("width", 0)) for fact in facts], np.int32),
        [fact.get("sha256", "") for fact in facts],
        headers,
        np.array(["error" not in fact for fact in facts]),
    )


def key(paths: Sequence[Path], size: int) -> str:
    """Changes with anything that could change the store: the files, the size, the code of this folder, the decoders."""
    digest = hashlib.sha256(str(size).encode())
    for code in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(code.read_bytes())
    for name in _DECODERS:
        digest.update(f"{name} {_version(name)}\n".encode())
    for path in paths:
        digest.update(f"{path.resolve()}|{_stamp(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def write_facts(store: Path, facts: Sequence[dict[str, Any]]) -> None:
    """The JSON file beside the array ``store``: an object on a line for each image."""
    text = "[\n" + ",\n".join(json.dumps(fact) for fact in facts) + "\n]\n"
    files.write_atomically(store.with_suffix(".json"), lambda file: file.write(text.encode()))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stamp(path: Path) -> str:
    """Changes with the file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.absolute()}: was there when the images were listed, is no longer") from None
    return f"{status.st_size}|{status.st_mtime_ns}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _build(paths: Sequence[Path], size: int, store: Path, title: str, progress: bool) -> None:
    partial = store.with_suffix(".npy.partial")  # one builder at a time: the lock is held
    try:
        images = _create(partial, size, len(paths))
        facts = _fill(images, paths, size, title, progress)
        images.flush()
        del images  # Windows renames no file that is mapped
        partial.replace(store)
        write_facts(store, facts)
    finally:
        with suppress(PermissionError):  # Windows: an error still holds it; the next build removes it
            partial.unlink(missing_ok=True)


def _fill(
    images: NDArray[np.uint8], paths: Sequence[Path], size: int, title: str, progress: bool
) -> list[dict[str, Any]]:
    def fill(index: int) -> dict[str, Any]:
        path = paths[index]
        before = _stamp(path)
        try:
            images[index], (height, width), header = radiograph.read_square(path, size)
        except radiograph.UnreadableImage as error:
            return {"file": path.name, "error": str(error)}
        # Not before the picture: only now it is known that this is a file, and no larger than a radiograph.
        content = files.sha256_of(path)
        if _stamp(path) != before:
            raise ValueError(f"{path.absolute()}: changed while it was read; start again when it is complete")
        said = {name: value for name, value in header._asdict().items() if value}
        return {"file": path.name, "height": height, "width": width, "sha256": content, "header": said}

    # Threads: Pillow and numpy let go of the interpreter lock while they decode and resize.
    pool = ThreadPoolExecutor(cores())
    try:
        done = pool.map(fill, range(len(paths)))
        return list(tqdm(done, title, len(paths), unit="image", disable=not progress, leave=False))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever interrupts does not want to wait for all the other files


def _create(file: Path, size: int, count: int) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """Room for ``count`` squares in a new file.

    Raises:
        OSError: the file cannot be made, or not as large; names it and what it needs.
    """
    try:
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (count, size, size))
        _reserve(file)
    except OSError as error:
        raise files.not_written(file, count * size * size, error) from error
    return cast("np.memmap[Any, np.dtype[np.uint8]]", images)


def _reserve(file: Path) -> None:
    """Take the disk space of a file of holes now: a disk that is full when a hole is filled kills the process (SIGBUS).

    Raises:
        OSError: there is not as much.
    """
    needed = file.stat().st_size
    if shutil.disk_usage(file.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, needed)
            except OSError as error:
                if error.errno in files.FULL:
                    raise
                # else a file system that reserves nothing


def _remove_stale(folder: Path, stem: str) -> None:
    """Remove stores that are out of date, and what builds that were killed have left."""
    for other in folder.glob(f"{stem}-*"):
        with suppress(PermissionError):  # Windows: another run still has it mapped; the next build removes it
            other.unlink()
