import dataclasses
import json

import pytest
from tiny_worklist import box, exam, film, heat

from reading_room.answers import JOURNAL, Answers
from reading_room.inbox import Inbox, state_of

MADE = {"models": {"classifier": "c1a55"}, "identifiers": False, "watched": True}


def test_answers_are_there_again_after_a_restart(tmp_path):
    before = Answers.go_on(tmp_path, MADE)
    for one in (exam(0, boxes=(box(), box(0.7)), out_of_distribution=True), exam(1, error="is empty (0 bytes)")):
        before.add(one, film(), heat())
    after = Answers.go_on(tmp_path, MADE)
    assert (after.exams, after.failed) == (before.exams, before.failed)
    assert after.states() == {"state 0"}  # what failed is tried once more
    assert after.picture(exam(0), "film.jpg").read_bytes() == film()


@pytest.mark.parametrize("kept", range(0, 400, 57))
def test_a_journal_cut_short_anywhere_keeps_its_whole_lines(tmp_path, kept):
    before = Answers.go_on(tmp_path, MADE)
    before.add(exam(0))
    whole = (tmp_path / JOURNAL).read_bytes()
    cut = whole[: min(kept, len(whole) - 1)]
    (tmp_path / JOURNAL).write_bytes(cut)
    after = Answers.go_on(tmp_path, MADE)
    assert after.exams == {}
    after.add(exam(0))
    assert (tmp_path / JOURNAL).read_bytes() == whole


@pytest.mark.parametrize("change", [{"models": {"classifier": "other"}}, {"identifiers": True}])
def test_answers_of_other_models_or_settings_are_not_mixed(tmp_path, change):
    Answers.go_on(tmp_path, MADE).add(exam(0))
    with pytest.raises(
        ValueError, match=rf"written with other models or settings \({next(iter(change))}\); start with the same"
    ):
        Answers.go_on(tmp_path, MADE | change)


def test_a_run_without_watch_starts_anew(tmp_path):
    once = MADE | {"watched": False}
    first = Answers.start(tmp_path, once)
    first.add(exam(0), film(), heat())
    (tmp_path / "pictures" / "holiday.jpg").touch()  # a home folder has such a folder
    second = Answers.start(tmp_path, once)
    assert second.exams == {} and [path.name for path in (tmp_path / "pictures").iterdir()] == ["holiday.jpg"]
    second.add(exam(1))
    assert Answers.go_on(tmp_path, MADE).exams == {}  # what a watch takes up is a watch's


def test_what_a_watch_has_gathered_is_not_replaced(tmp_path):
    Answers.go_on(tmp_path, MADE).add(exam(0))
    with pytest.raises(ValueError, match="is kept by --watch; give --output-dir another folder"):
        Answers.start(tmp_path, MADE | {"watched": False})
    assert Answers.go_on(tmp_path, MADE).exams.keys() == {exam(0).key}


@pytest.mark.parametrize(
    "line", ["not json", "[1, 2]", "{}", '{"key": 1}', json.dumps(dataclasses.asdict(exam(0)) | {"other": 1})]
)
def test_a_damaged_line_is_named(tmp_path, line):
    Answers.go_on(tmp_path, MADE).add(exam(0))
    with (tmp_path / JOURNAL).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"{JOURNAL}, line 3: .*; correct or remove the line"):
        Answers.go_on(tmp_path, MADE)


def test_a_file_that_failed_and_then_was_read_has_not_failed(tmp_path):
    found = Answers.go_on(tmp_path, MADE)
    found.add(exam(0, key="half", error="is cut short"))
    assert [one.error for one in found.unanswered()] == ["is cut short"]
    found.add(exam(0))
    for seen in (found, Answers.go_on(tmp_path, MADE)):
        assert seen.unanswered() == [] and len(seen.answered()) == 1


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "in").mkdir()
    return Inbox([str(tmp_path / "in")], [tmp_path / "in" / "out"], 5.0, set())


def put(tmp_path, name, content=b"\xff\xd8"):
    path = tmp_path / "in" / name
    path.write_bytes(content)
    return path


def test_a_file_is_handed_out_once_it_rests_and_only_once(tmp_path, inbox):
    path = put(tmp_path, "a.jpeg")
    assert [inbox.arrived(now) for now in (100.0, 104.9)] == [[], []]
    assert inbox.arrived(105.0) == [(path, state_of(path))]
    assert inbox.arrived(200.0) == []


def test_a_file_that_grows_waits_until_it_has_stopped(tmp_path, inbox):
    for now in range(100, 120, 4):
        path = put(tmp_path, "a.jpeg", bytes(now))
        assert inbox.arrived(float(now)) == []
    assert inbox.arrived(120.0) == [] and inbox.arrived(121.0) == [(path, state_of(path))]


def test_a_file_that_is_written_anew_is_handed_out_anew(tmp_path, inbox):
    put(tmp_path, "a.jpeg")
    inbox.arrived(100.0)
    assert len(inbox.arrived(105.0)) == 1
    path = put(tmp_path, "a.jpeg", b"something else")
    assert inbox.arrived(106.0) == []
    assert inbox.arrived(111.0) == [(path, state_of(path))]


def test_own_pictures_are_no_input(tmp_path, inbox):
    for name in ("out/pictures/0.film.jpg", "out/1.dcm"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        put(tmp_path, name)
    inbox.arrived(100.0)
    assert inbox.arrived(105.0) == []


def test_an_empty_or_missing_folder_is_waited_for(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    inbox = Inbox([str(tmp_path / "one"), str(tmp_path / "two")], [], 0.0, set())
    assert inbox.arrived(0.0) == []
    for _ in range(2):
        (tmp_path / "one").rmdir()
        with pytest.warns(UserWarning, match="one is not there; waiting for it to come back"):
            inbox.arrived(1.0)
        assert inbox.arrived(2.0) == []  # told once
        (tmp_path / "one").mkdir()
        assert inbox.arrived(3.0) == []
    (tmp_path / "two" / "a.png").touch()
    assert [path.name for path, _ in inbox.arrived(4.0)] == ["a.png"]
