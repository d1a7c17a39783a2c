"""Radiograph files: found, read as one grey image, prefetched in batches, or decoded once into a cache."""

from cxr.reading.cache import Decoded, decode_once
from cxr.reading.files import SUFFIXES, find_images, is_system_file
from cxr.reading.picture import NO_HEADER, Header
from cxr.reading.prefetch import cores, in_batches
from cxr.reading.radiograph import Radiograph, UnreadableImage, read

__all__ = [
    "NO_HEADER",
    "SUFFIXES",
    "Decoded",
    "Header",
    "Radiograph",
    "UnreadableImage",
    "cores",
    "decode_once",
    "find_images",
    "in_batches",
    "is_system_file",
    "read",
]
