"""Update only a part of each encoder's filters, more of them where a modality is behind (AMSS).

Yang, Pan, Jiang, Xu and Tang, "Learning to rebalance multi-modal optimization by adaptively masking
subnetworks", TPAMI 2025.

    I_m  = (H(Y) - CE(z_m) + 1/2) / H(f_m)        lower bound on what m tells about the label
    u_m  = clip(softmax over m of -I_m / T, .1, .9);   1/2 for all if some I_m <= 0
    q_j  = |g_j|^2 / sum_j |g_j|^2                 importance of filter j of one weight tensor
    S    = ceil(n u_m) of its n filters, drawn without replacement with probabilities q
    g_j <- g_j                    for j in S       amss
         = g_j / (q_j + 1/n)      for j in S       amss+
         = 0                      otherwise

H(Y) is the entropy of the batch's labels and H(f) the mean entropy of softmax(f). For two
modalities the softmax of -I gives each the other's share, as the paper does. Draws are Gumbel keys,
the same on every rank. Masked filters still follow momentum and weight decay.

    point            paper                released code                 here
    H(Y)             entropy              cross entropy of the label    entropy
                                          shares with themselves as
                                          logits, far too large
    more than two    -                    -                             softmax over -I / T
    masked layers    encoders             3x3 convolutions of ResNet    params = "conv" or "matrix"
                                                                        (linear layers too)
    classifier       masked as well       a mask is built and never     not masked
                                          applied; its amss+ weight
                                          divides by indices
    sampling         global batch         batch of one device           global batch

amss+ multiplies filters by up to n; it wants a far smaller learning rate. Under Adam a mask acts
through its moments: filters move less, not rarely.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._scaling import check_selects
from mmtool.methods._scores import counted
from mmtool.methods._task import sample_loss
from mmtool.types import Batch, GradGroups, Needs, Outputs

STAGE = "gradient"
COST = "one draw per filter"

_CEIL_SLACK = 1e-4  # 0.1 * 10 is above 1 in float32
_TINY = 1e-30


class Options(schema.Options):
    """How unequal the shares are, and what is masked."""

    variant: Literal["amss", "amss+"] = "amss"
    """Keep drawn filters as they are, or weight them against their chance of being drawn."""
    temperature: schema.Positive = 0.2
    """T; smaller makes shares more unequal. The authors use 0.5 with text."""
    lowest: schema.Fraction = 0.1
    """Smallest share of filters that is updated."""
    highest: schema.Fraction = 0.9
    """Largest share of filters that is updated."""
    params: Literal["conv", "matrix"] = "matrix"
    """Gradients masked: conv has 3 dimensions or more, matrix 2 or more."""


class Method(BalancingMethod):
    """Adaptively masked subnetworks."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any", min_modalities=2, tasks=frozenset({"single_label"})
    )
    options: Options

    @torch.no_grad()
    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give label counts, and losses and feature entropies by modality."""
        mask = counted(batch)
        losses = [sample_loss(outputs.unimodal[m], batch) for m in ctx.modalities]
        entropies = [feature_entropy(outputs.features[m]) for m in ctx.modalities]
        weight = torch.ones_like(losses[0]) if batch.weight is None else batch.weight != 0
        labels = torch.zeros(ctx.num_classes, device=batch.label.device)
        return {
            "labels": labels.scatter_add(0, batch.label, weight.to(labels.dtype)),
            "losses": torch.where(mask, torch.stack(losses, 1), 0.0).sum(0),
            "entropies": torch.where(mask, torch.stack(entropies, 1), 0.0).sum(0),
            "counts": mask.sum(0, dtype=torch.float32),
        }

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Draw the filters of each encoder that are updated; the others' gradients are zero."""
        stats, options = ctx.stats, self.options
        count = stats["counts"]
        told = information(
            stats["losses"] / count, label_entropy(stats["labels"]), stats["entropies"] / count
        )
        shares = fractions(told, options.temperature, options.lowest, options.highest)
        ctx.log_each("information", told)
        ctx.log_each("share", shares)
        for position, modality in enumerate(ctx.modalities):
            check_selects(grads, modality, options.params)
            tensors = grads.tensors(modality, options.params)
            masked = [
                gradient * self._mask(gradient, shares[position], ctx.generator)
                for gradient in tensors
            ]
            grads.replace(modality, masked, options.params)

    def _mask(self, gradient: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
        likely = importance(gradient)
        factor = drawn(likely, share, generator).to(likely.dtype)
        if self.options.variant == "amss+":
            factor = factor / (likely + 1 / len(likely))
        return factor.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1))


def feature_entropy(feature: Tensor) -> Tensor:
    """Give the entropy of softmax(f) of each sample; [batch]."""
    exact = feature.to(torch.promote_types(feature.dtype, torch.float32))
    logarithm = exact.log_softmax(1)
    return -(logarithm.exp() * logarithm).sum(1)


def label_entropy(counts: Tensor) -> Tensor:
    """Give the entropy of the labels' shares; 0-d."""
    share = counts / counts.sum().clamp_min(_TINY)
    return -torch.xlogy(share, share).sum()


def information(loss: Tensor, of_label: Tensor, of_feature: Tensor) -> Tensor:
    """Give I of each modality, NaN where no sample has it; [modality]."""
    return (of_label - loss + 0.5) / of_feature.clamp_min(_TINY)


def fractions(told: Tensor, temperature: float, lowest: float, highest: float) -> Tensor:
    """Give the share of filters to update, larger for modalities that tell less; [modality]."""
    is_known = ~told.isnan()
    share = torch.where(is_known, -told / temperature, -torch.inf).softmax(0)
    is_usable = is_known & ~((told <= 0) & is_known).any()
    return torch.where(is_usable, share.clamp(lowest, highest), 0.5)


def importance(gradient: Tensor) -> Tensor:
    """Give the share of the squared gradient that each filter has; [filter]."""
    exact = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    square = exact.square().flatten(1).sum(1)
    total = square.sum()
    return torch.where(total > 0, square / torch.where(total > 0, total, 1.0), 1 / len(square))


def drawn(likely: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ceil(n share) of n filters without replacement, by their probabilities; [filter] bool.

    The largest keys log q + Gumbel noise are such a draw; none needs to know how many there are.
    """
    uniform = torch.empty_like(likely).uniform_(generator=generator).clamp(_TINY, 1 - 1e-7)
    keys = likely.clamp_min(_TINY).log() - (-uniform.log()).log()
    rank = keys.argsort(descending=True, stable=True).argsort(stable=True)
    return rank < (len(likely) * share - _CEIL_SLACK).ceil().clamp_min(1)
