from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from reading_room.header import Facts, Naming


def facts(**values):
    """Of a header whose values are as they may stand in a file, valid or not."""
    dataset = Dataset()
    for name, value in values.items():
        dataset[name] = pydicom.DataElement(name, dictionary_VR(name), value, validation_mode=0)
    return Facts.of(dataset)


@pytest.mark.parametrize(
    ("values", "acquired", "study_date"),
    [
        ({"AcquisitionDate": "20261120", "AcquisitionTime": "103205.123"}, "2026-11-20T10:32", False),
        ({"AcquisitionDate": "2026.11.20", "AcquisitionTime": "1032"}, "2026-11-20T10:32", False),  # before DICOM 3.0
        ({"AcquisitionDateTime": "20261120103205.5+0900", "AcquisitionDate": "20250101"}, "2026-11-20T10:32", False),
        ({"AcquisitionDateTime": "2026", "ContentDate": "20261121"}, "2026-11-21", False),
        ({"AcquisitionDate": "20261120"}, "2026-11-20", False),
        ({"AcquisitionDate": "20261120", "AcquisitionTime": "soon"}, "2026-11-20", False),
        ({"StudyDate": "20261119", "StudyTime": "080000"}, "2026-11-19T08:00", True),
        ({"AcquisitionDate": "20261340", "StudyDate": "20261119"}, "2026-11-19", True),
        ({"AcquisitionDate": "<b>today</b>"}, "", False),
        ({}, "", False),
    ],
)
def test_a_date_is_taken_where_the_header_has_one(values, acquired, study_date):
    found = facts(**values)
    assert (found.acquired, found.study_date) == (acquired, study_date)


def test_what_tells_the_exam_and_the_patient():
    found = facts(
        SOPInstanceUID="1.2.3", ViewPosition="pa", PatientName="Hong^Gildong=洪^吉洞=홍^길동", PatientID="P-0017"
    )
    assert (found.instance, found.view, found.patient) == ("1.2.3", "PA", "Hong Gildong / 洪 吉洞 / 홍 길동 · P-0017")


def test_a_uid_that_is_none_does_not_tell_an_exam():
    assert facts(SOPInstanceUID="1." * 40 + "1").instance == ""


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
    assert naming.file(Path("/data/inbox/ward/1.dcm"), Facts()) == "ward/1.dcm"
    assert naming.file(Path("other/1.dcm"), Facts()) == "1.dcm"
    assert naming.file(Path("/elsewhere/1.dcm"), Facts()) == "1.dcm"


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
    assert Naming((), identifiers=False).file(Path("exam\u202egpj.exe"), Facts()) == r"exam\u202egpj.exe"
    assert Naming((), identifiers=True).file(Path("a\nb"), Facts()) == r"a\nb"


def test_damage_and_other_formats_say_nothing(tmp_path):
    from tiny_detection import chest, write_dicom

    write_dicom(tmp_path / "a.dcm", chest(0)[0], PatientID="P-0017", AcquisitionDate="20261120")
    whole = (tmp_path / "a.dcm").read_bytes()
    assert Facts.read(whole).patient == "P-0017"
    assert Facts.read(whole[128 + 4 :].replace(b"P-0017", b"P-0018")).names in ((), ("P-0018",))
    for data in (b"", b"\xff\xd8\xff", whole[:100], whole[:200], b"\0" * 128 + b"DICM" + b"\xff" * 500):
        assert Facts.read(data) == Facts()


def test_a_deflated_file_tells_its_patient_too():
    from dicom_files import dataset, dicom_bytes
    from pydicom import uid

    file = dataset(np.zeros((20, 20), np.uint8), 8, syntax=uid.DeflatedExplicitVRLittleEndian, PatientID="P-0017")
    assert "P-0017" in Facts.read(dicom_bytes(file)).names
