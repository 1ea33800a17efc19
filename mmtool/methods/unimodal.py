"""Train the encoder of one modality alone, with a classifier of its own.

The yardstick of a modality: what its encoder reaches when nothing competes with it.

    L = mean over the samples that have modality m of CE(z_m),    prediction z_m

The step runs this encoder only; the other encoders and the fusion keep their first weights. The run
keeps all modalities, so that it is evaluated on the same samples as the joint run beside it. Where
that does not matter, -s data.modalities=NAME with method none is the same training and reads less.
A sample that lacks the modality is left out of the loss, and evaluated with the modality's mean
feature in its place.

    paper | released code | here
    -     | -             | equal to the encoder of the same modality in a run of ume
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._separate import mean_over_own, own_counts
from mmtool.methods._task import own_losses
from mmtool.text import suggestion
from mmtool.types import Batch, GradGroups, GroupName, Modality, Needs, Outputs, SubStep

STAGE = "baseline"
COST = "less: one encoder"


class Options(schema.Options):
    """Which modality is trained."""

    modality: str | None = None
    """The modality that is trained, by its name in the data set; unset takes the only one."""


class Method(BalancingMethod):
    """One modality alone."""

    needs: ClassVar[Needs] = Needs(unimodal="head", trains_heads=True)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Refuse a modality that the data set does not have."""
        self._modality: Modality = self.options.modality or _only(facts.modalities)
        if self._modality not in facts.modalities:
            raise RequestError(
                f"there is no modality {self._modality!r}",
                where="method.modality",
                why=f"the model has: {', '.join(facts.modalities)}",
                fix=suggestion(
                    self._modality,
                    facts.modalities,
                    otherwise=f"-s method.modality={facts.modalities[0]}",
                ),
            )
        return {}

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Run and step on one encoder and its classifier."""
        del ctx
        return (SubStep((self._modality,), (self._modality,), self._modality),)

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of the one classifier."""
        del ctx
        return own_losses(outputs, batch, (self._modality,))

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give how many samples have each modality."""
        del outputs, ctx
        return own_counts(batch)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Average over the samples that have the modality."""
        mean_over_own(grads, ctx, (self._modality,))

    def predict(self, outputs: Outputs) -> Tensor:
        """Give the logits of the one classifier."""
        return outputs.unimodal[self._modality]


def _only(modalities: Sequence[Modality]) -> Modality:
    """Give the one modality that there is."""
    if len(modalities) > 1:
        raise RequestError(
            "method 'unimodal' is not told which modality to train",
            where="method.modality",
            why=f"the data set has: {', '.join(modalities)}",
            fix=f"-s method.modality={modalities[0]}",
        )
    return modalities[0]
