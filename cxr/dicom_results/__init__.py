"""Predictions as a PACS stores and a viewer shows them: a structured report, and the plot as a secondary capture.

The report is a Measurement Report (DICOM PS3.16 TID 1500). Findings for the whole image are a measurement group of
their own (TID 1501), and so is each box (TID 1410): a closed polyline of five points on the source image, the form that
most viewers draw. Numbers are in percent. Both documents belong to the study of their source, each in a series of its
own described as "research only"; the report is marked as unverified.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from warnings import warn

from pydicom import Dataset
from tqdm import tqdm

from cxr.dicom_results.source_header import HEADER, identity, patient_and_study, require_on_image, warn_of
from cxr.files import write_atomically
from cxr.messages import printable
from cxr.prediction import Model, Prediction, remarks
from cxr.reading.dicom_header import read_dataset


def require_highdicom() -> None:
    """Raise ValueError unless highdicom is installed; called before hours of prediction."""
    try:
        import highdicom  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ValueError("DICOM output needs highdicom, which is not installed: pip install highdicom") from error


def write(
    prediction: Prediction, folder: Path, classifier: Model | None = None, detector: Model | None = None
) -> list[Path]:
    """Write the report for a DICOM file, and the secondary capture if a plot was drawn; other files get neither.

    A UID depends on the source (its SOP Instance UID; its content where it has none), the weights and the operating
    points, so a second run replaces the documents of the first, in ``folder`` and in an archive.

    Args:
        prediction: of one model at least; boxes in pixels of the source image as it is stored.
        folder: made when missing; the files are named after their UIDs.
        classifier: the model of ``probability``. detector: that of ``boxes`` and ``highest_score``.

    Raises:
        ValueError: a box does not lie on the image.
        OSError: the source cannot be read or a document cannot be written.
    """
    source = prediction.path
    header = read_dataset(source, HEADER)
    if header is None:
        return []
    from cxr.dicom_results.structured_report import findings_of, report, secondary_capture

    image, missing = identity(header, source)
    patient, refused = patient_and_study(header)
    require_on_image(prediction.boxes, header, source)
    warn_of(source, missing, refused, patient.PatientID)
    findings = findings_of(prediction, classifier, detector)
    adapted = [finding.model.adapted for finding in findings]
    documents = [report(image, findings, remarks(prediction.out_of_distribution, prediction.note, *adapted))]
    if prediction.picture is not None:
        documents.append(secondary_capture(image, header, findings, prediction.picture))
    return [_save(document, patient, folder) for document in documents]


def write_all(
    predictions: Sequence[Prediction], folder: Path, classifier: Model | None = None, detector: Model | None = None
) -> str:
    """``write`` for each file with a prediction; returns a sentence that counts the documents."""
    predicted = [one for one in predictions if one.probability is not None or one.highest_score is not None]
    written: dict[Path, Path] = {}
    others = 0
    for prediction in tqdm(predicted, desc="writing DICOM", unit="image", disable=len(predicted) < 2):
        paths = write(prediction, folder, classifier, detector)
        others += not paths
        for path in paths:
            if path in written:
                warn(
                    f"{printable(str(prediction.path))}: duplicate SOP Instance UID; its results replace those of "
                    f"{printable(str(written[path]))}",
                    stacklevel=2,
                )
            written[path] = prediction.path
    rest = f"; {others} files are not DICOM and got none" if others else ""
    return f"{len(written)} DICOM documents in {printable(str(folder))}{rest}"


def _save(document: Dataset, patient: Dataset, folder: Path) -> Path:
    document.update(patient)
    content = io.BytesIO()
    document.save_as(content, enforce_file_format=True)
    path = folder / f"{'report' if document.Modality == 'SR' else 'picture'}_{document.SOPInstanceUID}.dcm"
    write_atomically(path, lambda file: file.write(content.getbuffer()))
    return path
