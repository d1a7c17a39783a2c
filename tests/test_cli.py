"""A command line of the tests.

This second paragraph is not shown.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from cxr import cli

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Config:
    data_dir: Path = cli.flag(help="where the images are")
    epochs: int = cli.flag(10, at_least=1, at_most=99, help="passes over the images")
    lr: float = cli.flag(3e-4, above=0, help="learning rate, 50 % of the paper's")
    pretrained: bool = cli.flag(True, help="start from weights")
    grad_cam: bool | None = cli.flag(None, help="draw; by default for a single file only")
    side: Literal[64, 128] = cli.flag(64, help="pixels")
    images: tuple[Path, ...] = cli.flag((), help="files")
    output_dir: Path = cli.flag(ROOT / "checkpoint" / "x", help="outputs")
    weight_decay: float = 0.05


def parsed(*arguments):
    return cli.parse(Config, ["--data-dir", "d", *arguments])


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--epochs", "3"], "epochs", 3),
        (["--lr", "1e-2"], "lr", 0.01),
        (["--no-pretrained"], "pretrained", False),
        (["--grad-cam"], "grad_cam", True),
        (["--side", "128"], "side", 128),
        (["--images", "a.png", "b c.png"], "images", (Path("a.png"), Path("b c.png"))),
        ([], "weight_decay", 0.05),
    ],
)
def test_each_type_has_its_form_and_other_fields_keep_their_defaults(arguments, field, value):
    found = getattr(parsed(*arguments), field)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --data-dir; --help shows every flag"),
        (["--lr", "nan"], "argument --lr: 'nan' is not a finite number"),
        (["--data-dir=d", "--epochs", "0"], "--epochs 0: expected at least 1 and at most 99"),
        (["--data-dir=d", "--lr", "0"], "--lr 0.0: expected more than 0"),
        (["--data-dir=d", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--data-dir=d", "--weight-decay", "3"], "unrecognized arguments: --weight-decay 3"),
        (["--data-dir=d", "--unknown\nflag"], "unrecognized arguments: --unknown flag"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        cli.parse(Config, arguments)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_help_shows_every_flag_with_its_text_and_default_once(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.parse(Config, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for line in (
        "--data-dir PATH where the images are --epochs N passes over the images (default: 10)",
        "--lr X learning rate, 50 % of the paper's (default: 0.0003)",
        "--pretrained, --no-pretrained start from weights (default: on) --grad-cam",
        f"--output-dir PATH outputs (default: {Path('checkpoint') / 'x'} in the repository)",
        "A command line of the tests.",
    ):
        assert line in shown
    assert "second paragraph" not in shown and "weight-decay" not in shown


def finished(tmp_path, body, *, environment=None, stdout=subprocess.PIPE, **options):
    """The process of a script whose ``main`` has this body."""
    script = tmp_path / "script.py"
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    script.write_text(
        f"import os, signal, sys, warnings\nsys.path.insert(0, {str(ROOT)!r})\nfrom cxr import cli\n"
        f"def main(config):\n{indented}sys.exit(cli.run(main, None))\n",
        encoding="utf-8",
    )
    unwanted = ("CXR_TRACEBACK", "PYTHONWARNINGS", "PYTHONUNBUFFERED")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    return subprocess.run(
        [sys.executable, script],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        env={**variables, "PYTHONUTF8": "1", **(environment or {})},
        **options,
    )


@pytest.mark.parametrize(
    ("body", "code", "err"),
    [
        ("return 3", 3, ""),
        ("raise SystemExit(4)", 4, ""),
        ("raise ValueError('expected a,\\n  found b')", 2, "error: expected a, found b\n"),
        ("raise ValueError", 2, "error: ValueError\n"),
        ("raise ValueError(chr(27) + '[31mred 폐렴')", 2, "error: \\x1b[31mred 폐렴\n"),
        ("open('/no/such/file')", 2, "error: [Errno 2] No such file or directory: '/no/such/file'\n"),
        (
            "raise KeyboardInterrupt",
            130,
            "interrupted: finished work is kept; a training continues after its last finished epoch with --resume\n",
        ),
        ("import logging; logging.getLogger('PIL').error('odd')", 0, ""),
        ("warnings.warn('two\\nlines')\nreturn 0", 0, "warning: two lines\n"),
    ],
)
def test_a_users_mistake_is_one_line_and_never_a_traceback(tmp_path, body, code, err):
    found = finished(tmp_path, body)
    assert (found.returncode, found.stderr) == (code, err)


def test_only_the_program_itself_changes_the_interpreter(tmp_path):
    """A script that starts ends an interruption of its imports in one line; importing cli alone changes nothing."""
    for lines, err in (("cli.start(Config, None)", r"interrupted\n"), ("", r"Traceback .*")):
        (tmp_path / "script.py").write_text(
            "import signal, sys, warnings\nfrom dataclasses import dataclass\n"
            "before = (sys.excepthook, warnings.formatwarning, warnings.filters[:], signal.getsignal(signal.SIGTERM))\n"
            "from cxr import cli\n"
            "assert before == (sys.excepthook, warnings.formatwarning, warnings.filters, signal.getsignal(signal.SIGTERM))\n"
            f"@dataclass(frozen=True)\nclass Config:\n    pass\n{lines}\nraise KeyboardInterrupt\n",
            encoding="utf-8",
        )
        command = [sys.executable, tmp_path / "script.py"]
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert ended.returncode != 0 and re.fullmatch(err, ended.stderr, re.DOTALL)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_termination_runs_finally_blocks_and_says_so(tmp_path):
    body = (
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    signal.pause()\n"
        "except Exception:\n    print('swallowed')\nfinally:\n    print('tidied up')"
    )
    found = finished(tmp_path, body)
    assert found.returncode == 143
    assert found.stdout == "tidied up\n"
    assert (
        found.stderr
        == "terminated: finished work is kept; a training continues after its last finished epoch with --resume\n"
    )


@dataclass(frozen=True)
class Files:
    """Takes files with or without their flag."""

    image: tuple[str, ...] = cli.flag(positional=True, help="files")
    size: int = cli.flag(1, help="a number")
    json: bool = cli.flag(False, help="a switch")


@pytest.mark.parametrize(
    "words", ["a b", "--image a b", "a --json b", "--json a b", "a --size 2 b", "a --image b", "--image a --size 1 b"]
)
def test_positional_values_need_no_flag(words):
    assert sorted(cli.parse(Files, words.split()).image) == ["a", "b"]
    with pytest.raises(SystemExit, match="2"):
        cli.parse(Files, ["--size", "2"])
