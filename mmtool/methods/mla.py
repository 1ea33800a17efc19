"""Train the encoders in turn, each with a head they all share, and fuse by certainty (MLA).

Zhang, Yoon, Bansal and Yao, "Multimodal representation learning by alternating unimodal
adaptation", CVPR 2024.

    for each modality m: a step of E_m and of the shared head h on CE(h(f_m)), with the gradient
                         of the head's matrix W projected by P, which all modalities share:

    r  = mean over the batch of f_m              alpha = 0.1^(t/T + 1), step t of T in this epoch
    k  = P r^T
    P <- P - k k^T / (alpha + r k)               recursive least squares; P = I at first
    P <- P / |P|_F
    g_W <- g_W P^T                               not in the very first sub-step of a run

    H_m = entropy of softmax(h(f_m)),  w_m = softmax over m of -H_m,  z = sum_m w_m h(f_m)

The projection takes out of the head's step the directions that mean features have already used. A
batch is M optimiser steps on disjoint encoders; a modality that has its turn runs alone, so the
others' batch norm, momentum and weights stand still. The head's momentum runs through all turns,
as with the released optimiser. Needs fusion = "shared". Where several steps of one batch are done
and one of them is not finite, P stays as it was before the batch.

    point            paper            released code                       here
    projection       on               never runs: it looks for the name   on; project = false is
                                      "module.weight" in a layer          what that code trains
    denominator      r k, a scalar    k r, a matrix divided entry-wise    r k
    |P| = 1          not said         yes                                 yes; normalize = false
    entropy          per sample       softmax over the batch, summed:     per sample
                                      predictions depend on the batch
    absent modality  -                -                                   in no mean, weight 0

|P|_F = 1 makes the head's learning rate about sqrt(width) times smaller (Adam cancels this factor,
though not the projection). The head's bias is not projected. For AdamW and SGD alike the schedule
advances once a batch, not once a turn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scores import mean_scores, score_sums
from mmtool.methods._task import sample_loss
from mmtool.methods._turns import equal_width, has_any, own_weight
from mmtool.types import (
    FUSION_GROUP,
    Batch,
    GradGroups,
    GroupName,
    Modality,
    Needs,
    Outputs,
    SubStep,
)

STAGE = "schedule, gradient, inference"
COST = "M optimiser steps per batch, a width^2 matrix"

_FEATURE = "feature_sum"
_OWN = "own_count"


class Options(schema.Options):
    """Whether the head is protected, and how modalities are fused."""

    project: bool = True
    """Project the gradient of the shared head; off is alternating training alone."""
    normalize: bool = True
    """Divide P by its Frobenius norm after each update."""
    fuse: Literal["entropy", "mean"] = "entropy"
    """Weigh modalities by certainty, sample by sample, or all alike."""


class Method(BalancingMethod):
    """Multimodal learning with alternating unimodal adaptation."""

    needs: ClassVar[Needs] = Needs(
        unimodal="decompose",
        trains_heads=True,
        fusions=frozenset({"shared"}),
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with the identity as projector."""
        width = equal_width(facts, "mla", "they are read by one head")
        self._modalities = facts.modalities
        self._projector = torch.eye(width, device=facts.device)
        self._is_started = torch.zeros((), dtype=torch.bool, device=facts.device)
        self._next = (self._projector, self._is_started)
        self._scores: dict[Modality, Tensor] = {}
        return {}

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Give every modality a turn with the shared head."""
        self._next = (self._projector, self._is_started)
        self._scores = {}
        return [SubStep((m,), (m, FUSION_GROUP), m) for m in ctx.modalities]

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of the modality whose turn it is, zero for samples that lack it."""
        modality = _turn(ctx)
        loss = sample_loss(self._own_logits(outputs)[modality], batch)
        return {modality: torch.where(has_any(batch, (modality,)), loss, 0.0)}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the summed features, how many there are, and scores."""
        modality = _turn(ctx)
        has = has_any(batch, (modality,))
        if batch.weight is not None:
            has = has & (batch.weight != 0)
        feature = outputs.features[modality].detach().float()
        return {
            **score_sums(self._own_logits(outputs), batch),
            "weight": own_weight(batch, (modality,)),
            _FEATURE: torch.where(has.unsqueeze(1), feature, 0.0).sum(0),
            _OWN: has.sum(dtype=torch.float32),
        }

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Update the projector with the turn's mean feature and project the head's gradient."""
        modality = _turn(ctx)
        self._scores[modality] = mean_scores(ctx.stats)[ctx.modalities.index(modality)]
        if not self.options.project:
            return
        before, is_started = self._next
        count = ctx.stats[_OWN]
        mean = (ctx.stats[_FEATURE] / count.clamp_min(1)).float()
        share = (ctx.step % ctx.steps_per_epoch) / ctx.steps_per_epoch
        updated = updated_projector(before, mean, forgetting(share), self.options.normalize)
        is_usable = (count > 0) & torch.isfinite(updated).all()
        after = torch.where(is_started & is_usable, updated, before)
        original = list(grads.tensors(FUSION_GROUP, "matrix"))
        projected = [project(g, after) for g in original]
        ctx.log("kept", kept_share(original, projected), modality)
        chosen = [torch.where(is_started, p, g) for p, g in zip(projected, original, strict=True)]
        grads.replace(FUSION_GROUP, chosen, "matrix")
        self._next = (after, torch.ones_like(is_started))

    def end_step(self, ctx: StepContext) -> None:
        """Keep the projector of this batch unless one of its steps was skipped."""
        for modality, score in self._scores.items():
            ctx.log("score", score, modality)
        after, is_started = self._next
        skipped = torch.zeros_like(is_started) if ctx.is_skipped is None else ctx.is_skipped
        self._projector = torch.where(skipped, self._projector, after)
        self._is_started = torch.where(skipped, self._is_started, is_started)

    def predict(self, outputs: Outputs) -> Tensor:
        """Weigh the modalities that a sample has by their certainty."""
        if self.options.fuse == "mean" and outputs.present is None:
            return outputs.logits
        own = self._own_logits(outputs)
        logits = torch.stack([own[m].float() for m in self._modalities])
        present = torch.ones_like(logits[:, :, 0], dtype=torch.bool)
        if outputs.present is not None:
            present = outputs.present.T
        weights = entropy_weights(logits, present, is_flat=self.options.fuse == "mean")
        return (weights.unsqueeze(-1) * logits).sum(0)

    def _own_logits(self, outputs: Outputs) -> dict[Modality, Tensor]:
        # The fusion's parts are h(f_m) / M, so that they add up to its mean.
        return {m: z * len(self._modalities) for m, z in outputs.unimodal.items()}

    def state_dict(self) -> dict[str, Any]:
        """Give the projector and whether it is in use."""
        return {"projector": self._projector, "is_started": self._is_started}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the projector."""
        self._projector = state["projector"].to(self._projector)
        self._is_started = state["is_started"].to(self._is_started)


def _turn(ctx: StepContext) -> Modality:
    return ctx.modalities[0] if ctx.sub is None else ctx.sub.name


def forgetting(share: float) -> float:
    """Give alpha for a share of the epoch, from 0.1 at its start towards 0.01 at its end."""
    return float(0.1 ** (share + 1))


def updated_projector(
    projector: Tensor, mean: Tensor, alpha: float, normalize: bool = True
) -> Tensor:
    """Take a mean feature out of the projector by recursive least squares; [dim, dim]."""
    k = projector @ mean
    updated = projector - torch.outer(k, k) / (alpha + mean @ k)
    if not normalize:
        return updated
    norm = updated.norm()
    return torch.where(norm > 0, updated / norm.clamp_min(1e-30), updated)


def project(gradient: Tensor, projector: Tensor) -> Tensor:
    """Give the gradient of a linear layer's matrix [class, dim] after projection."""
    return (gradient.to(projector.dtype) @ projector.T).to(gradient.dtype)


def kept_share(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Give the norm after projection over the norm before; 1 where there was none. 0-d."""
    old = torch.stack([g.float().norm() for g in before]).norm()
    new = torch.stack([g.float().norm() for g in after]).norm()
    return torch.where(old > 0, new / old.clamp_min(1e-30), 1.0)


def entropy_weights(logits: Tensor, present: Tensor, *, is_flat: bool = False) -> Tensor:
    """Give exp(max H - H_m), normalised over what a sample has; [modality, batch].

    `logits` is [modality, batch, class], `present` [modality, batch]. A sample that has nothing
    weighs all modalities alike.
    """
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    if is_flat:
        entropy = torch.zeros_like(entropy)
    has = present | ~present.any(0)
    return (-entropy).masked_fill(~has, -torch.inf).softmax(0)
