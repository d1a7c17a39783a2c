import numpy as np
import pytest
import torch

from cxr import runtime
from cxr.runtime import Squares

CPU = torch.device("cpu")


@pytest.fixture
def mapped(tmp_path):
    """Seven different squares in a file that cannot be written."""
    array = np.arange(7 * 4 * 4, dtype=np.uint8).reshape(7, 4, 4)
    np.save(tmp_path / "squares.npy", array)
    return np.load(tmp_path / "squares.npy", mmap_mode="r")


def test_a_batch_is_the_squares_at_its_indices(mapped):
    batch = Squares(mapped, CPU)[np.array([5, 0, 5])]
    assert batch.dtype == torch.uint8 and batch.device == CPU
    assert np.array_equal(batch.numpy(), mapped[[5, 0, 5]])
    batch += 1  # a copy: the file does not change
    assert np.array_equal(Squares(mapped, CPU)[np.array([5])].numpy(), mapped[[5]])


@pytest.mark.parametrize(("free", "resident"), [(4 * 112, True), (4 * 112 - 1, False)])
def test_a_gpu_holds_what_takes_a_quarter_of_its_free_memory(mapped, monkeypatch, free, resident):
    class Copied(Exception):
        pass

    def to_gpu(*_):
        raise Copied

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 10**9))
    monkeypatch.setattr(runtime.np, "array", to_gpu)
    if resident:
        with pytest.raises(Copied):
            Squares(mapped, torch.device("cuda", 0))
    else:
        assert Squares(mapped, torch.device("cuda", 0)).array is mapped


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("share", [0, 1])
def test_batches_lie_on_the_gpu(mapped, monkeypatch, share):
    monkeypatch.setattr(runtime, "_RESIDENT_FRACTION", share)
    batch = Squares(mapped, torch.device("cuda", 0))[np.array([5, 0])]
    assert batch.is_cuda and np.array_equal(batch.cpu().numpy(), mapped[[5, 0]])
