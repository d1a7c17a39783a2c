"""Results in the form that a PACS stores and a viewer shows: a structured report and a secondary capture.

The report is a Measurement Report (DICOM PS3.16 TID 1500). What is said of the whole image is a measurement group of
its own (TID 1501), and so is each box (TID 1410): a closed polyline of five points on the source image, the form that
most viewers draw. Numbers are in percent. Both documents lie in the study of their source, each in a series of its own
that says "research only"; nobody has verified them, and the report says so too.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from warnings import catch_warnings, simplefilter, warn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from pydicom.config import RAISE
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ComputedRadiographyImageStorage, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DA, TM, validate_value
from tqdm import tqdm

from cxr.checkpoints import write_atomically
from cxr.provenance import commit
from cxr.text import printable

if TYPE_CHECKING:
    from highdicom import sr

DISCLAIMER = "Research only, not a medical device"
_MANUFACTURER = "Pneumonia on chest radiographs (open research project)"
_SCHEME = "99CXRPNEUMONIA"  # of codes that are our own; DICOM PS3.16 section 8 wants them to begin with 99
_PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
_PROCEDURE = Code("399208008", "SCT", "Plain X-ray of chest")
_OPERATING_POINT = Code("operating-point", _SCHEME, "Operating point")
_FORM = "1"  # enters every UID: documents of another form are other documents

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_IMAGE = ("Rows", "Columns", "PatientOrientation", "LossyImageCompression")
# What a document takes over from its source, and how PS3.5 section 6.2 wants it; the last two may not be empty.
_TAKEN_OVER = {
    "PatientName": "PN",
    "PatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "AccessionNumber": "SH",
    "ReferringPhysicianName": "PN",
    "IssuerOfPatientID": "LO",
    "StudyDescription": "LO",
}
_NEVER_EMPTY = ("IssuerOfPatientID", "StudyDescription")


@dataclass(frozen=True)
class Model:
    """Who has looked at an image.

    Attributes:
        name: the kind of network and its task, at most 64 characters.
        sha256: of the file with its weights, in hexadecimal digits.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, name: str, weights: Path) -> "Model":
        """The network ``name`` with the weights in this file."""
        return cls(name, hashlib.sha256(weights.read_bytes()).hexdigest())


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


@dataclass(frozen=True)
class Detection:
    """What a detector says of an image.

    Attributes:
        boxes: x, y, width, height and score of each opacity that is given out. In pixels of the source image as it is
            stored, x to the right and y down from the outer corner of its upper left pixel; scores in 0..1.
        operating_point: boxes are given out from this score on.
        highest_score: among all boxes that were looked at, given out or not.
    """

    model: Model
    boxes: Sequence[tuple[float, float, float, float, float]]
    operating_point: float
    highest_score: float


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
        """By whoever has looked at the image."""
        return [said for said in (self.classification, self.detection) if said is not None]

    @property
    def model_name(self) -> str:
        """Of all who have looked at the image, as far as it fits the 64 characters of a DICOM value."""
        return " + ".join(said.model.name for said in self.said)[:64].strip()


