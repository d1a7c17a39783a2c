"""Command lines from frozen dataclasses, one flag a field; one-line errors and exit codes."""

import argparse
import dataclasses
import io
import logging
import math
import operator
import os
import re
import signal
import sys
import types
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from cxr.messages import one_line, shortened

ROOT = Path(__file__).resolve().parents[1]

EXIT_USER_ERROR = 2  # what argparse itself exits with
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_TERMINATED = 143  # 128 + SIGTERM

_KEPT = "finished work is kept; a training continues after its last finished epoch with --resume"
# As torch states it for the CPU and for CUDA, in a RuntimeError; numpy raises MemoryError.
_OUT_OF_MEMORY = "(?i)out of memory|(can't|cannot) allocate memory|not enough memory"
_LOWER = "out of memory; lower --batch-size or --size, or close other programs; a training continues with --resume"
_LONGEST_REASON = 200
_LONGEST_MESSAGE = 2000  # characters; a message may quote the content of a hostile file
_WITHOUT_FLAG = "without_flag"
_WITHIN: dict[str, Callable[[float, float], bool]] = {
    "more than": operator.gt,
    "less than": operator.lt,
    "at least": operator.ge,
    "at most": operator.le,
}

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32"]

ConfigType = TypeVar("ConfigType")


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt not an Exception, so that no ``except Exception`` catches it."""


def flag(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    positional: bool = False,
    above: float | None = None,
    below: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A dataclass field with its ``--help`` text and the range of its number; required if it has no default.

    The values of a ``positional`` field, a tuple, may be given without the flag.
    """
    limits = {"more than": above, "less than": below, "at least": at_least, "at most": at_most}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    metadata = {"help": help, "limits": limits, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    config_type: type[ConfigType], argv: Sequence[str] | None = None, *, summary: str | None = None
) -> ConfigType:
    """An instance of ``config_type`` from the command line ``argv`` (``sys.argv[1:]`` when None).

    Each field made by ``flag`` is one flag, its underscores dashes; other fields keep their defaults. bool gives
    ``--name`` and ``--no-name``, Literal gives choices, ``tuple[X, ...]`` takes one or more values. ``--help`` shows
    the first paragraph of ``summary``, or else of the docstring of the module of ``config_type``. A mistake ends the
    process with one line on stderr and exit code 2.

    Raises:
        TypeError: a field whose type has no command-line form.
    """
    summary = summary or sys.modules[config_type.__module__].__doc__ or ""
    parser = _Parser(description=summary.strip().split("\n\n")[0], formatter_class=_Help, allow_abbrev=False)
    hints = typing.get_type_hints(config_type)
    fields = [field for field in dataclasses.fields(typing.cast(Any, config_type)) if "help" in field.metadata]
    for field in fields:
        positional = field.metadata["positional"]
        if positional:
            parser.add_argument(_WITHOUT_FLAG, nargs="*", metavar=field.name.upper(), help=f"as --{field.name}")
        required = field.default is dataclasses.MISSING
        text = field.metadata["help"]
        if not required and not (field.default is None and "by default" in text):
            text += f" (default: {_shown(field.default)})"
        action = parser.add_argument(
            flag_name(field.name),
            dest=field.name,
            required=required and not positional,
            help=text.replace("%", "%%"),
            **_reader(hints[field.name], field.name),
        )
        # Set afterwards: some versions of Python add the default of a bool to the help text.
        action.default = None if required else field.default
    found = vars(parser.parse_intermixed_args(argv))
    without_flag = found.pop(_WITHOUT_FLAG, [])
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    for field in fields:
        if field.metadata["positional"]:
            values[field.name] = (*without_flag, *(values[field.name] or ()))
            if not values[field.name]:
                parser.error(f"the following arguments are required: --{field.name}")
        value, limits = values[field.name], field.metadata["limits"]
        if value is not None and not all(_WITHIN[name](value, limit) for name, limit in limits.items()):
            expected = " and ".join(f"{name} {limit}" for name, limit in limits.items())
            parser.error(f"{flag_name(field.name)} {value}: expected {expected}")
    return config_type(**values)


def flag_name(field: str) -> str:
    """The flag of a field."""
    return "--" + field.replace("_", "-")


