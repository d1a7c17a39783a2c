import pytest

from cxr.reading.dicom_header import Header, read_header


def header(**elements):
    return read_header(lambda keyword: elements.get(keyword, ""))


@pytest.mark.parametrize(
    ("written", "years"),
    [
        ("051Y", 51),
        ("51", 51),
        ("023M", 1),
        ("011M", 0),
        ("060W", 1),
        ("400D", 1),
        ("148", None),
        ("", None),
        ("OLD", None),
    ],
)
def test_ages(written, years):
    assert header(PatientAge=written).age_years == years


@pytest.mark.parametrize(
    ("sex", "view", "expected"),
    [("M", "PA", ("M", "PA")), ("O", "LATERAL", (None, None)), ("F", "AP", ("F", "AP")), ("", "", (None, None))],
)
def test_sex_and_view(sex, view, expected):
    assert header(PatientSex=sex, ViewPosition=view)[1:3] == expected


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"ViewPosition": "LL"}, "view LL"),
        ({"BodyPartExamined": "HAND"}, "body part HAND"),
        ({"Modality": "CT", "BodyPartExamined": "CHEST"}, "modality CT"),
        (
            {"Modality": "MG", "BodyPartExamined": "BREAST", "ViewPosition": "MLO"},
            "modality MG, body part BREAST, view MLO",
        ),
    ],
)
def test_what_is_no_frontal_chest_is_said(elements, said):
    assert header(**elements).note == f"the header says {said}, but only frontal chest radiographs are judged"


@pytest.mark.parametrize("view", ["", "AP", "PA", "AP SUPINE", "CHEST PA", "ANTERO-POSTERIOR"])
@pytest.mark.parametrize("part", ["", "CHEST", "THORAX", "CHEST_TO_ABDOMEN"])
def test_of_a_frontal_chest_nothing_is_said(view, part):
    assert header(Modality="DX", BodyPartExamined=part, ViewPosition=view).note == ""


def test_without_a_header_nothing_is_said():
    assert header() == Header() == (None, None, None, "", "")


def test_a_patient_is_known_again_without_the_id_being_kept():
    one, same, other = (header(PatientID=identity).patient for identity in ("MRN-17", "MRN-17", "MRN-18"))
    assert one == same != other and "17" not in {one, other} and header(PatientID="").patient == ""
    assert "MRN" not in one and len(one) == 16
