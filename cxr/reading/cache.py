"""Radiographs decoded once into a memory-mapped uint8 array on disk, from which every epoch is read.

Beside the array ``<name>-<size>px-<key>.npy`` a JSON file of the same name has size, hash and header of each file.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from cxr import files
from cxr.messages import first_of
from cxr.reading import radiograph
from cxr.reading.picture import Header
from cxr.reading.prefetch import in_batches

# The packages that decode: another version may give other pixels, a new one may read what could not be read.
_DECODERS = ("Pillow", "pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm")
STORED = ("age_years", "sex", "view", "note", "patient")  # of a header: no name and no ID in clear
_BATCH = 32


@dataclass(frozen=True)
class Decoded:
    """Radiographs in the order of the paths they were decoded from.

    Attributes:
        images: uint8 [N, S, S], bone white, squashed to a square; a read-only view of the file on disk.
        sizes: int32 [N, 2], height and width of the original in pixels.
        hashes: sha256 of each file's bytes as hexadecimal text.
        headers: with the fields ``STORED`` alone.
        readable: bool [N]; False where the file could not be read and was skipped (black, size 0, no hash).
    """

    images: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    hashes: list[str]
    headers: list[Header]
    readable: NDArray[np.bool_]


def decode_once(
    paths: Sequence[Path], size: int, store_dir: Path, *, name: str, skip_bad: bool = False, progress: bool = True
) -> Decoded:
    """The ``paths`` as squares of ``size`` pixels, from the cache in ``store_dir`` if it is up to date.

    The cache is rebuilt when a path, a file's length or modification time, the size, or the code that decodes has
    changed; the old one is removed first. Of two processes that start together one builds it and the other waits. A
    build that is killed leaves no cache.

    Args:
        name: of the images, in the file name and on the progress bar; one cache is kept for a name and size.

    Raises:
        ValueError: a file that changes meanwhile, or, unless ``skip_bad``, unreadable files, once all were tried.
        OSError: the cache cannot be written.
    """
    stem = f"{name}-{size}px"
    store = store_dir / f"{stem}-{_key(paths, size)}.npy"
    store_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(store_dir / f"{stem}.lock"):
        if not _is_complete(store):
            for outdated in store_dir.glob(f"{stem}-*"):  # also what killed builds have left
                with suppress(PermissionError):  # Windows: another run has it mapped; the next build removes it
                    outdated.unlink()
            _build(paths, size, store, f"decoding {name}", progress)
        images = np.load(store, mmap_mode="r")
        facts: list[dict[str, Any]] = json.loads(store.with_suffix(".json").read_text(encoding="utf-8"))
    errors = [fact["error"] for fact in facts if "error" in fact]
    if errors and not skip_bad:
        named = first_of(errors, 10)
        advice = "Repair or remove them, or skip them with --skip-bad"
        raise ValueError(f"{len(errors)} of {len(paths)} images cannot be read: {named}. {advice}")
    headers = [Header(**fact.get("header", {})) for fact in facts]
    if notes := Counter(header.note for header in headers if header.note):
        (note, _), *_ = notes.most_common(1)
        warnings.warn(f"{notes.total()} {name} images have a note, most often: {note}", stacklevel=2)
    return Decoded(
        images,
        np.array([fact.get("size", (0, 0)) for fact in facts], np.int32).reshape(-1, 2),
        [fact.get("sha256", "") for fact in facts],
        headers,
        np.array(["error" not in fact for fact in facts]),
    )


def _is_complete(store: Path) -> bool:
    """Whether a cache is there, without a file that the system refused to read."""
    path = store.with_suffix(".json")  # which is written last
    return path.exists() and not any(fact.get("again") for fact in json.loads(path.read_text(encoding="utf-8")))


def _key(paths: Sequence[Path], size: int) -> str:
    """Changes with anything that could change the cache: the files, the size, the code of this folder, the decoders."""
    digest = hashlib.sha256(str(size).encode())
    for code in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(code.read_bytes())
    for name in _DECODERS:
        with suppress(metadata.PackageNotFoundError):
            digest.update(f"{name} {metadata.version(name)}\n".encode())
    for path in paths:
        digest.update(f"{path.resolve()}|{_stamp(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _stamp(path: Path) -> str:
    """Changes with the file."""
    try:
        status = path.stat()
    except OSError as error:  # which reading it will report
        return f"{error.errno}"
    return f"{status.st_size}|{status.st_mtime_ns}"


def _build(paths: Sequence[Path], size: int, store: Path, title: str, progress: bool) -> None:
    needed = len(paths) * size * size
    with files.writing(store, needed):
        if shutil.disk_usage(store.parent).free < needed:  # now, not after an hour
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    facts: list[dict[str, Any]] = []

    def pieces() -> Iterator[bytes]:
        header, about = io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": (len(paths), size, size)}
        np.lib.format.write_array_header_1_0(header, about)
        yield header.getvalue()
        done = chain.from_iterable(in_batches(partial(_read, size=size), paths, _BATCH))
        for square, fact in tqdm(done, title, len(paths), unit="image", disable=not progress, leave=False):
            facts.append(fact)
            yield square

    files.write_pieces(store, pieces(), needed)
    files.write_json(store.with_suffix(".json"), facts)


def _read(path: Path, size: int) -> tuple[bytes, dict[str, Any]]:
    """The square of a file, black if it is unreadable, and its entry in the JSON file."""
    try:
        before = _stamp(path)
        found = radiograph.read(path)
        square = found.square(size)
        changed = _stamp(path) != before
    except (radiograph.UnreadableImage, OSError) as error:
        # The next run may be able to read what the system refused.
        again = {"again": True} if isinstance(error, OSError) and path.exists() else {}
        return bytes(size * size), {"file": path.name, "error": str(error), **again}
    if changed:
        raise ValueError(f"{path.absolute()}: changed while it was read; run again when it is complete")
    header = {name: value for name in STORED if (value := getattr(found.header, name))}
    return square.tobytes(), {"file": path.name, "size": found.size, "sha256": found.sha256, "header": header}
