"""metrics.jsonl: one JSON object per finished epoch, which it numbers from 1."""

import json
import math
from pathlib import Path
from typing import Any, cast

from cxr.files import write_atomically, writing


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line.

    Raises:
        ValueError: a value that JSON does not have (NaN, infinity), named.
        OSError: the line cannot be written; what part of it was, ``read`` leaves out.
    """
    line = _line(record)
    with writing(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def read(path: Path) -> list[dict[str, Any]]:
    """All records, oldest first; none when there is no file. A last line cut short by a kill is left out.

    Raises:
        ValueError: a line that is no JSON object, named by its number.
    """
    return [parsed(line, f"{path}, line {number}") for number, line in enumerate(whole_lines(path), 1)]


def drop_from(path: Path, epoch: int) -> None:
    """Forget epochs after ``epoch`` (the number of finished ones), which the checkpoint does not know of."""
    kept = [record for record in read(path) if record["epoch"] <= epoch] if epoch else []
    text = "".join(map(_line, kept))
    write_atomically(path, lambda file: file.write(text.encode()))


def _line(record: dict[str, Any]) -> str:
    undefined = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
    if undefined:
        raise ValueError(f"epoch {record.get('epoch')}: no finite number for {', '.join(undefined)}")
    return json.dumps(record, allow_nan=False) + "\n"


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file of JSON lines; what follows the last line end is nothing, or cut short by a kill."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def parsed(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a line; raises ValueError, which begins with ``where``, if it holds something else."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error}); mend or remove the line") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object; mend or remove the line")
    return cast(dict[str, Any], record)
