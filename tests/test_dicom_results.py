import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.sr import srread
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from cxr.dicom_results import write
from cxr.prediction import Box, Model, Prediction

ROWS, COLUMNS = 120, 90
BOXES = (Box(12.5, 20.25, 30.0, 44.5, 0.8312), Box(0.0, 0.0, 90.0, 120.0, 0.4))
CLASSIFIER = Model("a classifier", "a.pth", "a" * 64, 0.437)
DETECTOR = Model("a detector", "b.pth", "b" * 64, 0.3)
MODELS = {"classifier": CLASSIFIER, "detector": DETECTOR}
UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@pytest.fixture
def radiograph(tmp_path: Path) -> Callable[..., Path]:
    """Writes a radiograph with these elements over the usual ones; None leaves one out."""

    def build(name: str = "chest.dcm", **elements: Any) -> Path:
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
def source(radiograph: Callable[..., Path]) -> Path:
    return radiograph()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "drawn.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 300, 3), np.uint8)).save(path)
    return path


def predicted(path: Path, **changes: Any) -> Prediction:
    """Of both models, of which ``write`` takes those that it is given."""
    return replace(Prediction(path, probability=0.8321, boxes=BOXES, highest_score=0.8312), **changes)


def report_of(prediction: Prediction, folder: Path, **models: Model) -> Any:
    return srread(write(prediction, folder, **models)[0])


def named(items: Any, meaning: str) -> list[Any]:
    return [item for item in items if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def test_boxes_read_back_from_the_report_are_those_that_were_written(source: Path, tmp_path: Path) -> None:
    groups = report_of(predicted(source), tmp_path, detector=DETECTOR).content.get_planar_roi_measurement_groups()
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
    ("probability", "threshold", "presence"),
    [(0.8321, 0.437, "Present"), (0.2, 0.437, "Absent"), (0.43, 0.437, "Undetermined")],
)
def test_a_classification_is_a_coded_finding_with_probability_and_operating_point(
    source: Path, tmp_path: Path, probability: float, threshold: float, presence: str
) -> None:
    prediction = predicted(source, probability=probability)
    (group,) = report_of(prediction, tmp_path, classifier=CLASSIFIER).content.get_image_measurement_groups()
    assert (group.finding_type.scheme_designator, group.finding_type.value) == ("SCT", "233604007")
    assert [(number.name.meaning, number.value) for number in group.get_measurements()] == [
        ("Certainty of Finding", pytest.approx(100 * probability)),
        ("Operating point", 100 * threshold),
    ]
    assert [evaluation.value.meaning for evaluation in group.get_qualitative_evaluations()] == [presence]


def test_every_document_belongs_to_the_study_and_refers_to_the_source(
    source: Path, tmp_path: Path, picture: Path
) -> None:
    report, capture = map(dcmread, write(predicted(source, picture=picture), tmp_path / "out", **MODELS))
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
    assert reference.ReferencedSOPClassUID == ComputedRadiographyImageStorage
    assert reference.ReferencedSOPInstanceUID == "1.2.3.4"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


@pytest.mark.parametrize(("highest", "presence"), [(0.05, "Absent"), (0.21, "Undetermined")])
def test_a_detection_without_boxes(source: Path, tmp_path: Path, highest: float, presence: str) -> None:
    content = report_of(predicted(source, boxes=(), highest_score=highest), tmp_path, detector=DETECTOR).content
    (group,) = content.get_image_measurement_groups()
    assert [evaluation.value.meaning for evaluation in group.get_qualitative_evaluations()] == [presence]
    assert content.get_planar_roi_measurement_groups() == []


def test_a_second_run_has_the_same_uids(source: Path, tmp_path: Path, picture: Path) -> None:
    def uids(folder: Path) -> dict[str, set[str]]:
        return {
            path.name: {str(element.value) for element in dcmread(path).iterall() if element.VR == "UI"}
            for path in write(predicted(source, picture=picture), folder, **MODELS)
        }

    assert uids(tmp_path / "a") == uids(tmp_path / "b")


