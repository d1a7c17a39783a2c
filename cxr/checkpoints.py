"""Checkpoints: written whole or not at all, read without running code, plain values only."""

import errno
import io
import os
import pickletools
import re
import shutil
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from cxr.text import shortened

FORMAT = 1

# A full disk, a used-up share of it, and a file larger than the file system (4 GiB on FAT) or the user's limit allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_PARTIAL = re.compile(r".+\.(\d{1,9})\.partial", re.DOTALL)

_LEAVES = (type(None), bool, int, float, str, torch.Tensor, torch.nn.Parameter)

_ZIP_MAGIC = b"PK\3\4"
_PICKLE_MAGIC = b"\x80\2"  # protocol 2, the only one that torch writes
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object itself, keys of its storages
# The structure of a checkpoint without the tensors: 45 KB for a ResNet-18 with its optimizer. 1 MB takes a second.
_MAX_PICKLE_BYTES = 2**21
# The largest that training writes here, a ResNet-50 detector with its average, optimizer and best weights, has 0.9 GB.
_MAX_FILE_BYTES = 3 * 2**29
# What a pickle holds once it may name again and again: 30 lists of two, each the next, are a thousand million values.
_MAX_VALUES, _MAX_DEPTH = 2**18, 50
_LONGEST_QUOTE = 300
# All that tensors and plain values ask for. torch allows more: 40 bytes of pickle, bytearray(10**10), fill the memory.
_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|"
    r"torch (?!Untyped|Typed|Complex|Q)\w+Storage"
)


def save(path: Path, *, task: str, **state: Any) -> None:
    """Write ``state`` to ``path`` so that a reader sees the old file or the new one, never half of one.

    Raises:
        TypeError: a value that ``read`` would refuse later, named by its key.
        ValueError: a tensor that it would refuse (sparse, complex, expanded), or a structure that is too large.
        OSError: the file cannot be written; the old one is as it was.
    """
    _require_bounded(state)
    _require_plain(state, "state")

    def write(file: BinaryIO) -> None:
        torch.save({"format": FORMAT, "task": task, **state}, file)
        file.seek(0)
        _require_harmless(file)

    write_atomically(path, write)


def load(path: Path, *, task: str) -> dict[str, Any]:
    """What ``save`` wrote, tensors on the CPU.

    Raises:
        FileNotFoundError: no file at ``path``.
        ValueError: not a checkpoint of this project, of another task or format, damaged, or holding code.
    """
    state = read(path)
    if not isinstance(state, dict) or type(state.get("format")) is not int or type(state.get("task")) is not str:
        raise ValueError(f"{path}: not a checkpoint of this project, which would hold the keys 'format' and 'task'")
    if state["task"] != task:
        raise ValueError(f"{path}: a checkpoint of the task {state['task']!r:.50}, expected {task!r}")
    if state["format"] != FORMAT:
        raise ValueError(f"{path}: checkpoint format {state['format']}, this version reads format {FORMAT}")
    return cast(dict[str, Any], state)


def read(path: Path) -> Any:
    """Any file of tensors and plain values that torch wrote, on the CPU; nothing in it is run.

    Raises:
        FileNotFoundError: no file at ``path``.
        ValueError: damaged, holding code, or packed so that it would unfold to more than its size on disk.
        OSError: a file that may not be read, or a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path.resolve()} is a folder; expected a checkpoint file")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how torch stores tensors is no news to a user
            _require_harmless(file)
            file.seek(0)
            found = torch.load(file, map_location="cpu", weights_only=True)
        _require_bounded(found)
        return found
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes torch and zipfile raise nearly anything
        raise ValueError(f"{path}: not a usable checkpoint: {_torch_reason(error)}") from error


def quoted(value: object) -> str:
    """What a file holds, for a message: one line that is not long, whatever it is."""
    return shortened(" ".join(repr(value).split()), _LONGEST_QUOTE)


def _torch_reason(error: Exception) -> str:
    """What torch met, in one line."""
    text = str(error)
    text = (text.partition("WeightsUnpickler error:")[2].strip() or text).split("\n")[0][:160]
    if "weights_only" in text:  # its advice to load the file without
        text = "it holds more than tensors and plain values"
    return text if isinstance(error, ValueError) else f"damaged or cut short ({type(error).__name__}: {text})"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that then takes the place of ``path``; a failure leaves ``path`` as it was.

    What is written passes through memory: a signal that interrupts ``torch.save`` to a file on disk makes torch abort
    the process, or speak of a full disk.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    write(content)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.absolute())
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, content.getbuffer().nbytes, error) from error


def not_written(path: Path, needed: int, error: OSError) -> OSError:
    """What to raise when ``error`` kept ``needed`` bytes from ``path``: names the file, and the space if that lacks."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free
        reason += f"; {_amount(needed)} are needed, {_amount(free)} are free"
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


