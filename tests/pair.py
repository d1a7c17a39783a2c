"""Two processes that know each other as those of torchrun do, and start at once."""

import os
import socket
from collections.abc import Callable

import torch
from killing import CONTEXT


def run_in_two(work: Callable[..., object], *arguments: object) -> None:
    """``work(rank, *arguments)`` in both; what it raises in one is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = CONTEXT.get_start_method()
    torch.multiprocessing.start_processes(_begin, (port, work, arguments), nprocs=2, start_method=method)


def _begin(rank: int, port: int, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    work(rank, *arguments)
