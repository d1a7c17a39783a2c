"""A structured report with every box as a region, and a secondary capture of the drawn picture."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ComputedRadiographyImageStorage

from cxr.dicom_results.source_header import NEVER_EMPTY, TAKEN_OVER, uid
from cxr.files import sha256_of
from cxr.model_file import commit

if TYPE_CHECKING:
    from highdicom import sr

DISCLAIMER = "Research only, not a medical device"
MANUFACTURER = "Pneumonia on chest radiographs (open research project)"
_SCHEME = "99CXRPNEUMONIA"  # of codes that are our own; DICOM PS3.16 section 8 wants them to begin with 99
_PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
_PROCEDURE = Code("399208008", "SCT", "Plain X-ray of chest")
_OPERATING_POINT = Code("operating-point", _SCHEME, "Operating point")


@dataclass(frozen=True)
class Model:
    """A model that has looked at an image.

    Attributes:
        name: the kind of network and its task, at most 64 characters.
        sha256: of the file with its weights, in hexadecimal digits.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, name: str, weights: Path) -> "Model":
        """The network ``name`` with the weights in this file."""
        return cls(name, sha256_of(weights))


@dataclass(frozen=True)
class Classification:
    """What a classifier says of an image.

    Attributes:
        probability: of pneumonia, in 0..1.
        operating_point: pneumonia is called present from this probability on.
        undecided: the probability is so near the operating point that neither is called.
    """

    model: Model
    probability: float
    operating_point: float
    undecided: bool = False

    @property
    def found(self) -> bool | None:
        """Whether there is pneumonia; None where that is undecided."""
        return None if self.undecided else self.probability >= self.operating_point


@dataclass(frozen=True)
class Detection:
    """What a detector says of an image.

    Attributes:
        boxes: x, y, width, height and score of each opacity that is given out. In pixels of the source image as it is
            stored, x to the right and y down from the outer corner of its upper left pixel; scores in 0..1.
        operating_point: boxes are given out from this score on.
        highest_score: among all boxes that were looked at, given out or not.
        undecided: that score is so near the operating point that without a box no opacity is not certain.
    """

    model: Model
    boxes: Sequence[tuple[float, float, float, float, float]]
    operating_point: float
    highest_score: float
    undecided: bool = False

    @property
    def found(self) -> bool | None:
        """Whether there are opacities; None where that is undecided."""
        return True if self.boxes else None if self.undecided else False


@dataclass(frozen=True)
class Results:
    """What there is to say of one radiograph.

    Attributes:
        picture: a file with the radiograph and what was found drawn on it; without one there is a report alone.
        remarks: sentences that no reader of the report should miss.
    """

    classification: Classification | None = None
    detection: Detection | None = None
    picture: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def said(self) -> list[Classification | Detection]:
        """By each model that looked at the image."""
        return [said for said in (self.classification, self.detection) if said is not None]

    @property
    def model_name(self) -> str:
        """The names of all models, cut to the 64 characters of a DICOM value."""
        return " + ".join(said.model.name for said in self.said)[:64].strip()


def _document_uid(purpose: str, image: Dataset, results: Results) -> str:
    said = [f"{type(said).__name__} {said.model.sha256} {said.operating_point!r}" for said in results.said]
    return uid(purpose, image.SOPInstanceUID, *said)


def _device_uid(*models: Model) -> str:
    """Changes with the weights."""
    return uid("device", *(model.sha256 for model in models))


@cache
def _version() -> str:
    return commit() or "not in a git checkout"


def _series(purpose: str, image: Dataset, results: Results) -> dict[str, Any]:
    """What highdicom is told of any document."""
    from highdicom import ContributingEquipment

    contributors: list[ContributingEquipment] = []
    for said in results.said:
        equipment = ContributingEquipment(
            MANUFACTURER,
            codes.DCM.ProcessingEquipment,
            manufacturer_model_name=said.model.name,
            software_versions=_version(),
            contribution_description=DISCLAIMER,
        )
        equipment.DeviceUID = _device_uid(said.model)
        contributors.append(equipment)
    return {
        "series_instance_uid": _document_uid(f"series of {purpose}", image, results),
        "sop_instance_uid": _document_uid(purpose, image, results),
        "instance_number": 1,
        "series_description": f"Research only: pneumonia, {purpose}",
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": results.model_name,
        "software_versions": _version(),
        "contributing_equipment": contributors,
    }


def report(image: Dataset, results: Results) -> Dataset:
    """The structured report, still without patient and study."""
    from highdicom import sr
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    # highdicom copies the patient as the header has it, and refuses SOP classes that are not in the standard, which
    # some devices write. It is given no patient and a class that it knows; both are put right afterwards.
    evidence = deepcopy(image)
    evidence.SOPClassUID = ComputedRadiographyImageStorage
    for keyword in TAKEN_OVER.keys() - set(NEVER_EMPTY):
        setattr(evidence, keyword, "")
    document = sr.ComprehensiveSR(
        evidence=[evidence],
        content=_content(evidence, results)[0],
        series_number=9001,
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(_SCHEME, name=MANUFACTURER)],
        **_series("report", image, results),
    )
    document.CompletionFlagDescription = DISCLAIMER
    for element in document.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = image.SOPClassUID
    return document


