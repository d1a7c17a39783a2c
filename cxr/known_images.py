"""Which images a model has learnt from or chosen by, kept in its file so that nobody judges it on them by mistake."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_KEY_BYTES = 8  # of a hash that the model file keeps


def content_key(sha256: str) -> str:
    """The part of a file's hash that a model file keeps."""
    return sha256[: 2 * _KEY_BYTES]


def known(hashes: Sequence[str], *parts: NDArray[np.int64]) -> frozenset[str]:
    """The keys of the images at the indices of all ``parts``."""
    return frozenset(content_key(hashes[int(index)]) for index in np.concatenate(parts))


def packed(keys: frozenset[str] | None) -> Tensor | None:
    """For the model file: uint8 [N, 8], sorted."""
    if keys is None:
        return None
    rows = [list(bytes.fromhex(key)) for key in sorted(keys)]
    return torch.tensor(rows, dtype=torch.uint8).reshape(-1, _KEY_BYTES)


def unpacked(found: Tensor | None) -> frozenset[str] | None:
    """The keys in a model file; None where it keeps none."""
    return None if found is None else frozenset(bytes(row).hex() for row in found.tolist())
