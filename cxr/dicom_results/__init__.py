"""Results in the form that a PACS stores and a viewer shows: a structured report and a secondary capture.

The report is a Measurement Report (DICOM PS3.16 TID 1500). What is said of the whole image is a measurement group of
its own (TID 1501), and so is each box (TID 1410): a closed polyline of five points on the source image, the form that
most viewers draw. Numbers are in percent. Both documents lie in the study of their source, each in a series of its own
that says "research only"; nobody has verified them, and the report says so too.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from warnings import warn

from pydicom import Dataset
from tqdm import tqdm

from cxr.dicom_results.source_header import identity, patient_and_study, read_header, require_on_image, warn_of
from cxr.dicom_results.structured_report import (
    DISCLAIMER,
    MANUFACTURER,
    Classification,
    Detection,
    Model,
    Results,
    report,
    secondary_capture,
)
from cxr.files import write_atomically
from cxr.messages import printable

__all__ = [
    "DISCLAIMER",
    "MANUFACTURER",
    "Classification",
    "Detection",
    "Model",
    "Results",
    "require_highdicom",
    "write",
    "write_all",
]


def require_highdicom() -> None:
    """Raise ValueError unless highdicom is installed; called before hours of prediction."""
    try:
        import highdicom  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ValueError("DICOM output needs highdicom, which is not installed: pip install highdicom") from error


def write(source: Path, results: Results, folder: Path) -> list[Path]:
    """Write what is said of a DICOM file; gives the report, and the secondary capture where there is a picture.

    A UID depends on the source (its SOP Instance UID; its content where it has none), the weights and the operating
    points, so a second run replaces the documents of the first, in ``folder`` and in an archive. A file that is not
    DICOM gets no document.

    Args:
        source: the file that ``results`` speak of.
        results: of one model at least.
        folder: made when missing; the files are named after their UIDs.

    Raises:
        ValueError: a box does not lie on the image.
        OSError: the source cannot be read or a document cannot be written.
    """
    header = read_header(source)
    if header is None:
        return []
    image, missing = identity(header, source)
    patient, refused = patient_and_study(header)
    require_on_image(results.detection.boxes if results.detection else (), header, source)
    warn_of(source, missing, refused, patient.PatientID)
    documents = [report(image, results)]
    if results.picture is not None:
        documents.append(secondary_capture(image, header, results, results.picture))
    return [_save(document, patient, folder) for document in documents]


def write_all(results: Sequence[tuple[Path, Results]], folder: Path) -> str:
    """``write`` for each source and its results; gives a sentence for a person."""
    written: dict[Path, Path] = {}
    others = 0
    for source, said in tqdm(results, desc="writing DICOM", unit="image", disable=len(results) < 2):
        paths = write(source, said, folder)
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