def _require_harmless(file: BinaryIO) -> None:
    """Refuse what torch would read only to run out of memory: compressed members, and calls that allocate."""
    magic = file.read(4)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"it has {size / 2**20:.0f} MiB; no checkpoint here takes more than {_MAX_FILE_BYTES >> 20}")
    if magic == _ZIP_MAGIC:
        with zipfile.ZipFile(file) as archive:
            for pickled in _pickles(archive, size):
                _require_known_globals(io.BytesIO(pickled))
    elif magic.startswith(_PICKLE_MAGIC):
        for _ in range(_LEGACY_PICKLES):
            _require_known_globals(file)
    elif not magic:
        raise ValueError("it is empty")
    else:
        raise ValueError(f"it begins with {magic!r}, neither a zip archive nor a pickle as torch writes them")


def _pickles(archive: zipfile.ZipFile, size: int) -> list[bytes]:
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a compressed archive, which torch does not write")
    claimed = sum(member.file_size for member in members)
    if claimed > size:
        raise ValueError(f"its parts claim {claimed} bytes in a file of {size}")
    # torch finds its members in upper and lower case
    return [archive.read(member) for member in members if member.filename.lower().endswith("data.pkl")]


def _require_known_globals(pickled: BinaryIO) -> None:
    for opcode, argument, position in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not _GLOBALS.fullmatch(str(argument)):
            name = str(argument or "objects of a later pickle protocol").replace(" ", ".")[:80]
            raise ValueError(f"it asks for {name}, which tensors and plain values do not need")
        if (position or 0) > _MAX_PICKLE_BYTES:
            raise ValueError(f"its structure without the tensors takes over {_MAX_PICKLE_BYTES // 2**20} MiB")


def _require_bounded(value: object) -> None:
    """Refuse what takes next to nothing in a file and no end of memory or time in the reader's hands."""
    waiting = [(value, 0)]
    for _ in range(_MAX_VALUES):
        if not waiting:
            return
        item, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"its values lie in one another more than {_MAX_DEPTH} deep")
        if isinstance(item, torch.Tensor):
            if item.layout == torch.strided and item.nbytes > item.untyped_storage().nbytes():
                raise ValueError(f"a tensor of {item.nbytes} bytes repeats {item.untyped_storage().nbytes()} bytes")
        elif isinstance(item, dict):
            inside = cast(dict[object, object], item)
            waiting += [(part, depth + 1) for pair in inside.items() for part in pair]
        elif isinstance(item, (list, tuple)):
            waiting += [(part, depth + 1) for part in cast(list[object], item)]
    raise ValueError(f"it holds more than {_MAX_VALUES} values, or few of them over and over")


def _require_plain(value: object, where: str) -> None:
    if type(value) in (dict, OrderedDict):  # exact types: weights_only refuses a defaultdict or a named tuple
        for key, item in cast(dict[object, object], value).items():
            _require_plain(key, f"a key of {where}, {key!r},")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(cast(list[object], value)):
            _require_plain(item, f"{where}[{index}]")
    elif type(value) not in _LEAVES:
        raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values only")
