"""The patient of each image: from a table, a DICOM header or a file name, or one patient for each image."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from cxr.reading.header import Header

_LEAST_OF_ONE = 10  # DICOM files, none of them with another Patient ID: it is what anonymising has left


def identified(
    paths: Sequence[Path],
    headers: Sequence[Header],
    *,
    stated: Sequence[str],
    named: Sequence[str],
    otherwise: Sequence[str],
) -> list[str]:
    """The patient of each image: as ``stated``, else as its header says, else as ``named``, else ``otherwise``.

    An empty text says nothing. One warning counts the images of which neither table nor header nor name tells the
    patient; ``otherwise`` holds another name for each.
    """
    in_header = [header.patient for header in headers]
    if len({*in_header} - {""}) == 1 and len(in_header) - in_header.count("") >= _LEAST_OF_ONE:
        warnings.warn("all DICOM files have the same Patient ID, so it tells no patients apart", stacklevel=3)
        in_header = [""] * len(in_header)
    known = [told or found or name for told, found, name in zip(stated, in_header, named, strict=True)]
    unknown = [path for path, patient in zip(paths, known, strict=True) if not patient]
    if unknown:
        warnings.warn(
            f"nothing tells the patient of {len(unknown)} of {len(paths)} images (first: {unknown[0].name}); each "
            "counts as a patient of its own. If one patient has several of them, scores are too optimistic",
            stacklevel=3,
        )
    return [patient or other for patient, other in zip(known, otherwise, strict=True)]
