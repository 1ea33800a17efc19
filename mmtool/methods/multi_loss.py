"""Add a cross entropy per modality to the fused one, all with fixed weights.

    L = CE(z) + sum_m lambda_m CE(z_m)

The control for every method that adds unimodal losses: much of what such methods gain, this gains
as well. z_m are the model's logits per modality and train the encoders: parts of the fused logits
(decompose), classifiers of their own (model.unimodal = "head"), or the fusion with the other
modalities at their mean (ablate). Terms are logged unweighted.

    point            papers               released code                 here
    weights          1                    MMPareto, MLB: 1              weight = 1; weights = {...}
    heads            own heads            own heads                     whatever the model has
    lacking samples  -                    -                             count in the terms of the
                                                                        modalities they have; terms
                                                                        are divided by the number of
                                                                        all samples
    known under      uniform baseline     BalanceBenchmark's MMPareto   multi_loss
                                          is this, three times as long
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._per_modality import values_of
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, GroupName, Needs, Outputs

STAGE = "baseline, objective"
COST = "a loss per modality"

FUSED = "fused"


class Options(schema.Options):
    """Weights of the unimodal losses."""

    weight: float = 1.0
    """Weight of each modality's loss."""
    weights: dict[str, float] = Field(default={})
    """Weight by modality, where it differs: {audio = 0.5}."""


class Method(BalancingMethod):
    """Joint training with a loss per modality."""

    needs: ClassVar[Needs] = Needs(unimodal="any", trains_heads=True)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Resolve the weight of each modality."""
        options = self.options
        values = values_of(
            options.weight, options.weights, facts.modalities, where="method.weights"
        )
        self._weights = dict(zip(facts.modalities, values, strict=True))
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and one per modality, zero for samples that lack it."""
        del ctx
        return {FUSED: sample_loss(outputs.logits, batch), **own_losses(outputs, batch)}

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Add the weighted unimodal losses to the fused one."""
        del ctx
        weighted = [self._weights[m] * terms[m] for m in self._weights]
        return torch.stack([terms[FUSED], *weighted]).sum()
