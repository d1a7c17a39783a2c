"""What a table may not be is tried where tables are used: tests of the RSNA folder and of the pointing game."""

import csv
import re
from pathlib import Path

import pytest

from cxr import tables

HEADER = "patientId,x,y\n"


@pytest.fixture
def read(tmp_path):
    def read(content, keys=("path", "patientId"), columns=("x", "y")):
        path = tmp_path / "a.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tables.read_table(path, keys, columns)

    return read


def test_the_key_comes_first_and_rows_keep_the_number_of_their_line(read):
    table = read("x,other,patientId,y\n1,a,007,2\n\n3,b,8,\n")
    assert list(table.columns) == ["patientId", "x", "y"]
    assert list(table.index) == [2, 4]
    assert table.loc[2].tolist() == ["007", "1", "2"] and table.loc[4].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("z,x\n1,2\n", "no column path or patientId, y; found z, x"),
        (HEADER + "a,1,2\n,3,4\n", r"no patientId \(line 3\)"),
        ("patientId,x,x ,y\na,1,2,3\n", "duplicate column x"),
        ("patientId,x,y,비고\na,1,2,정상\n".encode("cp949"), "the text is not UTF-8; .* save as CSV UTF-8$"),
        (b"," * (2**25 + 1), "has 32 MiB; expected a table of at most 32 MiB"),
    ],
    ids=["column", "key", "duplicate", "encoding", "size"],
)
def test_other_tables_are_refused(read, content, message):
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        read(content)


def test_numbers_are_finite_or_absent(read, tmp_path):
    table = tables.as_numbers(tmp_path / "a.csv", read(HEADER + "a,1e3,\nb,-0.5,2\n"), ["x", "y"])
    assert table["x"].tolist() == [1000, -0.5] and table["y"].isna().tolist() == [True, False]
    for odd in ("one", "inf", "1e999", "1j", "True", "9" * 5000):
        with pytest.raises(ValueError, match=r"a\.csv: y is not a number \(line 2\)"):
            tables.as_numbers(tmp_path / "a.csv", read(f"{HEADER}a,1,{odd}\n"), ["x", "y"])


def test_a_missing_table_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "a.csv"))):
        tables.read_table(Path("a.csv"), ["path"], [])


# --- written


def rows_of(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_a_csv_comes_back_as_it_was_written(tmp_path):
    rows = [["흉부 사진.png", 0.25, "NORMAL", ""], ['a "quoted", name', "0.5", "", "first\nsecond line"]]
    tables.write_csv(tmp_path / "new" / "a.csv", ("path", "probability", "class", "error"), iter(rows))
    assert rows_of(tmp_path / "new" / "a.csv") == [
        ["path", "probability", "class", "error"],
        ["흉부 사진.png", "0.25", "NORMAL", ""],
        ['a "quoted", name', "0.5", "", "first\nsecond line"],
    ]
    assert (tmp_path / "new" / "a.csv").read_bytes().startswith(b"\xef\xbb\xbfpath,probability,class,error\n\xed\x9d")


# --- as spreadsheets write them


@pytest.mark.parametrize(
    "content",
    [
        b"patientId ,x, y \na,1,2\n",
        b"patientId;x;y\na;1;2\n",
        "patientId\tx\ty\na\t1\t2\n".encode("utf-16"),
        "\ufeffpatientId,x,y\r\na,1,2\r\n".encode(),
    ],
    ids=["spaces in the header", "semicolons", "Unicode text", "CSV UTF-8"],
)
def test_what_spreadsheets_save_is_read(read, content):
    table = read(content)
    assert list(table.columns) == ["patientId", "x", "y"] and table.loc[2].tolist() == ["a", "1", "2"]


# --- with columns of one's own, and files


def test_further_columns_follow_in_their_order_where_they_are_wanted(tmp_path):
    (tmp_path / "a.csv").write_text("site,y,path,x,sex\nA,2,p,1,\n")
    table = tables.read_table(tmp_path / "a.csv", ["path"], ["x", "y"], others=True)
    assert list(table.columns) == ["path", "x", "y", "site", "sex"] and table["site"].tolist() == ["A"]


def test_files_are_named_from_the_folder_of_the_table_or_in_full(tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "films" / name).touch()
    (tmp_path / "a.csv").write_text(
        f"path\nfilms/a.png\n{tmp_path / 'films' / 'b.png'}\nfilms/../films/a.png\n films\\a.png \n"
    )
    table = tables.read_table(tmp_path / "a.csv", ["path"], [])
    files = tables.named_files(tmp_path / "a.csv", table)
    assert [file.name for file in files] == ["a.png", "b.png", "a.png", "a.png"] and all(
        file.is_file() for file in files
    )
    with pytest.raises(ValueError, match=r"a\.csv: duplicate image \(lines 4, 5\)$"):
        tables.refuse_repeated(tmp_path / "a.csv", table, files)


def test_files_that_are_not_there_are_refused_by_line(tmp_path):
    (tmp_path / "a.csv").write_text("path\na.csv\nmissing.png\nother\0.png\n")
    table = tables.read_table(tmp_path / "a.csv", ["path"], [])
    with pytest.raises(ValueError, match=r"a\.csv: path names no file, the first is '.*missing\.png' \(lines 3, 4\)$"):
        tables.named_files(tmp_path / "a.csv", table)