def _content(image: Dataset, results: Results) -> "sr.MeasurementReport":
    from highdicom import sr

    groups: list[Any] = []
    if said := results.classification:
        groups.append(_whole_image(image, said, "Pneumonia", _PNEUMONIA, said.probability))
    if said := results.detection:
        groups.append(_whole_image(image, said, "Opacities", codes.DCM.Opacity, said.highest_score))
        groups += [_region(image, said, number, box) for number, box in enumerate(said.boxes, start=1)]
    for remark in (DISCLAIMER, *results.remarks):
        comment = sr.TextContentItem(codes.DCM.Comment, remark, sr.RelationshipTypeValues.CONTAINS)
        groups[0][0].ContentSequence.append(comment)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_device_uid(*(said.model for said in results.said)),
        manufacturer_name=MANUFACTURER,
        model_name=results.model_name,
    )
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_PROCEDURE,
        imaging_measurements=groups,
    )


def _whole_image(
    image: Dataset,
    said: Classification | Detection,
    name: str,
    finding: Code,
    certainty: float,
) -> "sr.MeasurementsAndQualitativeEvaluations":
    """Whether ``finding`` is present, how certain that is, and the operating point."""
    from highdicom import sr

    answers = {None: codes.SCT.Undetermined, True: codes.SCT.Present, False: codes.SCT.Absent}  # CID 240
    return sr.MeasurementsAndQualitativeEvaluations(
        **_group(image, said, name, finding),
        measurements=[
            _percent(codes.DCM.CertaintyOfFinding, certainty),
            _percent(_OPERATING_POINT, said.operating_point),
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.DCM.PresenceOfProperty, answers[said.found])],
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )


def _region(
    image: Dataset, said: Detection, number: int, box: tuple[float, float, float, float, float]
) -> "sr.PlanarROIMeasurementsAndQualitativeEvaluations":
    """One box and its score.

    A spatial coordinate is a pair of column and row, 0 and 0 at the outer corner of the upper left pixel, Columns and
    Rows at that of the lower right one (DICOM PS3.3 table C.18.6-1). So are the corners of a box: nothing is added.
    """
    from highdicom import sr

    x, y, width, height, score = box
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)])
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        **_group(image, said, f"Opacity {number}", codes.DCM.Opacity),
        referenced_region=sr.ImageRegion(
            sr.GraphicTypeValues.POLYLINE,
            corners,
            sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        ),
        geometric_purpose=codes.SCT.BoundedBy,  # CID 219
        measurements=[_percent(codes.DCM.CertaintyOfFinding, score)],
    )


def _group(image: Dataset, said: Classification | Detection, name: str, finding: Code) -> dict[str, Any]:
    """What highdicom is told of any measurement group."""
    from highdicom import sr

    version = said.model.sha256[:12]
    return {
        "tracking_identifier": sr.TrackingIdentifier(uid(name, image.SOPInstanceUID, said.model.sha256), name),
        "finding_type": finding,
        "finding_sites": [sr.FindingSite(codes.SCT.Lung)],
        "algorithm_id": sr.AlgorithmIdentification(said.model.name, version),
    }


def _percent(name: Code, value: float) -> "sr.Measurement":
    from highdicom import sr

    return sr.Measurement(name, round(100 * value, 4), codes.UCUM.Percent)


def secondary_capture(image: Dataset, header: Dataset, results: Results, picture: Path) -> Dataset:
    """The drawn ``picture`` as an image of its own, still without patient and study."""
    from highdicom.sc import SCImage

    capture = cast(
        Dataset,
        SCImage(
            _labelled(picture, f"{DISCLAIMER}: {results.model_name}"),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),
            study_instance_uid=image.StudyInstanceUID,
            series_number=9002,
            **_series("picture", image, results),
        ),
    )
    capture.PatientOrientation = _orientation(header)
    capture.ConversionType = "WSD"  # DICOM PS3.3 C.8.6.1: made on a workstation
    capture.BodyPartExamined = "CHEST"
    capture.BurnedInAnnotation = "YES"  # the name of a file is drawn on it, which may be a patient's
    if header.get("LossyImageCompression") == "01":  # which sticks to all that is derived, DICOM PS3.3 C.7.6.1.1.5
        capture.LossyImageCompression = "01"
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    capture.SourceImageSequence = [reference]
    return capture


def _orientation(header: Dataset) -> list[str]:
    """Direction of rows and columns, which the picture takes over from the source; empty where it is not known."""
    known = [str(direction) for direction in header.get("PatientOrientation") or ()]
    return known if len(known) == 2 and all(re.fullmatch(r"[LRAPHF]{1,3}", direction) for direction in known) else []


def _labelled(picture: Path, label: str) -> NDArray[np.uint8]:
    """The picture as uint8 [H, W, 3] over a strip with ``label``: text beside the pixels is lost to a screenshot."""
    with Image.open(picture) as file:
        drawn = file.convert("RGB")
    size = max(10, round(min(drawn.width / 45, 1.8 * drawn.width / len(label))))
    strip = 2 * size
    whole = Image.new("RGB", (drawn.width, drawn.height + strip), "white")
    whole.paste(drawn)
    ImageDraw.Draw(whole).text(
        (strip // 4, drawn.height + strip // 2), label, "black", ImageFont.load_default(size), anchor="lm"
    )
    return np.asarray(whole)
