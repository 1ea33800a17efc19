"""Give each modality a learning rate of its own, which follows its validation accuracy (MSLR).

Yao and Mihalcea, "Modality-specific learning rates for effective multimodal additive late-fusion",
Findings of ACL 2022.

    lr_m(t) = c_m r_m(t) lr(t)
    r_m(t)  = acc_m(t) / mean(acc_m(t-1), ..., acc_m(t-5))    smart; 1 in the static variant

acc_m is the accuracy of z_m on the validation split after epoch t, used in the epoch that follows.
With fewer than five earlier epochs the mean is over those there are; without any, r is 1. It is 1
as well where no earlier answer was right and where no validation sample has the modality. The
fusion keeps lr(t). A regression has no accuracy, and its explained variance may be negative.

    point            paper                released code (AGM, MLB)      here
    what is scaled   the learning rate    the gradient                  apply = "update", exactly
                                                                        the learning rate, decay
                                                                        included; or "gradient"
    accuracy on      validation           AGM: the test split           validation
    c_m              tuned by modality    0.9 and 1.1                   1; coefficients = {...}
    fusion           a head by modality   its own rate: lr(t)           lr(t)

Under SGD without momentum and weight decay the two kinds of scaling are one. With AdamW a factor
on the gradient does next to nothing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._per_modality import values_of
from mmtool.methods._scaling import Apply, scale_by
from mmtool.types import GradGroups, GroupName, Needs

STAGE = "schedule"
COST = "nothing"


class Options(schema.Options):
    """Which learning rates there are, and what they follow."""

    variant: Literal["smart", "static"] = "smart"
    """Follow the accuracy on validation, or keep to the coefficients."""
    coefficient: schema.Positive = 1.0
    """c, the learning rate of every modality relative to train.lr."""
    coefficients: dict[str, schema.Positive] = Field(default={})
    """c by modality, where it differs: {audio = 0.9, image = 1.1}."""
    window: schema.Count = 5
    """How many earlier epochs an accuracy is compared with."""
    apply: Apply = "update"
    """Scale the optimiser's update, which is the learning rate, or the gradient."""


class Method(BalancingMethod):
    """Modality-specific learning rates."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any",
        held_out=True,
        scales_gradients=True,
        tasks=frozenset({"single_label", "multi_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start from the coefficients."""
        options = self.options
        values = values_of(
            options.coefficient,
            options.coefficients,
            facts.modalities,
            where="method.coefficients",
        )
        self._coefficients = torch.tensor(values, device=facts.device)
        self._factors = self._coefficients
        self._accuracies: list[list[float]] = []
        return {}

    def end_epoch(self, ctx: EpochContext) -> None:
        """Compare the accuracy of each modality with that of earlier epochs."""
        after = [ctx.metrics.get(f"val.acc.{m}", float("nan")) for m in ctx.modalities]
        self._follow([*self._accuracies, after])

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Scale what each encoder gets by its learning rate."""
        ctx.log_each("coef", self._factors)
        for position, modality in enumerate(ctx.modalities):
            scale_by(grads, modality, self._factors[position], self.options.apply)

    def _follow(self, accuracies: list[list[float]]) -> None:
        self._accuracies = accuracies[-self.options.window - 1 :]
        if self.options.variant == "static" or not self._accuracies:
            return
        ratio = relative_accuracy(torch.tensor(self._accuracies, dtype=torch.float64))
        self._factors = self._coefficients * ratio.to(self._coefficients)

    def state_dict(self) -> dict[str, Any]:
        """Give the accuracies of the last epochs."""
        return {"accuracies": [list(row) for row in self._accuracies]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the accuracies of the last epochs."""
        self._follow([list(row) for row in state["accuracies"]])


def relative_accuracy(accuracies: Tensor) -> Tensor:
    """Give the last row over the mean of those before it; [epoch, modality] -> [modality].

    1 where there is nothing to compare with: no earlier epoch, no sample, or none right so far.
    """
    now, before = accuracies[-1], accuracies[:-1].nanmean(0)
    is_comparable = ~now.isnan() & (before > 0)
    return torch.where(is_comparable, now / before, 1.0)
