"""metrics.jsonl: one JSON object per finished epoch."""

import json
from pathlib import Path
from typing import Any

from cxr.checkpoints import write_atomically


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line; NaN and infinity, which JSON does not have, are refused with a ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All records, oldest first; none when there is no file. A last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def drop_from(path: Path, epoch: int) -> None:
    """Forget epochs after ``epoch`` (the number of finished ones), which the checkpoint does not know of."""
    kept = [record for record in read(path) if record["epoch"] <= epoch]
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept)
    write_atomically(path, lambda file: file.write(text.encode()))
