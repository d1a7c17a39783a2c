"""README, its Korean mirror and the pages of docs/ against the files, flags and headings that they name."""

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from cxr import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "README.ko.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("checkpoint", "images")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
README, KOREAN = (TEXTS[page] for page in PAGES[:2])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE)
VARIABLES = re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE)  # that a user may set
OTHER_PROGRAMS = ("source", "pip", "git", "cd")


def commands(text: str) -> list[list[str]]:
    """The words of each command in the bash blocks; comments are dropped, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def headings(text: str) -> list[tuple[str, str]]:
    """Level and anchor, as GitHub forms it, of each heading; a ``#`` inside a fenced block is no heading."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        (level, re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
        for level, title in re.findall(r"^(#+) (.+)$", prose, re.MULTILINE)
    ]


def links(text: str) -> list[str]:
    """The targets of Markdown and HTML links and pictures."""
    found = re.findall(r"\]\(([^)\s]+)|(?:src|href)=\"([^\"]+)", text)
    return [markdown or html for markdown, html in found]


class Accepted(Exception):
    """The script accepts this command line."""


def parse_only(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script of this command line up to where it has parsed its flags."""

    def parse_and_stop(config_type: type, summary: str | None) -> None:
        cli.parse(config_type, summary=summary)
        raise Accepted

    monkeypatch.setattr(cli, "start", parse_and_stop)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(Accepted):
        runpy.run_path(words[0], run_name="__main__")


COMMANDS = sorted({tuple(words) for text in TEXTS.values() for words in commands(text)})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_names_files_and_flags_that_exist(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    named = [word for word in words if word.startswith(("docs/", "tests/", "pytorch_", "studies/"))]
    assert all(Path(name).is_file() for name in named)
    script = next((index for index, word in enumerate(words) if word.endswith(".py")), None)
    if words[0] in ("python", "torchrun") and script is not None:
        parse_only(list(words[script:]), monkeypatch)
    elif words[0] == "make":
        assert {word.partition("=")[0] for word in words[1:]} <= {*TARGETS, *VARIABLES}
    elif words[0] == "pip" and "-r" in words:
        assert Path(words[words.index("-r") + 1]).is_file()
    else:
        assert words[0] in OTHER_PROGRAMS or words[1:3] in (("-m", "venv"), ("-m", "pytest"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page: Path):
    missing: list[str] = []
    for link in links(TEXTS[page]):
        if ":" in link:  # a site
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in {slug for _level, slug in headings(TEXTS[target])}):
            missing.append(link)
    assert not missing


def test_readme_leads_to_every_page():
    assert {str(page.relative_to(ROOT)) for page in PAGES if page.parent.name == "docs"} <= {*links(README)}


def test_the_korean_readme_has_the_same_sections_commands_and_links():
    assert [level for level, _slug in headings(README)] == [level for level, _slug in headings(KOREAN)]
    assert commands(README) == commands(KOREAN)
    assert {*links(README)} - {"README.ko.md"} == {*links(KOREAN)} - {"README.md"}


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_readmes_first_commands_answer_as_printed(task, command, tmp_path, monkeypatch):
    main = importlib.import_module(f"pytorch_{task}.predict_{task}").main
    monkeypatch.chdir(ROOT)
    ran = command(main, "--image", "images/example.dcm", "--output-dir", tmp_path)
    assert ran.code == 0
    for page in (ROOT / "README.md", ROOT / "README.ko.md"):
        text = page.read_text(encoding="utf-8")
        assert f"predict_{task}.py --image images/example.dcm\n" in text
        for line in ran.out.splitlines():
            if line.startswith("images/example.dcm"):
                assert line in text


def test_readme_stays_a_first_page():
    assert len(README.encode()) <= 12_000 and len(README.split()) <= 1_500