def test_coordinates_are_of_the_stored_pixels_however_the_image_is_shown(
    radiograph: Callable[..., Path], tmp_path: Path, picture: Path
) -> None:
    source = radiograph(PhotometricInterpretation="MONOCHROME1", PatientOrientation=["F", "R"])
    report, capture = write(predicted(source, picture=picture), tmp_path, detector=DETECTOR)
    (group, _) = srread(report).content.get_planar_roi_measurement_groups()
    assert group.roi.value[0].tolist() == [12.5, 20.25]
    assert list(dcmread(capture).PatientOrientation) == ["F", "R"]


def test_a_korean_name_is_kept_in_utf_8(radiograph: Callable[..., Path], tmp_path: Path) -> None:
    source = radiograph(SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=洪^吉洞=홍^길동")
    report = report_of(predicted(source), tmp_path, classifier=CLASSIFIER)
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName) == "Hong^Gildong=洪^吉洞=홍^길동"


def test_a_source_without_ids_has_a_whole_report_and_a_warning(radiograph: Callable[..., Path], tmp_path: Path) -> None:
    without: dict[str, Any] = {"PatientID": None, "PatientName": None, **dict.fromkeys(UIDS)}
    source, other = radiograph(**without), radiograph("b.dcm", PixelData=b"\1" * ROWS * COLUMNS, **without)

    def report(path: Path) -> Any:
        with pytest.warns(UserWarning, match=rf"{path.name}: no {', '.join(UIDS)} in the header: .*; no PatientID"):
            return report_of(predicted(path), tmp_path, classifier=CLASSIFIER)

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
        ("PatientSex", "X"),
        ("AccessionNumber", "longer than sixteen characters"),
        ("StudyDescription", "one\\two"),
        ("StudyID", "a\x1b[31m"),
    ],
)
@pytest.mark.filterwarnings("ignore:The value length", "ignore:Found unknown escape")  # of pydicom, as cli.run has it
def test_a_value_that_is_not_valid_is_left_out_and_named(
    radiograph: Callable[..., Path], tmp_path: Path, keyword: str, value: str
) -> None:
    source = radiograph(**{keyword: value})
    with pytest.warns(UserWarning, match=keyword):
        path = write(predicted(source), tmp_path, CLASSIFIER)[0]
    assert not dcmread(path).get(keyword)


@pytest.mark.parametrize("box", [(80, 0, 11, 5, 0.5), (0, 100, 5, 21, 0.5), (-1, 0, 5, 5, 0.5), (5, 5, -1, 5, 0.5)])
def test_a_box_that_is_not_on_the_image_is_refused(
    source: Path, tmp_path: Path, box: tuple[float, float, float, float, float]
) -> None:
    with pytest.raises(ValueError, match=r"chest\.dcm: expected boxes on an image of 90 x 120 pixels, found one from"):
        write(predicted(source, boxes=(Box(*box),)), tmp_path, detector=DETECTOR)


# --- other people's tools ---------------------------------------------------------------------------------------------


def tool(name: str, package: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not installed (Debian: apt-get install {package})")


@pytest.fixture(params=["whole", "without ids"])
def documents(
    request: pytest.FixtureRequest, radiograph: Callable[..., Path], tmp_path: Path, picture: Path
) -> list[Path]:
    """Of a source with all that belongs to it, or with hardly anything."""
    changes = {"picture": picture, "out_of_distribution": True}
    if request.param == "whole":
        return write(predicted(radiograph(), **changes), tmp_path / "out", **MODELS)
    missing = ("SOPClassUID", *UIDS, "PatientID", "PatientName", "PatientBirthDate", "PatientSex")
    source = radiograph(**dict.fromkeys((*missing, "StudyDate", "StudyTime")))
    with pytest.warns(UserWarning, match="no PatientID"):
        return write(predicted(source, **changes), tmp_path / "out", **MODELS)


def test_dcmtk_reads_the_documents(documents: list[Path]) -> None:
    report, capture = documents
    shown = subprocess.run([tool("dsrdump", "dcmtk"), report], capture_output=True, text=True, check=True)
    assert "POLYLINE,12.5/20.25" in shown.stdout
    assert "E:" not in shown.stderr
    subprocess.run([tool("dcmdump", "dcmtk"), "-q", capture], capture_output=True, check=True)


def test_dciodvfy_finds_no_error(documents: list[Path]) -> None:
    for path in documents:
        shown = subprocess.run([tool("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, check=False)
        assert [line for line in shown.stderr.splitlines() if line.startswith("Error")] == []