def plain(config: Any) -> dict[str, Any]:
    """The fields of a config as plain values for a checkpoint and JSON: paths as text, tuples as lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def start(config_type: type[ConfigType], summary: str | None) -> ConfigType:
    """``parse`` for the script of this process, which Ctrl-C during its imports then ends without a traceback."""
    sys.excepthook = _interrupted_early
    return parse(config_type, summary=summary)


def run(main: Callable[[ConfigType], int | None], config: ConfigType) -> int:
    """The exit code of ``main(config)``: a user's mistake becomes one line on stderr and 2, an interruption 130 or 143.

    The project raises ValueError and OSError for bad content and bad files, FloatingPointError for a loss that is not
    finite. The environment variable CXR_TRACEBACK=1 shows the traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the terminal's encoding may lack letters of a file name
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("CXR_TRACEBACK"):
        return main(config) or 0
    _silence_libraries()
    try:
        signal.signal(signal.SIGTERM, _terminate)
        warnings.formatwarning = _one_line_warning
        code = main(config) or 0
        sys.stdout.flush()  # where a full disk or a closed pipe still ends in one line
        return code
    except BrokenPipeError:  # the reader has left, as `head` does
        _flush_or_discard()
        return EXIT_BROKEN_PIPE
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError) as error:
        message = one_line(error) or type(error).__name__
        if isinstance(error, MemoryError) or re.search(_OUT_OF_MEMORY, message):
            message = f"{_LOWER} ({shortened(message, _LONGEST_REASON)})"
        elif isinstance(error, RuntimeError):
            raise
        print(f"error: {shortened(message, _LONGEST_MESSAGE)}", file=sys.stderr)
        _flush_or_discard()
        return EXIT_USER_ERROR
    except KeyboardInterrupt as stop:
        print(f"interrupted: {one_line(stop) or _KEPT}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated as stop:
        print(f"terminated: {one_line(stop) or _KEPT}", file=sys.stderr)
        return EXIT_TERMINATED


def _silence_libraries() -> None:
    """Keep notices of image and plot libraries from the terminal: a user cannot act on them."""
    for library in ("PIL", "pydicom"):
        warnings.filterwarnings("ignore", category=UserWarning, module=rf"{library}\b")
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    for library in ("PIL", "pydicom", "matplotlib"):  # matplotlib logs a home folder that is not writable
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _interrupted_early(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """As ``sys.excepthook``: no traceback for an interruption before ``run``, such as while torch is imported."""
    if issubclass(kind, KeyboardInterrupt) and not os.environ.get("CXR_TRACEBACK"):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _terminate(_number: int, _frame: types.FrameType | None) -> None:
    raise Terminated


def _flush_or_discard() -> None:
    """Flush stdout; where that is impossible, discard it, since Python would report it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """As ``warnings.formatwarning``, without the place in the code."""
    return f"warning: {one_line(message)}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in typing.cast(tuple[Any, ...], value)]
    return value


def _shown(default: Any) -> str:
    if isinstance(default, Path) and default.is_relative_to(ROOT):
        return str(default.relative_to(ROOT)) + " in the repository"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(_shown(item) for item in typing.cast(tuple[Any, ...], default)) or "none"
    return "none" if default is None else str(default)


def _number(text: str) -> float:
    """A finite number; NaN would pass most range checks."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "TEXT"),
    int: (int, "N"),
    float: (_number, "X"),
    Path: (Path, "PATH"),
}


def _reader(hint: Any, name: str) -> dict[str, Any]:
    """The keywords of ``add_argument`` for a value of the type ``hint``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union) and len(arguments) == 2 and type(None) in arguments:
        return _reader(next(argument for argument in arguments if argument is not type(None)), name)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in _READERS:
        read, metavar = _READERS[hint]
        return {"type": read, "metavar": metavar}
    if origin is Literal:
        return {"type": type(arguments[0]), "choices": arguments}
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return {"nargs": "+", **_reader(arguments[0], name)}
    raise TypeError(f"{flag_name(name)}: no command-line form for the type {hint!r}")


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the usage of all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {one_line(message)}; --help shows every flag\n")


class _Help(argparse.HelpFormatter):
    """Wider than argparse's own."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)
