"""Slow down the gradients of modalities that are ahead, and add noise (OGM-GE).

Peng, Wei, Deng, Wang and Hu, "Balanced multimodal learning via on-the-fly gradient modulation",
CVPR 2022.

    s_m   = mean over the batch of softmax(z_m) at the true class
    rho_m = s_m / mean of the others' s
    k_m   = 1 - tanh(alpha * rho_m)  if rho_m > 1, else 1
    g_m  <- k_m g_m + e,   e ~ N(0, std(g_m)^2) per tensor     (the noise is the GE part)

The noise goes to every encoder inside the window, also where k = 1, and std is the unbiased one of
the gradient before scaling. k jumps from 1 to 1 - tanh(alpha) where a modality gets ahead.

    point            paper                released code                 here
    at a tie         both factors 1       slows audio                   both factors 1
    s                mean                 batch sum                     mean over the samples that
                                                                        have the modality
    more than two    -                    -                             the mean of the others
    scores, std      of the batch         of one device's batch         of the global batch
    gradients        encoders             4-dimensional ones: none      params = "matrix": the same
                                          in a transformer              in a ResNet, all weight
                                                                        matrices elsewhere
    film, gated      -                    reads logits off a layer      the model's logits per
                                          that is not the last          modality
    std of one       -                    -                             no noise for it
    number

AdamW cancels a factor on the gradient, and the noise then dwarfs what it scaled: use
apply = "update" with it, which scales the optimiser's step instead.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._scaling import Apply, check_selects, scale_by
from mmtool.methods._scores import mean_scores, ratios, score_sums
from mmtool.types import Batch, GradGroups, Needs, Outputs

STAGE = "gradient"
COST = "logits per modality, noise per weight"


class Options(schema.Options):
    """Strength, window and extent of the modulation."""

    alpha: schema.Positive = 0.8
    """Strength; the authors use 0.8 for CREMA-D, 0.3 for AVE and 0.1 for VGGSound."""
    noise: bool = True
    """Add the generalisation-enhancing noise (OGM-GE); off is plain OGM."""
    start_epoch: int = 0
    """First epoch with modulation, counted from 0."""
    end_epoch: int | None = 50
    """Last epoch with modulation, included; unset never ends."""
    params: Literal["conv", "matrix", "all"] = "matrix"
    """Gradients touched: conv has 3 dimensions or more, matrix 2 or more, all includes biases."""
    apply: Apply = "gradient"
    """Scale the gradient, or the optimiser's update (for AdamW)."""


class Method(BalancingMethod):
    """On-the-fly gradient modulation."""

    needs: ClassVar[Needs] = Needs(unimodal="any", scales_gradients=True)
    options: Options

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give true-class probabilities per modality."""
        del ctx
        return score_sums(outputs.unimodal, batch)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Scale each encoder's gradient by its coefficient and add noise."""
        scores = mean_scores(ctx.stats)
        ctx.log_each("score", scores)
        if not self._is_active(ctx.epoch):
            return
        factors = coefficients(scores, self.options.alpha)
        ctx.log_each("coef", factors)
        kind = self.options.params
        for position, modality in enumerate(ctx.modalities):
            check_selects(grads, modality, kind)
            scale_by(grads, modality, factors[position], self.options.apply, kind)
            if self.options.noise:
                grads.add_noise(modality, torch.ones_like(factors[position]), kind)

    def _is_active(self, epoch: int) -> bool:
        last = self.options.end_epoch
        return self.options.start_epoch <= epoch and (last is None or epoch <= last)


def coefficients(scores: Tensor, alpha: float) -> Tensor:
    """Give the factor of each modality; 1 for every one that is not ahead. [modality]."""
    rho = ratios(scores)
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), 1.0)
