import errno
import os
import random
import signal
from contextlib import suppress

import pytest

from cxr import files


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, content):
    files.write_atomically(path, lambda file: file.write(content))


def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.bin"
    write(path, b"old")
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match=r"No space left on device; 4\.0 MiB are needed, .* MiB are free") as caught:
        write(path, bytes(2**22))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.bin", tmp_path / "folder"):
        with pytest.raises(OSError, match="cannot write") as caught:
            write(path, b"x")
        assert str(path) in str(caught.value)
    assert names_in(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a signal that meets a destructor
def test_interrupted_at_any_moment_there_is_the_old_file_or_the_new_one(tmp_path):
    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    path, last = tmp_path / "흉부.bin", 255
    write(path, bytes([last]) * 2**20)
    before, moments = signal.signal(signal.SIGALRM, interrupt), random.Random(0)
    try:
        for number in range(30):
            with suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0002, 0.01), 0.3)
                write(path, bytes([number]) * 2**20)
                signal.pause()
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert names_in(tmp_path) == ["흉부.bin"]
            content = path.read_bytes()
            assert len(content) == 2**20 and {*content} in ({last}, {number})
            last = content[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_two_writers_of_one_file_do_not_disturb_each_other_and_what_a_kill_left_is_removed(tmp_path):
    def pieces():
        write(tmp_path / "a.json", b"{}")
        (left,) = tmp_path.glob("a.json.*.partial")
        left.with_name("a.json.12345678.partial").touch()
        yield b"[]"

    files.write_pieces(tmp_path / "a.json", pieces())
    assert (tmp_path / "a.json").read_bytes() == b"[]"
    files.remove_partials(tmp_path)
    assert names_in(tmp_path) == ["a.json"]
