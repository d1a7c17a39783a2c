"""Knobs of the test command line.

This second paragraph is for readers of the file.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from cxr import cli

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Needy:
    report: Path | None = cli.flag(None, help="where it goes")
    in_colour: bool = cli.flag(False, needs="report", help="draw it so")


@dataclass(frozen=True)
class Config:
    data_dir: Path = cli.flag(help="where the images are")
    epochs: int = cli.flag(10, help="passes over the images")
    lr: float = cli.flag(3e-4, help="learning rate, 50 % of what the paper says")
    name: str = cli.flag("resnet", help="what to call it")
    pretrained: bool = cli.flag(True, help="start from weights")
    compile: bool = cli.flag(False, help="compile the network")
    grad_cam: bool | None = cli.flag(None, help="draw; by default for a single file only")
    device: Literal["auto", "cpu"] = cli.flag("auto", help="where")
    side: Literal[64, 128] = cli.flag(64, help="pixels")
    images: tuple[Path, ...] = cli.flag((), help="files")
    scales: tuple[float, ...] = cli.flag((0.5, 2.0), help="factors")
    output_dir: Path = cli.flag(ROOT / "checkpoint" / "x", help="outputs")
    weights: Path | None = cli.flag(None, help="a file")


def parsed(*arguments):
    return cli.parse(Config, ["--data-dir", "d", *arguments])


def refusal(capsys, *arguments, config=Config):
    """The one line that a command line is refused with."""
    with pytest.raises(SystemExit) as stopped:
        cli.parse(config, arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def test_without_flags_every_field_has_its_default_and_type():
    assert parsed() == Config(data_dir=Path("d"))
    assert isinstance(parsed().data_dir, Path)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--epochs", "3"], "epochs", 3),
        (["--lr", "1e-2"], "lr", 0.01),
        (["--lr=-0.5"], "lr", -0.5),
        (["--pretrained"], "pretrained", True),
        (["--no-pretrained"], "pretrained", False),
        (["--grad-cam"], "grad_cam", True),
        (["--no-grad-cam"], "grad_cam", False),
        (["--device", "cpu"], "device", "cpu"),
        (["--side", "128"], "side", 128),
        (["--images", "a.png", "b c.png"], "images", (Path("a.png"), Path("b c.png"))),
        (["--scales", "1"], "scales", (1.0,)),
    ],
)
def test_each_type_reads_its_form(arguments, field, value):
    found = getattr(parsed(*arguments), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3.5"], "argument --epochs: invalid int value: '3.5'"),
        (["--lr", "fast"], "argument --lr: 'fast' is not a finite number"),
        (["--lr", "nan"], "argument --lr: 'nan' is not a finite number"),
        (["--pretrained", "yes"], "unrecognized arguments: yes"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--unknown\nflag"], "unrecognized arguments: --unknown flag"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(capsys, arguments, message):
    assert refusal(capsys, "--data-dir", "d", *arguments).startswith(f"error: {message}")


def test_a_field_without_default_is_required(capsys):
    assert refusal(capsys) == "error: the following arguments are required: --data-dir; --help shows every flag\n"


def test_a_flag_is_refused_without_the_one_that_it_needs(capsys):
    assert refusal(capsys, "--in-colour", config=Needy).startswith("error: --in-colour needs --report;")
    assert cli.parse(Needy, ["--in-colour", "--report", "a"]).in_colour


def test_help_shows_every_flag_with_its_text_and_default_once(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(Config, ["--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for line in (
        "--data-dir PATH where the images are --epochs N passes over the images (default: 10)",
        "--lr X learning rate, 50 % of what the paper says (default: 0.0003)",
        "--pretrained, --no-pretrained start from weights (default: on) --compile, --no-compile compile the network"
        " (default: off)",
        "--grad-cam, --no-grad-cam draw; by default for a single file only (default: none)",
        "--device {auto,cpu} where (default: auto)",
        "files (default: none)",
        "factors (default: 0.5 2.0)",
        f"--output-dir PATH outputs (default: {Path('checkpoint') / 'x'} in the repository)",
        "--weights PATH a file (default: none)",
    ):
        assert line in shown
    assert "Knobs of the test command line." in shown
    assert "second paragraph" not in shown


def test_the_plain_form_of_a_config_fits_a_checkpoint_and_json():
    config = parsed("--images", "a", "b")
    plain = cli.plain(config)
    assert plain["data_dir"] == "d"
    assert plain["images"] == ["a", "b"]
    assert plain["scales"] == [0.5, 2.0]
    assert plain["weights"] is None
    assert plain["pretrained"] is True


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
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise SystemExit(4)", 4, ""),
        ("raise ValueError('expected a,\\n  found b')", 2, "error: expected a, found b\n"),
        ("raise ValueError", 2, "error: ValueError\n"),
        ("raise ValueError(chr(27) + '[31mred 폐렴')", 2, "error: \\x1b[31mred 폐렴\n"),
        ("open('/no/such/file')", 2, "error: [Errno 2] No such file or directory: '/no/such/file'\n"),
        ("raise FloatingPointError('the loss is nan')", 2, "error: the loss is nan\n"),
        ("raise KeyboardInterrupt", 130, "interrupted: everything up to the last finished step is on disk\n"),
        ("warnings.warn('two\\nlines')\nreturn 0", 0, "warning: two lines\n"),
    ],
)
def test_a_users_mistake_is_one_line_and_never_a_traceback(tmp_path, body, code, err):
    found = finished(tmp_path, body)
    assert (found.returncode, found.stderr) == (code, err)


def test_an_interruption_before_the_program_begins_is_one_line_too(tmp_path):
    """Such as while torch is imported, which takes seconds."""
    (tmp_path / "script.py").write_text("from cxr import cli\nraise KeyboardInterrupt\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=environment)
    assert found.returncode != 0 and found.stderr == "interrupted\n"


@pytest.mark.parametrize("body", ["return {}['fault of ours']", "assert False, 'fault of ours'"])
def test_a_fault_of_the_program_keeps_its_traceback(tmp_path, body):
    found = finished(tmp_path, body)
    assert found.returncode == 1
    assert "Traceback" in found.stderr
    assert "fault of ours" in found.stderr


def test_a_traceback_is_to_be_had(tmp_path):
    found = finished(tmp_path, "raise ValueError('wrong')", environment={"CXR_TRACEBACK": "1"})
    assert found.returncode == 1
    assert found.stderr.startswith("Traceback")
    assert found.stderr.endswith("ValueError: wrong\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_termination_runs_finally_blocks_and_says_so(tmp_path):
    body = (
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    signal.pause()\n"
        "except Exception:\n    print('swallowed')\nfinally:\n    print('tidied up')"
    )
    found = finished(tmp_path, body)
    assert found.returncode == 143
    assert found.stdout == "tidied up\n"
    assert found.stderr == "terminated: everything up to the last finished step is on disk\n"


def test_a_name_that_the_terminal_cannot_spell_does_not_stop_the_run(tmp_path):
    body = "print('흉부.png')\nprint('\\udcff.png')\nraise ValueError('폐렴')"
    found = finished(tmp_path, body, environment={"PYTHONIOENCODING": "ascii"})
    assert found.returncode == 2
    assert found.stdout == "\\ud749\\ubd80.png\n\\udcff.png\n"
    assert found.stderr == "error: \\ud3d0\\ub834\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of Windows end differently")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path, lines):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = finished(tmp_path, f"for _ in range({lines}):\n    print('some answer')", stdout=writing)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_does_not_fit_on_the_disk_is_one_line(tmp_path):
    with Path("/dev/full").open("w") as full:
        found = finished(tmp_path, "print('some answer')", stdout=full)
    assert (found.returncode, found.stderr) == (2, "error: [Errno 28] No space left on device\n")


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


def test_without_a_positional_value_the_flag_is_asked_for(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.parse(Files, ["--size", "2"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the following arguments are required: --image; --help shows every flag\n"
