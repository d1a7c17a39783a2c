"""A frozen dataclass is the command line of a script: one field, one flag."""

import argparse
import dataclasses
import io
import logging
import math
import operator
import os
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

_KEPT = "everything up to the last finished step is on disk"
_LONGEST_MESSAGE = 2000  # characters; what a hostile file holds may be quoted in one

# What both tasks let a user choose.
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32"]

ConfigType = TypeVar("ConfigType")


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt not an Exception, so that no handler for errors swallows it."""


def flag(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    positional: bool = False,
    needs: str = "",
    above: float | None = None,
    below: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A dataclass field that carries its ``--help`` text and the range of its number; without a default, required.

    A ``positional`` one, of several values, is also what stands on the command line without a flag. ``needs`` is the
    field without which this one means nothing.
    """
    limits = {"more than": above, "less than": below, "at least": at_least, "at most": at_most}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    metadata = {"help": help, "limits": given, "positional": positional, "needs": needs}
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    config_type: type[ConfigType], argv: Sequence[str] | None = None, *, summary: str | None = None
) -> ConfigType:
    """An instance of ``config_type`` from the command line ``argv`` (``sys.argv[1:]`` when None).

    Each field becomes one flag, its underscores dashes: bool gives ``--name`` and ``--no-name``, Literal gives choices,
    ``tuple[X, ...]`` takes one or more values, which may stand without the flag if the field is positional. The first
    paragraph of ``summary``, or else of the module that defines ``config_type``, is the description that ``--help``
    shows. A command line that does not fit, a number outside its range, or a flag without the one that it needs ends
    the process with one line on stderr and exit code 2.

    Raises:
        TypeError: a field whose type no command line can give.
    """
    summary = summary or sys.modules[config_type.__module__].__doc__ or ""
    parser = _Parser(description=summary.strip().split("\n\n")[0], formatter_class=_Help, allow_abbrev=False)
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(typing.cast(Any, config_type)):
        positional = field.metadata["positional"]
        if positional:
            parser.add_argument(_WITHOUT_FLAG, nargs="*", metavar=field.name.upper(), help=f"as --{field.name}")
        required = field.default is dataclasses.MISSING
        text = field.metadata["help"] + ("" if required else f" (default: {_shown(field.default)})")
        action = parser.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=field.name,
            required=required and not positional,
            help=text.replace("%", "%%"),
            **_reader(hints[field.name], field.name),
        )
        # Set afterwards: some Pythons write the default of a bool into the help text a second time.
        action.default = None if required else field.default
    found = vars(parser.parse_intermixed_args(argv))
    without_flag = found.pop(_WITHOUT_FLAG, [])
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    for field in dataclasses.fields(typing.cast(Any, config_type)):
        if field.metadata["positional"]:
            values[field.name] = (*without_flag, *(values[field.name] or ()))
            if not values[field.name]:
                parser.error(f"the following arguments are required: --{field.name}")
        value, limits = values[field.name], field.metadata["limits"]
        if value is not None and not all(_WITHIN[name](value, limit) for name, limit in limits.items()):
            expected = " and ".join(f"{name} {limit}" for name, limit in limits.items())
            parser.error(f"--{field.name.replace('_', '-')} {value}: expected {expected}")
        needed = field.metadata["needs"]
        if value and needed and not values[needed]:
            parser.error(f"--{field.name.replace('_', '-')} needs --{needed.replace('_', '-')}")
    return config_type(**values)


_WITHOUT_FLAG = "without_flag"
_WITHIN: dict[str, Callable[[float, float], bool]] = {
    "more than": operator.gt,
    "less than": operator.lt,
    "at least": operator.ge,
    "at most": operator.le,
}


def plain(config: Any) -> dict[str, Any]:
    """The fields of a config as values that a checkpoint and JSON can hold: paths as text, tuples as lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def start(config_type: type[ConfigType], summary: str | None) -> ConfigType:
    """``parse`` for the script that this process runs: Ctrl-C while it still imports ends it in one word."""
    sys.excepthook = _interrupted_early
    return parse(config_type, summary=summary)


def run(main: Callable[[ConfigType], int | None], config: ConfigType) -> int:
    """The exit code of ``main(config)``: a user's mistake becomes one line on stderr and 2, an interruption 130 or 143.

    ValueError and OSError are how this project reports bad content and bad files, FloatingPointError how it reports a
    loss that is not finite. Set CXR_TRACEBACK=1 to see where one came from.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal cannot spell is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("CXR_TRACEBACK"):
        return main(config) or 0
    try:
        signal.signal(signal.SIGTERM, _terminate)
        warnings.formatwarning = _one_line_warning
        # What Pillow and pydicom report of damaged notes and odd headers; what matters of a file, cxr.reading reports.
        warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\.")
        logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler Python prints what is logged
        code = main(config) or 0
        sys.stdout.flush()  # here, where a full disk or a closed pipe is still told as one
        return code
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        _flush_or_discard()
        return EXIT_BROKEN_PIPE
    except (ValueError, OSError, FloatingPointError) as error:
        message = one_line(error) or type(error).__name__
        print(f"error: {shortened(message, _LONGEST_MESSAGE)}", file=sys.stderr)
        _flush_or_discard()
        return EXIT_USER_ERROR
    except KeyboardInterrupt as stop:
        print(f"interrupted: {one_line(stop) or _KEPT}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated as stop:
        print(f"terminated: {one_line(stop) or _KEPT}", file=sys.stderr)
        return EXIT_TERMINATED


def _interrupted_early(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """An interruption while torch is still being imported, seconds before ``run``, is no error of ours either."""
    if issubclass(kind, KeyboardInterrupt) and not os.environ.get("CXR_TRACEBACK"):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _terminate(_number: int, _frame: types.FrameType | None) -> None:
    raise Terminated


def _flush_or_discard() -> None:
    """Python flushes stdout once more when it exits, and would complain a second time where that is impossible."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """In the form of ``warnings.formatwarning``: where a warning was raised says nothing to a user."""
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
    """A finite number: no setting means anything as NaN or infinity, and NaN passes most checks of a range."""
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
    """The keywords of ``add_argument`` that read a value of the type ``hint``."""
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
    raise TypeError(f"--{name.replace('_', '-')}: no command-line form for the type {hint!r}")


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one line; argparse would print every flag before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {one_line(message)}; --help shows every flag\n")


class _Help(argparse.HelpFormatter):
    """Wider than argparse's own; the default is already part of each help text."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)