def require_highdicom() -> None:
    """To be asked before hours of prediction.

    Raises:
        ValueError: highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ValueError("DICOM output needs highdicom, which is not installed: pip install highdicom") from error


def write(source: Path, results: Results, folder: Path, *, three_dimensional: bool = False) -> list[Path]:
    """Write what is said of a DICOM file; gives the report, and the secondary capture where there is a picture.

    A UID depends on the source (its SOP Instance UID; its content where it has none), the weights and the operating
    points, so a second run replaces the documents of the first, in ``folder`` and in an archive. A file that is not
    DICOM gets no document.

    Args:
        source: the file that ``results`` speak of.
        results: of one model at least.
        folder: made when missing; the files are named after their UIDs.
        three_dimensional: a Comprehensive 3D SR, which some viewers ask for, in place of a Comprehensive SR. The
            regions are the same: a radiograph has no coordinates in space.

    Raises:
        ValueError: nothing was said, a box does not lie on the image, or highdicom is not installed.
        OSError: the source cannot be read or a document cannot be written.
    """
    require_highdicom()
    if not results.said:
        raise ValueError(f"{printable(str(source))}: expected results of a classifier or a detector, found none")
    header = _read_header(source)
    if header is None:
        return []
    image, missing = _identity(header, source)
    patient, refused = _patient_and_study(header)
    _require_on_image(results.detection, header, source)
    _warn_of(source, missing, refused, patient.PatientID)
    documents = [_report(image, results, three_dimensional)]
    if results.picture is not None:
        documents.append(_secondary_capture(image, header, results, results.picture))
    return [_save(document, patient, folder) for document in documents]


def write_all(results: Sequence[tuple[Path, Results]], folder: Path, *, three_dimensional: bool = False) -> str:
    """``write`` for each source and its results; gives a sentence for a person."""
    written: dict[Path, Path] = {}
    others = 0
    for source, said in tqdm(results, desc="writing DICOM", unit="image", disable=len(results) < 2):
        paths = write(source, said, folder, three_dimensional=three_dimensional)
        others += not paths
        for path in paths:
            if path in written:
                warn(
                    f"{printable(str(source))}: has the SOP Instance UID of {printable(str(written[path]))}; its "
                    "results take the place of those",
                    stacklevel=2,
                )
            written[path] = source
    rest = f"; {others} files are not DICOM and got none" if others else ""
    return f"{len(written)} DICOM documents in {printable(str(folder))}{rest}"


def _save(document: Dataset, patient: Dataset, folder: Path) -> Path:
    document.update(patient)
    content = io.BytesIO()
    document.save_as(content, enforce_file_format=True)
    path = folder / f"{'report' if document.Modality == 'SR' else 'picture'}_{document.SOPInstanceUID}.dcm"
    write_atomically(path, lambda file: file.write(content.getbuffer()))
    return path


# --- the source -------------------------------------------------------------------------------------------------------


def _read_header(path: Path) -> Dataset | None:
    """What is needed of a header; None where the file is not DICOM. The preamble may be missing."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] != b"DICM" and start[:2] not in (b"\x02\0", b"\x08\0"):  # group numbers that one begins with
        return None
    with catch_warnings():
        simplefilter("ignore")  # of odd values; those that matter are named below
        header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*_IDENTITY, *_TAKEN_OVER, *_IMAGE])
        header.decode()
    return header


def _identity(header: Dataset, path: Path) -> tuple[Dataset, list[str]]:
    """The four UIDs that tell where an image belongs, and which of them had to be made, from the file's content."""
    image, missing = Dataset(), list[str]()
    for keyword in _IDENTITY:
        value = str(header.get(keyword) or header.file_meta.get(f"MediaStorage{keyword}") or "")
        if not re.fullmatch(r"[0-9.]{1,64}", value):
            missing.append(keyword)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            value = SecondaryCaptureImageStorage if keyword == "SOPClassUID" else _uid(keyword, content)
        setattr(image, keyword, value)
    return image, missing


def _patient_and_study(header: Dataset) -> tuple[Dataset, list[str]]:
    """Whose image it is, in UTF-8, and which values had to be left empty because the standard does not allow them."""
    taken, refused = Dataset(), list[str]()
    taken.SpecificCharacterSet = "ISO_IR 192"
    for keyword, representation in _TAKEN_OVER.items():
        value = header.get(keyword) or ""
        text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
        try:
            validate_value(representation, text, RAISE)
            {"DA": DA, "TM": TM}.get(representation, str)(text)  # the 31st of February has the form of a date
            valid = text.isprintable() and "\\" not in text and (keyword != "PatientSex" or text in ("", "M", "F", "O"))
        except ValueError:
            valid = False
        if not valid:
            refused.append(keyword)
            text = ""
        if text or keyword not in _NEVER_EMPTY:
            setattr(taken, keyword, text)
    return taken, refused


def _warn_of(path: Path, missing: list[str], refused: list[str], patient_id: str) -> None:
    problems: list[str] = []
    if missing:
        problems.append(
            f"no {', '.join(missing)} in the header, so an archive will not show the results with the image"
        )
    if refused:
        problems.append(f"not valid and left out of the results: {', '.join(refused)}")
    if not patient_id:
        problems.append("no PatientID, so nobody can tell whose results these are")
    if problems:
        warn(f"{printable(str(path))}: {'; '.join(problems)}", stacklevel=3)


def _require_on_image(detection: Detection | None, header: Dataset, path: Path) -> None:
    for x, y, width, height, _ in detection.boxes if detection else ():
        right, bottom = x + width, y + height
        if not (0 <= x <= right <= header.Columns and 0 <= y <= bottom <= header.Rows):
            raise ValueError(
                f"{printable(str(path))}: expected boxes on an image of {header.Columns} x {header.Rows} pixels, found "
                f"one from x {x:g}, y {y:g} to x {right:g}, y {bottom:g}"
            )


