"""Train one modality at a time on what the others still get wrong, then all together (ReconBoost).

Hua, Xu, Bao, Yang and Huang, "ReconBoost: boosting can achieve modality reconcilement", ICML 2024.

Each stage takes the next modality k. With Phi = sum over the other modalities picked so far of z_j,
q = softmax(Phi) and p = softmax(z_k):

    phase 1   step on encoder and classifier of k:   Phi is a constant
        L = w (CE(p, y) - lam KL(q || p)) + align MSE(p, softmax(z_prev))
    phase 2   step on every modality picked so far
        L = CE(softmax(sum_j z_j), y)

    prediction   sum over the modalities of z_m

z_prev is the modality of the stage before, a constant too. KL is written without its constant part,
so that lam enters as the cross entropy with the labels y - lam q: Friedman's boosting on residuals.
Encoders that are constants still run as in training, with the batch's statistics. Every phase
begins with a new optimiser (momentum forgotten). Modalities not picked yet are neither constants
nor part of the prediction; a sample counts where it has one of the modalities that are trained.

    point            paper              released code                      here
    residual         lam KL, all        only the true class:               variant = "paper",
                     classes            (5/C) (1 - q_y / 5) CE             or "released" with
                                                                           weight = 5/C
    agreement        MSE of p, z_prev   both sides detached: its           align; 0 is what the
    (align)          (0.5)              gradient is zero                   released code trains
    first stage      plain loss         q of a constant column is 1        no other modality: CE
    before the run   pretrained         --use_pretrain                     from scratch; run longer
                     unimodal nets                                         stages, or load weights
    classifiers      own or common      a two-layer head for all           own, one layer each
    boosting rate    1                  a parameter, trained in phase 2    1
    learning rate    x 0.1 each         as in the paper                    schedule = "step", with
                     30 stages                                             step_epochs = 30 stages
    evaluation       all clips          drop_last: 704 of 744 clips        all clips

The fusion gets no gradient and is left as it was; the fused logits are not used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._turns import has_any, own_weight
from mmtool.types import (
    FUSION_GROUP,
    Batch,
    GroupName,
    Modality,
    Needs,
    Outputs,
    SubStep,
)

STAGE = "schedule, objective, inference"
COST = "nothing; a stage trains one encoder, then all"

Variant = Literal["paper", "released"]


class Options(schema.Options):
    """Length of the phases and strength of the terms."""

    boost_epochs: schema.Count = 4
    """Epochs of phase 1, which trains the modality of the stage."""
    joint_epochs: Annotated[int, Field(ge=0)] = 4
    """Epochs of phase 2, which trains all modalities picked so far; 0 leaves it out."""
    variant: Variant = "paper"
    """Residual over all classes, or at the true class only."""
    weight: schema.Positive = 1.0
    """w, factor of the first phase's loss; 5/C reproduces the released code's for C classes."""
    lam: schema.Fraction = 0.2
    """How much of what the others say is taken off the labels."""
    align: Annotated[float, Field(ge=0.0)] = 0.5
    """Factor of the agreement with the modality of the stage before."""
    momentum: Literal["forget", "keep"] = "forget"
    """What happens to the optimiser's state where a phase begins."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Where an epoch lies in the alternation."""

    stage: int
    is_joint: bool
    is_first: bool
    """Whether the phase begins with this epoch."""
    modality: Modality
    previous: Modality | None
    """Modality of the stage before."""
    picked: tuple[Modality, ...]
    """Modalities picked so far, this one included, sorted."""


class _Trained(torch.nn.Module):
    """Which modalities were ever trained; saved with the weights that `predict` belongs to."""

    def __init__(self, num_modalities: int) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", torch.zeros(num_modalities, dtype=torch.bool))


