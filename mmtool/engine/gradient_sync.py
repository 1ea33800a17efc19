"""The explicit synchronisation of gradients over ranks, and the comparison of replicas.

Synchronisation happens after the last backward of a step, so several backwards, frozen encoders and
modalities that are absent on one rank are all exact; PyTorch's DDP is silently wrong with several
backwards on one forward.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from mmtool.engine.distributed import Ranks
from mmtool.engine.early_sums import EarlySums, in_memory_order
from mmtool.engine.grads import NamedParameters
from mmtool.errors import Bug
from mmtool.types import GroupName


class GradientSync:
    """Sums gradients and step statistics over ranks, once per optimiser step.

    Parameters `summed_elsewhere` come with gradients that are sums over ranks already. With
    `overlap` the sums of one group begin while backward still computes those of the next.
    """

    def __init__(
        self,
        ranks: Ranks,
        groups: Mapping[GroupName, NamedParameters],
        *,
        summed_elsewhere: Sequence[Parameter] = (),
        overlap: bool = False,
    ) -> None:
        self.ranks = ranks
        self._parameters = [p for members in groups.values() for _, p in members]
        skipped = {id(p) for p in summed_elsewhere}
        self._replicated = {
            name: [p for _, p in members if id(p) not in skipped]
            for name, members in groups.items()
        }
        is_overlapped = overlap and ranks.world > 1
        self._early = EarlySums(ranks, self._replicated) if is_overlapped else None

    def begin(self) -> None:
        """Say that the backward pass that follows is the last one of this sub-step."""
        if self._early is not None:
            self._early.arm()

    def join(self) -> None:
        """Take part in the sums of a backward pass that this rank could not finish."""
        if self._early is not None and not self._early.is_armed:
            self._early.arm()

    def agree(
        self,
        flags: Sequence[bool],
        absent: frozenset[int] = frozenset(),
        coming: frozenset[int] = frozenset(),
    ) -> list[bool]:
        """Exchange which gradients exist and give each flag or-ed over ranks; then comes `sum_`.

        A parameter that has a gradient on any rank gets zeros where it has none; one that has none
        anywhere keeps None, so that the optimiser leaves it alone. Parameters whose ids are in
        `absent` count as having none here, those in `coming` get one before `sum_`.
        """
        if self.ranks.world == 1:
            return list(flags)
        if self._early is not None and self._early.is_armed:
            self._early.begin_rest()
        has_gradient, raised = self._agree(flags, absent)
        for parameter, wanted in zip(self._parameters, has_gradient, strict=True):
            if id(parameter) in coming:
                continue
            if not wanted:
                parameter.grad = None
            elif parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return raised

    def sum_(self, sums: Mapping[str, Tensor]) -> None:
        """Sum gradients and `sums` in place over ranks."""
        if self.ranks.world == 1:
            return
        self.ranks.sum_many_([sums[name] for name in sorted(sums)], "statistics")
        if self._early is not None and self._early.is_armed:
            self._early.finish()
            return
        for name, parameters in self._replicated.items():
            whole = [in_memory_order(p, p.grad) for p in parameters if p.grad is not None]
            self.ranks.sum_many_(whole, name)

    def drop(self) -> None:
        """End a sub-step whose gradients are not wanted, instead of `sum_`."""
        if self._early is not None and self._early.is_armed:
            self._early.finish()

    def _agree(
        self, flags: Sequence[bool], absent: frozenset[int]
    ) -> tuple[list[bool], list[bool]]:
        """Exchange which gradients exist and which flags are raised, and compare the traces."""
        trace = self.ranks.trace.value
        exists = [p.grad is not None and id(p) not in absent for p in self._parameters]
        control = torch.tensor([*exists, *map(bool, flags), trace, -trace], dtype=torch.int64)
        self.ranks.max_(control, "control")
        highest, lowest = int(control[-2]), -int(control[-1])
        if highest != lowest:
            raise Bug(
                "ranks issued different collectives, or in another order",
                why="the sums since then are wrong on every rank",
                fix="report this with the run directory",
            )
        agreed = [bool(value) for value in control[:-2].tolist()]
        return agreed[: len(exists)], agreed[len(exists) :]


@torch.no_grad()
def check_replicas(
    ranks: Ranks,
    groups: Mapping[GroupName, NamedParameters],
    local: Sequence[Parameter] = (),
) -> None:
    """Compare parameter checksums over ranks and fail naming the first that differs.

    `local` parameters are shards, which differ by design.
    """
    skipped = {id(p) for p in local}
    named = [(n, p) for members in groups.values() for n, p in members if id(p) not in skipped]
    if ranks.world == 1 or not named:
        return
    sums = torch.stack([p.double().sum() for _, p in named] + [p.double().norm() for _, p in named])
    lowest, highest = ranks.min_(sums.clone()), ranks.max_(sums.clone())
    # NaN is unequal to itself, but it is no difference between ranks.
    differs = ((lowest != highest) & ~(lowest.isnan() & highest.isnan())).tolist()
    for position, is_different in enumerate(differs):
        if is_different:
            raise Bug(
                f"ranks hold different values of parameter {named[position % len(named)][0]!r}",
                why="replicas must stay equal; a rank-local number reached the weights",
                fix="report this with the run directory",
            )
