"""The command lines of all scripts."""

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("pytorch_*/*.py"), *ROOT.glob("studies/*.py")])
    if "cli.start(" in path.read_text(encoding="utf-8")
]
IMPORTING = [script for script in SCRIPTS if "CONFIG = cli.start(" in (ROOT / script).read_text(encoding="utf-8")]


def config_of(script: str) -> Any:
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    return get_type_hints(module.main)["config"]


@pytest.mark.parametrize("script", IMPORTING)
def test_help_and_a_mistake_are_answered_before_the_heavy_imports(script):
    summary = (ROOT / script).read_text(encoding="utf-8").split('"""')[1].splitlines()[0]
    for word, code, shown in (("--help", 0, summary), ("--abacus", 2, "error: ")):
        program = [sys.executable, "-X", "importtime", ROOT / script, word]
        ended = subprocess.run(program, capture_output=True, text=True, encoding="utf-8", timeout=60)
        imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert "cxr.cli" in imported and not imported & {"torch", "numpy", "pandas", "matplotlib"}
        assert ended.returncode == code and shown in " ".join((ended.stdout + ended.stderr).split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_at_most_20_flags_and_reads_every_setting(script):
    fields = dataclasses.fields(config_of(script))
    assert sum(bool(field.metadata) for field in fields) <= 20
    folder = (ROOT / script).parent
    files = [ROOT / script] if folder == ROOT else folder.glob("*.py")
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    assert [field.name for field in fields if not re.search(rf"(config|settings|self)\.{field.name}\b", code)] == []


@pytest.mark.parametrize(
    ("task", "name"), [("classification", "pneumonia_resnet18.pth"), ("detection", "pneumonia_fasterrcnn.pth")]
)
def test_a_training_leaves_the_bundled_model_at_the_root_as_it_is(task, name):
    config = config_of(f"pytorch_{task}/predict_{task}.py")
    assert config.__dataclass_fields__["model"].default == ROOT / name
    training = config_of(f"pytorch_{task}/train_{task}.py")
    assert training().model_file == ROOT / "checkpoint" / task / name
    assert training(output_dir=ROOT / "run", model_file=ROOT / "a.pth").model_file == ROOT / "a.pth"
