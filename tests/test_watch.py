from pathlib import Path

import pytest

from reading_room.watch import Inbox, state_of


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    (tmp_path / "in").mkdir()
    return Inbox([str(tmp_path / "in")], [tmp_path / "in" / "out"], 5.0, set())


def put(tmp_path: Path, name: str, content: bytes = b"\xff\xd8") -> Path:
    path = tmp_path / "in" / name
    path.write_bytes(content)
    return path


def test_a_file_is_taken_once_it_is_stable_and_only_once(tmp_path: Path, inbox: Inbox) -> None:
    path = put(tmp_path, "a.jpeg")
    assert [inbox.arrived(now) for now in (100.0, 104.9)] == [[], []]
    assert inbox.arrived(105.0) == [(path, state_of(path))]
    assert inbox.arrived(200.0) == []


def test_a_file_that_grows_waits_until_it_has_stopped(tmp_path: Path, inbox: Inbox) -> None:
    for now in range(100, 120, 4):
        put(tmp_path, "a.jpeg", bytes(now))
        assert inbox.arrived(float(now)) == []
    path = tmp_path / "in" / "a.jpeg"
    assert inbox.arrived(120.0) == [] and inbox.arrived(121.0) == [(path, state_of(path))]


def test_an_overwritten_file_is_taken_again(tmp_path: Path, inbox: Inbox) -> None:
    put(tmp_path, "a.jpeg")
    inbox.arrived(100.0)
    assert len(inbox.arrived(105.0)) == 1
    path = put(tmp_path, "a.jpeg", b"something else")
    assert inbox.arrived(106.0) == []
    assert inbox.arrived(111.0) == [(path, state_of(path))]


def test_an_empty_or_absent_folder_is_waited_for(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    inbox = Inbox([str(tmp_path / "one"), str(tmp_path / "two")], [], 0.0, set())
    assert inbox.arrived(0.0) == []
    for _ in range(2):
        (tmp_path / "one").rmdir()
        with pytest.warns(UserWarning, match="one does not exist; waiting for it to come back"):
            inbox.arrived(1.0)
        assert inbox.arrived(2.0) == []  # one warning
        (tmp_path / "one").mkdir()
        assert inbox.arrived(3.0) == []
    (tmp_path / "two" / "a.png").touch()
    assert [path.name for path, _ in inbox.arrived(4.0)] == ["a.png"]
