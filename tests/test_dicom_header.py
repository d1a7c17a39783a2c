import numpy as np
import pytest
from dicom_files import dataset, dicom_bytes
from pydicom import DataElement, uid
from pydicom.datadict import dictionary_VR

from cxr.reading import NO_HEADER, cache
from cxr.reading.dicom_header import MANUFACTURER, header_of, read_dataset, read_elements, read_header


def file_of(syntax=uid.ExplicitVRLittleEndian, **values):
    """A DICOM file with these values, valid or not."""
    ds = dataset(np.zeros((20, 20), np.uint8), 8, syntax=syntax)
    del ds.PatientName, ds.SOPInstanceUID
    for name, value in values.items():
        ds[name] = DataElement(name, dictionary_VR(name), value, validation_mode=0)
    return dicom_bytes(ds)


def header(**values):
    return header_of(read_elements(file_of(**values)))


@pytest.mark.parametrize(
    ("written", "years"),
    [("051Y", 51), ("51", 51), ("023M", 1), ("011M", 0), ("060W", 1), ("400D", 1), ("148", None), ("", None), ("OLD", None)],
)  # fmt: skip
def test_ages(written, years):
    assert header(PatientAge=written).age_years == years


@pytest.mark.parametrize(
    ("sex", "view", "expected"),
    [("M", "PA", ("M", "PA")), ("O", "LATERAL", (None, None)), ("F", "AP", ("F", "AP")), ("", "", (None, None))],
)
def test_sex_and_view(sex, view, expected):
    assert header(PatientSex=sex, ViewPosition=view)[1:3] == expected


@pytest.mark.parametrize(
    ("elements", "stated"),
    [
        ({"ViewPosition": "LL"}, "view LL"),
        ({"BodyPartExamined": "HAND"}, "body part HAND"),
        ({"Modality": "CT", "BodyPartExamined": "CHEST"}, "modality CT"),
        ({"Modality": "MG", "ViewPosition": "MLO"}, "modality MG, view MLO"),
    ],
)
def test_other_than_a_frontal_chest_radiograph_is_noted(elements, stated):
    assert stated in header(**elements).note


@pytest.mark.parametrize("view", ["", "AP", "PA", "AP SUPINE", "CHEST PA", "ANTERO-POSTERIOR"])
@pytest.mark.parametrize("part", ["", "CHEST", "THORAX", "CHEST_TO_ABDOMEN"])
def test_a_frontal_chest_radiograph_has_no_note(view, part):
    assert header(Modality="DX", BodyPartExamined=part, ViewPosition=view).note == ""


def test_patients_are_hashed_and_the_cache_keeps_no_name_or_id():
    found, same, other = (header(PatientID=identity, PatientName="Hong^Gildong") for identity in ("MRN-17", "MRN-17", "MRN-18"))  # fmt: skip
    assert found.patient == same.patient != other.patient
    assert header(PatientID="").patient == ""
    stored = [str(getattr(found, name)) for name in cache.STORED]
    assert len(found.patient) == 16 and not any("MRN" in text or "Hong" in text for text in stored)


@pytest.mark.parametrize(
    ("values", "acquired", "is_study_date"),
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
def test_acquisition_date_or_else_study_date(values, acquired, is_study_date):
    found = header(**values)
    assert (found.acquired, found.is_study_date) == (acquired, is_study_date)


def test_exam_and_patient():
    found = header(
        SpecificCharacterSet="ISO_IR 192",
        SOPInstanceUID="1.2.3",
        ViewPosition="pa",
        PatientName="Hong^Gildong=洪^吉洞=홍^길동",
        PatientID="P-0017",
    )
    text = "Hong Gildong / 洪 吉洞 / 홍 길동 · P-0017"
    assert (found.sop_instance_uid, found.view_text, found.patient_text) == ("1.2.3", "PA", text)
    assert {"Hong", "HongGildong", "洪吉洞", "길동", "P-0017"} <= {*found.patient_names}
    assert header(SOPInstanceUID="1." * 40 + "1").sop_instance_uid == ""


def test_own_results_are_recognised():
    assert header(Manufacturer=MANUFACTURER).is_own_result
    assert not header(Manufacturer="Another").is_own_result


def test_the_patient_of_a_file_without_readable_pixels_is_found(tmp_path):
    path, whole = tmp_path / "a.dcm", file_of(PatientID="P-0017", AcquisitionDate="20261120")
    path.write_bytes(whole[:-100])
    assert read_header(path).patient_names == ("P-0017",)
    path.write_bytes(file_of(syntax=uid.DeflatedExplicitVRLittleEndian, PatientID="P-0017"))
    assert read_header(path).patient_names == ("P-0017",)
    for data in (b"", b"\xff\xd8\xff", whole[:100], whole[:200], b"\0" * 128 + b"DICM" + b"\xff" * 500):
        path.write_bytes(data)
        assert read_header(path) == NO_HEADER
    assert read_header(tmp_path / "gone.dcm") == NO_HEADER


def test_a_dataset_has_the_elements_that_were_asked_for(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(file_of(PatientID="P-0017", StudyID="7"))
    found = read_dataset(path, ["PatientID"])
    assert found is not None and found.PatientID == "P-0017" and "StudyID" not in found
    path.write_bytes(b"no DICOM")
    assert read_dataset(path, ["PatientID"]) is None
