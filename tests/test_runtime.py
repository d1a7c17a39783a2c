import random

import numpy as np
import pytest
import torch
from killing import run_in_two

from cxr import runtime
from cxr.runtime import Runtime, Squares
from cxr.training_run import lock_folder

CPU = torch.device("cpu")
ALONE = Runtime(CPU, bf16=False)


def part(rank, world_size):
    return Runtime(CPU, False, rank, world_size)


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with (
        pytest.raises(ValueError, match=f"--device {device}: this machine, or this build of torch, has none"),
        runtime.start(device, "fp32", seed=0),
    ):
        pass


@pytest.mark.parametrize(
    ("cuda", "mps", "torchrun", "expected"),
    [
        (True, False, False, "cuda:0"),
        (True, True, False, "cuda:0"),
        (False, True, False, "mps"),
        (False, True, True, "cpu"),  # gloo does not reduce tensors of MPS
        (False, False, False, "cpu"),
    ],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, torchrun, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    if torchrun:
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert str(runtime._device("auto")) == expected


def test_each_process_takes_its_own_gpu_and_one_too_many_is_refused(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert runtime._device("cuda") == torch.device("cuda", 1)
    assert taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="process 3 on a machine with 2 GPUs"):
        runtime._device("cuda")


@pytest.mark.parametrize("capabilities", [{"avx512_bf16": True}, {"amx_bf16": True}, {"bf16": True}, {"avx2": True}])
def test_bf16_is_refused_on_a_cpu_without_its_instructions(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    for precision in ("fp32", "auto"):  # auto waits for a trial
        with runtime.start("cpu", precision, seed=0) as run:
            assert run.bf16 is False
    if "avx2" not in capabilities:
        with runtime.start("cpu", "bf16", seed=0) as run:
            assert run.bf16 is True
    else:
        with (
            pytest.raises(ValueError, match="--precision bf16: cpu has no native bfloat16 arithmetic"),
            runtime.start("cpu", "bf16", seed=0),
        ):
            pass


def with_trial(precision="auto", model=None, run=ALONE, loss_of=None):
    return runtime.with_faster_precision(run, precision, model or torch.nn.Linear(1, 1), loss_of)


@pytest.mark.parametrize(("speedup", "bf16"), [(1.8, True), (1.15, True), (1.14, False), (0.7, False)])
def test_auto_takes_bf16_where_a_trial_shows_that_it_pays(monkeypatch, speedup, bf16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(runtime, "_bf16_speedup", lambda step: speedup)
    run = with_trial()
    assert (run.bf16, run.bf16_speedup) == (bf16, speedup)
    name = "bf16" if bf16 else "fp32"
    assert str(run) == f"cpu, {name} (bf16 is {speedup:.2f} times as fast as fp32), 1 process"


def test_a_trial_alternates_and_leaves_network_and_random_numbers_as_they_were(monkeypatch):
    """On a clock that only the steps move: 3 seconds in float32, 2 in bfloat16, and 9 the first time."""
    clock, steps = [0.0], []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: clock[0])
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)

    def loss_of(network, run):
        with run.autocast():
            loss = network(torch.rand(4, 3)).float().sum()
        clock[0] += 9 if len(steps) < 2 else 2 if run.bf16 else 3
        steps.append((network.training, run.bf16))
        return loss

    assert with_trial(model=model, loss_of=loss_of).bf16_speedup == 1.5
    assert steps == [(True, False), (True, True)] * 3  # the first pair does not count, the second has used the time up
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())
    found = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(1))


def draws(seed, epoch, run):
    """One number of each random stream."""
    generator = runtime.seed_epoch(seed, epoch, run)
    return (random.random(), float(np.random.rand()), float(torch.rand(1)), float(torch.rand(1, generator=generator)))  # noqa: NPY002


def test_an_epoch_draws_the_same_again_whatever_was_drawn_before_it():
    first = draws(3, 7, ALONE)
    torch.rand(1000), np.random.rand(10), random.random()  # noqa: NPY002
    assert draws(3, 7, ALONE) == first

    def at_start():
        with runtime.start("cpu", "fp32", seed=11):
            return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    assert at_start() == at_start()


