"""What a training moves, step by step: the weights, their average, the optimizer and its schedule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxr import runtime

Network = TypeVar("Network", bound=nn.Module)


@dataclass
class Learner(Generic[Network]):
    """A network in training, and what a checkpoint must hold for it to go on.

    ``stepper`` is the network as training calls it: wrapped where several processes share the work.
    """

    model: Network
    stepper: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def state(self) -> dict[str, Any]:
        """For ``checkpoints.save``."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` saved."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def with_average(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that holds ``Learner.state``, with the average of the weights as its model."""
    weights = dict(state["average"])
    del weights["n_averaged"]
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return {**state, "model": weights}


def prepare(
    model: Network,
    run: runtime.Runtime,
    *,
    lr: float,
    weight_decay: float,
    average_share: float,
    total_steps: int,
    compiled: Iterable[nn.Module] = (),
) -> Learner[Network]:
    """``model`` on its device with AdamW, a one-cycle schedule and a running average of its weights.

    The schedule (Smith 2018, arXiv:1708.07120) reaches in twenty epochs from scratch what constant rates need many more
    for; the average smooths the last steps, so that the choice of an epoch depends less on chance.

    Args:
        average_share: the average reaches back over this share of all steps, so that a short run does not average in
            the weights of its start.
        compiled: the parts of ``model`` that torch.compile takes.
    """
    model = model.to(run.device).to(memory_format=torch.channels_last)
    decay = 1 - 1 / max(2.0, average_share * total_steps)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    groups = no_decay_groups(model, weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=run.device.type != "mps")
    rise = 0.25 if total_steps != 4 else 0.5  # torch divides by zero where the rise is one step long
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=total_steps, pct_start=rise)
    for part in compiled:  # in place, and after the average was copied
        part.compile()
    return Learner(model, runtime.distribute(model, run), average, optimizer, scheduler)


def no_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: weight decay for matrices and kernels, none for biases and normalisation (1-d tensors)."""
    kernels = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
