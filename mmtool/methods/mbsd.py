"""Let the modality that is right about a sample teach the one that is not (MBSD).

Modality-balanced self-distillation, 2023; known here through BalanceBenchmark, which published the
only code found.

    L    = CE(z) + sum_m CE(z_m) + mean over pairs and samples of w_i (KL(p_i^s || p_i^w) + RS_i)
    w_i  = p_i^s[y_i] - p_i^w[y_i]  if either of the pair is right about sample i, else 0
    RS_i = |z_i^a - z_i^b|^2 / C

s is the one of the pair with the larger probability of the true class, w the other. The target
p^s and the weight w_i are constants: the teacher is not drawn towards its student by KL. RS draws
both towards each other. A pair counts for samples that have both of it.

    point            formula              released code                 here
    KL               between              kl_div of the two             the formula;
                     distributions        probabilities of the true     variant = "released"
                                          class, the first one not
                                          a logarithm
    constants        -                    none: weights and targets     target and weight;
                                          get gradients, so that one    variant = "released": none
                                          way to a small loss is a
                                          strong modality made weak
    more than two    -                    mean over pairs, RS of        mean over the pairs a sample
                                          probabilities                 has, RS of logits; variant =
                                                                        "released": probabilities
    sums             mean over samples    a Python loop over samples    one expression
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, Needs, Outputs

STAGE = "objective"
COST = "a loss per modality, two per pair"

Variant: TypeAlias = Literal["paper", "released"]
NonNegative: TypeAlias = Annotated[float, Field(ge=0.0)]


class Options(schema.Options):
    """Weights of the losses and when they count."""

    kl_weight: NonNegative = 1.0
    """Weight of the distillation."""
    rs_weight: NonNegative = 1.0
    """Weight of the squared distance between logits."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """First epoch with distillation, counted from 0; before it the loss is that of joint training.
    """
    end_epoch: int | None = None
    """Last epoch with distillation, included; unset never ends."""
    variant: Variant = "paper"
    """What KL and RS are made of, and whether target and weight are constants."""


class Method(BalancingMethod):
    """Modality-balanced self-distillation."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any", trains_heads=True, min_modalities=2, tasks=frozenset({"single_label"})
    )
    options: Options

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss, one per modality, and the two between modalities."""
        terms = {"fused": sample_loss(outputs.logits, batch)}
        if not self._is_active(ctx.epoch):
            return terms
        logits = [outputs.unimodal[m] for m in batch.modalities]
        terms |= own_losses(outputs, batch)
        kl, rs = distillation(logits, batch.label, batch.present, self.options.variant)
        terms["kl"] = self.options.kl_weight * kl
        terms["rs"] = self.options.rs_weight * rs
        return terms

    def _is_active(self, epoch: int) -> bool:
        last = self.options.end_epoch
        return self.options.start_epoch <= epoch and (last is None or epoch <= last)


def distillation(
    logits: Sequence[Tensor], label: Tensor, present: Tensor, variant: Variant = "paper"
) -> tuple[Tensor, Tensor]:
    """Give w KL and w RS of each sample, means over the pairs of modalities it has; [batch] each.

    `logits` is [batch, class] for each column of `present` [batch, modality].
    """
    exact = [z if z.dtype == torch.float64 else z.float() for z in logits]
    sums = [torch.zeros_like(exact[0][:, 0]) for _ in range(2)]
    count = torch.zeros_like(sums[0])
    for one, other in itertools.combinations(range(len(exact)), 2):
        both = present[:, one] & present[:, other]
        terms = _of_pair(exact[one], exact[other], label, variant, num_modalities=len(exact))
        # A loss of zero must come from zeros, or a value that is not finite would reach the weights
        # through its gradient.
        sums = [s + torch.where(both, t, 0.0) for s, t in zip(sums, terms, strict=True)]
        count = count + both
    return sums[0] / count.clamp_min(1), sums[1] / count.clamp_min(1)


def _of_pair(
    a: Tensor, b: Tensor, label: Tensor, variant: Variant, *, num_modalities: int
) -> tuple[Tensor, Tensor]:
    """Give w KL and w RS of two modalities' logits [batch, class]; [batch] each."""
    column = label.unsqueeze(1)
    log_a, log_b = a.log_softmax(1), b.log_softmax(1)
    right_a = log_a.gather(1, column).squeeze(1).exp()
    right_b = log_b.gather(1, column).squeeze(1).exp()
    is_right = (a.argmax(1) == label) | (b.argmax(1) == label)
    weight = torch.where(is_right, (right_a - right_b).abs(), 0.0)
    if variant == "released":
        strong, weak = torch.maximum(right_a, right_b), torch.minimum(right_a, right_b)
        apart = a - b if num_modalities == 2 else log_a.exp() - log_b.exp()
        kl = torch.special.xlogy(weak, weak) - weak * strong
        return weight * kl, weight * apart.square().mean(1)
    weight = weight.detach()
    is_a = (right_a >= right_b).unsqueeze(1)
    target, student = torch.where(is_a, log_a, log_b).detach(), torch.where(is_a, log_b, log_a)
    kl = (target.exp() * (target - student)).sum(1)
    return weight * kl, weight * (a - b).square().mean(1)
