"""Checkpoints: written whole or not at all, read without running code, plain values only."""

import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from cxr.files import write_atomically

FORMAT = 1

_LEAVES = (type(None), bool, int, float, str, torch.Tensor, torch.nn.Parameter)
# The largest that training writes here, a ResNet-50 detector with its average, optimizer and best weights, has 0.9 GB.
_MAX_FILE_BYTES = 3 * 2**29


def save(path: Path, *, task: str, **state: Any) -> None:
    """Write ``state`` to ``path`` so that a reader sees the old file or the new one, never half of one.

    Raises:
        TypeError: a value that ``read`` would refuse later, named by its key.
        OSError: the file cannot be written; the old one is as it was.
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
        ValueError: damaged, holding code, or larger than any checkpoint of this project.
        OSError: a file that may not be read, or a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path.resolve()} is a folder; expected a checkpoint file")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}")
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"{path}: has {size >> 20} MiB; no checkpoint here takes more than {_MAX_FILE_BYTES >> 20}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how torch stores tensors is no news to a user
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise ValueError(f"{path}: not a usable checkpoint: {_reason(error)}") from error


def with_half_kernels(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` of a network as a model file keeps it: kernels in float16, which halves the file.

    Biases, normalisation and its statistics stay as they are: they take a thousandth of the space, and a variance may
    lie outside of what float16 can hold. A network computes in float32 whatever it is filled from.

    Raises:
        ValueError: a kernel does not fit into float16.
    """
    kept: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        kept[name] = value.half() if value.ndim > 1 else value
        if value.isfinite().all() and not kept[name].isfinite().all():
            raise ValueError(
                f"{name} reaches {value.abs().max():.3g}, too much for a model file; no sound training does"
            )
    return kept


def _reason(error: Exception) -> str:
    """What torch found, in one line and without its advice to trust the file."""
    if found := re.search(r"(?i)unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)", str(error)):
        return f"it asks for {found[1]}, which tensors and plain values do not need"
    return f"damaged, cut short or no checkpoint at all ({type(error).__name__})"


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
