"""Let each modality count by how sure it is and how much the others outweigh it (ARL).

Wei, Luo and Luo, "Improving multimodal learning via imbalanced learning", ICCV 2025.

    h_m = max(H_m / sum_j H_j, floor / M)       H_m = mean entropy of softmax(z_m)
    a_m = (1 / h_m) / sum_j 1 / h_j             entropy stands for variance; a is its inverse ratio
    n_m = |z_m|_1 / sum_j |z_j|_1               means over the batch
    w_m = softmax over m of T a_m n_others      n_others = mean n of the other modalities
    g_m <- (1 + w_m) g_m                        the encoder's gradient
    L   = CE(z) + gamma sum_m CE(z_m)

Before `start_epoch` gradients are left alone and gamma is 1. The paper argues for unequal
dependence: a modality whose answers vary less is to be relied on more.

weighting = "fusion" uses w as weights of the answers instead of the gradients, both in training
and in prediction: z = M sum_m w_m z_m, with w of the step before. It needs an additive fusion;
equal weights give its fused logits.

    point            paper                released code                 here
    w acts on        the optimisation     the gradient where it leaves  the encoder's gradient, or
                     of each modality     each encoder, times 1 + w;    with weighting = "fusion"
                                          an older revision: nothing    the answers
    w of             -                    the batch before              this batch, all ranks; the
                                                                        step before for "fusion"
    floor            -                    0.3 of two                    floor = 0.6: of the mean
                                                                        entropy, so 0.3 of two
    more than two    -                    -                             mean of the others' n
    gamma            -                    4 in the command for CREMA-D, 4
                                          1 in the program
    start            -                    epochs after the fifth,       start_epoch = 6
                                          counted from 0
    running it       -                    "resnet" stopped at an error  -
                                          in an older revision

AdamW cancels a factor on the gradient: use apply = "update" with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scaling import Apply, scale_by
from mmtool.methods._scores import counted
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import FUSION_GROUP, Batch, GradGroups, GroupName, Needs, Outputs

STAGE = "objective, gradient, inference"
COST = "a loss per modality"

_ENTROPY, _SIZE, _COUNT = "entropy", "size", "own_count"


class Options(schema.Options):
    """Strength of the weights and where they act."""

    gamma: Annotated[float, Field(ge=0.0)] = 4.0
    """Weight of each modality's own loss from `start_epoch` on."""
    temperature: Annotated[float, Field(ge=0.0)] = 8.0
    """How far apart the weights are, T; 0 makes them equal."""
    floor: schema.Fraction = 0.6
    """Smallest entropy of a modality, as a share of the mean over modalities."""
    start_epoch: Annotated[int, Field(ge=0)] = 6
    """First epoch with weights, counted from 0."""
    weighting: Literal["gradient", "fusion"] = "gradient"
    """Weigh the encoders' gradients, or the answers that are added up."""
    apply: Apply = "gradient"
    """Scale the gradient, or the optimiser's update (for AdamW)."""


class _Weights(torch.nn.Module):
    """The weights of the answers; kept with the model, for a prediction needs them."""

    value: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.full((count,), 1.0 / count))


