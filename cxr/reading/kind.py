"""What a file is, told by its first bytes."""

import string

HEAD_BYTES = 512
_UPPER = string.ascii_uppercase.encode()
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")
_BMP_HEADERS = (12, 40, 64, 108, 124)  # bytes of the second header, of which there are some versions


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM: by its magic, or by its first element.

    A data set without the preamble begins with group 0002 or 0008, and names a value representation (two capitals) or
    gives a length at whose end another element of low group begins.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\2\0", b"\x08\0", b"\0\x08"):
        return False
    if head[4] in _UPPER and head[5] in _UPPER:
        return True
    following = 8 + int.from_bytes(head[4:8], "little")
    return head[0] != 0 and head[following : following + 2] in (b"\2\0", b"\x08\0", b"\x10\0")


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be JPEG, PNG, TIFF, BMP or WebP."""
    if head.startswith(b"BM"):  # as many a text may
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
