"""Mask features of the modalities the model depends on, ever more of them (AMCo).

Zhou, Liang, Zheng, Xuan and Kumada, "Adaptive mask co-optimization for modal dependence in
multimodal learning", ICASSP 2023.

    o_m   = mean share of modality m in softmax([z_1; ...; z_M])
    m is dependent if o_m > sigma
    p_t   = sin(pi/2 * min(eps, l_t) / eps)
    f_m  <- mask * f_m / (1 - N / dim_m)  if m is dependent; mask has N = int(p_t dim_m) zeros
    L     = CE(z of the masked features) + sum_m CE(z_m of the whole features)

The mask makes the dependent modality harder to use for the fusion, and its own loss keeps what it
has learnt (the co-optimisation). One mask serves a whole batch; the factor is at most 10, and with
N = dim_m the modality is gone from the fusion until it is no longer dependent.

pace = "progress": l_t is the share of the training that is done, so that masks are whole from
eps = 0.3 of it on. The paper is not open and what l_t is there was not found out; this is ours.
pace = "released": l_t = (steps since the epoch began) * epoch / 10, as in BalanceBenchmark, whose
is the only code found: masks are whole from the fourth step of the second epoch on.

    point            released code                      here
    o_m              of this batch, masked features     of the step before, all ranks, whole
                                                        features
    dependent        once marked so till the end of     by the step before alone
                     the epoch; the first of several
    their own loss   of masked features                 of whole features
    sigma            0.5                                unset: 1 / M, which is 0.5 for two
    mask             512 wide, for any encoder          as wide as the feature
    factor           10 from p_t = 0.9 on               at most 10
    three            two masks hard-coded               any number
    accumulation     micro-batches but the first        the same as without
                     have no mask

Draws are a function of (seed, step, dimension). A zero is neutral only for additive fusions.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scores import counted
from mmtool.methods._task import own_losses, sample_loss
from mmtool.randomness import sample_uniform
from mmtool.types import Batch, GradGroups, GroupName, Modality, Needs, Outputs

STAGE = "forward, objective"
COST = "a loss per modality"

_SALT = 0xA3C0
_LARGEST_FACTOR = 10.0
_SHARE, _COUNT = "share", "share_count"


class Options(schema.Options):
    """When a modality is masked, and how much."""

    sigma: schema.Fraction | None = None
    """Mean share above which a modality is dependent; unset is 1 / number of modalities."""
    eps: schema.Positive = 0.3
    """Value of l_t from which on masks are whole."""
    pace: Literal["progress", "released"] = "progress"
    """What l_t is: the share of training done, or what BalanceBenchmark counts."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """First epoch with masks and losses per modality, counted from 0."""
    end_epoch: int | None = None
    """Last epoch with them, included; unset never ends."""


class Method(BalancingMethod):
    """Adaptive masks and co-optimisation."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any", trains_heads=True, min_modalities=2, tasks=frozenset({"single_label"})
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with no modality known to be dependent."""
        count = len(facts.modalities)
        self._sigma = 1.0 / count if self.options.sigma is None else self.options.sigma
        self._shares = torch.full((count,), torch.nan, device=facts.device)
        return {}

    def edit_features(
        self, features: dict[Modality, Tensor], batch: Batch, ctx: StepContext
    ) -> dict[Modality, Tensor]:
        """Mask the features of dependent modalities."""
        if not self._is_active(ctx.epoch):
            return features
        masked = dict(features)
        for position, modality in enumerate(batch.modalities):
            feature = features[modality]
            dim = feature.shape[1]
            factor = mask(dim, int(self._strength(ctx) * dim), ctx, position, feature.device)
            is_dependent = self._shares[position] > self._sigma  # NaN is not
            masked[modality] = torch.where(is_dependent, feature * factor.to(feature), feature)
        return masked

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss of masked features and a loss of each modality's whole ones."""
        terms = {"fused": sample_loss(outputs.logits, batch)}
        if self._is_active(ctx.epoch):
            terms |= own_losses(outputs, batch)
        return terms

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give each modality's share of the softmax over all logits."""
        logits = torch.stack([outputs.unimodal[m].detach() for m in ctx.modalities])
        return share_sums(logits, counted(batch))

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log the shares and the part of a dependent modality's feature that is masked."""
        del grads
        ctx.log_each("share", ctx.stats[_SHARE] / ctx.stats[_COUNT])
        if self._is_active(ctx.epoch):
            masked = torch.where(self._shares > self._sigma, self._strength(ctx), 0.0)
            ctx.log_each("mask", masked)

    def end_step(self, ctx: StepContext) -> None:
        """Remember this step's shares for the next one, unless it was skipped."""
        shares = (ctx.stats[_SHARE] / ctx.stats[_COUNT]).to(self._shares)
        if ctx.is_skipped is not None:
            shares = torch.where(ctx.is_skipped, self._shares, shares)
        self._shares = shares

    def _strength(self, ctx: StepContext) -> float:
        return strength(progress(ctx, self.options.pace), self.options.eps)

    def _is_active(self, epoch: int) -> bool:
        last = self.options.end_epoch
        return self.options.start_epoch <= epoch and (last is None or epoch <= last)

    def state_dict(self) -> dict[str, Any]:
        """Give the shares of the last step."""
        return {"shares": self._shares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the shares of the last step."""
        self._shares = state["shares"].to(self._shares)


def progress(ctx: StepContext, pace: Literal["progress", "released"]) -> float:
    """Give l_t of a step."""
    if pace == "released":
        since = max(0, ctx.step - ctx.epoch * ctx.steps_per_epoch)
        return since * ctx.epoch / 10
    return ctx.step / max(1, ctx.epochs * ctx.steps_per_epoch)


def strength(length: float, eps: float) -> float:
    """Give p_t, from 0 to 1."""
    return math.sin(math.pi / 2 * min(eps, length) / eps)


def mask(dim: int, num_zeros: int, ctx: StepContext, position: int, device: torch.device) -> Tensor:
    """Give what a feature is multiplied by: so many zeros, the rest scaled up; [dim]."""
    if num_zeros >= dim:
        return torch.zeros(dim, device=device)
    index = torch.arange(dim, device=device)
    draws = sample_uniform(index, ctx.generator.initial_seed(), _SALT, position)
    order = draws.argsort(stable=True).argsort()  # place of each dimension, without repeats
    factor = min(_LARGEST_FACTOR, dim / (dim - num_zeros))
    return torch.where(order >= num_zeros, factor, 0.0)


def share_sums(logits: Tensor, has: Tensor) -> dict[str, Tensor]:
    """Give sums of shares in the joint softmax and sample counts; [modality] each.

    `logits` is [modality, batch, class], `has` [batch, modality]. A sample counts for the
    modalities it has, if it has two or more: with one there is nothing to share.
    """
    exact = logits if logits.dtype == torch.float64 else logits.float()
    sizes = exact.logsumexp(2).T  # [batch, modality]
    counts = has & (has.sum(1, keepdim=True) > 1)
    shares = torch.where(has, sizes, -torch.inf).softmax(1)
    return {
        _SHARE: torch.where(counts, shares, 0.0).sum(0),
        _COUNT: counts.sum(0, dtype=exact.dtype),
    }
