"""Any radiograph file -> one grey image; lists of files; squares of many, read ahead or decoded once and kept."""

from cxr.reading.cache import Decoded, decode_once
from cxr.reading.files import SUFFIXES, find_images, is_of_a_system
from cxr.reading.picture import NO_HEADER, Header
from cxr.reading.prefetch import Read, cores, in_batches, read_again, read_ahead
from cxr.reading.radiograph import Radiograph, UnreadableImage, read, read_grey, read_square

__all__ = [
    "NO_HEADER",
    "SUFFIXES",
    "Decoded",
    "Header",
    "Radiograph",
    "Read",
    "UnreadableImage",
    "cores",
    "decode_once",
    "find_images",
    "in_batches",
    "is_of_a_system",
    "read",
    "read_again",
    "read_ahead",
    "read_grey",
    "read_square",
]
