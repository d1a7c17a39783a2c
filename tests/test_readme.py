"""Both READMEs against the files and flags they name, and against each other."""

import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from cxr import cli

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.ko.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in READMES}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE)
VARIABLES = re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE)  # that a user may set


def commands(text: str) -> list[list[str]]:
    """The words of each command in the bash blocks; comments are dropped, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines for part in line.split(" && ") if (words := shlex.split(part, comments=True))]


def headings(text: str) -> list[str]:
    """The marks of the headings; a ``#`` inside a fenced block is no heading."""
    return re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


def links(text: str) -> list[str]:
    """What Markdown and HTML links and pictures lead to, but for headings."""
    found = re.findall(r"\]\(([^)\s#]+)|(?:src|href)=\"([^\"#]+)", text)
    return [markdown or html for markdown, html in found]


class Understood(Exception):
    """The command line is one that the script takes."""


def understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the script of this command line up to where it has read its flags."""
    parse = cli.parse

    def parse_and_stop(*arguments, **named):
        parse(*arguments, **named)
        raise Understood

    monkeypatch.setattr(cli, "parse", parse_and_stop)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setenv("CXR_TRACEBACK", "1")  # leaves the handling of signals as it is
    with pytest.raises(Understood):
        runpy.run_path(words[0], run_name="__main__")


COMMANDS = sorted({tuple(words) for text in TEXTS.values() for words in commands(text)})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_names_files_and_flags_that_exist(words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    script = next((index for index, word in enumerate(words) if word.endswith(".py")), None)
    if words[0] in ("python", "torchrun") and script is not None:
        named = ("--weights", "--classifier")  # files that the scripts look for at once
        rest = [
            tmp_path / "file" if words[i - 1] in named and "." in words[i] else words[i]
            for i in range(script + 1, len(words))
        ]
        (tmp_path / "file").touch()
        understood([words[script], *map(str, rest)], monkeypatch)
    elif words[0] == "make":
        assert {word.partition("=")[0] for word in words[1:]} <= {*TARGETS, *VARIABLES}
    elif words[0] == "pip" and "-r" in words:
        assert Path(words[words.index("-r") + 1]).is_file()
    else:
        assert words[0] in ("source", "pip", "git", "cd") or words[:3] in (
            ("python", "-m", "venv"),
            ("python", "-m", "pytest"),
        )


@pytest.mark.parametrize("name", READMES)
def test_links_lead_to_files(name):
    missing = [link for link in links(TEXTS[name]) if ":" not in link and not (ROOT / link).exists()]
    assert not missing


def test_both_readmes_have_the_same_sections_commands_and_pictures():
    english, korean = TEXTS.values()
    assert headings(english) == headings(korean)
    assert commands(english) == commands(korean)
    assert {*links(english)} - {*READMES} == {*links(korean)} - {*READMES}


@pytest.mark.parametrize("name", READMES)
def test_structure_lists_every_script_and_module_of_the_tasks(name):
    files = [*ROOT.glob("*.py"), *ROOT.glob("pytorch_*/*.py")]
    missing = [path.name for path in files if path.name != "__init__.py" and path.name not in TEXTS[name]]
    assert not missing