def test_seeds_epochs_and_processes_draw_differently_in_every_stream():
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (2**62, 0, 0)]
    found = [draws(seed, epoch, part(rank, 2)) for seed, epoch, rank in places]
    for stream in zip(*found, strict=True):
        assert len(set(stream)) == len(places)


def test_the_order_of_an_epoch_is_a_shuffle_that_all_processes_share():
    indices = np.array([3, 1, 4, 15, 9, 2, 6, 5])
    order = runtime.epoch_order(indices, 0, 5)
    assert sorted(order) == sorted(indices)
    assert np.array_equal(order, runtime.epoch_order(indices, 0, 5))
    assert not np.array_equal(order, runtime.epoch_order(indices, 0, 6))
    assert not np.array_equal(order, runtime.epoch_order(indices, 1, 5))
    assert np.array_equal(indices, [3, 1, 4, 15, 9, 2, 6, 5])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_gather_puts_the_rows_back_where_shard_took_them_from(monkeypatch, count, world_size):
    rows = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    parts = [runtime.shard(rows, part(rank, world_size)) for rank in range(world_size)]
    monkeypatch.setattr(runtime, "gather_objects", lambda value, run: parts)
    for rank in range(world_size):
        found = runtime.gather(parts[rank], part(rank, world_size))
        assert found.dtype == np.float32
        assert np.array_equal(found, rows)


def work_in_one_of_two(rank, folder):
    """What each process of a real pair does; an assertion that fails here fails the test."""
    with runtime.start("cpu", "fp32", seed=0) as run:
        assert (run.rank, run.world_size) == (rank, 2)
        for count in (0, 1, 5, 6):
            rows = np.random.default_rng(count).random((count, 3))
            assert np.array_equal(runtime.gather(runtime.shard(rows, run), run), rows)
        assert runtime.gather_objects({"rank": rank}, run) == [{"rank": 0}, {"rank": 1}]

        torch.cpu.get_capabilities = lambda: {"bf16": True}
        runtime._bf16_speedup = lambda step: (1.0, 3.0)[rank]
        assert with_trial(run=run).bf16_speedup == 1.0  # what rank 0 has measured

        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, rank + 5.0)
        together = runtime.distribute(model, run)
        assert model.weight.item() == 5  # DistributedDataParallel starts from rank 0
        together(torch.tensor([[1.0 + rank]])).sum().backward()
        assert model.weight.grad.item() == 1.5  # the mean of 1 and 2

        norm = torch.nn.BatchNorm1d(1)
        norm.running_mean.fill_(rank + 7.0)
        runtime.synchronize_buffers(norm, run)
        assert norm.running_mean.item() == 7

        with lock_folder(folder / "out", run):  # one lock for the pair
            runtime.wait(run)
            (folder / f"was here {rank}").touch()
            runtime.wait(run)
            assert (folder / f"was here {1 - rank}").exists()
    assert not torch.distributed.is_initialized()


def test_two_processes_divide_and_put_together(tmp_path):
    run_in_two(work_in_one_of_two, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "was here 0", "was here 1"]


def test_batches_are_whole_and_divided_among_the_processes():
    order, pair = np.array([7, 3, 5, 1, 0, 2, 6, 4, 9, 8, 10]), [part(0, 2), part(1, 2)]
    assert [batch.tolist() for batch in runtime.batches(order, 4, ALONE)] == [[7, 3, 5, 1], [0, 2, 6, 4]]
    shares = [[batch.tolist() for batch in runtime.batches(order, 4, run)] for run in pair]
    assert shares == [[[7, 5], [0, 6]], [[3, 1], [2, 4]]]
    assert runtime.steps_per_epoch(11, 4, pair[0]) == 2
    assert runtime.steps_per_epoch(3, 4, ALONE) == len(runtime.batches(order[:3], 4, ALONE)) == 1
    with pytest.raises(ValueError, match="--batch-size 5 cannot be divided among 2 processes"):
        runtime.steps_per_epoch(11, 5, pair[0])


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
