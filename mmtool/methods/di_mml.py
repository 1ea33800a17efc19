"""Train encoders apart, let each learn the dimensions others are good at, then fuse (DI-MML).

Fan, Xu, Wang, Liu and Guo, "Detached and interactive multimodal learning", ACM Multimedia 2024.

Stage 1, encoders with classifiers z_m of their own and one classifier c that all share:

    L = sum_m CE(z_m) + shared sum_m CE(c(f_m)) + sum over pairs s -> t of D_st   (D after warm-up)

    D_st = -log( exp(<f_t,i ; f_s,i> / tau) / sum_j exp(<f_t,i ; f_s,j> / tau) )

over the dimensions that are effective for s and not for t; f_s is a constant, so that knowledge
goes one way. A dimension is effective for m if more training samples than on average over the
dimensions are nearest to the mean of their own class along it (one pass, after the warm-up).

Stage 2, encoders frozen and in evaluation mode: the fusion is trained on CE(z).

    prediction   sum_k w_k z_k over the classifiers and the fusion,
                 w = softmax over k of (largest probability of z_k) / temperature

    point            paper              released code                  here
    runs             two                two programs                   one: shares of its epochs
    warm-up          yes                20 of 150 + 20 epochs          warmup_share = 0.12
    stage 2          yes                20 epochs, learning rate as    fusion_share = 0.12,
                                        at the start                   fusion_lr x the schedule's
    j runs over      the batch          the batch                      i and samples of the step
                                                                       before
    pass for         -                  batches of one, in training    features of the whole split
    dimensions                          order
    no dimension     -                  constant log(batch), which     0
    of a kind                           has no gradient
    a class without  -                  NaN                            left out
    samples
    selection        -                  each encoder's best epoch on   as the recipe says
                                        the test set

Samples of the step before make the loss the same for any number of ranks and micro-batches, and
cost no collective inside of a forward pass; up to `negatives` of them are kept, chosen by their
index. Before stage 2 the fusion is not part of the prediction.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._dimensions import effective_dimensions, remembered_sums, transfer_loss
from mmtool.methods._scores import counted
from mmtool.methods._task import sample_loss
from mmtool.methods._turns import equal_width, has_any
from mmtool.types import (
    FUSION_GROUP,
    Batch,
    GradGroups,
    GroupName,
    Needs,
    Outputs,
    SubStep,
)

STAGE = "objective, schedule, inference"
COST = "a shared classifier; one pass over the training split"

_SLOT = "slot"


class Options(schema.Options):
    """Length of the stages and strength of the terms."""

    warmup_share: schema.Fraction = 0.12
    """Share of the epochs before knowledge is transferred."""
    fusion_share: schema.Fraction = 0.12
    """Share of the epochs, at the end, that train the fusion on frozen encoders; at least one."""
    shared: Annotated[float, Field(ge=0.0)] = 1.0
    """Factor of the shared classifier's losses."""
    transfer: Annotated[float, Field(ge=0.0)] = 1.0
    """Factor of the contrastive loss."""
    tau: schema.Positive = 1.0
    """Temperature of the contrastive loss."""
    negatives: schema.Count = 64
    """Most samples from which each one is told apart."""
    temperature: schema.Positive = 1.0
    """Temperature of the weights in the prediction; the authors use 50 for CREMA-D, 10 for AVE."""
    fusion_lr: schema.Positive = 1.0
    """Learning rate of the fusion stage relative to the schedule's at that time."""


