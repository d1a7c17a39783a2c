"""Checkpoints: tensors and plain values, written atomically and loaded without running code."""

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


def save(path: Path, *, task: str, **state: Any) -> None:
    """Write ``state`` to ``path`` atomically.

    Raises:
        TypeError: a value that ``read`` would refuse, named by its key.
        OSError: the file cannot be written; the old one is unchanged.
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
        raise ValueError(f"{path}: not a checkpoint of this project, which has the keys 'format' and 'task'")
    if state["task"] != task:
        raise ValueError(f"{path}: a checkpoint of the task {state['task']!r:.50}, expected {task!r}")
    if state["format"] != FORMAT:
        raise ValueError(f"{path}: checkpoint format {state['format']}, this version reads format {FORMAT}")
    return cast(dict[str, Any], state)


def read(path: Path) -> Any:
    """Any file of tensors and plain values that torch wrote, on the CPU; code in it is not run.

    Raises:
        FileNotFoundError: no file at ``path``.
        ValueError: damaged, or holding code.
        OSError: a folder, or a file without read permission.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path.resolve()} is a folder; expected a checkpoint file")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's storage formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes torch raise nearly anything
        found = re.search(r"(?i)unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)", str(error))
        reason = f"refers to the code {found[1]}" if found else f"damaged or not a checkpoint ({type(error).__name__})"
        raise ValueError(f"{path}: not a usable checkpoint: {reason}") from error


def with_half_kernels(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` of a network as a model file keeps it: kernels in float16, which halves the file.

    Biases and normalisation stay in float32: they take a thousandth of the space, and a variance may exceed the range
    of float16. A network computes in float32 whatever dtype it is loaded from.
    """
    return {name: value.half() if value.ndim > 1 else value for name, value in state.items()}


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
