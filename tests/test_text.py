import pytest

from cxr import messages


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("폐렴 wide\u3000space", "폐렴 wide\u3000space"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("gpj.\u202egnp", "gpj.\\u202egnp"),  # which would turn round what follows
        ("line\u2028end", "line\\u2028end"),
        ("\udcff.png", "\\udcff.png"),
    ],
)
def test_what_steers_a_terminal_is_written_as_its_escape(given, shown):
    assert messages.printable(given) == shown


def test_an_error_of_several_lines_becomes_one():
    assert messages.one_line(ValueError("first\n  second\tthird\x00")) == "first second third\\x00"


def test_long_texts_and_lists_are_cut():
    assert (messages.shortened("abcdef", 3), messages.shortened("abc", 3)) == ("abc...", "abc")
    assert messages.quoted({"a": "x\n" * 400}).startswith("{'a': 'x") and len(messages.quoted("x" * 400)) == 303
    assert messages.first_of([1, 2, 3], shown=2) == "1, 2 and 1 more"
    assert messages.first_of(["a", "b"]) == "a, b"
