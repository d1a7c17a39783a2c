import argparse
import errno
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict, namedtuple
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from small_disk import small_disk

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
    """What a training keeps, in the form of ``state_dict`` of a network and of AdamW."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    moments = {
        number: {"step": torch.tensor(1.0), "exp_avg": torch.rand_like(parameter), "exp_avg_sq": torch.rand(1)}
        for number, parameter in enumerate(model.parameters())
    }
    group = {"lr": 0.1, "betas": (0.9, 0.999), "amsgrad": False, "foreach": None, "params": list(moments)}
    return {"model": model.state_dict(), "optimizer": {"state": moments, "param_groups": [group]}}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------------ there and back


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    state = {
        **trained(),
        "tensors": [torch.rand(3).to(dtype) for dtype in (torch.float64, torch.bfloat16, torch.int8, torch.bool)],
        "config": {"lr": 0.1, "name": "흉부", "none": None, "flag": True, "nan": float("nan"), "sizes": [1, (2, 3)]},
        "ordered": OrderedDict(b=1, a=2),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "large": 2**60,
    }
    checkpoints.save(tmp_path / "new folder" / "last.pth", task="test", **state)
    loaded = checkpoints.load(tmp_path / "new folder" / "last.pth", task="test")
    assert same(loaded, {"format": checkpoints.FORMAT, "task": "test", **state})
    assert names_in(tmp_path / "new folder") == ["last.pth"]


def test_weights_of_others_are_read_in_the_old_format_too(tmp_path):
    state = {"conv.weight": torch.rand(2, 3), "bn": torch.nn.Parameter(torch.rand(2)), "steps": torch.tensor(3)}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(checkpoints.read(tmp_path / "new.pth"), state)
    assert same(checkpoints.read(tmp_path / "old.pth"), state)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float64(0.5), r"state\['scores'\]\['auc'\] is a float64; a checkpoint holds tensors and plain values only"),
        (np.float32(0.5), r"\['auc'\] is a float32"),
        (np.zeros(2), r"\['auc'\] is a ndarray"),
        (np.str_("a"), r"\['auc'\] is a str_"),
        (Path("a"), r"\['auc'\] is a \w*Path"),
        (argparse.Namespace(a=1), r"\['auc'\] is a Namespace"),
        (defaultdict(list), r"\['auc'\] is a defaultdict"),
        ([1, {2}], r"\['auc'\]\[1\] is a set"),
        ((1, Point(1, 2)), r"\['auc'\]\[1\] is a Point"),
        (torch.float32, r"\['auc'\] is a dtype"),
        (torch.Size([1]), r"\['auc'\] is a Size"),
        (torch.__version__, r"\['auc'\] is a TorchVersion"),
        ({np.int64(3): 1}, r"a key of state\['scores'\]\['auc'\], np.int64\(3\), is a int64"),
        ({(1, Path("a")): 1}, r"a key of state\['scores'\]\['auc'\], .*\[1\] is a \w*Path"),
    ],
)
def test_a_value_that_could_not_be_read_again_is_refused_by_its_key_before_anything_is_written(
    tmp_path, value, message
):
    with pytest.raises(TypeError, match=message):
        checkpoints.save(tmp_path / "last.pth", task="test", scores={"auc": value})
    assert names_in(tmp_path) == []


def test_a_tensor_that_could_not_be_read_again_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "last.pth"
    checkpoints.save(path, task="test", epoch=1)
    for odd in (torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.uint16)):
        with pytest.raises(ValueError, match="it asks for torch"):
            checkpoints.save(path, task="test", odd=odd)
    assert checkpoints.load(path, task="test")["epoch"] == 1
    assert names_in(tmp_path) == ["last.pth"]


def test_a_structure_too_large_to_be_read_is_refused_when_it_is_written(tmp_path):
    with pytest.raises(ValueError, match="structure without the tensors takes over 2 MiB"):
        checkpoints.save(tmp_path / "last.pth", task="test", text="x" * 2**21)
    assert names_in(tmp_path) == []


# ------------------------------------------------------------------------------------------------ whole or not at all


def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "last.pth"
    checkpoints.save(path, task="test", epoch=1)
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match=r"No space left on device; 4\.0 MiB are needed, .* MiB are free") as caught:
        checkpoints.save(path, task="test", epoch=2, weights=torch.zeros(2**20))
    assert str(path) in str(caught.value)
    assert checkpoints.load(path, task="test")["epoch"] == 1
    assert names_in(tmp_path) == ["last.pth"]


def test_on_a_full_disk_the_last_good_checkpoint_survives(tmp_path):
    with small_disk(tmp_path, 1024) as disk:
        path = disk / "last.pth"
        checkpoints.save(path, task="test", epoch=1, weights=torch.ones(1000))
        with pytest.raises(
            OSError, match=r"cannot write .*last\.pth: No space .* 4\.0 MiB are needed, \d{3,4}\.\d KiB"
        ):
            checkpoints.save(path, task="test", epoch=2, weights=torch.ones(2**20))
        assert checkpoints.load(path, task="test")["epoch"] == 1
        assert names_in(disk) == ["last.pth"]
        checkpoints.save(path, task="test", epoch=3)  # there is room again
        assert checkpoints.load(path, task="test")["epoch"] == 3


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "last.pth", tmp_path / "folder"):
        with pytest.raises(OSError, match="cannot write") as caught:
            checkpoints.write_atomically(path, lambda file: file.write(b"x"))
        assert str(path) in str(caught.value)
    assert names_in(tmp_path) == ["file", "folder"]


def test_a_fault_of_the_writer_is_not_called_a_full_disk(tmp_path):
    def write(file):
        file.write(b"half")
        raise RuntimeError("a fault in here")

    (tmp_path / "a.json").write_text("old")
    with pytest.raises(RuntimeError, match="a fault in here"):
        checkpoints.write_atomically(tmp_path / "a.json", write)
    assert (tmp_path / "a.json").read_text() == "old"
    assert names_in(tmp_path) == ["a.json"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a signal that meets a destructor
def test_interrupted_at_any_moment_there_is_the_old_file_or_the_new_one(tmp_path):
    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    path = tmp_path / "흉부" / "last.pth"  # torch itself writes to a name that is not ASCII by another way
    state = {str(number): torch.zeros(20_000) for number in range(20)}
    checkpoints.save(path, task="test", number=-1, **state)
    before, moments = signal.signal(signal.SIGALRM, interrupt), random.Random(0)
    last = -1
    try:
        for number in range(40):
            with suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0005, 0.03), 20)
                checkpoints.save(path, task="test", number=number, **state)
                signal.pause()
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert names_in(path.parent) == ["last.pth"]
            found = checkpoints.load(path, task="test")["number"]
            assert found in (last, number)
            last = found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows tells a dead writer by the file that it no longer holds open")
def test_what_killed_writers_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = os.getppid()
    for name in (f"last.pth.{dead.pid}.partial", f"last.pth.{living}.partial", "mine.partial", "train.npy.partial"):
        (tmp_path / name).write_text("half")
    checkpoints.write_atomically(tmp_path / "other.json", lambda file: file.write(b"{}"))
    assert names_in(tmp_path) == sorted(
        [f"last.pth.{living}.partial", "mine.partial", "other.json", "train.npy.partial"]
    )


# -------------------------------------------------------------------------------------------- damaged, wrong, hostile


class Touch:
    """Code in a pickle: reading it would create a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


