"""Add a loss per modality, speed up gradients of modalities behind and slow down those ahead (MLB).

Kontras, Chatzichristos, Blaschko and De Vos, "Improving multimodal learning with multi-loss
gradient modulation", BMVC 2024.

    L     = CE(z) + sum_m CE(z_m)
    s_m   = mean over the batch of softmax(z_m) at the true class
    rho_m = mean of the others' s / s_m
    k_m   = 1 + tanh(alpha (rho_m - 1))                if rho_m <= 1
          = 1 + (beta - 1) tanh(alpha (rho_m - 1))     if rho_m > 1
    g_m  <- k_m g_m      of the encoder and its head

k goes through 1 where modalities are level, so that balancing fades as they draw together, and
lies between 1 - tanh(alpha) and beta. For two modalities rho is the paper's.

    point            paper                released code                 here
    score            mean                 batch sum, a ratio all the    mean over the samples that
                                          same                          have the modality
    more than two    each against the     as in the paper               mean of the others
                     others
    running it       -                    NameError: a class was        -
                                          renamed, its super() not
    head             own head             own head                      model.unimodal = "head" has
                                                                        one; decomposed logits share
                                                                        the fusion, which k leaves
    under Adam       Adam                 Adam                          apply = "update"; a factor
                                                                        on the gradient is undone
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._scaling import Apply, scale_by
from mmtool.methods._scores import mean_scores, ratios, score_sums
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, GradGroups, Needs, Outputs

STAGE = "objective, gradient"
COST = "a loss per modality"

FUSED = "fused"


class Options(schema.Options):
    """Strength of the modulation and weight of the unimodal losses."""

    alpha: schema.Positive = 0.8
    """How fast the factor leaves 1; the authors use 0.8 for CREMA-D."""
    beta: schema.Positive = 2.0
    """Largest factor of a modality that is behind; 2 is the paper's plain formula."""
    weight: float = 1.0
    """Weight of each modality's loss."""
    apply: Apply = "gradient"
    """Scale the gradient, or the optimiser's update (for AdamW)."""


class Method(BalancingMethod):
    """Multi-loss gradient modulation."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any", trains_heads=True, scales_gradients=True, min_modalities=2
    )
    options: Options

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and one per modality, zero for samples that lack it."""
        del ctx
        return {FUSED: sample_loss(outputs.logits, batch), **own_losses(outputs, batch)}

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Add the weighted unimodal losses to the fused one."""
        unimodal = torch.stack([terms[m] for m in ctx.modalities]).sum()
        return terms[FUSED] + self.options.weight * unimodal

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give true-class probabilities per modality."""
        del ctx
        return score_sums(outputs.unimodal, batch)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Scale the gradients of each encoder and its head."""
        scores = mean_scores(ctx.stats)
        factors = coefficients(scores, self.options.alpha, self.options.beta)
        ctx.log_each("score", scores)
        ctx.log_each("coef", factors)
        for position, modality in enumerate(ctx.modalities):
            scale_by(grads, modality, factors[position], self.options.apply)


def coefficients(scores: Tensor, alpha: float, beta: float) -> Tensor:
    """Give the factor of each modality, above 1 for those behind; [modality]."""
    behind = 1 / ratios(scores)
    lead = torch.tanh(alpha * (behind - 1))
    return 1 + torch.where(behind > 1, (beta - 1) * lead, lead)
