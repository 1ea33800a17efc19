"""The surface every balancing method is written against.

A method does arithmetic on device tensors and declares what it needs; the engine owns the device,
the process group, the optimiser and the clock. All hooks are optional. Order within one step:

    for sub in method.plan_step(ctx):                       usually one
        for micro-batch:
            features = encoders(batch)                      as `hears` says, where they exchange
            features = method.edit_features(features, batch, ctx)
            outputs  = fusion(features), unimodal logits as `needs` says
            terms    = method.losses(outputs, batch, ctx)       {name: [batch] or 0-d}
            stats   += method.statistics(outputs, batch, ctx)   {name: tensor}, summed
            backward of compose(terms), or of each of needs.term_gradients
        gradients and ctx.stats are summed over micro-batches and ranks (one control reduction)
        method.combine(group, gradients by term)             only with needs.term_gradients
        method.edit_grads(grads, ctx)                        then clipping and the finite check
        optimiser step on sub.groups
    method.end_step(ctx)

and between epochs, on every rank with globally reduced numbers:

    plan_branches(ctx)  end_branches(...)                rarely
    method.begin_epoch(ctx)  plan_epoch(ctx)  ...steps...  end_epoch(ctx)  edit_parameters(...)

A term of shape [batch] is summed and divided by the global sample count, so any number of ranks and
micro-batches gives the same gradient; a 0-d term is a penalty on parameters and counts once.
Never read a value back to the host in a step hook: use `torch.where` instead of `if`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from mmtool.config.schema import Options
from mmtool.errors import Bug
from mmtool.methods._task import sample_loss
from mmtool.types import (
    Batch,
    Fuse,
    GradGroups,
    GroupName,
    Modality,
    Needs,
    Outputs,
    SubStep,
    TaskKind,
)


class EpochCollector(Protocol):
    """Passes over data between epochs; results are reduced over ranks, training is untouched."""

    def __call__(
        self, statistic: str, split: str = "train", share: float = 1.0
    ) -> Mapping[str, Tensor]:
        """Run one pass: `features`, `class_means` or `losses` of a split ("train" or "val").

        `share` takes only so much of the split, the same samples every time.
        """


@dataclass(frozen=True, slots=True)
class GradientProducts:
    """How the mean gradients of losses on two samples lie to each other; float64."""

    names: tuple[str, ...]
    products: Tensor  # [loss on the first, loss on the second]
    first_norms: Tensor  # [loss]
    second_norms: Tensor  # [loss]


class GradientComparer(Protocol):
    """Differentiates the method's losses between epochs; training is untouched."""

    def __call__(self, first: str, second: str, num_samples: int) -> GradientProducts:
        """Compare gradients on so many samples of two splits ("train" or "val")."""


def _compares_nothing(first: str, second: str, num_samples: int) -> GradientProducts:
    raise Bug(f"gradients on {num_samples} samples of {first} and {second} were not asked for")


@dataclass(slots=True)
class StepContext:
    """What a method may know in a step."""

    modalities: tuple[Modality, ...]
    num_classes: int
    epoch: int
    step: int
    epochs: int
    steps_per_epoch: int
    generator: torch.Generator
    """Seeded by (seed, step): the same draws on every rank, on the model's device."""
    is_weighted: bool = False
    """Whether the epoch's plan weights samples; gradients are then divided by the weights' sum."""
    sub: SubStep | None = None
    branch: str | None = None
    """Name of the branch being tried (`plan_branches`), None on the run's own path."""
    is_skipped: Tensor | None = None
    """Whether the optimiser left everything as it was, 0-d bool; filled before `end_step`."""
    stats: dict[str, Tensor] = field(default_factory=dict)
    """Statistics of this step, summed over micro-batches and ranks; filled before `edit_grads`."""
    count: Tensor | None = None
    """Global number of samples behind `stats`, 0-d."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """0-d values for the run log, keyed `name` or `name.modality`."""

    def log(self, name: str, value: Tensor, modality: Modality | None = None) -> None:
        """Record a 0-d device value for this step; it is read back at the next flush."""
        self.metrics[name if modality is None else f"{name}.{modality}"] = value.detach()

    def log_each(self, name: str, values: Tensor) -> None:
        """Record one value per modality from a [modality] tensor."""
        for position, modality in enumerate(self.modalities):
            self.log(name, values[position], modality)


@dataclass(frozen=True, slots=True)
class EpochContext:
    """What a method may know between epochs."""

    modalities: tuple[Modality, ...]
    num_classes: int
    epoch: int
    epochs: int
    collect: EpochCollector
    metrics: Mapping[str, float]
    """Last evaluation, flat: `val.loss`, `val.acc`, `val.acc.audio`, `train.loss`, ..."""
    device: torch.device
    fuse: Fuse
    """Fuses collected features, in evaluation mode and without gradient."""
    unimodal: Callable[[Mapping[Modality, Tensor]], dict[Modality, Tensor]]
    """Gives logits per modality of collected features, likewise."""
    absent: Mapping[Modality, Tensor]
    """Mean feature of each modality, which stands for it where it is left out; -> [dim]."""
    forget_momentum: Callable[[Sequence[GroupName]], None]
    """Resets the optimiser's state of some groups, as a new optimiser would."""
    train_size: int = 0
    """Number of samples in the training split; what `DataPlan.index` counts from 0."""
    seed: int = 0
    """Seed of the run, for draws that are a function of (seed, epoch, sample)."""
    gradient_products: GradientComparer = _compares_nothing
    """Inner products of gradients on fixed samples; only with `Needs.gradient_products`."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A few epochs of training from the present state, which is restored afterwards."""

    name: str
    epochs: int


