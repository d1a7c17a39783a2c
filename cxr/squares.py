"""Decoded squares where the network computes: in the memory of a GPU that has room for them, else batch by batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHARE = 0.25  # of the GPU's free memory; weights, activations and the optimizer need the rest


class Squares:
    """Stored squares whose batches come as tensors on one device.

    Args:
        array: uint8 [N, S, S]; may be mapped from disk.
        device: where batches are wanted. A GPU gets all of ``array`` now where that takes a quarter of its free memory
            at most, so that no batch waits for the disk or the bus.
    """

    def __init__(self, array: NDArray[np.uint8], device: torch.device) -> None:
        self.array = array
        self._device = device
        fits = device.type == "cuda" and array.nbytes <= _SHARE * torch.cuda.mem_get_info(device)[0]
        self._resident = torch.from_numpy(np.array(array)).to(device) if fits else None

    def __getitem__(self, indices: NDArray[np.int64]) -> Tensor:
        """uint8 [len(indices), S, S] on the device."""
        if self._resident is None:
            return to_device(self.array[indices], self._device)
        return self._resident[to_device(indices, self._device)]


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """``array`` on ``device``; to a GPU from pinned memory, which it fetches while it computes."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
