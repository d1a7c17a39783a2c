from pathlib import Path

import pytest

from cxr import messages, tables


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("폐렴 wide\u3000space", "폐렴 wide\u3000space"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("gpj.\u202egnp", "gpj.\\u202egnp"),  # which would reverse the rest of the line
        ("line\u2028end", "line\\u2028end"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("\udcff.png", "\\udcff.png"),
    ],
)
def test_control_characters_are_written_as_escapes(tmp_path, given, shown):
    assert messages.printable(given) == messages.shown_path(Path(given)) == shown
    tables.write_csv(tmp_path / "a.csv", ("path",), [[messages.shown_path(Path(given))]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8-sig") == f"path\n{shown}\n"


def test_several_lines_become_one_and_long_texts_and_lists_are_cut():
    assert messages.one_line(ValueError("first\n  second\tthird\x00")) == "first second third\\x00"
    assert (messages.shortened("abcdef", 3), messages.shortened("abc", 3)) == ("abc...", "abc")
    assert messages.quoted({"a": "x\n" * 400}).startswith("{'a': 'x") and len(messages.quoted("x" * 400)) == 303
    assert messages.first_of([1, 2, 3], shown=2) == "1, 2 and 1 more"
    assert messages.first_of(["a", "b"]) == "a, b"


def test_used_names_are_numbered_whatever_their_case(tmp_path):
    taken = set()
    stems = ["a", "a", "A", "a-2", "b", "a"]
    found = [messages.free_name(tmp_path, stem, "_x.png", taken).name for stem in stems]
    assert found == ["a_x.png", "a-2_x.png", "A-3_x.png", "a-2-2_x.png", "b_x.png", "a-4_x.png"]
    assert messages.free_name(tmp_path, "a", "_x.png", set()) == tmp_path / "a_x.png"  # another run


def test_columns_are_aligned_also_with_letters_of_two_places():
    assert messages.aligned([["site", "n"], ["서울", "12"]]) == "site   n\n서울   12"