@dataclass(frozen=True, slots=True)
class BranchResult:
    """Mean losses before and after a branch, keyed `train.fused`, `val.audio`, ..."""

    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DataPlan:
    """Which samples an epoch visits, and which modalities of each are kept."""

    index: Tensor  # [visits] int64 positions within the training split
    keep: Tensor  # [visits, modality] bool
    weight: Tensor | None = None  # [visits] loss weights, or ones


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a method may know about the model when it is set up."""

    modalities: tuple[Modality, ...]
    num_classes: int
    feature_dims: Mapping[Modality, int]
    fusion: str
    device: torch.device
    task: TaskKind = "single_label"


class BalancingMethod:
    """Base of all methods; the default of every hook is plain joint training."""

    needs: ClassVar[Needs] = Needs()

    def __init__(self, options: Options) -> None:
        self.options = options

    def asked(self) -> Needs:
        """Give what these options need, where that is more than `needs` says of the method."""
        return self.needs

    def scaling_option(self) -> str | None:
        """Name the option by which gradients get a factor, which Adam largely cancels, if any do.

        Set to "update" it puts the factor on the optimiser's step instead.
        """
        chosen = getattr(self.options, "apply", "gradient")
        return "apply" if self.needs.scales_gradients and chosen == "gradient" else None

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Create state; returned modules are trained as part of the named parameter group."""
        del facts
        return {}

    def plan_epoch(self, ctx: EpochContext) -> DataPlan | None:
        """Choose the samples of the coming epoch; None visits each once."""
        del ctx
        return None

    def plan_branches(self, ctx: EpochContext) -> Sequence[Branch]:
        """Name branches to try before the coming epoch; `ctx.branch` tells the step which one."""
        del ctx
        return ()

    def end_branches(self, results: Mapping[str, BranchResult], ctx: EpochContext) -> None:
        """Use what the branches gave; the training state is again what it was before them."""

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Refresh epoch-level state."""

    def end_epoch(self, ctx: EpochContext) -> None:
        """Use the epoch's evaluation."""

    def edit_parameters(
        self, parameters: Mapping[GroupName, Sequence[Tensor]], ctx: EpochContext
    ) -> None:
        """Rewrite parameters in place between epochs; snapshots arrive as `<group>@initial`."""

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Split a batch into optimiser steps on disjoint groups; empty means one joint step."""
        del ctx
        return ()

    def hears(self, ctx: StepContext) -> Tensor | None:
        """Say which encoders hear the others in this step, [modality] bool; None for all.

        Only with fusions that exchange between encoders (mmtm); the rest take running averages.
        """
        del ctx
        return None

    def edit_features(
        self, features: dict[Modality, Tensor], batch: Batch, ctx: StepContext
    ) -> dict[Modality, Tensor]:
        """Change pooled features before fusion."""
        del batch, ctx
        return features

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give named losses, [batch] each; the default is the task's loss of the fused logits."""
        del ctx
        return {"fused": sample_loss(outputs.logits, batch)}

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Combine the summed terms into the loss; the default is their sum."""
        del ctx
        return torch.stack(list(terms.values())).sum()

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give sums over the batch that must be known over all ranks before `edit_grads`.

        A method that leaves samples out of its losses gives the number that count as `weight`;
        gradients are then divided by that sum instead of the batch size.
        """
        del outputs, batch, ctx
        return {}

    def combine(
        self, group: GroupName, gradients: Mapping[str, Sequence[Tensor]], ctx: StepContext
    ) -> Sequence[Tensor]:
        """Combine per-loss gradients of one group; the default is their sum."""
        del group, ctx
        return [torch.stack(same).sum(0) for same in zip(*gradients.values(), strict=True)]

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Edit gradients grouped by modality, after reduction and before clipping."""

    def end_step(self, ctx: StepContext) -> None:
        """Update counters and moving averages, on the device, except where `ctx.is_skipped`."""

    def predict(self, outputs: Outputs) -> Tensor:
        """Give the logits used for evaluation and export."""
        return outputs.logits

    def state_dict(self) -> dict[str, Any]:
        """Give everything a resumed run needs: tensors and plain values only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
