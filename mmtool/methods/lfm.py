"""Fit the labels and close the gap between modalities, weighed anew every epoch (LFM).

Yang et al., "Facilitating multimodal classification via dynamically learning modality gap",
NeurIPS 2024.

    L = 2 (a CE(mean_m z_m) + (1 - a) mean over pairs of JS(p_m, p_n))

schedule = "heuristic": a rises evenly from 0.2046 in the first epoch to 0.95 in the last. The start
is that of the authors' polynomial of degree 5, whose other coefficients are not in the paper; the
straight line is ours.
schedule = "learned": a is moved once per epoch so as to lower the loss on held-out samples after
one step. The losses enter that step linearly, so no second derivative is needed:

    d/d a_k CE_held(theta - eta sum_k a_k grad T_k) = -eta <grad CE_held, grad T_k>
    a <- clamp(a + rate * d, 0.05, 0.95)
    d  = <g, t_fused - t_gap> / (|g| (|t_fused| + |t_gap|))         in [-1, 1]

with g the gradient of CE on `samples` held-out samples, t_k that of T_k on as many of the training
split. d is the derivative along a_fused + a_gap = 1, freed of eta and of the length of gradients,
so that `rate` means the same for any model.

    point            paper                released code                 here
    gap              contrastive loss     JS made of KL(mean || p),     JS;
                     between modalities   the arguments exchanged       divergence = "reversed"
    learned          the derivative of    mean over the first weight    the derivative, with first
                     the held-out loss    tensor of (second derivative  derivatives only; the
                                          of L) times (grad of CE):     released number is not
                                          neither its sign nor size     offered, it needs second
                                          follows from the paper's      derivatives
    a moves by       rate * derivative    1e-4 times that mean, which   rate * d
                                          leaves a where it was
    rate             -                    halved every 20 epochs        the same
    held-out data    a validation set     8 samples of train;           split val;
                                          BalanceBenchmark: test        held_out = "train": samples
                                                                        of it, apart from the others
    start, learned   -                    (0.05, 0.95);                 fused_weight = 0.05
                                          BalanceBenchmark (0.95, 0.05)
    prediction       mean of logits       mean of logits                mean over the modalities a
                                                                        sample has

A pair counts for samples that have both of it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import (
    BalancingMethod,
    EpochContext,
    GradientProducts,
    ModelFacts,
    StepContext,
)
from mmtool.methods._task import sample_loss
from mmtool.types import Batch, GroupName, Needs, Outputs

STAGE = "objective, schedule, inference"
COST = "a loss per pair; learned: gradients on a few samples before each epoch"

FUSED, GAP = "fused", "gap"
_LEAST, _MOST = 0.05, 0.95
_FIRST = 0.2046
_SCALE = 2.0
_HALVED_EVERY = 20

Divergence: TypeAlias = Literal["js", "reversed"]


class Options(schema.Options):
    """How the weight of the fused loss comes about."""

    schedule: Literal["heuristic", "learned"] = "heuristic"
    """A fixed rise over the epochs, or steps that lower a held-out loss."""
    divergence: Divergence = "js"
    """Jensen-Shannon divergence, or what the released code computes in its place."""
    fused_weight: Annotated[float, Field(ge=_LEAST, le=_MOST)] = _LEAST
    """Weight of the fused loss that "learned" starts from."""
    rate: schema.Positive = 0.1
    """Most that "learned" moves the weight in one epoch, halved every 20 epochs."""
    samples: schema.Count = 64
    """Samples of either split that "learned" compares gradients on."""
    held_out: Literal["val", "train"] = "val"
    """Split of the held-out samples; "train" takes them from the training split itself."""


class Method(BalancingMethod):
    """Weighed label fitting and modality gap."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any", trains_heads=True, min_modalities=2, tasks=frozenset({"single_label"})
    )
    options: Options

    def asked(self) -> Needs:
        """Add what the learned schedule needs."""
        if self.options.schedule == "heuristic":
            return self.needs
        needs_val = self.options.held_out == "val"
        return replace(self.needs, gradient_products=True, held_out=needs_val)

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Begin with the first weight."""
        self._modalities = facts.modalities
        first = _FIRST if self.options.schedule == "heuristic" else self.options.fused_weight
        self._weight = torch.tensor(first, device=facts.device)
        return {}

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Choose the weight of the coming epoch."""
        options = self.options
        if options.schedule == "heuristic":
            value = heuristic_weight(ctx.epoch, ctx.epochs)
            self._weight = torch.full_like(self._weight, value)
            return
        found = ctx.gradient_products("train", options.held_out, options.samples)
        moved = self._weight + rate_at(options.rate, ctx.epoch) * descent(found)
        self._weight = moved.clamp(_LEAST, _MOST).to(self._weight)

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of the mean logits and the gap between modalities."""
        del ctx
        logits = [outputs.unimodal[m] for m in self._modalities]
        fused = sample_loss(mean_logits(logits, batch.present), batch)
        return {FUSED: fused, GAP: gap(logits, batch.present, self.options.divergence)}

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Weigh the two losses."""
        del ctx
        weight = self._weight.to(terms[FUSED].dtype)
        return _SCALE * (weight * terms[FUSED] + (1 - weight) * terms[GAP])

    def end_step(self, ctx: StepContext) -> None:
        """Log the weight of the fused loss."""
        ctx.log("weight", self._weight)

    def predict(self, outputs: Outputs) -> Tensor:
        """Give the mean of the logits of the modalities that a sample has."""
        logits = [outputs.unimodal[m] for m in self._modalities]
        present = outputs.present
        if present is None:
            present = torch.ones_like(logits[0][:, :1], dtype=torch.bool).expand(-1, len(logits))
        return mean_logits(logits, present)

    def state_dict(self) -> dict[str, Any]:
        """Give the weight of this epoch."""
        return {"weight": self._weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the weight back."""
        self._weight = state["weight"].to(self._weight)


def heuristic_weight(epoch: int, epochs: int) -> float:
    """Give the weight of the fused loss: a line from the first epoch to the last."""
    return _FIRST + (_MOST - _FIRST) * min(1.0, epoch / max(1, epochs - 1))


def rate_at(rate: float, epoch: int) -> float:
    """Give the rate of an epoch, halved every 20."""
    return rate * 0.5 ** (epoch // _HALVED_EVERY)


def descent(found: GradientProducts) -> Tensor:
    """Give how fast more weight on the fused loss lowers it on held-out samples, from -1 to 1.

    Zero where a gradient vanishes or is not finite.
    """
    fused, other = found.names.index(FUSED), found.names.index(GAP)
    value = found.products[fused, fused] - found.products[other, fused]
    size = found.second_norms[fused] * (found.first_norms[fused] + found.first_norms[other])
    is_usable = torch.isfinite(value) & torch.isfinite(size) & (size > 0)
    return torch.where(is_usable, value / size, 0.0)


def mean_logits(logits: Sequence[Tensor], present: Tensor) -> Tensor:
    """Give the mean over the modalities a sample has, zeros where it has none; [batch, class]."""
    has = present.T.unsqueeze(2)  # [modality, batch, 1]
    total = torch.where(has, torch.stack([_exact(z) for z in logits]), 0.0).sum(0)
    return total / has.sum(0).clamp_min(1)


def gap(logits: Sequence[Tensor], present: Tensor, divergence: Divergence = "js") -> Tensor:
    """Give the mean divergence over the pairs of modalities that a sample has; [batch]."""
    logs = [_exact(z).log_softmax(1) for z in logits]
    total, count = torch.zeros_like(logs[0][:, 0]), torch.zeros_like(logs[0][:, 0])
    for one, other in itertools.combinations(range(len(logs)), 2):
        both = present[:, one] & present[:, other]
        total = total + torch.where(both, _divergence(logs[one], logs[other], divergence), 0.0)
        count = count + both
    return total / count.clamp_min(1)


def _divergence(log_p: Tensor, log_q: Tensor, divergence: Divergence) -> Tensor:
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    if divergence == "reversed":
        return 0.5 * (log_m.exp() * (2 * log_m - log_p - log_q)).sum(1)
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1)


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
