"""Decode once: radiographs as one memory-mapped uint8 array on disk, from which every epoch is read."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from cxr import pixels

# The modules between a file and its square; a change in any of them rebuilds the store.
_DECODING_CODE = (
    "decoded.py",
    "pixels.py",
    "containers.py",
    "raster.py",
    "greyscale.py",
    "dicom.py",
    "dicom_elements.py",
    "dicom_frame.py",
)
_SHOWN = 10  # files named in an error; more would scroll the reason away


@dataclass(frozen=True)
class Decoded:
    """Radiographs in the order of the paths they were decoded from.

    Attributes:
        images: uint8 [N, S, S], bone white, squashed to a square; a read-only view of the file on disk.
        sizes: int32 [N, 2], height and width of the original in pixels.
        hashes: sha256 of each file's bytes as hexadecimal text.
        readable: bool [N]; False where the file could not be read and was let pass (the image is black).
    """

    images: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    hashes: list[str]
    readable: NDArray[np.bool_]


def decode(
    paths: Sequence[Path], size: int, store_dir: Path, *, name: str, skip_bad: bool = False, progress: bool = True
) -> Decoded:
    """The ``paths`` as squares of ``size`` pixels, from the store when it holds them as they are now.

    The store is rebuilt when a path, a file's length or time of change, the size, or the code that decodes has changed.
    Two processes that start together build it once: the second waits. A build that is killed leaves no store.

    Args:
        name: what the images are, in the file name and on the progress bar; one store is kept for a name and size.

    Raises:
        ValueError: files that cannot be read (all of them are tried first), unless ``skip_bad``.
        OSError: the store cannot be written.
    """
    stem = f"{name}-{size}px"
    store = store_dir / f"{stem}-{_key(paths, size)}.npy"
    store_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(store_dir / f"{stem}.lock"):
        if not store.exists():
            _require_space(store_dir, len(paths) * _record(size).itemsize)
            _build(paths, size, store, f"decoding {name}", progress)
            _remove_stale(store, stem)
    records = np.load(store, mmap_mode="r")
    readable = records["height"] > 0
    if not readable.all() and not skip_bad:
        raise ValueError(_complaint(paths, readable, store))
    hashes = [text.decode() for text in records["sha256"].tolist()]
    sizes = np.stack([records["height"], records["width"]], axis=1)
    return Decoded(records["image"], sizes, hashes, readable)


def _record(size: int) -> np.dtype[np.void]:
    fields = [("image", np.uint8, (size, size)), ("height", np.int32), ("width", np.int32), ("sha256", "S64")]
    return np.dtype(fields)


def _key(paths: Sequence[Path], size: int) -> str:
    """Changes with anything that could change the pixels."""
    digest = hashlib.sha256(str(size).encode())
    for name in _DECODING_CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    for path in paths:
        status = path.stat()
        digest.update(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _build(paths: Sequence[Path], size: int, store: Path, title: str, progress: bool) -> None:
    partial = store.with_suffix(".npy.partial")  # one builder at a time: the lock is held
    try:
        _fill(np.lib.format.open_memmap(partial, "w+", _record(size), (len(paths),)), paths, size, title, progress)
        partial.replace(store)
    finally:
        partial.unlink(missing_ok=True)


def _fill(records: NDArray[np.void], paths: Sequence[Path], size: int, title: str, progress: bool) -> None:
    def fill(index: int) -> None:
        records[index]["sha256"] = hashlib.sha256(paths[index].read_bytes()).hexdigest().encode()
        try:
            image, (height, width) = pixels.read_square(paths[index], size)
        except pixels.UnreadableImage:
            return  # the height stays 0, which says so
        records[index]["image"] = image
        records[index]["height"], records[index]["width"] = height, width

    # Threads: Pillow and numpy let go of the interpreter lock while they decode and resize.
    with ThreadPoolExecutor(cores()) as pool:
        done = pool.map(fill, range(len(paths)))
        for _ in tqdm(done, title, len(paths), unit="image", disable=not progress, leave=False):
            pass


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + 2**26:
        raise OSError(f"decoding needs {needed / 2**20:.0f} MiB in {folder}, {free / 2**20:.0f} MiB are free")


def _remove_stale(store: Path, stem: str) -> None:
    for other in store.parent.glob(f"{stem}-*.npy"):
        if other != store:
            try:
                other.unlink()
            except PermissionError:  # Windows: another run still has it mapped; the next build removes it
                continue


def _complaint(paths: Sequence[Path], readable: NDArray[np.bool_], store: Path) -> str:
    """One sentence that names the unreadable files, each with its reason, which reading them again tells."""
    bad = [path for path, good in zip(paths, readable, strict=True) if not good]
    reasons: list[str] = []
    for path in bad[:_SHOWN]:
        try:
            pixels.read_square(path, 32)
        except pixels.UnreadableImage as error:
            reasons.append(str(error))
        else:
            store.unlink()  # readable now, so the store is out of date
            reasons.append(f"{path}: could not be read a moment ago but can now; start again")
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return (
        f"{len(bad)} of {len(paths)} images cannot be read: {'; '.join(reasons)}{more}. "
        "Mend or remove them, or leave them out with --skip-bad"
    )
