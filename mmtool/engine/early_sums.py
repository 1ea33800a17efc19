"""Gradient sums that begin during the backward pass, a group at a time.

Every rank begins the groups in the same order, those whose gradients are ready first in a usual
backward pass leading: fusion, then the modalities from the last to the first. A group waits for its
turn, and what backward never reached enters as zeros, so that nothing that happens on one rank
alone decides which collective is next.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from mmtool.engine.distributed import Ranks
from mmtool.types import PROBE_GROUP, GroupName


class EarlySums:
    """Sums over ranks that run beside backward; armed for one backward pass at a time."""

    def __init__(self, ranks: Ranks, groups: Mapping[GroupName, Sequence[Parameter]]) -> None:
        self.is_armed = False
        self._ranks = ranks
        order = [name for name in reversed(list(groups)) if name != PROBE_GROUP and groups[name]]
        order += [name for name in groups if name == PROBE_GROUP and groups[name]]
        self._buckets = [(name, list(groups[name])) for name in order]
        self._bucket_of = {
            id(p): number for number, (_, members) in enumerate(self._buckets) for p in members
        }
        self._missing: list[int] = []
        self._begun: list[tuple[Tensor, Callable[[], None]]] = []
        for _, members in self._buckets:
            for parameter in members:
                parameter.register_post_accumulate_grad_hook(self._note)

    def arm(self) -> None:
        """Watch the next backward pass, which must be the last one before `finish`."""
        self.is_armed = True
        self._missing = [len(members) for _, members in self._buckets]
        self._begun = []

    def begin_rest(self) -> None:
        """Begin the sums whose gradients never became complete."""
        while len(self._begun) < len(self._buckets):
            self._begin_next()

    def finish(self) -> None:
        """Wait for all sums and put them where gradients exist."""
        for (_, members), (flat, wait) in zip(self._buckets, self._begun, strict=True):
            wait()
            pieces = flat.split([p.numel() for p in members])
            pairs = [
                (in_memory_order(p, p.grad), q)
                for p, q in zip(members, pieces, strict=True)
                if p.grad is not None
            ]
            if pairs:
                sums = [piece.view_as(grad) for grad, piece in pairs]
                torch._foreach_copy_([grad for grad, _ in pairs], sums)
        self.is_armed = False
        self._begun = []

    def _note(self, parameter: Tensor) -> None:
        if not self.is_armed:
            return
        self._missing[self._bucket_of[id(parameter)]] -= 1
        while len(self._begun) < len(self._buckets) and self._missing[len(self._begun)] == 0:
            self._begin_next()

    def _begin_next(self) -> None:
        name, members = self._buckets[len(self._begun)]
        parts = [
            in_memory_order(p, torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
            for p in members
        ]
        flat = torch.cat(parts)
        self._begun.append((flat, self._ranks.begin_sum(flat, name)))


def in_memory_order(parameter: Parameter, gradient: Tensor) -> Tensor:
    """Give a view of a gradient that flattens without a copy where both lie in memory alike.

    Only the parameter decides, whose layout is the same on all ranks.
    """
    if parameter.dim() == 4 and not parameter.is_contiguous():
        return gradient.permute(0, 2, 3, 1)
    return gradient
