"""Device, precision, processes and seeds of a run."""

import copy
import os
import random
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr.cli import Device, Precision

# A precision trial: 2 to 5 pairs of steps, none begun after so many seconds, on images of so many pixels in total (5 of
# 112 x 112), which takes about a second on one core.
_TRIAL_PAIRS, _TRIAL_SECONDS, _TRIAL_PIXELS = (2, 5), 0.6, 2**16
_WORTHWHILE_SPEEDUP = 1.15  # for less, bfloat16 is not worth its rounding
_RESIDENT_FRACTION = 0.25  # of a GPU's free memory that images may take

Item = TypeVar("Item")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Runtime:
    """One process of a run; a single process has rank 0 of 1.

    ``bf16_speedup`` is the speed of bfloat16 relative to float32 in a trial; None without a trial.
    """

    device: torch.device
    bf16: bool
    rank: int = 0
    world_size: int = 1
    bf16_speedup: float | None = None

    def __str__(self) -> str:
        processes = f"{self.world_size} process{'es' * (self.world_size > 1)}"
        measured = "" if self.bf16_speedup is None else f" (bf16 is {self.bf16_speedup:.2f} times as fast as fp32)"
        return f"{self.device}, {self.precision}{measured}, {processes}"

    @property
    def precision(self) -> Literal["bf16", "fp32"]:
        """Of matrix products and convolutions in training; everything else is float32."""
        return "bf16" if self.bf16 else "fp32"

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """A context with matrix products and convolutions in ``precision``."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


@contextmanager
def start(device: Device, precision: Precision, seed: int) -> Generator[Runtime]:
    """The runtime of this process, in a process group when torchrun started it.

    ``auto`` precision is bfloat16 on a GPU that has it; on a CPU float32 until ``with_faster_precision``.

    Raises:
        ValueError: the device is not available, or has no native bf16 where that is requested.
    """
    chosen = _device(device)
    if precision == "bf16" and not has_native_bf16(chosen):
        raise ValueError(f"--precision bf16: {chosen} has no native bfloat16 arithmetic; use fp32 or auto")
    _seed_everything(seed)
    bf16 = precision == "bf16" or (precision == "auto" and chosen.type == "cuda" and has_native_bf16(chosen))
    if "WORLD_SIZE" not in os.environ:
        yield Runtime(chosen, bf16)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Runtime(chosen, bf16, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _device(wanted: Device) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        alone = "WORLD_SIZE" not in os.environ  # gloo does not reduce tensors of MPS
        wanted = "cuda" if available["cuda"] else "mps" if available["mps"] and alone else "cpu"
    if not available[wanted]:
        raise ValueError(f"--device {wanted}: this machine, or this build of torch, has none")
    if wanted != "cuda":
        return torch.device(wanted)
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"process {index + 1} on a machine with {count} GPUs; start no more than one for each")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def has_native_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def with_faster_precision(
    run: Runtime, precision: Precision, model: Network, loss_of: Callable[[Network, Runtime], Tensor]
) -> Runtime:
    """``run`` in bfloat16 if ``precision`` is ``auto`` and ``model`` trains faster in it on this CPU, by a trial.

    The capabilities of a CPU do not decide it: with AVX512_BF16 and without AMX, training steps of ResNet-18 at 112
    pixels were 1.8 times as fast in bfloat16 as in float32 on an AMD Zen 4, and .7 times on an Intel. The trial runs on
    a copy and does not change the random state. All processes measure at once, and rank 0 decides.

    Args:
        loss_of: the loss of the model on ``trial_images`` images, in the precision of the given run.
    """
    if precision != "auto" or run.device.type != "cpu" or not has_native_bf16(run.device):
        return run
    trial = copy.deepcopy(model).train()

    def step(bf16: bool) -> None:
        loss_of(trial, replace(run, bf16=bf16)).backward()

    with torch.random.fork_rng(devices=[]):
        measured = _bf16_speedup(step)
    speedup = round(gather_objects(measured, run)[0], 2)
    return replace(run, bf16=speedup >= _WORTHWHILE_SPEEDUP, bf16_speedup=speedup)


def trial_images(size: int) -> int:
    """Images of ``size`` x ``size`` pixels in a step of a trial, at least 2."""
    return max(2, _TRIAL_PIXELS // size**2)


def _bf16_speedup(step: Callable[[bool], object]) -> float:
    """Fastest time of ``step(False)``, in float32, divided by that of ``step(True)``, measured alternately."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    fewest, most = _TRIAL_PAIRS
    for bf16 in seconds:
        step(bf16)  # warm-up: memory is allocated and kernels are chosen
    begun = time.perf_counter()
    for pair in range(most):
        if pair >= fewest and time.perf_counter() - begun > _TRIAL_SECONDS:
            break
        for bf16, taken in seconds.items():
            before = time.perf_counter()
            step(bf16)
            taken.append(time.perf_counter() - before)
    return min(seconds[False]) / min(seconds[True])


