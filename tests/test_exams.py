from pathlib import Path
from typing import Any

import pytest
from tiny_worklist import box, exam, film, heat

from cxr.prediction import Prediction
from cxr.reading import NO_HEADER, Header
from reading_room.exams import JOURNAL, Journal, Naming

SETTINGS = {"models": ["c1a55"], "identifiers": False, "watched": True}


def test_exams_are_the_same_after_a_restart(tmp_path: Path) -> None:
    before = Journal.open(tmp_path, SETTINGS)
    for one in (exam(0, boxes=(box(), box(0.7)), out_of_distribution=True), exam(1, error="is empty (0 bytes)")):
        before.add(one, film(), heat())
    after = Journal.open(tmp_path, SETTINGS)
    assert (after.exams, after.failed) == (before.exams, before.failed)
    assert after.picture(exam(0), "film.jpg").read_bytes() == film()


@pytest.mark.parametrize("kept", range(0, 400, 57))
def test_a_journal_cut_short_anywhere_keeps_its_whole_lines(tmp_path: Path, kept: int) -> None:
    before = Journal.open(tmp_path, SETTINGS)
    before.add(exam(0))
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole[: min(kept, len(whole) - 1)])
    after = Journal.open(tmp_path, SETTINGS)
    assert after.exams == {}
    after.add(exam(0))
    assert (tmp_path / JOURNAL).read_bytes() == whole


@pytest.mark.parametrize("change", [{"models": ["other"]}, {"identifiers": True}])
def test_exams_of_other_models_or_settings_are_not_mixed(tmp_path: Path, change: dict[str, Any]) -> None:
    Journal.open(tmp_path, SETTINGS).add(exam(0))
    with pytest.raises(ValueError, match=rf"with other models or settings \({next(iter(change))}\); start with the"):
        Journal.open(tmp_path, SETTINGS | change)


def test_a_run_without_watch_starts_from_empty(tmp_path: Path) -> None:
    once = SETTINGS | {"watched": False}
    Journal.open(tmp_path, once).add(exam(0), film(), heat())
    (tmp_path / "pictures" / "holiday.jpg").touch()  # a home folder has such a folder
    second = Journal.open(tmp_path, once)
    assert second.exams == {} and [path.name for path in (tmp_path / "pictures").iterdir()] == ["holiday.jpg"]
    second.add(exam(1))
    assert Journal.open(tmp_path, SETTINGS).exams == {}  # --watch resumes only exams of --watch


def test_the_exams_of_a_watch_are_not_replaced(tmp_path: Path) -> None:
    Journal.open(tmp_path, SETTINGS).add(exam(0))
    with pytest.raises(ValueError, match="belongs to a run with --watch; give --output-dir another folder"):
        Journal.open(tmp_path, SETTINGS | {"watched": False})
    assert Journal.open(tmp_path, SETTINGS).exams.keys() == {exam(0).key}


def test_a_file_that_failed_and_then_was_read_has_not_failed(tmp_path: Path) -> None:
    found = Journal.open(tmp_path, SETTINGS)
    found.add(exam(0, key="half", error="is cut short"))
    assert [one.prediction.error for one in found.failed.values()] == ["is cut short"]
    found.add(exam(0))
    for journal in (found, Journal.open(tmp_path, SETTINGS)):
        assert not journal.failed and len(journal.exams) == 1


# ----------------------------------------------------------------------------------------- how files and patients are shown


def header(patient_id: str = "", name: str = "") -> Header:
    groups = name.replace("^", " ").split("=")
    names = tuple(part for group in groups for part in (*group.split(), "".join(group.split())) if part)
    text = " · ".join(filter(None, (" / ".join(groups), patient_id)))
    return Header(patient_text=text, patient_names=(*names, *([patient_id] if patient_id else [])))


def shown(naming: Naming, path: str, found: Header = NO_HEADER, error: str = "") -> Any:
    return naming.exam(Path(path), "state", found, "sha256", Prediction(Path(path), error))


@pytest.mark.parametrize(
    ("found", "path", "expected"),
    [
        (header("P-0017"), "ward/P-0017/1.dcm", "ward/…/1.dcm"),
        (header("P-0017"), "chest_p-0017_pa.dcm", "chest_…_pa.dcm"),
        (header(name="Hong^Gildong"), "hong gildong.dcm", "… ….dcm"),
        (header(name="Hong^Gildong"), "HONGGILDONG1.dcm", "…1.dcm"),
        (header(name="Hong^Gildong=洪^吉洞=홍^길동"), "홍길동.dcm", "….dcm"),
        (header("1"), "1/exam11_1.dcm", "…/exam11_….dcm"),  # a short ID hides no other number
        (header("a.c"), "a.c/abc.dcm", "…/abc.dcm"),  # an ID is no pattern
        (NO_HEADER, "ward/P-0017/1.dcm", "ward/P-0017/1.dcm"),
    ],
)
def test_the_patient_is_hidden_in_paths(found: Header, path: str, expected: str) -> None:
    one = shown(Naming((Path("inbox"),), identifiers=False), f"inbox/{path}", found)
    assert (one.file, str(one.prediction.path), one.patient) == (expected, expected, "")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("inbox/P-0017.dcm: is empty (0 bytes)", "is empty (0 bytes)"),
        (f"{Path('inbox/P-0017.dcm').absolute()}: no such file", "no such file"),
        ("no study of P-0017", "no study of …"),
    ],
)
def test_an_error_is_shown_without_path_and_patient(error: str, expected: str) -> None:
    one = shown(Naming((Path("inbox"),), identifiers=False), "inbox/P-0017.dcm", header("P-0017"), error)
    assert one.prediction.error == expected and one.key == one.place
