"""Decode once: radiographs as one memory-mapped uint8 array on disk, from which every epoch is read."""

import errno
import hashlib
import os
import shutil
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
        readable: bool [N]; False where the file could not be read and was let pass (the image is black).
    """

    images: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    hashes: list[str]
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
        ValueError: no paths, a file that changes meanwhile, or files that cannot be read (all of them are tried first),
            unless ``skip_bad``.
        FileNotFoundError: a file that has gone since it was listed.
        OSError: the store cannot be written.
    """
    if not paths:
        raise ValueError(f"no {name} images to decode")
    stem = f"{name}-{size}px"
    store = store_dir / f"{stem}-{_key(paths, size)}.npy"
    store_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(store_dir / f"{stem}.lock"):
        if not store.exists():
            _remove_stale(store_dir, stem)
            _build(paths, size, store, f"decoding {name}", progress)
        records = cast("np.memmap[Any, np.dtype[np.void]]", np.load(store, mmap_mode="r"))
        facts = _facts(store, records.offset, size, len(records))
        readable = facts["height"] > 0
        if not readable.all() and not skip_bad:
            raise ValueError(_complaint(paths, readable, size, store))
    hashes = [text.decode() for text in facts["sha256"].tolist()]
    sizes = np.stack([facts["height"], facts["width"]], axis=1)
    return Decoded(records["image"], sizes, hashes, readable)


_FACTS = np.dtype([("height", np.int32), ("width", np.int32), ("sha256", "S64")])  # height 0: could not be read


def _record(size: int) -> np.dtype[np.void]:
    return np.dtype([("image", np.uint8, (size, size)), *_FACTS.descr])


def _facts(store: Path, offset: int, size: int, count: int) -> NDArray[np.void]:
    """What follows the image in each record.

    Through the map the kernel would fetch the pixels around it too, 7 GB for 26,684 images of 512 pixels.
    """
    facts = np.zeros(count, _FACTS)
    rows, image = facts.view(np.uint8).data, size * size
    with store.open("rb", buffering=0) as file:
        for index in range(count):
            file.seek(offset + index * (image + _FACTS.itemsize) + image)
            file.readinto(rows[index * _FACTS.itemsize : (index + 1) * _FACTS.itemsize])
    return facts


def _key(paths: Sequence[Path], size: int) -> str:
    """Changes with anything that could change the pixels."""
    digest = hashlib.sha256(str(size).encode())
    for code in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(code.read_bytes())
    for name in _DECODERS:
        digest.update(f"{name} {_version(name)}\n".encode())
    for path in paths:
        digest.update(f"{path.resolve()}|{_stamp(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


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
        records = _create(partial, size, len(paths))
        _fill(records, paths, size, title, progress)
        records.flush()
        del records  # Windows renames no file that is mapped
        partial.replace(store)
    finally:
        with suppress(PermissionError):  # Windows: an error still holds it; the next build removes it
            partial.unlink(missing_ok=True)


def _fill(records: NDArray[np.void], paths: Sequence[Path], size: int, title: str, progress: bool) -> None:
    def fill(index: int) -> None:
        path = paths[index]
        before = _stamp(path)
        try:
            image, (height, width) = radiograph.read_square(path, size)
        except radiograph.UnreadableImage:
            return  # the height stays 0, which says so
        # Not before the picture: only now it is known that this is a file, and no larger than a radiograph.
        records[index]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest().encode()
        if _stamp(path) != before:
            raise ValueError(f"{path.absolute()}: changed while it was read; start again when it is complete")
        records[index]["image"] = image
        records[index]["height"], records[index]["width"] = height, width

    # Threads: Pillow and numpy let go of the interpreter lock while they decode and resize.
    pool = ThreadPoolExecutor(cores())
    try:
        done = pool.map(fill, range(len(paths)))
        for _ in tqdm(done, title, len(paths), unit="image", disable=not progress, leave=False):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # whoever interrupts does not want to wait for all the other files


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _create(file: Path, size: int, count: int) -> "np.memmap[Any, np.dtype[np.void]]":
    """Room for ``count`` records in a new file.

    Raises:
        OSError: the file cannot be made, or not as large; names it and what it needs.
    """
    try:
        records = np.lib.format.open_memmap(file, "w+", _record(size), (count,))
        _reserve(file)
    except OSError as error:
        raise files.not_written(file, count * _record(size).itemsize, error) from error
    return records


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
    for other in folder.glob(f"{stem}-*.npy*"):
        with suppress(PermissionError):  # Windows: another run still has it mapped; the next build removes it
            other.unlink()


def _complaint(paths: Sequence[Path], readable: NDArray[np.bool_], size: int, store: Path) -> str:
    """One sentence that names the unreadable files, each with its reason, which reading them again tells."""
    bad = [path for path, good in zip(paths, readable, strict=True) if not good]
    reasons: list[str] = []
    for path in bad[:_SHOWN]:
        try:
            radiograph.read_square(path, size)
        except radiograph.UnreadableImage as error:
            reasons.append(str(error))
        else:
            with suppress(PermissionError):
                store.unlink(missing_ok=True)  # readable now, so the store is out of date
            reasons.append(f"{path}: could not be read a moment ago but can now; start again")
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return (
        f"{len(bad)} of {len(paths)} images cannot be read: {'; '.join(reasons)}{more}. "
        "Mend or remove them, or leave them out with --skip-bad"
    )
