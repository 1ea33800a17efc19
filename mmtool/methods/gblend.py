"""Weigh the losses by how much each one generalises for how much it overfits (G-Blending).

Wang, Tran and Feiszli, "What makes training multi-modal classification networks hard?", CVPR 2020.

    L = sum_k w_k CE(z_k)                     k: every modality (a head of its own) and the fusion
    w_k = (dG_k / dO_k^2) / sum_j dG_j / dO_j^2
    dG_k = V_k(before) - V_k(after)           gain on held-out data, V the mean loss there
    dO_k = O_k(after) - O_k(before)           growth of the gap O = V - T, T the mean training loss

dG_k and dO_k are measured by training with loss k alone from the present state for `super_epoch`
epochs, and taking that back. "online" does so before every super-epoch, "offline" once. A branch of
one modality runs its encoder alone. The held-out data is the split `val`, which also selects the
best epoch. Prediction is that of the fusion. w is undefined in the paper where a loss overfits by
nothing or gains nothing; the table says what is done then.

            | paper                | released code               | here
    dO -> 0 | -                    | w grows without limit       | |dO| >= floor * largest |dG|
    dG < 0  | -                    | absolute value              | 0; equal weights if all are
    w       | changes, as above    | MultiBench: |V / (V - T)^2| | measure = "levels" gives it
            |                      | BalanceBenchmark: |dG/dO^2| | measure = "absolute" gives it
    held out| cut from train       | MultiBench: first 8 % of an | split val
            |                      | unshuffled set; BB: test    |
    losses  | means per sample     | BB: sums over loaders of    | means per sample, evaluation
            |                      | unequal length; no eval()   | mode
    before  | start of the branch  | BB: after its first epoch   | start of the branch
    branches| fresh optimiser not  | MultiBench trains a copy    | weights, optimiser and method
            | said                 | that its optimiser misses   | state go on and are put back
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import (
    BalancingMethod,
    Branch,
    BranchResult,
    EpochContext,
    ModelFacts,
    StepContext,
)
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, GroupName, Needs, Outputs, SubStep

STAGE = "objective, schedule"
COST = "a head per modality; before each super-epoch, trains that long once for every loss"

FUSED = "fused"
_SPLITS = ("train", "val")
_ONLINE_EPOCHS = 10
Measure: TypeAlias = Literal["changes", "absolute", "levels"]


class Options(schema.Options):
    """When weights are estimated, and how."""

    mode: Literal["offline", "online"] = "online"
    """Estimate once, or again before every super-epoch."""
    super_epoch: schema.Count | None = None
    """Epochs of each branch; unset is 10 online, and all that is left offline."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Epoch before which weights are first estimated; they are equal until then."""
    floor: schema.Positive = 0.05
    """Smallest overfitting that counts, as a share of the largest gain of any loss."""
    measure: Measure = "changes"
    """What weights are made of: the paper's changes, their absolute value, or absolute levels."""


class Method(BalancingMethod):
    """Blended losses, weighed by their overfitting-to-generalisation ratio."""

    needs: ClassVar[Needs] = Needs(
        unimodal="head",
        trains_heads=True,
        epoch_statistics=frozenset({"losses"}),
        held_out=True,
        branches=True,
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Begin with equal weights."""
        self._names = (*facts.modalities, FUSED)
        count = len(self._names)
        self._weights = torch.full((count,), 1.0 / count, device=facts.device)
        return {}

    def plan_branches(self, ctx: EpochContext) -> Sequence[Branch]:
        """Name one branch per loss where weights are due."""
        length = branch_length(self.options, ctx.epoch, ctx.epochs)
        return [Branch(name, length) for name in self._names] if length else []

    def end_branches(self, results: Mapping[str, BranchResult], ctx: EpochContext) -> None:
        """Turn what each loss gained and overfitted into its weight."""
        del ctx
        before, after = (
            torch.tensor(
                [[getattr(results[n], when)[f"{s}.{n}"] for n in self._names] for s in _SPLITS],
                dtype=torch.float64,
            )
            for when in ("before", "after")
        )  # [train and val, loss]
        weights = blend(before, after, floor=self.options.floor, measure=self.options.measure)
        self._weights = weights.to(self._weights)

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Run one encoder alone in the branch of its loss."""
        if ctx.branch is None or ctx.branch == FUSED:
            return ()
        return [SubStep((ctx.branch,), (ctx.branch,), ctx.branch)]

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and one per modality, zero for samples that lack it."""
        tried = [m for m in batch.modalities if ctx.branch in (None, m)]
        terms = own_losses(outputs, batch, tried)
        if ctx.branch in (None, FUSED):
            terms[FUSED] = sample_loss(outputs.logits, batch)
        return terms

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Weigh the losses; a branch has one, which counts whole."""
        if ctx.branch is not None:
            return terms[ctx.branch]
        ordered = torch.stack([terms[name] for name in self._names])
        return (self._weights.to(ordered.dtype) * ordered).sum()

    def end_step(self, ctx: StepContext) -> None:
        """Log the weights."""
        ctx.log_each("weight", self._weights[:-1])
        ctx.log("fused_weight", self._weights[-1])

    def state_dict(self) -> dict[str, Any]:
        """Give the weights."""
        return {"weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the weights back."""
        self._weights = state["weights"].to(self._weights)


def branch_length(options: Options, epoch: int, epochs: int) -> int:
    """Give the epochs of the branches to train before an epoch, 0 where none are due."""
    since, left = epoch - options.start_epoch, epochs - epoch
    if options.mode == "offline":
        return min(options.super_epoch or left, left) if since == 0 else 0
    length = options.super_epoch or _ONLINE_EPOCHS
    return min(length, left) if since >= 0 and since % length == 0 else 0


def blend(before: Tensor, after: Tensor, *, floor: float, measure: Measure = "changes") -> Tensor:
    """Give the weight of each loss from mean losses [train and val, loss]; they add up to 1.

    Losses multiplied by a common factor keep their weights. Without any gain, and where a loss is
    not finite, all weights are equal.
    """
    if measure == "levels":
        gain, overfitting = after[1], after[1] - after[0]
    else:
        gain = before[1] - after[1]
        overfitting = (after[1] - after[0]) - (before[1] - before[0])
    largest = gain.abs().amax()
    gain = gain.clamp_min(0.0) if measure == "changes" else gain.abs()
    least = floor * largest
    # Divided by the largest gain first, so that no square leaves the range of numbers.
    ratio = (gain / largest) / (torch.maximum(overfitting.abs(), least) / largest).square()
    total = ratio.sum()
    is_usable = torch.isfinite(total) & (total > 0)
    return torch.where(is_usable, ratio / total, 1.0 / len(ratio))