class Method(BalancingMethod):
    """Asymmetric representation learning."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any",
        trains_heads=True,
        scales_gradients=True,
        min_modalities=2,
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def asked(self) -> Needs:
        """Need logits that add up to the fused ones where these are what is weighed."""
        if self.options.weighting == "gradient":
            return self.needs
        return replace(self.needs, unimodal="decompose")

    def scaling_option(self) -> str | None:
        """Name `apply` where gradients are weighed."""
        return None if self.options.weighting == "fusion" else super().scaling_option()

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Begin with equal weights."""
        self._modalities = facts.modalities
        self._weights = _Weights(len(facts.modalities))
        return {FUSION_GROUP: self._weights} if self._weighs_answers else {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and one per modality, zero for samples that lack it."""
        gamma = self.options.gamma if self._is_active(ctx) else 1.0
        terms = {"fused": sample_loss(self.predict(outputs), batch)}
        return terms | {m: gamma * loss for m, loss in own_losses(outputs, batch).items()}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give sums of entropies and sizes of each modality's logits."""
        logits = torch.stack([outputs.unimodal[m].detach() for m in ctx.modalities])
        return logit_sums(logits, counted(batch))

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Scale the encoders' gradients, if these are weighed."""
        weights = self._of_step(ctx)
        ctx.log_each("entropy", ctx.stats[_ENTROPY] / ctx.stats[_COUNT])
        ctx.log_each("weight", weights)
        if self._weighs_answers or not self._is_active(ctx):
            return
        for position, modality in enumerate(ctx.modalities):
            scale_by(grads, modality, 1 + weights[position], self.options.apply)

    def end_step(self, ctx: StepContext) -> None:
        """Keep the weights for the answers of the next step, unless this one was skipped."""
        if not self._weighs_answers or not self._is_active(ctx):
            return
        before, weights = self._weights.value, self._of_step(ctx).to(self._weights.value)
        if ctx.is_skipped is not None:
            weights = torch.where(ctx.is_skipped, before, weights)
        before.copy_(weights)

    def predict(self, outputs: Outputs) -> Tensor:
        """Add up the weighed answers, or leave the fused ones as they are."""
        if not self._weighs_answers:
            return outputs.logits
        logits = torch.stack([outputs.unimodal[m].float() for m in self._modalities])
        return weighed(logits, self._weights.value)

    @property
    def _weighs_answers(self) -> bool:
        return self.options.weighting == "fusion"

    def _is_active(self, ctx: StepContext) -> bool:
        return ctx.epoch >= self.options.start_epoch

    def _of_step(self, ctx: StepContext) -> Tensor:
        means = means_of(ctx.stats)
        return dependence(*means, floor=self.options.floor, temperature=self.options.temperature)


def logit_sums(logits: Tensor, has: Tensor) -> dict[str, Tensor]:
    """Give sums of entropy and of absolute logits over the samples that have each modality.

    `logits` is [modality, batch, class], `has` [batch, modality].
    """
    exact = logits if logits.dtype == torch.float64 else logits.float()
    logs = exact.log_softmax(2)
    entropy = -(logs.exp() * logs).sum(2).T  # [batch, modality]
    size = exact.abs().sum(2).T
    return {
        _ENTROPY: torch.where(has, entropy, 0.0).sum(0),
        _SIZE: torch.where(has, size, 0.0).sum(0),
        _COUNT: has.sum(0, dtype=exact.dtype),
    }


def means_of(stats: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Give mean entropy and mean size; a modality that no sample had takes the others' mean."""
    count = stats[_COUNT]
    known = count > 0
    num_known = known.sum().clamp_min(1)
    filled = []
    for name in (_ENTROPY, _SIZE):
        mean = stats[name] / count.clamp_min(1)
        filled.append(torch.where(known, mean, mean.sum() / num_known))
    return filled[0], filled[1]


def dependence(entropy: Tensor, size: Tensor, *, floor: float, temperature: float) -> Tensor:
    """Give w of each modality from mean entropies and sizes; adds up to 1. [modality].

    Entropies, or sizes, that are all zero count as equal.
    """
    count = len(entropy)
    inverse = 1 / _shares(entropy).clamp_min(floor / count).clamp_min(1e-12)
    certainty = inverse / inverse.sum()
    shares = _shares(size)
    others = (~torch.eye(count, dtype=torch.bool, device=size.device)).to(shares.dtype)
    of_others = (others * shares).sum(1) / max(1, count - 1)
    return (temperature * certainty * of_others).softmax(0)


def _shares(values: Tensor) -> Tensor:
    total = values.sum()
    return torch.where(total > 0, values / total, 1.0 / len(values))


def weighed(logits: Tensor, weights: Tensor) -> Tensor:
    """Give M sum_m w_m z_m of [modality, batch, class]; equal weights give the plain sum."""
    return len(logits) * (weights[:, None, None] * logits).sum(0)
