from pathlib import Path

import pytest

from cxr.reading import NO_HEADER, Header
from reading_room.header import Naming


def facts(PatientID="", PatientName=""):
    """A header of this patient."""
    groups = PatientName.replace("^", " ").split("=")
    names = tuple(part for group in groups for part in (*group.split(), "".join(group.split())) if part)
    text = " · ".join(filter(None, (" / ".join(groups), PatientID)))
    return Header(patient_text=text, patient_names=(*names, *([PatientID] if PatientID else [])))


@pytest.mark.parametrize(
    ("values", "path", "shown"),
    [
        ({"PatientID": "P-0017"}, "ward/P-0017/1.dcm", "ward/…/1.dcm"),
        ({"PatientID": "P-0017"}, "chest_p-0017_pa.dcm", "chest_…_pa.dcm"),
        ({"PatientName": "Hong^Gildong"}, "hong gildong.dcm", "… ….dcm"),
        ({"PatientName": "Hong^Gildong"}, "HONGGILDONG1.dcm", "…1.dcm"),
        ({"PatientName": "Hong^Gildong=洪^吉洞=홍^길동"}, "홍길동.dcm", "….dcm"),
        ({"PatientID": "1"}, "1/exam11_1.dcm", "…/exam11_….dcm"),  # a short id hides no other number
        ({"PatientID": "a.c"}, "a.c/abc.dcm", "…/abc.dcm"),  # an id is no pattern
        ({}, "ward/P-0017/1.dcm", "ward/P-0017/1.dcm"),
    ],
)
def test_a_file_is_called_without_its_patient(values, path, shown):
    naming = Naming((Path("inbox"),), identifiers=False)
    assert naming.file(Path("inbox") / path, facts(**values)) == shown


def test_a_file_is_called_by_its_path_within_the_folder_that_was_asked_for():
    naming = Naming((Path("/data/inbox"), Path("other")), identifiers=False)
    assert naming.file(Path("/data/inbox/ward/1.dcm"), NO_HEADER) == "ward/1.dcm"
    assert naming.file(Path("other/1.dcm"), NO_HEADER) == "1.dcm"
    assert naming.file(Path("/elsewhere/1.dcm"), NO_HEADER) == "1.dcm"


def test_with_identifiers_all_is_told():
    naming, found = Naming((Path("inbox"),), identifiers=True), facts(PatientID="P-0017", PatientName="Hong^Gildong")
    assert naming.file(Path("inbox/P-0017.dcm"), found) == "inbox/P-0017.dcm"
    assert naming.patient(found) == "Hong Gildong · P-0017"
    assert Naming((), identifiers=False).patient(found) == ""


def test_a_reason_is_told_without_path_and_patient():
    path, found = Path("inbox/P-0017.dcm"), facts(PatientID="P-0017")
    naming = Naming((Path("inbox"),), identifiers=False)
    assert naming.reason(f"{path}: is empty (0 bytes)", path, found) == "is empty (0 bytes)"
    assert naming.reason(f"{path.absolute()}: no such file", path, found) == "no such file"
    assert naming.reason("no study of P-0017", path, found) == "no study of …"


def test_characters_that_turn_a_name_round_are_written_out():
    assert Naming((), identifiers=False).file(Path("exam\u202egpj.exe"), NO_HEADER) == r"exam\u202egpj.exe"
    assert Naming((), identifiers=True).file(Path("a\nb"), NO_HEADER) == r"a\nb"
