"""CSV files: read as text, with errors that name column and line numbers; and written."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from cxr.files import write_atomically
from cxr.messages import first_of, quoted
from cxr.reading.files import as_on_disk, by_composed_name

Table: TypeAlias = Any  # a pandas.DataFrame, whose operators pyright cannot type

_MAX_BYTES = 2**25  # the challenge's largest table has 1.7 MB; there is room for ten times as many exams


def read_table(path: Path, keys: Sequence[str], columns: Sequence[str], *, others: bool = False) -> Table:
    """The first of ``keys`` that is a column, then ``columns``, as text; the index is the line number in the file.

    Empty rows are left out. With ``others`` all further columns follow. As spreadsheets write them, values may be
    separated by semicolons or tabs, the text may be UTF-16, and the header may contain spaces.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table, a row without a key, or too large for one.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"no file {path.resolve()}")
    text = _small_text(path)
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r"sep=(.)\r?", first)  # a directive of spreadsheet programs
    text = rest if stated else text
    separator = stated[1] if stated else max((",", ";", "\t"), key=first.count)
    header = [name.strip() for name in next(csv.reader(io.StringIO(text), delimiter=separator), [])]
    if repeated := [name for number, name in enumerate(header) if name and name in header[:number]]:
        raise ValueError(f"{path}: duplicate column {repeated[0]}")
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            skip_blank_lines=False,
            skipinitialspace=separator != "\t",
            keep_default_na=False,  # NA, None and null are texts like others
            na_values=[""],
        )
    except ValueError as error:  # as pandas' own errors are
        raise ValueError(f"{path}: not a table of comma-separated values: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path}: rows have more values than the header has columns")
    table.columns = [str(name).strip() for name in table.columns]
    key = next((name for name in keys if name in table), " or ".join(keys))
    missing = [column for column in (key, *columns) if column not in table]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; found {', '.join(map(str, table.columns))}")
    table.index += 3 if stated else 2  # the header is line 1, or 2
    wanted = [key, *columns]
    wanted += [name for name in table if name not in wanted] if others else []
    table = cast(Table, table[wanted].dropna(how="all"))
    if table.empty:
        raise ValueError(f"{path}: no rows under the header")
    refuse(path, table[key].isna(), f"no {key}")
    return table


def as_numbers(path: Path, table: Table, columns: Sequence[str]) -> Table:
    """``table`` with finite numbers in these columns, NaN where empty.

    Raises:
        ValueError: a value is not a finite number.
    """
    import pandas as pd

    for column in columns:
        numbers = cast(Any, pd.to_numeric(table[column], errors="coerce"))
        refuse(path, table[column].notna() & ~np.isfinite(numbers), f"{column} is not a number")
        table = table.assign(**{column: numbers})
    return table


def named_files(path: Path, table: Table) -> list[Path]:
    """The file of the column ``path`` in each row, relative to the folder of the table if it is not absolute.

    Where a name is no file, it is tried again without spaces around it and with slashes for backslashes (Windows).

    Raises:
        ValueError: there is no such file.
    """
    listed = cache(by_composed_name)
    ways = [(path.parent / name, as_on_disk(path.parent / slashed(name), listed)) for name in table["path"]]
    found = [next((way for way in both if way.is_file()), both[0]) for both in ways]
    unknown = [not file.is_file() for file in found]
    if any(unknown):
        first = found[unknown.index(True)]
        refuse(path, _rows(table, unknown), f"path names no file, the first is {quoted(str(first))}")
    return found


def slashed(name: str) -> str:
    """A path from a table in a form that works on every system."""
    return name.strip().replace("\\", "/")


def refuse_repeated(path: Path, table: Table, files: Sequence[Path]) -> None:
    """Raise ValueError, naming the lines, where one of ``files``, one for each row, is that of an earlier row."""
    import pandas as pd

    repeated = pd.Series([str(file.resolve()) for file in files]).duplicated()
    refuse(path, _rows(table, repeated.tolist()), "duplicate image")


def _rows(table: Table, chosen: Sequence[bool]) -> Any:
    import pandas as pd

    return pd.Series(chosen, index=table.index, dtype=bool)


def refuse(path: Path, bad: Any, why: str) -> None:
    """Raise ValueError, naming the lines, where the pandas.Series ``bad`` is True."""
    lines: list[int] = bad.index[bad].tolist()
    if lines:
        raise ValueError(f"{path}: {why} (line{'s' * (len(lines) > 1)} {first_of(lines)})")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], *, mark: bool = True) -> None:
    """Write a CSV file in UTF-8 with one header line, atomically; by the ``mark`` spreadsheet programs see UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(
        path, lambda file: file.write(codecs.BOM_UTF8 * mark + text.getvalue().encode("utf-8", "backslashreplace"))
    )


def _small_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{path}: has {size / 2**20:.0f} MiB; expected a table of at most {_MAX_BYTES >> 20} MiB")
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the text is not UTF-8; in a spreadsheet program, save as CSV UTF-8") from error
