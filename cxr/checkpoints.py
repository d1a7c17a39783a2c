"""Checkpoints: written whole or not at all, read without running code, plain values only."""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

FORMAT = 1
_LEAVES = (type(None), bool, int, float, str, torch.Tensor, torch.nn.Parameter)


def save(path: Path, *, task: str, **state: Any) -> None:
    """Write ``state`` to ``path`` so that a reader sees the old file or the new one, never half of one.

    Raises:
        TypeError: a value that ``torch.load(weights_only=True)`` would refuse later, named by its key.
        OSError: the folder cannot be written; the old file is as it was.
    """
    _require_plain(state, "state")
    write_atomically(path, lambda file: torch.save({"format": FORMAT, "task": task, **state}, file))


def load(path: Path, *, task: str) -> dict[str, Any]:
    """What ``save`` wrote, tensors on the CPU.

    Raises:
        FileNotFoundError: no file at ``path``.
        ValueError: not a checkpoint of this project, of another task or format, damaged, or holding code.
    """
    state = read(path)
    if not isinstance(state, dict) or "format" not in state or "task" not in state:
        raise ValueError(f"{path}: not a checkpoint of this project, which would hold the keys 'format' and 'task'")
    if state["task"] != task:
        raise ValueError(f"{path}: a checkpoint of the task {state['task']!r}, expected {task!r}")
    if state["format"] != FORMAT:
        raise ValueError(f"{path}: checkpoint format {state['format']}, this version reads format {FORMAT}")
    return cast(dict[str, Any], state)


def read(path: Path) -> Any:
    """Any file of tensors and plain values that torch wrote, on the CPU; nothing in it is run.

    Raises:
        FileNotFoundError: no file at ``path``.
        ValueError: damaged, holding code, or packed so that it would unfold to more than its size on disk.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}")
    try:
        if zipfile.is_zipfile(path):
            _require_unpacked(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path}: refused, it is no file of tensors and plain values only ({reason})") from error
    except OSError:
        raise
    except Exception as error:  # a damaged file makes torch raise nearly anything
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint, perhaps cut short ({reason})") from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a side file that then takes the place of ``path``; a failure leaves ``path`` as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}; is the disk full or read-only?") from error
    finally:
        partial.unlink(missing_ok=True)


def _require_unpacked(path: Path) -> None:
    """Refuse compressed members: torch stores its archives uncompressed, so one is a bomb."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    claimed = sum(member.file_size for member in members)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or claimed > path.stat().st_size:
        raise ValueError(f"its parts claim {claimed} bytes in a file of {path.stat().st_size}")


def _require_plain(value: object, where: str) -> None:
    if type(value) in (dict, OrderedDict):  # exact types: weights_only refuses a defaultdict or a named tuple
        for key, item in cast(dict[object, object], value).items():
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(cast(list[object], value)):
            _require_plain(item, f"{where}[{index}]")
    elif type(value) not in _LEAVES:
        raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values only")
