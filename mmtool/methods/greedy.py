"""Cut a modality off from the other for a few steps when it learns too much by listening (Greedy).

Wu, Jastrzebski, Cho and Geras, "Characterizing and overcoming the greedy nature of learning in
multi-modal deep neural networks", ICML 2022. Two encoders that hear each other (fusion mmtm).

    L = CE(z_0) + CE(z_1),  z_m the logits of branch m; the answer is their mean
    mu(theta) = sum over steps of ||g||^2 / ||theta||^2
    d = log10(mu(bypass_0) / mu(main_0)) - log10(mu(bypass_1) / mu(main_1))
    |d| > epsilon: for `window` steps modality 0 (d > 0) or 1 (d < 0) hears running averages

main_m are the weights of encoder m, bypass_m those through which it hears the other. Both are sums
over whole groups of tensors; steps of a window do not count. After each window comes at least one
ordinary step. The paper's conditional utilisation u(m' | m) = (acc - acc_m) / acc follows from
the logged accuracies, acc_m being that of a modality that hears averages.

            | paper                | released code                | here
    cut off | the other's squeeze  | the modality's gates, by     | the other's squeeze, by its
            | by its average       | their average                | average over training
    average | over training        | of both from the first       | of each from its own; over
            |                      | modality's gates (a typo)    | ranks and micro-batches
    bypass  | weights of the       | gates and, for both, the     | the same
            | exchange             | joint layer                  |
    main    | unimodal weights     | encoder and its classifier   | encoder
    gradient| of the batch         | of the batch                 | of the global batch, unclipped
    start   | -                    | second epoch                 | the same: start_epoch = 1
    gates   | -                    | sigmoid                      | 2 sigmoid, as in MMTM's paper
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._task import own_losses
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs

STAGE = "forward, schedule"
COST = "norms of gradients and weights"


class Options(schema.Options):
    """When a modality is cut off, and for how long."""

    epsilon: schema.Positive = 0.01
    """Difference of the ratios of learning speeds beyond which a modality is cut off."""
    window: schema.Count = 5
    """Steps for which it is."""
    start_epoch: Annotated[int, Field(ge=0)] = 1
    """First epoch in which one may be, counted from 0; speeds are summed up from the start."""


class Method(BalancingMethod):
    """Balanced learning by conditional learning speed."""

    needs: ClassVar[Needs] = Needs(
        unimodal="decompose",
        trains_heads=True,
        min_modalities=2,
        max_modalities=2,
        fusions=frozenset({"mmtm"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Begin with both modalities listening."""
        device = facts.device
        self._places = torch.arange(len(facts.modalities), device=device)
        self._speeds = torch.zeros(2, len(facts.modalities), dtype=torch.float64, device=device)
        self._increase = torch.zeros_like(self._speeds)
        self._left = torch.zeros((), dtype=torch.int64, device=device)
        self._cut_off = torch.zeros((), dtype=torch.int64, device=device)
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of each branch, whose logits are M times its part of the answer."""
        del ctx
        num = len(outputs.unimodal)
        branches = {m: num * part for m, part in outputs.unimodal.items()}
        return own_losses(replace(outputs, unimodal=branches), batch)

    def hears(self, ctx: StepContext) -> Tensor | None:
        """Cut off the modality of the present window, if there is one."""
        del ctx
        return (self._left == 0) | (self._places != self._cut_off)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Read how fast main and bypass weights of each modality move; edits nothing."""
        groups = [*ctx.modalities, *(f"exchange.{m}" for m in ctx.modalities)]
        moved = [grads.tensors(group) for group in groups]
        found = speeds_of(moved, [grads.values(group) for group in groups])
        self._increase = found.to(self._speeds).view_as(self._speeds)
        ctx.log_each("hears", (self._left == 0) | (self._places != self._cut_off))

    def end_step(self, ctx: StepContext) -> None:
        """Add up the speeds of an ordinary step, and begin or go on with a window."""
        skipped = torch.zeros_like(self._left, dtype=torch.bool)
        skipped = skipped if ctx.is_skipped is None else ctx.is_skipped
        counts = (self._left == 0) & ~skipped
        self._speeds = torch.where(counts, self._speeds + self._increase, self._speeds)
        ahead = difference(self._speeds)
        ctx.log("difference", ahead)
        may_begin = counts if ctx.epoch >= self.options.start_epoch else torch.zeros_like(counts)
        left, cut_off = next_window(
            ahead, self._left, self._cut_off, may_begin, self.options.epsilon, self.options.window
        )
        self._left = torch.where(skipped, self._left, left)
        self._cut_off = torch.where(skipped, self._cut_off, cut_off)

    def state_dict(self) -> dict[str, Any]:
        """Give the speeds so far and the present window."""
        return {"speeds": self._speeds, "left": self._left, "cut_off": self._cut_off}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._speeds, self._left = state["speeds"], state["left"]
        self._cut_off = state["cut_off"]


def speeds_of(gradients: Sequence[Sequence[Tensor]], values: Sequence[Sequence[Tensor]]) -> Tensor:
    """Give each group's squared norm of gradients over that of its weights; zero without; [group].

    All tensors are measured at once, which takes few launches on a GPU.
    """
    if not any(gradients):
        return torch.zeros(len(gradients))
    moved, size = squares(gradients), squares(values)
    return torch.where(size > 0, moved / size, 0.0)


def squares(groups: Sequence[Sequence[Tensor]]) -> Tensor:
    """Give the squared norm over all tensors of each group; [group] float64."""
    norms = torch.stack(torch._foreach_norm([tensor for group in groups for tensor in group]))
    parts = norms.double().square().split([len(group) for group in groups])
    return torch.stack([part.sum() for part in parts])


def difference(speeds: Tensor) -> Tensor:
    """Give d from sums of speeds [main and bypass, modality]; 0 while one has not moved at all."""
    main, bypass = speeds
    ratio = (bypass / main).log10()
    return torch.where((speeds > 0).all(), ratio[0] - ratio[1], 0.0)


def next_window(
    ahead: Tensor, left: Tensor, cut_off: Tensor, may_begin: Tensor, epsilon: float, window: int
) -> tuple[Tensor, Tensor]:
    """Give the steps left of a window and which modality it cuts off, after a step."""
    begins = may_begin & (left == 0) & (ahead.abs() > epsilon)
    favoured = torch.where(ahead > 0, 0, 1)
    still = torch.where(begins, window, (left - 1).clamp_min(0))
    return still, torch.where(begins, favoured, cut_off)
