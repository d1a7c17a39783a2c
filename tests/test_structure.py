"""The arrows between the files: scripts, reports, training data, data sets and models, cxr, libraries, in this order."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cxr", "phantom", "pytorch_classification", "pytorch_detection", "reading_room", "studies", "benchmarks")


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module(path): path
    for path in [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
}


def imported(text: str) -> Iterator[str]:
    """The files of this project that a module with this text imports anywhere, if only for a type."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in FILES else node.module for name in names} & FILES.keys()
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & FILES.keys()


ARROWS = {name: set(imported(path.read_text(encoding="utf-8"))) for name, path in FILES.items()}


def reached(start: str) -> set[str]:
    found, waiting = set(), {start}
    while waiting:
        found |= waiting
        waiting = {name for known in waiting for name in ARROWS[known]} - found
    return found


def test_imports_are_read_wherever_they_stand():
    text = "import os\nif TYPE_CHECKING:\n    from cxr import cli, nothing\ndef f():\n    from cxr.files import sha256_of\n"
    assert set(imported(text)) == {"cxr.cli", "cxr", "cxr.files"}
    assert {"cxr.cli", "phantom.cohort"} <= ARROWS["make_sample_data"]


def test_no_file_imports_one_that_imports_it():
    TopologicalSorter(ARROWS).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize(
    ("room", "may_know"),
    [
        ("phantom", ("phantom",)),
        ("cxr.reading", ("cxr.reading", "cxr.messages", "cxr.files")),
        ("cxr", ("cxr",)),
        ("pytorch_classification", ("pytorch_classification", "cxr")),
        ("pytorch_detection", ("pytorch_detection", "cxr")),
        ("reading_room", ("reading_room", "pytorch_classification", "pytorch_detection", "cxr")),
        ("make_sample_data", ("phantom", "cxr.cli", "cxr.messages")),
        ("download_data", ("cxr",)),
    ],
)
def test_arrows_run_one_way(room, may_know):
    for name in FILES.keys() - {"pytorch_detection.pretrain_detection"}:  # which draws its exams
        if f"{name}.".startswith(f"{room}."):
            strangers = [
                other
                for other in reached(name) - {name}
                if not f"{other}.".startswith(tuple(f"{known}." for known in may_know))
            ]
            assert not strangers, f"{name} imports {strangers}"
