import csv
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr import pixels, reading


def write_images(folder, count):
    """Radiographs of different content and size, named against their order."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{count - number:03}.png"
        Image.fromarray(random.integers(0, 256, (20 + number % 5, 24), np.uint8)).save(path)
        paths.append(path)
    return paths


# --------------------------------------------------------------------------------------------------------- read ahead


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17])
def test_batches_hold_every_file_once_in_order(tmp_path, count):
    paths = write_images(tmp_path, count)
    batches = list(reading.read_ahead(paths, 16, batch_size=4))
    assert [read.path for batch in batches for read in batch] == paths
    assert [len(batch) for batch in batches] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    for read in (read for batch in batches for read in batch):
        image, (height, width) = pixels.read_square(read.path, 16)
        assert np.array_equal(read.image, image)
        assert (read.height, read.width, read.error) == (height, width, "")


def test_order_is_kept_when_later_files_are_read_sooner(tmp_path, monkeypatch):
    paths = write_images(tmp_path, 12)
    read_square = pixels.read_square

    def late_first(path, size):
        time.sleep(0.01 if paths.index(path) % 4 == 0 else 0)
        return read_square(path, size)

    monkeypatch.setattr(pixels, "read_square", late_first)
    assert [read.path for batch in reading.read_ahead(paths, 16, 4) for read in batch] == paths


def test_a_bad_file_is_an_answer_and_not_the_end(tmp_path):
    paths = write_images(tmp_path, 4)
    paths[1].write_bytes(b"no picture")
    paths[2].unlink()
    first, broken, missing, last = next(reading.read_ahead(paths, 16, 4))
    assert first.image is not None
    assert last.image is not None
    assert (broken.image, broken.height, broken.width) == (None, 0, 0)
    assert broken.error.startswith(f"{paths[1]}: neither JPEG, PNG, TIFF nor DICOM")
    assert missing.error == f"{paths[2]}: no such file"


def test_the_error_of_a_file_is_one_line_whatever_its_name(tmp_path):
    try:
        (tmp_path / "line\nend\x1b[31m.png").write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes no such name")
    ((read,),) = reading.read_ahead([tmp_path / "line\nend\x1b[31m.png"], 16, 4)
    assert "line end\\x1b[31m.png: neither" in read.error


def test_a_fault_of_the_program_is_not_taken_for_a_bad_file(tmp_path, monkeypatch):
    def faulty(path, size):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(pixels, "read_square", faulty)
    with pytest.raises(KeyError, match="a fault of ours"):
        list(reading.read_ahead(write_images(tmp_path, 2), 16, 4))


def test_reading_is_ahead_of_the_caller_but_by_no_more_than_three_batches(tmp_path, monkeypatch):
    paths, read_square = write_images(tmp_path, 40), pixels.read_square
    started, taken, furthest, lock = 0, 0, 0, threading.Lock()

    def counted(path, size):
        nonlocal started, furthest
        with lock:
            started += 1
            furthest = max(furthest, started - taken)
        return read_square(path, size)

    monkeypatch.setattr(pixels, "read_square", counted)
    for batch in reading.read_ahead(paths, 16, batch_size=4):
        deadline = time.monotonic() + 10
        while started < min(taken + 12, len(paths)) and time.monotonic() < deadline:
            time.sleep(0.001)  # the caller computes
        assert started == min(taken + 12, len(paths))
        with lock:
            taken += len(batch)
    assert furthest == 12


def test_leaving_early_does_not_wait_for_what_was_queued(tmp_path, monkeypatch):
    paths, read = write_images(tmp_path, 40), []

    def slow(path, size):
        read.append(path)
        time.sleep(0.005)
        raise OSError("too slow to matter")

    monkeypatch.setattr(pixels, "read_square", slow)
    monkeypatch.setattr(reading, "cores", lambda: 2)
    batches = reading.read_ahead(paths, 16, batch_size=12)
    next(batches)
    batches.close()
    assert len(read) < 30  # 36 were queued


# ---------------------------------------------------------------------------------------------------------- CSV, names


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_csv_comes_back_as_it_was_written(tmp_path):
    rows = [["흉부 사진.png", 0.25, "NORMAL", ""], ['a "quoted", name', "0.5", "", "first\nsecond line"]]
    reading.write_csv(tmp_path / "new" / "a.csv", ("path", "probability", "class", "error"), iter(rows))
    assert rows_of(tmp_path / "new" / "a.csv") == [
        ["path", "probability", "class", "error"],
        ["흉부 사진.png", "0.25", "NORMAL", ""],
        ['a "quoted", name', "0.5", "", "first\nsecond line"],
    ]
    assert (tmp_path / "new" / "a.csv").read_bytes().startswith(b"path,probability,class,error\n\xed\x9d")


@pytest.mark.parametrize(
    "cell", ["=cmd()|' /C calc'!A0", "+1+cmd()", "-1+cmd()", "@SUM(A1)", "\t=cmd()", "\n=cmd()", '=HYPERLINK("x")']
)
def test_no_text_is_a_formula_to_a_spreadsheet(tmp_path, cell):
    reading.write_csv(tmp_path / "a.csv", ("error",), [[cell]])
    assert rows_of(tmp_path / "a.csv")[1] == ["'" + cell]


def test_no_line_end_in_a_text_ends_the_row(tmp_path):
    reading.write_csv(tmp_path / "a.csv", ("error", "next"), [["a\rb\r\nc\nd", 1], ["\r=cmd()", 2]])
    assert rows_of(tmp_path / "a.csv")[1:] == [["a\nb\nc\nd", "1"], ["'\n=cmd()", "2"]]


@pytest.mark.parametrize("cell", ["-0.5", "+3", "-1e-7", -0.5, 3, None, "0.9 10 20 30 40", "", "a=b"])
def test_numbers_and_other_texts_stay_as_they_are(tmp_path, cell):
    reading.write_csv(tmp_path / "a.csv", ("value", "next"), [[cell, "x"]])
    assert rows_of(tmp_path / "a.csv")[1] == ["" if cell is None else str(cell), "x"]


def test_a_csv_that_fails_half_way_leaves_the_old_one(tmp_path):
    def rows():
        yield ["new"]
        raise ZeroDivisionError

    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(ZeroDivisionError):
        reading.write_csv(tmp_path / "a.csv", ("x",), rows())
    assert (tmp_path / "a.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("흉부 X선.png", "흉부 X선.png"),
        ("=cmd()|' !A0.png", "./=cmd()|' !A0.png"),
        ("-rf.png", "./-rf.png"),
        ("@a.png", "./@a.png"),
        ("+a.png", "./+a.png"),
        ("\t=a.png", "\\t=a.png"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("\x1b[31mred\x07.png", "\\x1b[31mred\\x07.png"),
        ("gpj.\u202egnp.exe", "gpj.\\u202egnp.exe"),
        ("line\u2028end.png", "line\\u2028end.png"),
        ("\udcff.png", "\\udcff.png"),
        ("wide\u3000space.png", "wide\u3000space.png"),
    ],
)
def test_a_path_is_shown_on_one_line_as_a_path_and_nothing_else(tmp_path, name, shown):
    assert reading.shown_path(Path(name)) == shown
    reading.write_csv(tmp_path / "a.csv", ("path",), [[reading.shown_path(Path(name))]])
    assert rows_of(tmp_path / "a.csv") == [["path"], [shown]]


def test_names_met_before_are_numbered_whatever_their_case(tmp_path):
    taken = set()
    stems = ["a", "a", "A", "a-2", "b", "a"]
    found = [reading.free_name(tmp_path, stem, "_x.png", taken).name for stem in stems]
    assert found == ["a_x.png", "a-2_x.png", "A-3_x.png", "a-2-2_x.png", "b_x.png", "a-4_x.png"]
    assert len({name.casefold() for name in found}) == len(found)
    assert reading.free_name(tmp_path, "a", "_x.png", set()) == tmp_path / "a_x.png"  # another run


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
    path = reading.free_name(tmp_path, stem, "_x.png", set())
    assert path.name == name
    path.write_bytes(b"")


def test_the_picture_of_an_image_with_the_longest_name_can_be_written(tmp_path):
    longest, taken = "폐" * 83 + "ab", set()  # 251 bytes, and .png
    paths = [reading.free_name(tmp_path, longest, "_grad_cam.png", taken) for _ in range(2)]
    for path in paths:
        reading.write_csv(path, ("x",), [])
        assert path.exists()
    assert paths[0] != paths[1]
    assert paths[0].name.startswith("폐" * 66)
