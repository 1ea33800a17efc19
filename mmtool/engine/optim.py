"""Optimisers and learning-rate schedules."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from mmtool.config.schema import TrainConfig

_PROBE_LR = 3e-3


def build_optimizer(config: TrainConfig, parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
    """Give the fused optimiser of the recipe; fused ones can skip a bad step on the device."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
    optimizer = torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )
    if config.momentum > 0:
        # torch creates the buffers uninitialised on the first step; a skipped first step would
        # leave them so. Zeros give the same first update.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def build_probe_optimizer(parameters: Sequence[Parameter]) -> torch.optim.Optimizer | None:
    """Give the optimiser of the detached linear probes."""
    return torch.optim.AdamW(parameters, lr=_PROBE_LR, fused=True) if parameters else None


def step_if_finite(optimizer: torch.optim.Optimizer, is_bad: Tensor) -> None:
    """Update the parameters, or leave everything as it is where `is_bad` (0-d) is not zero."""
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
    optimizer.step()


def reset_state(optimizer: torch.optim.Optimizer, parameters: Sequence[Parameter]) -> None:
    """Forget the moments of some parameters, as a new optimiser would begin."""
    for parameter in parameters:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor):
                value.zero_()


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Give every slot the memory layout of its parameter.

    Fused optimisers walk memory, not indices: a slot in another layout meets the wrong weights.
    """
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter).copy_(value)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Give the learning rate of a step, a pure function of the step."""
    epoch = step / steps_per_epoch
    if epoch < config.warmup_epochs:
        return config.lr * (step + 1) / (config.warmup_epochs * steps_per_epoch + 1)
    if config.schedule == "step":
        decays = int(epoch) // config.step_epochs
        return config.lr * float(config.step_factor**decays)
    if config.schedule == "cosine":
        rest = max(config.epochs - config.warmup_epochs, 1e-9)
        progress = min((epoch - config.warmup_epochs) / rest, 1.0)
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value
