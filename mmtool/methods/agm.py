"""Scale the gradient of what each modality contributes to the logits, by its lead in loss (AGM).

Li, Li, Hu, Lei, Li and Zhang, "Boosting multi-modal model performance with adaptive gradient
modulation", ICCV 2023.

    m_m   = Shapley value of modality m, v(S) = F(S) the logits with the inputs of all others zero,
            v({}) = 0;  two modalities: m_a = (F(a,v) - F(0,v) + F(a,0)) / 2
    s_m   = mean over the samples of -log max(softmax(m_m)_y, 1e-8)
    r_m   = exp(mean of the others' s - s_m)
    tau_m = the same of the averages of s over all steps before this one; 1 at the first
    c_m   = exp(alpha min(tau_m - r_m, cap))
    L     = CE(sum_m m_m),   and the gradient that enters m_m is multiplied by c_m

The m_m add up to the fused logits, so the loss itself is that of joint training. A modality that
leads more than it used to (r > tau) is slowed, one that falls behind is sped up. Encoders run once:
the fusion is late, so a coalition costs a fusion of features, 2^M - 1 of them; the feature of a
zero input comes from one blank sample, or of a ragged modality from one of each length. With more
than `exact_up_to` modalities the mean over `orders` random orders per step stands for the sum over
all of them, M - 1 fusions each; the parts still add up to the fused logits.

    paper               | released code               | here
    coefficients of the | as in the paper             | of the step before: they are means over all
      step itself       |                             |   ranks and micro-batches, which are known
                        |                             |   only after the backward pass
    not said            | other inputs zero, whole    | the same features as in the fused logits;
                        |   net in evaluation mode    |   only the blank one in evaluation mode
    no bound            | tau - r at most 10; without | cap = 10, unset for none
                        |   a bound in one script     |
    not said            | gradients also through the  | blank_gradient = true; with unequal factors
                        |   zero inputs               |   they no longer cancel, and at a large
                        |                             |   learning rate may run away; false stops it
    not said            | if any head gradient > 1,   | clip_above unset; 1.0 does the same, with
                        |   total norm clipped to 1   |   the fusion as the head
    one average         | one count of steps          | one count per modality, of steps that had it
    every modality      | as in the paper             | s over the samples that have the modality

Of a multi-label task or a regression the score of a sample, from 0 to 1, takes the place of the
probability of its class.
"""

import random
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scores import counted
from mmtool.methods._task import sample_loss, sample_score
from mmtool.methods._valuation import (
    Coalition,
    Weights,
    attributed,
    exact_weights,
    only,
    sampled_weights,
)
from mmtool.randomness import fold
from mmtool.types import FUSION_GROUP, Batch, GradGroups, GroupName, Modality, Needs, Outputs

STAGE = "forward, gradient"
COST = "2^M - 1 fusions, a blank sample (ragged: a blank batch)"

_SMALLEST_SCORE = 1e-8
_SUM, _COUNT = "response_loss", "response_count"
_SALT_ORDER = 0xA63


class Options(schema.Options):
    """Strength of the modulation, its bounds, and how coalitions are chosen."""

    alpha: schema.Positive = 1.5
    """Strength; the authors use 1.5 for CREMA-D and 2.5 for AV-MNIST."""
    cap: schema.Positive | None = 10.0
    """Largest tau - r that counts; unset for no bound."""
    clip_above: schema.Positive | None = None
    """Clip the norm of all gradients to 1 where one of the fusion's is larger than this."""
    blank_gradient: bool = True
    """Let gradients reach the encoders through the features of zero inputs too."""
    exact_up_to: Annotated[int, Field(ge=2, le=8)] = 4
    """Most modalities for which all coalitions are fused."""
    orders: Annotated[int, Field(ge=1)] = 4
    """Random orders per step where there are more modalities."""