@pytest.mark.parametrize(
    "wrap", [lambda code: code, lambda code: {"format": 1, "task": "test", "deep": [({"a": code},)]}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_never_runs(tmp_path, wrap, zipped):
    path, marker = tmp_path / "evil.pth", tmp_path / "it ran"
    torch.save(wrap(Touch(marker)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pth: not a usable checkpoint: it asks for (posix|nt)\.mkdir"):
        checkpoints.load(path, task="test")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the marker would have told
    assert marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_code_that_got_past_our_own_examination_does_not_run_either(tmp_path, monkeypatch, zipped):
    path, marker = tmp_path / "evil.pth", tmp_path / "it ran"
    torch.save({"a": Touch(marker)}, path, _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(checkpoints, "_require_harmless", lambda file: None)
    with pytest.raises(ValueError, match=r"evil\.pth: not a usable checkpoint: .* more than tensors") as caught:
        checkpoints.read(path)
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)  # torch advises to load the file without


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_with_code_never_runs(tmp_path, protocol):
    path, marker = tmp_path / "evil.pth", tmp_path / "it ran"
    path.write_bytes(pickle.dumps(Touch(marker), protocol))
    with pytest.raises(ValueError, match="not a usable checkpoint: it"):
        checkpoints.read(path)
    assert not marker.exists()


def zip_of(path, pickled, *, records=(), compression=zipfile.ZIP_STORED, name="archive/data.pkl"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, pickled)
        archive.writestr("archive/byteorder", "little")
        for number, record in enumerate(records):
            archive.writestr(f"archive/data/{number}", record)
        archive.writestr("archive/version", "3\n")
    return path


def tensor_pickle(claimed, size, stride=1):
    """A float32 tensor [size] in a storage that is said to have ``claimed`` elements, as torch pickles it."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(claimed) + b"tQ"
    shape = b"(" + number(size) + b"t(" + number(stride) + b"t"
    return (
        b"\x80\2ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(0)
        + shape
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def test_the_worked_pickle_of_these_tests_is_one_that_torch_reads(tmp_path):
    path = zip_of(tmp_path / "a.pth", tensor_pickle(3, 3), records=[struct.pack("<3f", 1, 2, 3)])
    assert checkpoints.read(path).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (tensor_pickle(1000, 1000), "damaged or cut short"),  # storage larger than its record
        (tensor_pickle(10**10, 10**10), "damaged or cut short"),
        (tensor_pickle(2**62, 3), "damaged or cut short"),
        (tensor_pickle(3, 1000), "damaged or cut short"),  # view larger than its storage
        (tensor_pickle(3, 3, stride=1000), "damaged or cut short"),
        (b"\x80\2cbuiltins\nbytearray\n\x8a\5\0\0\0\0\2\x85R.", "it asks for builtins.bytearray"),  # 8 GiB of zeros
        (b"\x80\2ctorch\nUntypedStorage\n\x8a\6\0\0\0\0\0\2\x85R.", "it asks for torch.UntypedStorage"),
        (b"\x80\2X\0\0\x20\0" + b"x" * 2**21 + b"0N.", "structure without the tensors takes over 2 MiB"),
        (b"\x80\4\x8c\2os\x8c\6system\x93.", "it asks for"),
    ],
)
def test_sizes_that_lie_and_pickles_that_unfold_are_refused(tmp_path, pickled, message):
    path = zip_of(tmp_path / "bomb.pth", pickled, records=[b"\0" * 12])
    with pytest.raises(ValueError, match=f"bomb.pth: not a usable checkpoint: .*{message}"):
        checkpoints.read(path)


def test_a_pickle_in_capitals_is_examined_too_because_torch_reads_it(tmp_path):
    path = zip_of(tmp_path / "a.pth", b"\x80\2K\7.", name="archive/DATA.PKL")
    assert checkpoints.read(path) == 7
    path = zip_of(tmp_path / "b.pth", b"\x80\2cbuiltins\nbytearray\n\x8a\5\0\0\0\0\2\x85R.", name="archive/Data.Pkl")
    with pytest.raises(ValueError, match=r"it asks for builtins\.bytearray"):
        checkpoints.read(path)


def test_a_compressed_archive_is_refused_before_it_unfolds(tmp_path):
    path = zip_of(tmp_path / "bomb.pth", tensor_pickle(1, 1), records=[b"\0" * 2**24], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(ValueError, match="a compressed archive, which torch does not write"):
        checkpoints.read(path)


def test_parts_that_lie_over_one_another_are_refused(tmp_path):
    """A bomb without compression: every entry of the directory points at the same bytes."""
    path = zip_of(tmp_path / "bomb.pth", tensor_pickle(1, 1), records=[b"\0" * 10_000])
    with zipfile.ZipFile(path, "a") as archive:
        once = next(info for info in archive.infolist() if info.filename == "archive/data/0")
        archive.filelist.extend([once] * 100)
        archive._didModify = True
    with pytest.raises(ValueError, match=r"its parts claim 10\d{5} bytes in a file of"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello, I am a text", r"it begins with b'hell', neither a zip archive nor a pickle"),
        (b"\x89PNG\r\n\x1a\n0000", r"it begins with b'\\x89PNG'"),
        (b"PK\3\4", "damaged or cut short"),
        (b"PK\3\4" + b"\0" * 1000, "damaged or cut short"),
        (b"\x80\2", "damaged or cut short|pickle exhausted"),
        (b"\x80\2N.", "damaged or cut short|pickle exhausted|not enough data"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.load(path, task="test")
    assert str(caught.value).startswith(f"{path}: not a usable checkpoint: ")
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cut_at_any_place_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last.pth"
    checkpoints.save(path, task="test", **trained())
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a usable checkpoint"):
            checkpoints.load(path, task="test")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_checkpoint_is_read_or_refused_and_nothing_else(tmp_path, zipped):
    path = tmp_path / "last.pth"
    state = {"format": 1, "task": "test", "weights": torch.rand(5), "config": {"lr": 0.1, "sizes": [1, 2]}}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole, chance = path.read_bytes(), random.Random(0)
    refusals = []
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 3, 20])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            checkpoints.load(path, task="test")
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert all(refusal.startswith(f"{path}: ") and "\n" not in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 1, "task": "detection"}, r"a checkpoint of the task 'detection', expected 'test'"),
        ({"format": 2, "task": "test"}, "checkpoint format 2, this version reads format 1"),
        ({"model": {}}, "not a checkpoint of this project, which would hold the keys 'format' and 'task'"),
        ({"format": torch.zeros(2), "task": "test"}, "not a checkpoint of this project"),
        ({"format": 1, "task": ["test"]}, "not a checkpoint of this project"),
        ([1, 2], "not a checkpoint of this project"),
        (torch.zeros(3), "not a checkpoint of this project"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "a.pth", task="test")


def test_a_missing_file_and_a_folder_are_told_with_the_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.pth").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint at") as caught:
        checkpoints.load(Path("last.pth"), task="test")
    assert str(tmp_path / "last.pth") in str(caught.value)
    with pytest.raises(IsADirectoryError, match="is a folder; expected a checkpoint file"):
        checkpoints.load(Path("folder.pth"), task="test")


def test_a_torchscript_archive_is_refused_quietly(tmp_path):
    """The zip that torch.jit.save writes; torch would warn before it refuses."""
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/constants.pkl", b"\x80\2).")
        archive.writestr("archive/data.pkl", b"\x80\2N.")
        archive.writestr("archive/version", "3\n")
    with pytest.raises(ValueError, match="not a usable checkpoint"):
        checkpoints.read(tmp_path / "model.pt")


def test_reading_leaves_tensors_on_the_cpu_and_owes_nothing_to_the_file(tmp_path):
    path = tmp_path / "last.pth"
    checkpoints.save(path, task="test", weights=torch.arange(5.0))
    weights = checkpoints.load(path, task="test")["weights"]
    path.write_bytes(b"gone")
    assert weights.device.type == "cpu"
    assert weights.tolist() == [0, 1, 2, 3, 4]


def test_few_bytes_that_stand_for_many_are_refused_before_they_are_written(tmp_path):
    path = tmp_path / "last.pth"
    with pytest.raises(ValueError, match="a tensor of 4000000 bytes repeats 4 bytes"):
        checkpoints.save(path, task="test", weights=torch.zeros(1).expand(10**6))
    nested = [0]
    for _ in range(30):
        nested = [nested, nested]  # 2**30 values in 31 lists
    with pytest.raises(ValueError, match="more than 262144 values, or few of them over and over"):
        checkpoints.save(path, task="test", nested=nested)
    deep = []
    for _ in range(60):
        deep = [deep]
    with pytest.raises(ValueError, match="in one another more than 50 deep"):
        checkpoints.save(path, task="test", deep=deep)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("bomb", ["tensor", "lists"])
def test_few_bytes_that_stand_for_many_are_refused_when_they_are_read(tmp_path, bomb):
    nested = [0]
    for _ in range(20):
        nested = [nested, nested]
    torch.save(torch.zeros(1).expand(10**9) if bomb == "tensor" else nested, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth.*(repeats 4 bytes|over and over)"):
        checkpoints.read(tmp_path / "weights.pth")


def test_a_file_larger_than_any_checkpoint_is_refused_unread(tmp_path):
    path = tmp_path / "weights.pth"
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(3 * 2**29 + 1)  # a hole on the disk
    with pytest.raises(ValueError, match=r"weights\.pth.*it has 1536 MiB; no checkpoint here takes more than 1536"):
        checkpoints.read(path)
