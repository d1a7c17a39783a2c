"""Files of a zip or a folder, written to where they belong: none outside the target, none half, none twice."""

import filecmp
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from cxr.files import sha256_of

SPARE_BYTES = 100 << 20  # stays free on the disk
_CHUNK_BYTES = 1 << 20


class Member(NamedTuple):
    """One file of a published set: ``size`` in bytes and ``crc`` (CRC-32, None where unknown) are what it must have."""

    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def zip_entries(archive: zipfile.ZipFile) -> Iterator[tuple[PurePosixPath, Member]]:
    """Every file in ``archive`` with its path.

    Raises:
        ValueError: an entry is a link or a device, is encrypted, or has a path that leads outside on some system
            (absolute, with a drive, a backslash or ``..``). One such entry condemns the archive.
    """
    for info in archive.infolist():
        name, path = info.orig_filename, PurePosixPath(info.orig_filename)
        if path.is_absolute() or ".." in path.parts or any(char in "\\:" or char < " " for char in name):
            raise ValueError(f"{archive.filename} is not safe to unpack: {name!r} is not a plain relative path")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{archive.filename} is not safe to unpack: {name!r} is a link or a device")
        if info.flag_bits & 1:
            raise ValueError(f"{archive.filename}: {name!r} is encrypted; the published zip is not")
        if not info.is_dir():
            yield path, Member(name, info.file_size, info.CRC, partial(archive.open, info))


def folder_entries(folder: Path) -> Iterator[tuple[PurePosixPath, Member]]:
    """Every file below ``folder`` with its path relative to it; a folder knows no checksums."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            relative = PurePosixPath(path.relative_to(folder).as_posix())
            yield relative, Member(str(path), path.stat().st_size, None, partial(path.open, "rb"))


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of ``folder``, which need not exist yet, has ``needed`` bytes and some to spare."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + SPARE_BYTES:
        raise OSError(
            f"{folder}: {(needed + SPARE_BYTES) / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; "
            "make room or choose another disk with --out-dir"
        )


def unpack(members: dict[str, Member], target: Path) -> None:
    """Write those ``members`` to ``target`` that are not there yet with their size and checksum."""
    lacking = {
        where: member
        for where, member in tqdm(members.items(), "comparing", unit=" files", disable=None, leave=False)
        if not is_in_place(target / where, member)
    }
    needed = sum(member.size for member in lacking.values())
    require_space(target, needed)
    with tqdm(total=needed, desc="unpacking", unit="B", unit_scale=True, disable=None) as progress:
        for where, member in lacking.items():
            write_whole(target / where, member, progress)
    print(f"{target}: {len(lacking):,} files written, {len(members) - len(lacking):,} were there")


def is_in_place(path: Path, member: Member) -> bool:
    """Whether ``path`` already holds the bytes of ``member``: by its checksum, or by comparison with the file it is."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    if member.crc is None:
        return filecmp.cmp(member.name, path, shallow=False)
    crc = 0
    for chunk in chunks_of(path):
        crc = zlib.crc32(chunk, crc)
    return crc == member.crc


def write_whole(path: Path, member: Member, progress: "tqdm[Any]", sha256: str | None = None) -> None:
    """Write ``member`` to ``path`` by way of a .partial file, so that ``path`` is never half a file.

    Not one byte more than declared is written. A zip entry is held to its CRC-32 by zipfile as it is read.

    Raises:
        ValueError: more or fewer bytes than declared, or another ``sha256``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(path.name + ".partial")
    written = 0
    try:
        with member.open() as source, side.open("wb") as sink:
            while chunk := source.read(min(_CHUNK_BYTES, member.size - written + 1)):
                written += len(chunk)
                if written > member.size:
                    raise ValueError(f"{member.name}: more than the expected {member.size:,} bytes")
                sink.write(chunk)
                progress.update(len(chunk))
        if written != member.size:
            raise ValueError(f"{member.name}: {written:,} bytes, expected {member.size:,}")
        if sha256 and (found := sha256_of(side)) != sha256:
            raise ValueError(f"{member.name}: sha256 is {found}, expected {sha256}")
        side.replace(path)
    finally:
        side.unlink(missing_ok=True)


def chunks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a bounded piece at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
