"""requirements-oldest.txt pins what the other requirements files allow at least."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def versions(mark: str, *names: str) -> dict[str, str]:
    lines = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)
    return dict(re.findall(rf"^([\w-]+){mark}([\d.]+)$", lines, re.MULTILINE))


def test_the_oldest_versions_are_those_that_the_requirements_allow():
    least, pinned = (
        versions(">=", "requirements.txt", "requirements-onnx.txt", "requirements-dev.txt"),
        versions("==", "requirements-oldest.txt"),
    )
    assert least.keys() == pinned.keys() - {"pyparsing"}  # which matplotlib brings along
    assert not {
        name: pinned[name] for name, version in least.items() if not f"{pinned[name]}.".startswith(f"{version}.")
    }
