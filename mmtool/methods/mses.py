"""Stop training each encoder when its own validation loss stops falling (MSES).

Fujimori, Endo, Kawai and Mochizuki, "Modality-specific learning rate control for multimodal
classification", ACPR 2019.

    lr_m(t) = lr(t)  until the validation loss of z_m has not improved for `patience` epochs
            = 0      from then on

A modality improves when its loss falls below the best one so far by more than min_delta. One that
has stopped stays so, whatever its loss does later. The fusion is trained to the end, with encoders
that stand still. A modality that no validation sample has never stops.

    point            paper                released code (AGM, MLB)      here
    a stopped        learning rate 0      gradient 0: momentum and      left out of the optimiser
    encoder                               weight decay go on            (apply = "update"), or
                                                                        gradient 0 ("gradient")
    its batch norm   -                    statistics go on              runs as in evaluation, or
    and dropout                                                         goes on ("gradient")
    loss on          validation           AGM: the test split           validation
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._scaling import Apply
from mmtool.types import FUSION_GROUP, GradGroups, GroupName, Needs, SubStep

STAGE = "schedule"
COST = "nothing"


class Options(schema.Options):
    """When a modality has learnt enough."""

    patience: schema.Count = 3
    """Epochs without improvement after which a modality stops."""
    min_delta: float = 0.0
    """By how much the loss must fall below the best one to count as an improvement."""
    apply: Apply = "update"
    """Leave stopped encoders out of the update, or set their gradients to zero."""


class Method(BalancingMethod):
    """Early stopping of each modality."""

    needs: ClassVar[Needs] = Needs(unimodal="any", held_out=True)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with every modality in training."""
        num = len(facts.modalities)
        self._best = torch.full((num,), torch.inf, dtype=torch.float64)
        self._stale = torch.zeros(num, dtype=torch.int64)
        self._is_stopped = torch.zeros(num, dtype=torch.bool)
        self._device = facts.device
        self._publish()
        return {}

    def end_epoch(self, ctx: EpochContext) -> None:
        """Stop modalities whose loss has not improved for long enough."""
        values = [ctx.metrics.get(f"val.loss.{m}", float("nan")) for m in ctx.modalities]
        loss = torch.tensor(values, dtype=torch.float64)
        self._best, self._stale = watch(loss, self._best, self._stale, self.options.min_delta)
        self._is_stopped = self._is_stopped | (self._stale >= self.options.patience)
        self._publish()

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Leave the groups of stopped modalities out of the optimiser's step."""
        if self.options.apply == "gradient" or not any(self._stopped):
            return ()
        pairs = list(zip(ctx.modalities, self._stopped, strict=True))
        trained = tuple(modality for modality, is_stopped in pairs if not is_stopped)
        stopped = tuple(modality for modality, is_stopped in pairs if is_stopped)
        return [SubStep(ctx.modalities, (*trained, FUSION_GROUP), frozen=stopped)]

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log which modalities learn; set the gradients of the others to zero if asked to."""
        ctx.log_each("coef", self._factors)
        if self.options.apply == "gradient":
            for position, modality in enumerate(ctx.modalities):
                grads.scale(modality, self._factors[position])

    def _publish(self) -> None:
        self._stopped = [bool(value) for value in self._is_stopped]
        self._factors = (~self._is_stopped).float().to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Give the best losses, the epochs since, and who has stopped."""
        return {"best": self._best, "stale": self._stale, "is_stopped": self._is_stopped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the best losses, the epochs since, and who has stopped."""
        self._best = state["best"].to(self._best)
        self._stale = state["stale"].to(self._stale)
        self._is_stopped = state["is_stopped"].to(self._is_stopped)
        self._publish()


def watch(loss: Tensor, best: Tensor, stale: Tensor, min_delta: float) -> tuple[Tensor, Tensor]:
    """Give the best loss and the number of epochs since, after another epoch; [modality] each.

    A loss that is NaN, for want of samples, changes neither.
    """
    is_better = loss < best - min_delta
    unknown = loss.isnan()
    waited = torch.where(is_better, 0, stale + 1)
    return torch.where(is_better, loss, best), torch.where(unknown, stale, waited)
