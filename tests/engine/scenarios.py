"""Methods that do to the step what breaks other ways to synchronise gradients.

Every one of them gives the same weights on any number of ranks if gradients are summed rightly.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from mmtool.config.schema import Options as BaseOptions
from mmtool.engine.grads import Gradients
from mmtool.methods._base import BalancingMethod, EpochContext, StepContext
from mmtool.methods._task import sample_loss
from mmtool.types import FUSION_GROUP, Batch, Modality, Needs, Outputs, SubStep

Features = dict[Modality, Tensor]


class Options(BaseOptions):
    scenario: Literal[
        "plain", "frozen", "dropped", "dropped_on_one", "zeroed_on_one", "sub_steps", "per_loss",
        "restarted", "modulated", "skewed", "disordered",
    ]  # fmt: skip


class _Frozen(BalancingMethod):
    """One encoder gets no gradient for a while."""

    def edit_features(self, features: Features, batch: Batch, ctx: StepContext) -> Features:
        if 3 <= ctx.step < 6:
            features["audio"] = features["audio"].detach()
        return features


class _Dropped(BalancingMethod):
    def edit_features(self, features: Features, batch: Batch, ctx: StepContext) -> Features:
        if ctx.step % 2:
            features["image"] = features["image"].detach()
        return features


class _OnOne(BalancingMethod):
    """Something happens in one half of each batch: on one of two ranks, or in one micro-batch."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._step, self._part = -1, 0
        self._rank = int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else None

    def edit_features(self, features: Features, batch: Batch, ctx: StepContext) -> Features:
        if self._rank is not None:
            self._part = self._rank
        else:
            self._part = self._part + 1 if ctx.step == self._step else 0
            self._step = ctx.step
        return self.change(features) if self._part == 0 else features

    def change(self, features: Features) -> Features:
        features["image"] = features["image"].detach()
        return features


class _ZeroedOnOne(_OnOne):
    def change(self, features: Features) -> Features:
        features["image"] = features["image"] * 0.0
        return features


class _SubSteps(BalancingMethod):
    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        return [SubStep((m,), (m, FUSION_GROUP), m) for m in ctx.modalities]


class _PerLoss(BalancingMethod):
    needs = Needs(unimodal="decompose", trains_heads=True, term_gradients=("fused", "unimodal"))

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        each = [sample_loss(z, batch) for z in outputs.unimodal.values()]
        return {
            "fused": sample_loss(outputs.logits, batch),
            "unimodal": torch.stack(each).sum(0),
        }

    def combine(
        self, group: str, gradients: Mapping[str, Sequence[Tensor]], ctx: StepContext
    ) -> Sequence[Tensor]:
        pairs = zip(gradients["fused"], gradients["unimodal"], strict=True)
        return [f + u * torch.where((f * u).sum() > 0, 1.0, 0.1) for f, u in pairs]


class _Restarted(BalancingMethod):
    def edit_parameters(
        self, parameters: Mapping[str, Sequence[Tensor]], ctx: EpochContext
    ) -> None:
        for value in parameters["audio"]:
            value.mul_(0.25)


class _Modulated(BalancingMethod):
    needs = Needs(scales_gradients=True)

    def edit_grads(self, gradients: Gradients, ctx: StepContext) -> None:
        ratio = gradients.norm("image") / (gradients.norm("audio") + 1e-6)
        gradients.scale("image", torch.where(ratio > 1, 0.3, 1.0))
        gradients.scale_update("audio", torch.tensor(0.5))


class _Skewed(BalancingMethod):
    """A number of one rank alone reaches a weight."""

    def edit_parameters(
        self, parameters: Mapping[str, Sequence[Tensor]], ctx: EpochContext
    ) -> None:
        if os.environ.get("RANK") == "1":
            parameters["image"][0].add_(1e-3)


class _Disordered(BalancingMethod):
    """One rank believes that it has issued another collective."""

    def end_step(self, ctx: StepContext) -> None:
        if os.environ.get("RANK") == "1" and ctx.step == 2:
            PLANTED[0].add("sum", "planted", torch.zeros(1))


PLANTED: list = []
_SCENARIOS = {
    "plain": BalancingMethod,
    "frozen": _Frozen,
    "dropped": _Dropped,
    "dropped_on_one": _OnOne,
    "zeroed_on_one": _ZeroedOnOne,
    "sub_steps": _SubSteps,
    "per_loss": _PerLoss,
    "restarted": _Restarted,
    "modulated": _Modulated,
    "skewed": _Skewed,
    "disordered": _Disordered,
}


class Method(BalancingMethod):
    """Stands for the scenario its options name."""

    def __new__(cls, options: Options) -> BalancingMethod:
        return _SCENARIOS[options.scenario](options)
