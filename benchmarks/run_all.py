"""Run every benchmark in its short form, and collect what they found in one table and one file.

    make bench

Prints what each of them prints, then a table of all ratios with the machine and versions they were measured on, and
writes it to checkpoint/benchmarks.json. With --no-short each runs as long as it does by itself.
detection_recipe.py, a whole training, is not among them.
"""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli, reading, runtime
from cxr.provenance import provenance

FOLDER = Path(__file__).resolve().parent

# Each with the settings of its short form: minutes on two cores for all of them.
SHORT = {
    "decode.py": "--rounds 3 --files 32",
    "classification_epoch.py": "--rounds 3",
    "classification_loaders.py": "--rounds 2 --files 128",
    "classification_predict.py": "--rounds 3 --files 200 --memory-files 200",
    "detection_step.py": "--rounds 3 --steps 1",
    "detection_predict.py": "--rounds 3 --files 16",
    "processes.py": "--rounds 2 --steps 5",
    "scale.py": "--exams 2000 --resamples 200",
}
_RATIO = re.compile(r"(.+): median (\S+), range (\S+) to (\S+)")


@dataclass(frozen=True)
class BenchConfig:
    """How long, and where the figures go."""

    short: bool = cli.flag(True, help="the short form of each")
    out: Path = cli.flag(FOLDER.parent / "checkpoint" / "benchmarks.json", help="the file that is written")


def run_one(script: str, arguments: str) -> tuple[int, list[str]]:
    """Exit code and printed lines of a benchmark; prints them as they come."""
    command = [sys.executable, str(FOLDER / script), *arguments.split()]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return process.returncode, lines


def ratios_in(lines: list[str]) -> list[dict[str, Any]]:
    """What ``alternating.spread`` has said in ``lines``."""
    found = (_RATIO.fullmatch(line) for line in lines)
    return [
        {"what": match[1], "median": float(match[2]), "low": float(match[3]), "high": float(match[4])}
        for match in found
        if match
    ]


def main() -> int:
    """Run, print, write; exit code 1 where a benchmark has failed."""
    config = cli.parse(BenchConfig)
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for script, arguments in SHORT.items():
        chosen = arguments if config.short else ""
        print(f"\n{script} {chosen}".rstrip(), flush=True)
        code, lines = run_one(script, chosen)
        results.append({"script": script, "arguments": chosen, "ratios": ratios_in(lines), "printed": lines})
        if code:
            failed.append(script)
    with runtime.start("auto", "auto", seed=0) as run:
        machine = {**provenance(run), "cores": reading.cores(), "machine": platform.machine()}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n", encoding="utf-8")
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    rows = [(one["script"], ratio) for one in results for ratio in one["ratios"]]
    for script, ratio in rows:
        print(f"{script:<26} {ratio['what']:<72} {ratio['median']:>9.3f}  ({ratio['low']:.3f} to {ratio['high']:.3f})")
    print(f"written to {config.out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