# --- the documents ----------------------------------------------------------------------------------------------------


def _uid(*entropy: str) -> str:
    """The same for the same strings."""
    return generate_uid(entropy_srcs=["\0".join((_FORM, *entropy))])


def _document_uid(purpose: str, image: Dataset, results: Results) -> str:
    said = [f"{type(said).__name__} {said.model.sha256} {said.operating_point!r}" for said in results.said]
    return _uid(purpose, image.SOPInstanceUID, *said)


def _device_uid(*models: Model) -> str:
    """Another one for other weights."""
    return _uid("device", *(model.sha256 for model in models))


@cache
def _version() -> str:
    return commit() or "not in a git checkout"


def _series(purpose: str, image: Dataset, results: Results) -> dict[str, Any]:
    """What highdicom is told of any document."""
    from highdicom import ContributingEquipment

    contributors: list[ContributingEquipment] = []
    for said in results.said:
        equipment = ContributingEquipment(
            _MANUFACTURER,
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
        "manufacturer": _MANUFACTURER,
        "manufacturer_model_name": results.model_name,
        "software_versions": _version(),
        "contributing_equipment": contributors,
    }


def _report(image: Dataset, results: Results, three_dimensional: bool) -> Dataset:
    from highdicom import sr
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    # highdicom copies the patient as the header has it, and refuses SOP classes that are not in the standard, which
    # some devices write. It is given no patient and a class that it knows; both are put right afterwards.
    evidence = deepcopy(image)
    evidence.SOPClassUID = ComputedRadiographyImageStorage
    for keyword in _TAKEN_OVER.keys() - set(_NEVER_EMPTY):
        setattr(evidence, keyword, "")
    report = (sr.Comprehensive3DSR if three_dimensional else sr.ComprehensiveSR)(
        evidence=[evidence],
        content=_content(evidence, results)[0],
        series_number=9001,
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(_SCHEME, name=_MANUFACTURER)],
        **_series("3D report" if three_dimensional else "report", image, results),
    )
    report.CompletionFlagDescription = DISCLAIMER
    for element in report.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = image.SOPClassUID
    return report


def _content(image: Dataset, results: Results) -> "sr.MeasurementReport":
    from highdicom import sr

    groups: list[Any] = []
    if said := results.classification:
        found = None if said.undecided else said.probability >= said.operating_point
        groups.append(_whole_image(image, said, "Pneumonia", _PNEUMONIA, found, said.probability))
    if said := results.detection:
        groups.append(_whole_image(image, said, "Opacities", codes.DCM.Opacity, bool(said.boxes), said.highest_score))
        groups += [_region(image, said, number, box) for number, box in enumerate(said.boxes, start=1)]
    for remark in (DISCLAIMER, *results.remarks):
        comment = sr.TextContentItem(codes.DCM.Comment, remark, sr.RelationshipTypeValues.CONTAINS)
        groups[0][0].ContentSequence.append(comment)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_device_uid(*(said.model for said in results.said)),
        manufacturer_name=_MANUFACTURER,
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
    found: bool | None,
    certainty: float,
) -> "sr.MeasurementsAndQualitativeEvaluations":
    """Whether ``finding`` is there (None: undecided), how certain that is, and from where on it is called present."""
    from highdicom import sr

    answer = codes.SCT.Undetermined if found is None else codes.SCT.Present if found else codes.SCT.Absent  # CID 240
    return sr.MeasurementsAndQualitativeEvaluations(
        **_group(image, said, name, finding),
        measurements=[
            _percent(codes.DCM.CertaintyOfFinding, certainty),
            _percent(_OPERATING_POINT, said.operating_point),
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.DCM.PresenceOfProperty, answer)],
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
        "tracking_identifier": sr.TrackingIdentifier(_uid(name, image.SOPInstanceUID, said.model.sha256), name),
        "finding_type": finding,
        "finding_sites": [sr.FindingSite(codes.SCT.Lung)],
        "algorithm_id": sr.AlgorithmIdentification(said.model.name, version),
    }


def _percent(name: Code, value: float) -> "sr.Measurement":
    from highdicom import sr

    return sr.Measurement(name, round(100 * value, 4), codes.UCUM.Percent)


def _secondary_capture(image: Dataset, header: Dataset, results: Results, picture: Path) -> Dataset:
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
    """Which way the rows and columns of the source run, as the picture shows them; empty where that is not known."""
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
