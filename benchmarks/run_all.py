"""Run every benchmark in its short form, and print what they found as one table.

    make bench

Prints what each of them prints, then all ratios with the machine and versions they were measured on.
detection_epoch.py, which needs real radiographs, is not among them.
"""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cxr import cli, reading, runtime
from cxr.model_file import run_environment

FOLDER = Path(__file__).resolve().parent

# The short form of each: minutes on two cores for all of them.
SHORT = (
    "decode.py --rounds 3 --files 32",
    "classification_epoch.py --rounds 3",
    "classification_loaders.py --rounds 2 --files 128",
    "prediction.py --task classification --rounds 3 --files 200 --memory-files 200",
    "detection_step.py --rounds 3 --steps 1",
    "prediction.py --task detection --size 384 --rounds 3 --files 16 --memory-files 0",
    "worklist_page.py --rounds 3 --files 16 --memory-files 0",
)
_RATIO = re.compile(r"(.+): median (\S+), range (\S+) to (\S+)")


@dataclass(frozen=True)
class BenchConfig:
    """Nothing to choose: each benchmark has flags of its own."""


def run_one(words: str) -> tuple[int, list[str]]:
    """Exit code and printed lines of a benchmark; prints them as they come."""
    script, *arguments = words.split()
    command = [sys.executable, str(FOLDER / script), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return process.returncode, lines


def main(config: BenchConfig) -> int:
    """Run and print; exit code 1 where a benchmark has failed."""
    rows: list[str] = []
    failed: list[str] = []
    for words in SHORT:
        print(f"\n{words}", flush=True)
        code, lines = run_one(words)
        failed += [words] if code else []
        for found in filter(None, map(_RATIO.fullmatch, lines)):
            what, median, low, high = found.groups()
            rows.append(f"{words.split()[0]:<26} {what:<72} {median:>9}  ({low} to {high})")
    with runtime.start("auto", "auto", seed=0) as run:
        machine = {**run_environment(run), "cores": reading.cores(), "machine": platform.machine()}
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()), *rows, sep="\n")
    print(*(f"failed: {words}" for words in failed), sep="\n", end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(cli.run(main, cli.start(BenchConfig, __doc__)))
