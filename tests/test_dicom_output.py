import shutil
import subprocess
import warnings
from dataclasses import replace

import numpy as np
import pytest
from highdicom.sr import srread
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from cxr.dicom_results import Classification, Detection, Model, Results, write, write_all

ROWS, COLUMNS = 120, 90
BOXES = [(12.5, 20.25, 30.0, 44.5, 0.8312), (0.0, 0.0, 90.0, 120.0, 0.4)]
CLASSIFIER, DETECTOR = Model("a classifier", "a" * 64), Model("a detector", "b" * 64)
CLASSIFIED = Classification(CLASSIFIER, 0.8321, 0.437)
DETECTED = Detection(DETECTOR, BOXES, 0.3, 0.8312)


@pytest.fixture
def radiograph(tmp_path):
    """Writes a radiograph with these elements over the usual ones; None leaves one out."""

    def build(name="chest.dcm", **elements):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        values = {
            "SpecificCharacterSet": "ISO_IR 100",
            "SOPClassUID": ComputedRadiographyImageStorage,
            "SOPInstanceUID": "1.2.3.4",
            "SeriesInstanceUID": "1.2.3",
            "StudyInstanceUID": "1.2",
            "PatientName": "Müller^Änne",
            "PatientID": "4711",
            "PatientBirthDate": "19500102",
            "PatientSex": "F",
            "StudyDate": "20240203",
            "StudyTime": "101112",
            "AccessionNumber": "A1",
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": ROWS,
            "Columns": COLUMNS,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "SamplesPerPixel": 1,
            "PixelData": bytes(ROWS * COLUMNS),
        } | elements
        meta.MediaStorageSOPClassUID = values["SOPClassUID"] or ""
        meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"] or ""
        dataset = FileDataset(tmp_path / name, {}, file_meta=meta, preamble=bytes(128))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of the values are meant to be wrong
            for keyword, value in values.items():
                if value is not None:
                    setattr(dataset, keyword, value)
            dataset.save_as(tmp_path / name)
        return tmp_path / name

    return build


@pytest.fixture
def source(radiograph):
    return radiograph()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "drawn.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 300, 3), np.uint8)).save(path)
    return path


def report_of(source, results, folder, **options):
    return srread(write(source, results, folder, **options)[0])


