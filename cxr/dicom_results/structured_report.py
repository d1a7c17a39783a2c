"""The two DICOM documents of a prediction; highdicom is imported with this module, so only where they are written."""

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from highdicom import ContributingEquipment, sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ComputedRadiographyImageStorage

from cxr.dicom_results.source_header import NEVER_EMPTY, TAKEN_OVER, uid
from cxr.model_file import commit
from cxr.prediction import Box, Model, Prediction, is_borderline
from cxr.reading.dicom_header import MANUFACTURER

DISCLAIMER = "Research only, not a medical device"
_SCHEME = "99CXRPNEUMONIA"  # of our own codes; DICOM PS3.16 section 8 wants them to begin with 99
_PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
_PROCEDURE = Code("399208008", "SCT", "Plain X-ray of chest")
_OPERATING_POINT = Code("operating-point", _SCHEME, "Operating point")
_PRESENCE = {None: codes.SCT.Undetermined, True: codes.SCT.Present, False: codes.SCT.Absent}  # CID 240


class Finding(NamedTuple):
    """What one model predicts for the whole image.

    Fields:
        task: enters the UIDs. name, code: of the finding.
        certainty: probability or highest score, in 0..1.
        present: None where the certainty is too near the threshold.
        boxes: in pixels of the source image.
    """

    task: str
    name: str
    code: Code
    model: Model
    certainty: float
    present: bool | None
    boxes: tuple[Box, ...] = ()


def findings_of(prediction: Prediction, classifier: Model | None, detector: Model | None) -> list[Finding]:
    """One for each model."""
    found: list[Finding] = []
    probability, highest, boxes = prediction.probability, prediction.highest_score, prediction.boxes
    if classifier is not None and probability is not None:
        borderline = is_borderline(probability, classifier.threshold)
        present = None if borderline else probability >= classifier.threshold
        found.append(Finding("Classification", "Pneumonia", _PNEUMONIA, classifier, probability, present))
    if detector is not None and highest is not None:
        present = True if boxes else None if is_borderline(highest, detector.threshold) else False
        found.append(Finding("Detection", "Opacities", codes.DCM.Opacity, detector, highest, present, boxes))
    return found


def _series(purpose: str, image: Dataset, findings: Sequence[Finding]) -> dict[str, Any]:
    """Arguments that highdicom takes for both documents."""
    made_by = [f"{one.task} {one.model.sha256} {one.model.threshold!r}" for one in findings]
    contributors: list[ContributingEquipment] = []
    for finding in findings:
        equipment = ContributingEquipment(
            MANUFACTURER,
            codes.DCM.ProcessingEquipment,
            manufacturer_model_name=finding.model.name,
            software_versions=_version(),
            contribution_description=DISCLAIMER,
        )
        equipment.DeviceUID = _device_uid([finding])
        contributors.append(equipment)
    return {
        "series_instance_uid": uid(f"series of {purpose}", image.SOPInstanceUID, *made_by),
        "sop_instance_uid": uid(purpose, image.SOPInstanceUID, *made_by),
        "instance_number": 1,
        "series_description": f"Research only: pneumonia, {purpose}",
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": _names(findings),
        "software_versions": _version(),
        "contributing_equipment": contributors,
    }


def _names(findings: Sequence[Finding]) -> str:
    """The names of all models, cut to the 64 characters of a DICOM value."""
    return " + ".join(finding.model.name for finding in findings)[:64].strip()


def _device_uid(findings: Sequence[Finding]) -> str:
    """Changes with the weights."""
    return uid("device", *(finding.model.sha256 for finding in findings))


@cache
def _version() -> str:
    return commit() or "not in a git checkout"


def report(image: Dataset, findings: Sequence[Finding], comments: Sequence[str]) -> Dataset:
    """The structured report, still without patient and study; ``image`` is what ``source_header.identity`` returns."""
    # highdicom copies the patient as the header has it, and refuses SOP classes that are not in the standard, which
    # some devices write. It gets no patient and a class that it accepts; both are corrected afterwards.
    evidence = deepcopy(image)
    evidence.SOPClassUID = ComputedRadiographyImageStorage
    for keyword in TAKEN_OVER.keys() - set(NEVER_EMPTY):
        setattr(evidence, keyword, "")
    groups: list[Any] = []
    for finding in findings:
        groups.append(_whole_image(evidence, finding))
        groups += [_region(evidence, finding, *numbered) for numbered in enumerate(finding.boxes, start=1)]
    for comment in (DISCLAIMER, *comments):
        item = sr.TextContentItem(codes.DCM.Comment, comment, sr.RelationshipTypeValues.CONTAINS)
        groups[0][0].ContentSequence.append(item)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_device_uid(findings), manufacturer_name=MANUFACTURER, model_name=_names(findings)
    )
    observer = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    document = sr.ComprehensiveSR(
        evidence=[evidence],
        content=sr.MeasurementReport(observer, _PROCEDURE, imaging_measurements=groups)[0],
        series_number=9001,
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(_SCHEME, name=MANUFACTURER)],
        **_series("report", image, findings),
    )
    document.CompletionFlagDescription = DISCLAIMER
    for element in document.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = image.SOPClassUID
    return document


