"""A frozen dataclass is the command line of a script: one field, one flag."""

import argparse
import dataclasses
import os
import signal
import sys
import types
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

ROOT = Path(__file__).resolve().parents[1]

EXIT_USER_ERROR = 2  # what argparse itself exits with
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_TERMINATED = 143  # 128 + SIGTERM

ConfigType = TypeVar("ConfigType")


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt not an Exception, so that no handler for errors swallows it."""


def flag(default: Any = dataclasses.MISSING, *, help: str) -> Any:
    """A dataclass field that carries its ``--help`` text; without a default the flag is required."""
    return dataclasses.field(default=default, metadata={"help": help})


def parse(config_type: type[ConfigType], argv: Sequence[str] | None = None) -> ConfigType:
    """An instance of ``config_type`` from the command line ``argv`` (``sys.argv[1:]`` when None).

    Each field becomes one flag, its underscores dashes: bool gives ``--name`` and ``--no-name``, Literal gives choices,
    ``tuple[X, ...]`` takes one or more values. The first paragraph of the module that defines ``config_type`` is the
    description that ``--help`` shows.
    """
    summary = (sys.modules[config_type.__module__].__doc__ or "").strip().split("\n\n")[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=_Help, allow_abbrev=False)
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(typing.cast(Any, config_type)):
        required = field.default is dataclasses.MISSING
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=field.name,
            default=None if required else field.default,
            required=required,
            help=field.metadata["help"] + ("" if required else f" (default: {_shown(field.default)})"),
            **_reader(hints[field.name], field.name),
        )
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(parser.parse_args(argv)).items()
    }
    return config_type(**values)


def plain(config: Any) -> dict[str, Any]:
    """The fields of a config as values that a checkpoint and JSON can hold: paths as text, tuples as lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def run(main: Callable[[], int | None]) -> int:
    """The exit code of ``main``: a user's mistake becomes one line on stderr and 2, an interruption 130 or 143.

    ValueError and OSError are how this project reports bad content and bad files. Set CXR_TRACEBACK=1 to see where one
    came from.
    """
    if os.environ.get("CXR_TRACEBACK"):
        return main() or 0
    try:
        signal.signal(signal.SIGTERM, _terminate)
        warnings.formatwarning = lambda message, *_args, **_kwargs: f"warning: {message}\n"
        return main() or 0
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted: everything up to the last finished step is on disk", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated:
        print("terminated: everything up to the last finished step is on disk", file=sys.stderr)
        return EXIT_TERMINATED


def _terminate(_number: int, _frame: types.FrameType | None) -> None:
    raise Terminated


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
    return "none" if default is None else str(default)


def _reader(hint: Any, name: str) -> dict[str, Any]:
    """The keywords of ``add_argument`` that read a value of the type ``hint``."""
    if isinstance(hint, types.UnionType) and len(hint.__args__) == 2 and type(None) in hint.__args__:
        hint = next(arg for arg in hint.__args__ if arg is not type(None))
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in (str, int, float, Path):
        return {"type": hint, "metavar": {str: "TEXT", int: "N", float: "X", Path: "PATH"}[hint]}
    if typing.get_origin(hint) is Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[1:] == (Ellipsis,):
        return {"nargs": "+", **_reader(typing.get_args(hint)[0], name)}
    raise TypeError(f"--{name.replace('_', '-')}: no command-line form for the type {hint!r}")


class _Help(argparse.HelpFormatter):
    """Wider than argparse's own; the default is already part of each help text."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)