def named(items, meaning):
    return [item for item in items if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def test_boxes_read_back_from_the_report_are_those_that_were_given(source, tmp_path):
    groups = report_of(source, Results(detection=DETECTED), tmp_path).content.get_planar_roi_measurement_groups()
    assert len(groups) == len(BOXES)
    for group, (x, y, width, height, score) in zip(groups, BOXES, strict=True):
        right, bottom = x + width, y + height
        assert group.roi.graphic_type.value == "POLYLINE"
        assert group.roi.value.tolist() == [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        assert group.finding_type.meaning == "Opacity"
        (certainty,) = group.get_measurements()
        assert (certainty.value, certainty.unit.value) == (pytest.approx(100 * score), "%")
        (purpose,) = named(group[0].ContentSequence, "Geometric purpose of region")
        assert purpose.ConceptCodeSequence[0].CodeValue == "75958009"


@pytest.mark.parametrize(
    ("probability", "undecided", "answer"),
    [(0.8321, False, "Present"), (0.437, False, "Present"), (0.2, False, "Absent"), (0.43, True, "Undetermined")],
)
def test_a_classification_is_a_coded_finding_with_probability_and_operating_point(
    source, tmp_path, probability, undecided, answer
):
    said = replace(CLASSIFIED, probability=probability, undecided=undecided)
    (group,) = report_of(source, Results(said), tmp_path).content.get_image_measurement_groups()
    assert (group.finding_type.scheme_designator, group.finding_type.value) == ("SCT", "233604007")
    assert [(number.name.meaning, number.value) for number in group.get_measurements()] == [
        ("Certainty of Finding", pytest.approx(100 * probability)),
        ("Operating point", 43.7),
    ]
    assert [evaluation.value.meaning for evaluation in group.get_qualitative_evaluations()] == [answer]


@pytest.mark.parametrize(("undecided", "answer"), [(False, "Absent"), (True, "Undetermined")])
def test_a_detection_without_boxes_says_whether_that_is_certain_and_how_near_it_was(
    source, tmp_path, undecided, answer
):
    said = replace(DETECTED, boxes=[], highest_score=0.21, undecided=undecided)
    content = report_of(source, Results(detection=said), tmp_path).content
    assert content.get_planar_roi_measurement_groups() == []
    (group,) = content.get_image_measurement_groups()
    assert [evaluation.value.meaning for evaluation in group.get_qualitative_evaluations()] == [answer]
    assert [number.value for number in group.get_measurements()] == [21.0, 30.0]


def test_one_report_holds_what_both_models_say_and_each_remark(source, tmp_path):
    report = report_of(source, Results(CLASSIFIED, DETECTED, remarks=("Unlike the training images",)), tmp_path)
    groups = report.content[0].ContentSequence[-1].ContentSequence
    assert [named(group.ContentSequence, "Tracking Identifier")[0].value for group in groups] == [
        "Pneumonia",
        "Opacities",
        "Opacity 1",
        "Opacity 2",
    ]
    remarks = [item.value for item in named(groups[0].ContentSequence, "Comment")]
    assert remarks == ["Research only, not a medical device", "Unlike the training images"]


def test_every_document_belongs_to_the_study_and_refers_to_the_source(source, tmp_path, picture):
    paths = write(source, Results(CLASSIFIED, DETECTED, picture), tmp_path / "out")
    report, capture = map(dcmread, paths)
    assert (report.Modality, report.SOPClassUID) == ("SR", ComprehensiveSRStorage)
    assert (capture.Modality, capture.SOPClassUID) == ("OT", SecondaryCaptureImageStorage)
    assert len({"1.2.3", report.SeriesInstanceUID, capture.SeriesInstanceUID}) == 3
    for document in (report, capture):
        assert (document.StudyInstanceUID, document.PatientID, document.PatientBirthDate) == ("1.2", "4711", "19500102")
        assert (document.PatientName, document.AccessionNumber) == ("Müller^Änne", "A1")
        assert document.SeriesDescription.startswith("Research only")
    references = [element.value for element in report.iterall() if element.keyword == "ReferencedSOPInstanceUID"]
    assert references == ["1.2.3.4"] * 5  # two groups, two boxes, and the list of evidence
    (reference,) = capture.SourceImageSequence
    assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (
        ComputedRadiographyImageStorage,
        "1.2.3.4",
    )
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_the_contributing_equipment_tells_which_weights_were_used(source, tmp_path, picture):
    def equipment(results):
        return [
            {
                item.get("ManufacturerModelName"): item.get("DeviceUID")
                for item in dcmread(path).ContributingEquipmentSequence
            }
            for path in write(source, results, tmp_path)
        ]

    in_report, in_capture = equipment(Results(CLASSIFIED, DETECTED, picture))
    assert in_report == in_capture
    assert in_report["a classifier"] != in_report["a detector"]
    other = replace(CLASSIFIED, model=replace(CLASSIFIER, sha256="c" * 64))
    assert equipment(Results(other))[0]["a classifier"] != in_report["a classifier"]


def test_the_picture_is_shown_whole_above_a_label(source, tmp_path, picture):
    capture = dcmread(write(source, Results(CLASSIFIED, picture=picture), tmp_path)[1])
    pixels = capture.pixel_array
    assert np.array_equal(pixels[:70], np.asarray(Image.open(picture)))
    label = pixels[70:]
    assert label.min() < 64
    assert (label == 255).mean() > 0.5


def test_a_second_run_has_the_same_uids(source, tmp_path, picture):
    results = Results(CLASSIFIED, DETECTED, picture)

    def uids(folder):
        return [
            {str(element.value) for element in dcmread(path).iterall() if element.VR == "UI"}
            for path in write(source, results, folder)
        ]

    assert uids(tmp_path / "a") == uids(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        path.name for path in (tmp_path / "b").iterdir()
    )


@pytest.mark.parametrize(
    "other",
    [
        Results(replace(CLASSIFIED, model=DETECTOR)),
        Results(replace(CLASSIFIED, operating_point=0.5)),
        Results(CLASSIFIED, DETECTED),
    ],
    ids=["other weights", "another operating point", "a second model"],
)
def test_what_was_said_on_another_basis_is_another_document(source, tmp_path, other):
    first, second = (report_of(source, results, tmp_path) for results in (Results(CLASSIFIED), other))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_a_3d_report_has_the_same_regions_under_another_uid(source, tmp_path):
    flat = report_of(source, Results(detection=DETECTED), tmp_path)
    solid = report_of(source, Results(detection=DETECTED), tmp_path, three_dimensional=True)
    assert solid.SOPClassUID == Comprehensive3DSRStorage
    assert solid.SOPInstanceUID != flat.SOPInstanceUID
    one, other = (report.content.get_planar_roi_measurement_groups() for report in (flat, solid))
    assert [group.roi.value.tolist() for group in one] == [group.roi.value.tolist() for group in other]


def test_coordinates_are_of_the_stored_pixels_however_the_image_is_shown(radiograph, tmp_path, picture):
    source = radiograph(PhotometricInterpretation="MONOCHROME1", PatientOrientation=["F", "R"])
    report, capture = write(source, Results(detection=DETECTED, picture=picture), tmp_path)
    (group, _) = srread(report).content.get_planar_roi_measurement_groups()
    assert group.roi.value[0].tolist() == [12.5, 20.25]
    assert list(dcmread(capture).PatientOrientation) == ["F", "R"]


@pytest.mark.parametrize("orientation", [None, "L", ["L", "nonsense"]])
def test_an_unknown_orientation_is_left_empty(radiograph, tmp_path, picture, orientation):
    source = radiograph(PatientOrientation=orientation)
    assert not dcmread(write(source, Results(CLASSIFIED, picture=picture), tmp_path)[1]).PatientOrientation


def test_a_korean_name_arrives_in_utf_8(radiograph, tmp_path):
    source = radiograph(SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=洪^吉洞=홍^길동")
    report = report_of(source, Results(CLASSIFIED), tmp_path)
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName) == "Hong^Gildong=洪^吉洞=홍^길동"


def test_a_source_without_ids_has_a_whole_report_and_a_warning(radiograph, tmp_path):
    missing = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    without = {"PatientID": None, "PatientName": None, **dict.fromkeys(missing)}
    source, other = radiograph(**without), radiograph("b.dcm", PixelData=b"\1" * ROWS * COLUMNS, **without)

    def report(path):
        with pytest.warns(UserWarning, match=rf"{path.name}: no {', '.join(missing)} in the header, .*; no PatientID"):
            return report_of(path, Results(CLASSIFIED), tmp_path)

    first = report(source)
    assert first.PatientID == ""
    assert report(source).SOPInstanceUID == first.SOPInstanceUID
    assert report(other).SOPInstanceUID != first.SOPInstanceUID
    assert report(other).StudyInstanceUID != first.StudyInstanceUID


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyDate", "20240231"),
        ("PatientBirthDate", "1950.1.2"),
        ("StudyTime", "noon"),
        ("PatientSex", "male"),
        ("PatientSex", "X"),
        ("AccessionNumber", "longer than sixteen characters"),
        ("StudyDescription", "one\\two"),
        ("StudyID", "a\x1b[31m"),
    ],
)
def test_a_value_that_is_not_valid_is_left_out_and_named(radiograph, tmp_path, keyword, value):
    source = radiograph(**{keyword: value})
    with pytest.warns(UserWarning, match=keyword):
        path = write(source, Results(CLASSIFIED), tmp_path)[0]
    assert not dcmread(path).get(keyword)


