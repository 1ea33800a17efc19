"""torch's DistributedDataParallel behind the same step: `launch.sync = "ddp"`.

An escape hatch for those who want it compared. DDP reduces inside of one backward pass: a second
one on the same forward pass leaves ranks with different gradients and no error (pytorch #47260), so
methods that need the gradients of several losses are refused. Probes, whose losses have a backward
pass of their own, stay outside of it and are synchronised as usual.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mmtool.engine.distributed import Ranks
from mmtool.engine.grads import NamedParameters
from mmtool.types import PROBE_GROUP, GroupName

Losses = dict[str, Tensor]


class _Trained(nn.Module):
    """The parameters that DDP watches; its forward pass is whatever the step computes."""

    def __init__(self, parameters: list[Parameter]) -> None:
        super().__init__()
        self.watched = nn.ParameterList(parameters)

    def forward(self, compute: Callable[[], Losses]) -> Losses:
        """Compute the losses."""
        return compute()


class Replicas:
    """The trained parameters under DDP; with one rank, or another way to synchronise, nothing."""

    def __init__(
        self, groups: Mapping[GroupName, NamedParameters], ranks: Ranks, *, is_used: bool
    ) -> None:
        self.parameters: list[Parameter] = []
        self._world = ranks.world
        self._wrapped: Any = None
        if not is_used or ranks.world == 1:
            return
        self.parameters = [p for name in groups if name != PROBE_GROUP for _, p in groups[name]]
        self._wrapped = torch.nn.parallel.DistributedDataParallel(
            _Trained(self.parameters), find_unused_parameters=True, broadcast_buffers=False
        )

    def losses(self, compute: Callable[[], Losses]) -> Losses:
        """Compute losses, under DDP where it is used."""
        if self._wrapped is None:
            return compute()
        found: Losses = self._wrapped(compute)
        return found

    def unsynchronised(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Give the context of a micro-batch: only the last one's backward pass communicates."""
        if self._wrapped is None or is_last:
            return nullcontext()
        context: AbstractContextManager[Any] = self._wrapped.no_sync()
        return context

    def as_sums(self) -> None:
        """Turn DDP's mean over ranks into the sum that the step is written for."""
        if self._wrapped is not None:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_mul_(gradients, float(self._world))
