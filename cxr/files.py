"""Atomic file writes and checksums."""

import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

# Disk full, quota used up, or a file larger than the file system (4 GiB on FAT) or the user's limit allows.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that then replaces ``path``; a failure leaves ``path`` as it was.

    The content passes through memory: a signal during ``torch.save`` to a file on disk makes torch abort the process,
    or report a full disk.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    write(content)
    write_pieces(path, [content.getbuffer()], content.getbuffer().nbytes)


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON; NaN, which JSON does not have, raises ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview], size: int | None = None) -> None:
    """As ``write_atomically``, with one of ``pieces`` in memory at a time.

    Args:
        path: the file.
        pieces: its content; an error while they are made leaves ``path`` as it was.
        size: total in bytes, where known, for the message of a full disk.
    """
    # A name of its own, since two processes may write the same file; what a kill leaves, remove_partials removes.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with writing(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove the temporary files of killed writers in and below ``folder``, where nobody is writing now."""
    for path in folder.rglob("*.????????.partial"):
        path.unlink()


@contextmanager
def writing(path: Path, needed: int | None = None) -> Generator[None]:
    """An OSError in this block names the file ``path`` and, where the disk is full, the bytes ``needed``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            free = _size(shutil.disk_usage(path.parent).free)
            reason += f"; {free} are free" if needed is None else f"; {_size(needed)} are needed, {free} are free"
        raise OSError(f"cannot write {path.absolute()}: {reason}") from error


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
