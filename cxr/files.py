"""Files that are written whole or not at all, and what tells two of them apart."""

import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

# A full disk, a used-up share of it, and a file larger than the file system (4 GiB on FAT) or the user's limit allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_PARTIAL = re.compile(r".+\.(\d{1,9})\.partial", re.DOTALL)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that then takes the place of ``path``; a failure leaves ``path`` as it was.

    What is written passes through memory: a signal that interrupts ``torch.save`` to a file on disk makes torch abort
    the process, or speak of a full disk.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    write(content)
    write_pieces(path, [content.getbuffer()], content.getbuffer().nbytes)


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview], size: int | None = None) -> None:
    """``pieces`` as a file that then takes the place of ``path``, one piece in memory at a time.

    Args:
        path: the file.
        pieces: its content; an error while they are made leaves ``path`` as it was.
        size: of all together in bytes, if it is known, for the message of a full disk.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.absolute())
        try:
            with partial.open("wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, size, error) from error


def not_written(path: Path, needed: int | None, error: OSError) -> OSError:
    """What to raise when ``error`` kept ``needed`` bytes from ``path``: names the file, and the space if that lacks."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        free = _amount(shutil.disk_usage(path.parent).free)
        reason += f"; {free} are free" if needed is None else f"; {_amount(needed)} are needed, {free} are free"
    return OSError(f"cannot write {path.absolute()}: {reason}")


def _amount(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


@cache
def _remove_leftovers(folder: Path) -> None:
    """Take away what processes that were killed while they wrote have left; once for a folder and process."""
    for entry in os.scandir(folder):
        found = _PARTIAL.fullmatch(entry.name)
        if found and not _is_running(int(found[1])):
            with suppress(PermissionError):  # Windows: it is open, so its writer lives. Elsewhere: somebody else's.
                Path(entry.path).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # os.kill would end the process; there a file that is being written cannot be removed
        return False
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # somebody else's process
    return True


def sha256_of(path: Path) -> str:
    """The checksum of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
