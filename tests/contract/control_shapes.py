"""Minimal methods, one per control shape.

alternating   several sub-steps per batch on disjoint groups (as MLA)
per_term      gradients of several losses combined per group (as MMPareto)
epochal       statistics over an epoch that change data and parameters (as Re-learning, SMV)
penalised     a module of its own, and a penalty on parameters beside the losses of samples
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from mmtool.config.schema import Options as BaseOptions
from mmtool.methods._base import (
    BalancingMethod,
    DataPlan,
    EpochContext,
    ModelFacts,
    StepContext,
)
from mmtool.methods._task import sample_loss
from mmtool.types import FUSION_GROUP, Batch, Needs, Outputs, SubStep


class Options(BaseOptions):
    shape: Literal["alternating", "per_term", "epochal", "penalised"]


class _Alternating(BalancingMethod):
    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        return [SubStep((m,), (m, FUSION_GROUP), m) for m in ctx.modalities]


class _PerTerm(BalancingMethod):
    needs = Needs(unimodal="decompose", trains_heads=True, term_gradients=("fused", "unimodal"))

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        each = [sample_loss(z, batch) for z in outputs.unimodal.values()]
        fused = sample_loss(outputs.logits, batch)
        return {"fused": fused, "unimodal": torch.stack(each).sum(0)}

    def combine(
        self, group: str, gradients: Mapping[str, Sequence[Tensor]], ctx: StepContext
    ) -> Sequence[Tensor]:
        # A nonlinear rule: exact over ranks only if both operands were reduced first.
        pairs = zip(gradients["fused"], gradients["unimodal"], strict=True)
        return [f + u * torch.where((f * u).sum() > 0, 1.0, 0.1) for f, u in pairs]


class _Epochal(BalancingMethod):
    needs = Needs(epoch_statistics=frozenset({"features"}), snapshots=frozenset({"initial"}))

    def plan_epoch(self, ctx: EpochContext) -> DataPlan | None:
        found = ctx.collect("features")
        strength = found["motion"].norm(dim=1)
        index = torch.cat([torch.arange(len(strength)), strength.argsort()[:9]])
        keep = torch.ones(len(index), len(ctx.modalities), dtype=torch.bool)
        keep[-9:, 0] = False
        weight = torch.linspace(0.5, 1.5, len(index))
        return DataPlan(index, keep, weight)

    def edit_parameters(
        self, parameters: Mapping[str, Sequence[Tensor]], ctx: EpochContext
    ) -> None:
        start = parameters["audio@initial"]
        for value, initial in zip(parameters["audio"], start, strict=True):
            value.lerp_(initial, 0.3)


class _Penalised(BalancingMethod):
    def setup(self, facts: ModelFacts) -> Mapping[str, torch.nn.Module]:
        self._own = torch.nn.Linear(4, 1)
        return {"audio": self._own}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        own = torch.stack([p.square().sum() for p in self._own.parameters()]).sum()
        return {"fused": sample_loss(outputs.logits, batch), "size": own}


_SHAPES = {
    "alternating": _Alternating,
    "per_term": _PerTerm,
    "epochal": _Epochal,
    "penalised": _Penalised,
}


class Method(BalancingMethod):
    """Stands for the shape its options name."""

    def __new__(cls, options: Options) -> BalancingMethod:
        return _SHAPES[options.shape](options)