class Method(BalancingMethod):
    """Boosting that reconciles modalities."""

    needs: ClassVar[Needs] = Needs(
        unimodal="head", trains_heads=True, tasks=frozenset({"single_label"})
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with no modality trained."""
        self._modalities = facts.modalities
        self._trained = _Trained(len(facts.modalities))
        return {FUSION_GROUP: self._trained}

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Forget the momentum where a phase begins."""
        if self.options.momentum == "forget" and self._phase(ctx.epoch).is_first:
            ctx.forget_momentum(ctx.modalities)

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Run what was picked so far; step on one modality or on all of them."""
        phase = self._phase(ctx.epoch)
        groups = phase.picked if phase.is_joint else (phase.modality,)
        return (SubStep(phase.picked, groups, "joint" if phase.is_joint else phase.modality),)

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the residual loss of one modality, or the joint one."""
        phase = self._phase(ctx.epoch)
        if phase.is_joint:
            logits = summed(outputs.unimodal, batch, phase.picked)
            loss = cross_entropy(logits, batch.label, reduction="none")
            return {"joint": torch.where(has_any(batch, phase.picked), loss, 0.0)}
        return self._boosting_terms(outputs, batch, phase)

    def _boosting_terms(self, outputs: Outputs, batch: Batch, phase: Phase) -> dict[str, Tensor]:
        options, modality = self.options, phase.modality
        logits = outputs.unimodal[modality].float()
        others = [m for m in phase.picked if m != modality]
        lam: Tensor | float = 0.0
        said = torch.zeros_like(logits)
        if others:
            said = summed(outputs.unimodal, batch, others).detach()
            lam = torch.where(has_any(batch, others), options.lam, 0.0)
        loss = options.weight * residual_loss(logits, said, batch.label, lam, options.variant)
        has = has_any(batch, (modality,))
        terms = {"boost": torch.where(has, loss, 0.0)}
        if phase.previous is not None and options.align > 0:
            before = outputs.unimodal[phase.previous].detach()
            both = has & has_any(batch, (phase.previous,))
            terms["align"] = torch.where(both, options.align * disagreement(logits, before), 0.0)
        return terms

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give how many samples have what is trained."""
        del outputs
        phase = self._phase(ctx.epoch)
        trained = phase.picked if phase.is_joint else (phase.modality,)
        return {"weight": own_weight(batch, trained)}

    def end_step(self, ctx: StepContext) -> None:
        """Note that the modality of this stage takes part in predictions."""
        position = ctx.modalities.index(self._phase(ctx.epoch).modality)
        mask = self._trained.mask
        updated = mask.clone()
        updated[position].fill_(True)
        mask.copy_(
            updated if ctx.is_skipped is None else torch.where(ctx.is_skipped, mask, updated)
        )

    def predict(self, outputs: Outputs) -> Tensor:
        """Add up the classifiers of the modalities that were trained and that a sample has."""
        logits = torch.stack([outputs.unimodal[m].float() for m in self._modalities])
        counts = (self._trained.mask | ~self._trained.mask.any()).to(logits.device).unsqueeze(1)
        if outputs.present is not None:
            counts = counts & outputs.present.T
        return (logits * counts.unsqueeze(-1)).sum(0)

    def _phase(self, epoch: int) -> Phase:
        options = self.options
        return phase_of(epoch, self._modalities, options.boost_epochs, options.joint_epochs)


def phase_of(
    epoch: int, modalities: Sequence[Modality], boost_epochs: int, joint_epochs: int
) -> Phase:
    """Give the stage, the phase and the modality that an epoch belongs to."""
    stage, within = divmod(epoch, boost_epochs + joint_epochs)
    num = len(modalities)
    return Phase(
        stage=stage,
        is_joint=within >= boost_epochs,
        is_first=within in (0, boost_epochs),
        modality=modalities[stage % num],
        previous=modalities[(stage - 1) % num] if stage > 0 and num > 1 else None,
        picked=tuple(modalities[: min(stage + 1, num)]),
    )


def summed(
    unimodal: Mapping[Modality, Tensor], batch: Batch, modalities: Sequence[Modality]
) -> Tensor:
    """Give the sum of the logits of the modalities that each sample has; [batch, class]."""
    parts = [
        torch.where(has_any(batch, (m,)).unsqueeze(1), unimodal[m].float(), 0.0) for m in modalities
    ]
    return torch.stack(parts).sum(0)


def residual_loss(
    logits: Tensor, others: Tensor, label: Tensor, lam: Tensor | float, variant: Variant = "paper"
) -> Tensor:
    """Give -sum_c (y_c - lam q_c) log p_c, or its term at the true class alone; [batch].

    p = softmax(logits), q = softmax(others), both [batch, class]; `lam` a number or [batch].
    """
    log_p, q = logits.log_softmax(1), others.softmax(1)
    of_label = cross_entropy(logits, label, reduction="none")
    if variant == "released":
        return of_label * (1 - lam * q.gather(1, label.unsqueeze(1)).squeeze(1))
    return of_label + lam * (q * log_p).sum(1)


def disagreement(logits: Tensor, others: Tensor) -> Tensor:
    """Give the mean squared difference between two softmaxes; [batch]."""
    return (logits.float().softmax(1) - others.float().softmax(1)).square().mean(1)