def as_begun(run: Runtime, state: dict[str, Any]) -> Runtime:
    """``run`` in the precision of the resumed run of the checkpoint ``state``."""
    if state["bf16"] and not has_native_bf16(run.device):
        warnings.warn(
            f"the run was begun in bf16, which {run.device} can only emulate: it continues, but slowly", stacklevel=2
        )
    return replace(run, bf16=state["bf16"], bf16_speedup=state["bf16_speedup"])


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)


def seed_epoch(seed: int, epoch: int, runtime: Runtime) -> torch.Generator:
    """Seed all random number generators for one epoch and return that of augmentation, on the runtime's device.

    A run resumed at ``epoch`` draws the same numbers as one that was not stopped; each process draws its own.
    """
    words = np.random.SeedSequence([seed, epoch, runtime.rank]).generate_state(2, np.uint64)
    _seed_everything(int(words[0]) % 2**63)
    return torch.Generator(runtime.device).manual_seed(int(words[1]) % 2**63)


def epoch_order(indices: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """``indices`` shuffled; the same in every process."""
    return np.random.default_rng([seed, epoch]).permutation(indices)


def steps_per_epoch(images: int, batch_size: int, runtime: Runtime) -> int:
    """Number of whole batches; one where there are fewer images than ``batch_size``.

    Raises:
        ValueError: the batch size is not divisible by the number of processes.
    """
    batch_size = min(batch_size, images)
    if batch_size % runtime.world_size:
        raise ValueError(f"--batch-size {batch_size} cannot be divided among {runtime.world_size} processes")
    return images // batch_size


def batches(order: NDArray[np.int64], batch_size: int, runtime: Runtime) -> list[NDArray[np.int64]]:
    """The indices of this process in each whole batch of ``order``; a last partial batch is dropped."""
    batch_size = min(batch_size, len(order))
    count = len(order) // batch_size
    return [shard(batch, runtime) for batch in order[: count * batch_size].reshape(count, batch_size)]


def shard(items: Sequence[Item] | NDArray[Any], runtime: Runtime) -> Any:
    """The items of this process: every item in exactly one process, without padding."""
    return items[runtime.rank :: runtime.world_size]


def gather(values: NDArray[Any], runtime: Runtime) -> NDArray[Any]:
    """The rows of all processes in their order before ``shard``; in every process."""
    parts = gather_objects(values, runtime)
    whole = np.empty((sum(len(part) for part in parts), *values.shape[1:]), values.dtype)
    for rank, part in enumerate(parts):
        whole[rank :: runtime.world_size] = part
    return whole


def gather_objects(value: Item, runtime: Runtime) -> list[Item]:
    """``value`` of every process, by rank; in every process."""
    if runtime.world_size == 1:
        return [value]
    parts: list[Any] = [None] * runtime.world_size
    dist.all_gather_object(parts, value)
    return parts


def wait(runtime: Runtime) -> None:
    """Return when every process has reached this call."""
    if runtime.world_size > 1:
        dist.barrier()


def distribute(model: nn.Module, runtime: Runtime) -> nn.Module:
    """``model`` with gradients averaged over the processes; ``model`` itself in a single process."""
    if runtime.world_size == 1:
        return model
    on_gpu = [runtime.device.index] if runtime.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=on_gpu)


def synchronize_buffers(model: nn.Module, runtime: Runtime) -> None:
    """Copy the running statistics of rank 0 to every process; batch normalisation computes them per process."""
    if runtime.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


class Squares:
    """Images whose batches are tensors on one device.

    Args:
        array: uint8 [N, S, S]; may be memory-mapped.
        device: of the batches. All of ``array`` is copied to a GPU now if it takes at most a quarter of its free
            memory.
    """

    def __init__(self, array: NDArray[np.uint8], device: torch.device) -> None:
        self.array = array
        self._device = device
        fits = device.type == "cuda" and array.nbytes <= _RESIDENT_FRACTION * torch.cuda.mem_get_info(device)[0]
        self._resident = torch.from_numpy(np.array(array)).to(device) if fits else None

    def __getitem__(self, indices: NDArray[np.int64]) -> Tensor:
        """uint8 [len(indices), S, S] on the device."""
        if self._resident is None:
            return to_device(self.array[indices], self._device)
        return self._resident[to_device(indices, self._device)]


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """``array`` on ``device``; to a GPU asynchronously, from pinned memory."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