def test_two_files_that_claim_to_be_one_image_are_named(source, radiograph, tmp_path):
    other = radiograph("other.dcm", PhotometricInterpretation="MONOCHROME1")
    with pytest.warns(UserWarning, match=r"other\.dcm: has the SOP Instance UID of .*chest\.dcm"):
        write_all([(path, Results(CLASSIFIED)) for path in (source, other)], tmp_path / "out")


@pytest.mark.parametrize("box", [(80, 0, 11, 5, 0.5), (0, 100, 5, 21, 0.5), (-1, 0, 5, 5, 0.5), (5, 5, -1, 5, 0.5)])
def test_a_box_that_is_not_on_the_image_is_refused(source, tmp_path, box):
    with pytest.raises(ValueError, match=r"chest\.dcm: expected boxes on an image of 90 x 120 pixels, found one from"):
        write(source, Results(detection=replace(DETECTED, boxes=[box])), tmp_path)


# --- other people's tools ---------------------------------------------------------------------------------------------


def tool(name, package):
    path = shutil.which(name)
    return path or pytest.skip(f"{name} is not installed (Debian: apt-get install {package})")


@pytest.fixture(params=["whole", "3D", "without ids"])
def documents(request, radiograph, tmp_path, picture):
    """Of a source with all that belongs to it, or with hardly anything."""
    results = Results(CLASSIFIED, DETECTED, picture, ("Unlike the training images",))
    if request.param != "without ids":
        return write(radiograph(), results, tmp_path / "out", three_dimensional=request.param == "3D")
    missing = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName")
    source = radiograph(**dict.fromkeys((*missing, "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")))
    with pytest.warns(UserWarning, match="no PatientID"):
        return write(source, results, tmp_path / "out")


def test_dcmtk_reads_the_documents(documents):
    report, capture = documents
    shown = subprocess.run([tool("dsrdump", "dcmtk"), report], capture_output=True, text=True, check=True)
    assert "POLYLINE,12.5/20.25" in shown.stdout
    assert "E:" not in shown.stderr
    subprocess.run([tool("dcmdump", "dcmtk"), "-q", capture], capture_output=True, check=True)


def test_dciodvfy_finds_no_error(documents):
    for path in documents:
        shown = subprocess.run([tool("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, check=False)
        assert [line for line in shown.stderr.splitlines() if line.startswith("Error")] == []
