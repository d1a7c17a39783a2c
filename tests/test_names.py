from pathlib import Path

import pytest

from cxr import messages, tables


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("흉부 X선.png", "흉부 X선.png"),
        ("\t=a.png", "\\t=a.png"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("\x1b[31mred\x07.png", "\\x1b[31mred\\x07.png"),
        ("gpj.\u202egnp.exe", "gpj.\\u202egnp.exe"),
        ("\udcff.png", "\\udcff.png"),
    ],
)
def test_a_path_is_shown_on_one_line_as_a_path_and_nothing_else(tmp_path, name, shown):
    assert messages.shown_path(Path(name)) == shown
    tables.write_csv(tmp_path / "a.csv", ("path",), [[messages.shown_path(Path(name))]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == f"path\n{shown}\n"


def test_names_met_before_are_numbered_whatever_their_case(tmp_path):
    taken = set()
    stems = ["a", "a", "A", "a-2", "b", "a"]
    found = [messages.free_name(tmp_path, stem, "_x.png", taken).name for stem in stems]
    assert found == ["a_x.png", "a-2_x.png", "A-3_x.png", "a-2-2_x.png", "b_x.png", "a-4_x.png"]
    assert len({name.casefold() for name in found}) == len(found)
    assert messages.free_name(tmp_path, "a", "_x.png", set()) == tmp_path / "a_x.png"  # another run


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("=cmd()", "=cmd()_x.png"),
        ("흉부 X선", "흉부 X선_x.png"),
        ("two\nlines\x1b", "two_lines__x.png"),
        ("\udcff", "__x.png"),
    ],
)
def test_a_picture_has_a_name_that_can_be_written_and_shown(tmp_path, stem, name):
    path = messages.free_name(tmp_path, stem, "_x.png", set())
    assert path.name == name
    path.write_bytes(b"")


def test_the_picture_of_an_image_with_the_longest_name_can_be_written(tmp_path):
    longest, taken = "폐" * 83 + "ab", set()  # 251 bytes, and .png
    paths = [messages.free_name(tmp_path, longest, "_grad_cam.png", taken) for _ in range(2)]
    for path in paths:
        tables.write_csv(path, ("x",), [])
        assert path.exists()
    assert paths[0] != paths[1]
    assert paths[0].name.startswith("폐" * 66)