class _Shared(nn.Module):
    """The classifier all encoders share, and whether the fusion was trained."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, num_classes)
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.is_fused: Tensor
        self.register_buffer("is_fused", torch.zeros((), dtype=torch.bool))


class Method(BalancingMethod):
    """Detached and interactive multimodal learning."""

    needs: ClassVar[Needs] = Needs(
        unimodal="head",
        trains_heads=True,
        min_modalities=2,
        epoch_statistics=frozenset({"features"}),
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Create the shared classifier; no dimension is known to be effective."""
        width = equal_width(facts, "di_mml", "one classifier reads them all")
        num, slots = len(facts.modalities), self.options.negatives
        self._modalities = facts.modalities
        self._shared = _Shared(width, facts.num_classes)
        self._effective = torch.zeros(num, width, dtype=torch.bool, device=facts.device)
        self._memory = torch.zeros(num, slots, width, device=facts.device)
        self._filled = torch.full((num, slots), -1, dtype=torch.int64, device=facts.device)
        self._next: tuple[Tensor, Tensor] | None = None
        return {FUSION_GROUP: self._shared}

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Find the effective dimensions where the warm-up ends."""
        warmup, fusion = stages(ctx.epochs, self.options.warmup_share, self.options.fusion_share)
        if ctx.epoch == 0 and warmup >= fusion:
            raise RequestError(
                "the stages leave no epoch for the transfer between encoders",
                where="method.warmup_share and method.fusion_share",
                why=f"of {ctx.epochs} epochs {warmup} are warm-up and {ctx.epochs - fusion} train "
                "the fusion",
                fix="lower the shares, or train for more epochs",
            )
        if ctx.epoch != warmup:
            return
        found = ctx.collect("features")
        masks = [
            effective_dimensions(
                found[m][found["present"][:, position]],
                found["label"][found["present"][:, position]],
                ctx.num_classes,
            )
            for position, m in enumerate(ctx.modalities)
        ]
        self._effective = torch.stack(masks).to(self._effective)

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Train everything but the fusion, then the fusion alone."""
        self._next = None
        if self._is_fusing(ctx):
            return (SubStep(ctx.modalities, (FUSION_GROUP,), "fusion", ctx.modalities),)
        return (SubStep(ctx.modalities, (*ctx.modalities, FUSION_GROUP), "apart"),)

    def edit_features(
        self, features: dict[str, Tensor], batch: Batch, ctx: StepContext
    ) -> dict[str, Tensor]:
        """Keep the gradient of the fusion from frozen encoders."""
        del batch
        if not self._is_fusing(ctx):
            return features
        return {m: f.detach() for m, f in features.items()}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of the fusion, or those of every encoder."""
        if self._is_fusing(ctx):
            return {"fused": sample_loss(outputs.logits, batch)}
        terms = {}
        for modality in self._modalities:
            has = has_any(batch, (modality,))
            common = self._shared.classifier(outputs.features[modality].float())
            own = sample_loss(outputs.unimodal[modality], batch)
            loss = own + self.options.shared * sample_loss(common, batch)
            terms[modality] = torch.where(has, loss, 0.0)
        if self._transfers(ctx):
            terms["transfer"] = self.options.transfer * self._transfer(outputs, batch)
        return terms

    def _transfer(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Give the sum over ordered pairs of modalities of D; [batch]."""
        total = torch.zeros(batch.size, device=batch.label.device)
        features = [outputs.features[m].float() for m in self._modalities]
        for source in range(len(features)):
            for target in range(len(features)):
                if source == target:
                    continue
                loss = transfer_loss(
                    features[target],
                    features[source].detach(),
                    self._memory[source],
                    (self._filled[source] >= 0)
                    & (self._filled[source] != batch.index.unsqueeze(1)),
                    self._effective[source] & ~self._effective[target],
                    self.options.tau,
                )
                both = batch.present[:, source] & batch.present[:, target]
                total = total + torch.where(both, loss, 0.0)
        return total

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give this step's features, for the next step to tell samples apart from."""
        if self._is_fusing(ctx) or self.options.transfer == 0:
            return {}
        known, slots = counted(batch), self.options.negatives
        found: dict[str, Tensor] = {}
        for position, modality in enumerate(self._modalities):
            feature = outputs.features[modality].detach().float()
            sums = remembered_sums(feature, batch.index, known[:, position], slots)
            found |= {f"{_SLOT}.{k}.{position}": v for k, v in sums.items()}
        return found

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Keep the step's features for the next one; set the fusion's learning rate."""
        if self._is_fusing(ctx):
            factor = torch.full_like(self._memory[0, 0, 0], self.options.fusion_lr)
            grads.scale_update(FUSION_GROUP, factor)
            return
        if self.options.transfer == 0:
            return
        ctx.log_each("effective", self._effective.float().mean(1))
        memory, filled = [], []
        for position in range(len(self._modalities)):
            counts = ctx.stats[f"{_SLOT}.count.{position}"]
            is_one = counts == 1
            index = ctx.stats[f"{_SLOT}.index.{position}"].to(torch.int64)
            features = ctx.stats[f"{_SLOT}.feature.{position}"].to(self._memory)
            memory.append(torch.where(is_one.unsqueeze(1), features, 0.0))
            filled.append(torch.where(is_one, index, -1))
        self._next = (torch.stack(memory), torch.stack(filled))

    def end_step(self, ctx: StepContext) -> None:
        """Remember the step unless it was skipped."""
        no = torch.zeros_like(self._shared.is_fused)
        skipped = no if ctx.is_skipped is None else ctx.is_skipped
        if self._is_fusing(ctx):
            self._shared.is_fused.copy_(self._shared.is_fused | ~skipped)
        if self._next is not None:
            memory, filled = self._next
            self._memory = torch.where(skipped, self._memory, memory)
            self._filled = torch.where(skipped, self._filled, filled)

    def predict(self, outputs: Outputs) -> Tensor:
        """Weigh the classifiers, and the fusion once it is trained, by certainty."""
        own = [outputs.unimodal[m].float() for m in self._modalities]
        logits = torch.stack([*own, outputs.logits.float()])
        counts = torch.ones_like(logits[:, :, 0], dtype=torch.bool)
        if outputs.present is not None:
            counts[:-1] = outputs.present.T
        counts[-1] = self._shared.is_fused
        weights = certainty_weights(logits, counts, self.options.temperature)
        return (weights.unsqueeze(-1) * logits).sum(0)

    def _is_fusing(self, ctx: StepContext) -> bool:
        options = self.options
        return ctx.epoch >= stages(ctx.epochs, options.warmup_share, options.fusion_share)[1]

    def _transfers(self, ctx: StepContext) -> bool:
        options = self.options
        warmup = stages(ctx.epochs, options.warmup_share, options.fusion_share)[0]
        return options.transfer > 0 and ctx.epoch >= warmup

    def state_dict(self) -> dict[str, Any]:
        """Give the effective dimensions and what is remembered of the last step."""
        return {"effective": self._effective, "memory": self._memory, "filled": self._filled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the effective dimensions and the last step."""
        self._effective = state["effective"].to(self._effective)
        self._memory = state["memory"].to(self._memory)
        self._filled = state["filled"].to(self._filled)


def stages(epochs: int, warmup_share: float, fusion_share: float) -> tuple[int, int]:
    """Give the first epoch of the transfer, and the first of the fusion's stage."""
    fusion = max(1, round(fusion_share * epochs))
    return round(warmup_share * epochs), epochs - fusion


def certainty_weights(logits: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """Give softmax(largest probability / temperature) over those that count; [classifier, batch].

    `logits` is [classifier, batch, class], `counts` [classifier, batch]; where nothing counts, all
    do.
    """
    certainty = logits.softmax(-1).amax(-1) / temperature
    kept = counts | ~counts.any(0)
    return certainty.masked_fill(~kept, -torch.inf).softmax(0)
