import os
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr import checkpoints

Point = namedtuple("Point", "x y")


def same(one, other):
    """Equal to the bit, types and order of keys too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return one == other or (one != one and other != other)


def trained():
    """What a training keeps: a network, its optimizer, settings."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 1, 5, 5)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "config": {"lr": 0.1, "sizes": [1, 2]}}


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    state = {
        **trained(),
        "tensors": [torch.rand(3).to(dtype) for dtype in (torch.float64, torch.bfloat16, torch.int8, torch.bool)],
        "plain": {"name": "흉부", "none": None, "flag": True, "nan": float("nan"), "sizes": [1, (2, 3)]},
        "ordered": OrderedDict(b=1, a=2),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "large": 2**60,
    }
    path = tmp_path / "new folder" / "흉부.pth"
    checkpoints.save(path, task="test", **state)
    loaded = checkpoints.load(path, task="test")
    path.write_bytes(b"gone")
    assert same(loaded, {"format": checkpoints.FORMAT, "task": "test", **state})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float64(0.5), r"state\['scores'\]\['auc'\] is a float64; a checkpoint holds tensors and plain values only"),
        (Path("a"), r"\['auc'\] is a \w*Path"),
        (defaultdict(list), r"\['auc'\] is a defaultdict"),
        ([1, {2}], r"\['auc'\]\[1\] is a set"),
        ((1, Point(1, 2)), r"\['auc'\]\[1\] is a Point"),
        (torch.__version__, r"\['auc'\] is a TorchVersion"),
        ({np.int64(3): 1}, r"a key of state\['scores'\]\['auc'\], (np\.int64\()?3\)?, is a int64"),
    ],
)
def test_a_value_that_could_not_be_read_again_is_refused_by_its_key(tmp_path, value, message):
    with pytest.raises(TypeError, match=message):
        checkpoints.save(tmp_path / "last.pth", task="test", scores={"auc": value})
    assert not list(tmp_path.iterdir())


class Touch:
    """Code in a pickle: reading it would create a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize(
    "write",
    [
        lambda code, path: torch.save({"format": 1, "task": "test", "deep": [({"a": code},)]}, path),
        lambda code, path: torch.save({"a": code}, path, _use_new_zipfile_serialization=False),
        lambda code, path: path.write_bytes(pickle.dumps(code, 2)),
    ],
    ids=["zip", "old format", "bare pickle"],
)
def test_code_in_a_checkpoint_never_runs(tmp_path, write):
    path, marker = tmp_path / "evil.pth", tmp_path / "it ran"
    write(Touch(marker), path)
    with pytest.raises(ValueError, match=r"evil\.pth: not a usable checkpoint: refers to the code (posix|nt)\.mkdir"):
        checkpoints.load(path, task="test")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 1, "task": "detection"}, r"a checkpoint of the task 'detection', expected 'test'"),
        ({"format": 2, "task": "test"}, "checkpoint format 2, this version reads format 1"),
        ({"model": {}}, "not a checkpoint of this project, which has the keys 'format' and 'task'"),
        ({"format": torch.zeros(2), "task": "test"}, "not a checkpoint of this project"),
        (torch.zeros(3), "not a checkpoint of this project"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "a.pth", task="test")