def _whole_image(image: Dataset, finding: Finding) -> sr.MeasurementsAndQualitativeEvaluations:
    """Whether the finding is present, how certain that is, and the operating point."""
    return sr.MeasurementsAndQualitativeEvaluations(
        **_group(image, finding, finding.name),
        finding_type=finding.code,
        measurements=[
            _percent(codes.DCM.CertaintyOfFinding, finding.certainty),
            _percent(_OPERATING_POINT, finding.model.threshold),
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.DCM.PresenceOfProperty, _PRESENCE[finding.present])],
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )


def _region(
    image: Dataset, finding: Finding, number: int, box: Box
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """One box and its score.

    A spatial coordinate is a pair of column and row, 0 and 0 at the outer corner of the upper left pixel, Columns and
    Rows at that of the lower right one (DICOM PS3.3 table C.18.6-1). So are the corners of a box: nothing is added.
    """
    x, y, width, height, score = box
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)])
    source = sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        **_group(image, finding, f"Opacity {number}"),
        finding_type=codes.DCM.Opacity,
        referenced_region=sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, corners, source),
        geometric_purpose=codes.SCT.BoundedBy,  # CID 219
        measurements=[_percent(codes.DCM.CertaintyOfFinding, score)],
    )


def _group(image: Dataset, finding: Finding, name: str) -> dict[str, Any]:
    """Arguments that highdicom takes for both kinds of measurement group."""
    sha256 = finding.model.sha256
    return {
        "tracking_identifier": sr.TrackingIdentifier(uid(name, image.SOPInstanceUID, sha256), name),
        "finding_sites": [sr.FindingSite(codes.SCT.Lung)],
        "algorithm_id": sr.AlgorithmIdentification(finding.model.name, sha256[:12]),
    }


def _percent(name: Code, value: float) -> sr.Measurement:
    return sr.Measurement(name, round(100 * value, 4), codes.UCUM.Percent)


def secondary_capture(image: Dataset, header: Dataset, findings: Sequence[Finding], picture: Path) -> Dataset:
    """The plot ``picture`` as an image of its own, still without patient and study."""
    capture = cast(
        Dataset,
        SCImage(
            _labelled(picture, f"{DISCLAIMER}: {_names(findings)}"),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),
            study_instance_uid=image.StudyInstanceUID,
            series_number=9002,
            **_series("picture", image, findings),
        ),
    )
    capture.PatientOrientation = _orientation(header)
    capture.ConversionType = "WSD"  # DICOM PS3.3 C.8.6.1: made on a workstation
    capture.BodyPartExamined = "CHEST"
    capture.BurnedInAnnotation = "YES"  # the plot shows the name of the file, which may hold the patient's
    if header.get("LossyImageCompression") == "01":  # which holds for all that is derived, DICOM PS3.3 C.7.6.1.1.5
        capture.LossyImageCompression = "01"
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    capture.SourceImageSequence = [reference]
    return capture


def _orientation(header: Dataset) -> list[str]:
    """Direction of rows and columns, which the plot takes over from the source; empty where that states none."""
    stated = [str(direction) for direction in header.get("PatientOrientation") or ()]
    valid = len(stated) == 2 and all(re.fullmatch(r"[LRAPHF]{1,3}", direction) for direction in stated)
    return stated if valid else []


def _labelled(picture: Path, label: str) -> NDArray[np.uint8]:
    """The plot as uint8 [H, W, 3] over a strip with ``label``, which a screenshot keeps."""
    with Image.open(picture) as file:
        drawn = file.convert("RGB")
    size = max(10, round(min(drawn.width / 45, 1.8 * drawn.width / len(label))))
    whole = Image.new("RGB", (drawn.width, drawn.height + 2 * size), "white")
    whole.paste(drawn)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(whole).text((size // 2, drawn.height + size), label, "black", font, anchor="lm")
    return np.asarray(whole)