class Method(BalancingMethod):
    """Adaptive gradient modulation."""

    needs: ClassVar[Needs] = Needs(subsets="blank", min_modalities=2)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with no average and every coefficient 1."""
        num_modalities = len(facts.modalities)
        self._means = torch.full((num_modalities,), torch.nan, device=facts.device)
        self._steps = torch.zeros(num_modalities, device=facts.device)
        self._factors = torch.ones(num_modalities, device=facts.device)
        self._responses: Tensor | None = None
        is_exact = num_modalities <= self.options.exact_up_to
        self._exact = exact_weights(num_modalities) if is_exact else None
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss, whose gradient reaches each contribution multiplied."""
        weights = self._exact or orders_of_step(ctx, self.options.orders)
        absent = outputs.absent
        if not self.options.blank_gradient:
            absent = {m: feature.detach() for m, feature in absent.items()}
        responses = attributed(_fused(outputs, absent, batch, weights), weights)
        self._responses = responses.detach()
        return {"fused": sample_loss(modulated(outputs.logits, responses, self._factors), batch)}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give summed losses of the contributions, and how many samples they are of."""
        del outputs, ctx
        assert self._responses is not None, "losses come before statistics"
        mask = counted(batch)
        each = torch.stack([sample_score(z, batch) for z in self._responses], dim=1)
        sums = torch.where(mask, -each.clamp_min(_SMALLEST_SCORE).log(), 0.0).sum(0)
        return {_SUM: sums, _COUNT: mask.sum(0, dtype=sums.dtype)}

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log what this step used, and clip if the options say so."""
        ctx.log_each("coef", self._factors)
        ctx.log_each("response_loss", ctx.stats[_SUM] / ctx.stats[_COUNT])
        if self.options.clip_above is not None:
            _clip(grads, self.options.clip_above)

    def end_step(self, ctx: StepContext) -> None:
        """Move the averages and set the coefficients of the next step."""
        now = ctx.stats[_SUM].float() / ctx.stats[_COUNT].float()
        options = self.options
        factors = coefficients(relative(now), relative(self._means), options.alpha, options.cap)
        means, steps = averaged(self._means, self._steps, now)
        assert ctx.is_skipped is not None, "filled before end_step"
        self._factors = torch.where(ctx.is_skipped, self._factors, factors)
        self._means = torch.where(ctx.is_skipped, self._means, means)
        self._steps = torch.where(ctx.is_skipped, self._steps, steps)

    def state_dict(self) -> dict[str, Any]:
        """Give the averages and the coming coefficients."""
        return {"means": self._means, "steps": self._steps, "factors": self._factors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the averages and the coming coefficients."""
        self._means = state["means"].to(self._means)
        self._steps = state["steps"].to(self._steps)
        self._factors = state["factors"].to(self._factors)


def _fused(
    outputs: Outputs, absent: Mapping[Modality, Tensor], batch: Batch, weights: Weights
) -> dict[Coalition, Tensor]:
    assert outputs.fuse is not None, "the method asks for it"
    everything = tuple(range(len(batch.modalities)))
    return {
        chosen: outputs.logits
        if chosen == everything
        else outputs.fuse(only(outputs.features, chosen, batch.modalities, absent))
        for chosen in weights
    }


def _clip(grads: GradGroups, above: float) -> None:
    head = grads.tensors(FUSION_GROUP)
    if not head:
        return
    largest = torch.stack([g.abs().max() for g in head]).max()
    total = torch.stack([grads.norm(name) for name in grads.names()]).square().sum().sqrt()
    factor = clip_factor(largest, total, above)
    for name in grads.names():
        grads.scale(name, factor)


def orders_of_step(ctx: StepContext, num_orders: int) -> dict[Coalition, tuple[float, ...]]:
    """Give weights of some random orders of the modalities, the same on every rank."""
    source = random.Random(fold(ctx.generator.initial_seed(), _SALT_ORDER))
    everything = range(len(ctx.modalities))
    return sampled_weights([source.sample(everything, len(everything)) for _ in range(num_orders)])


def modulated(logits: Tensor, responses: Tensor, factors: Tensor) -> Tensor:
    """Give the logits unchanged, their gradient entering each contribution times its factor."""
    shape = (-1, *[1] * (responses.dim() - 1))
    return logits.detach() + (factors.view(shape) * (responses - responses.detach())).sum(0)


def relative(losses: Tensor) -> Tensor:
    """Give exp(mean of the others' loss - own loss), 1 where either is unknown; [modality]."""
    known = ~losses.isnan()
    value = torch.where(known, losses, 0.0)
    others = (~torch.eye(len(losses), dtype=torch.bool, device=losses.device)) & known
    num_others = others.sum(1)
    mean_of_others = torch.where(others, value.unsqueeze(0), 0.0).sum(1) / num_others.clamp_min(1)
    return torch.where(known & (num_others > 0), torch.exp(mean_of_others - value), 1.0)


def coefficients(now: Tensor, before: Tensor, alpha: float, cap: float | None) -> Tensor:
    """Give c from how far ahead each modality is, and was on average; [modality]."""
    gain = before - now
    return torch.exp(alpha * (gain if cap is None else gain.clamp(max=cap)))


def averaged(means: Tensor, steps: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Give the averages with one more step in them, and the numbers of steps; [modality] each."""
    known = ~now.isnan()
    counts = steps + known
    before = torch.where(steps > 0, means, 0.0)
    mean = (before * steps + torch.where(known, now, 0.0)) / counts.clamp_min(1)
    return torch.where(known, mean, means), counts


def clip_factor(largest: Tensor, norm: Tensor, above: float) -> Tensor:
    """Give 1 / norm where the largest entry is above the bound and the norm above 1, else 1."""
    return torch.where((largest > above) & (norm > 1), 1 / norm.clamp_min(1), 1.0)
