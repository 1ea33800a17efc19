"""Zero whole modality features at random, with fixed probabilities (ModDrop).

Neverova, Wolf, Taylor and Nebout, "ModDrop: adaptive multi-modal gesture recognition", TPAMI 2016.

    f_m,i <- d_m,i f_m,i,   d_m,i ~ Bernoulli(1 - q_m) per sample

The control for opm, whose probabilities adapt. A sample never loses every modality it has: where
all were drawn to be dropped, the one with the largest draw stays. A zero is neutral only for
additive fusions (concat, sum); film and gated read it as a value.

    point            paper                released code                 here
    what is dropped  the inputs           -                             the features
    rescaling        none                 -                             none
    all dropped      possible             -                             one modality stays
    draws            per sample           -                             a function of (seed, step,
                                                                        sample, modality)
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._dropping import draws, drop_features
from mmtool.methods._per_modality import values_of
from mmtool.types import Batch, GroupName, Modality, Needs

STAGE = "baseline, forward"
COST = "nothing"


class Options(schema.Options):
    """Drop probabilities."""

    rate: schema.Fraction = 0.2
    """Probability with which a sample loses a modality."""
    rates: dict[str, schema.Fraction] = Field(default={})
    """Probability by modality, where it differs: {audio = 0.5}."""


class Method(BalancingMethod):
    """Dropout of whole modalities."""

    needs: ClassVar[Needs] = Needs(min_modalities=2)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Place the rates on the device."""
        options = self.options
        rates = values_of(options.rate, options.rates, facts.modalities, where="method.rates")
        self._rates = torch.tensor(rates, device=facts.device)
        return {}

    def edit_features(
        self, features: dict[Modality, Tensor], batch: Batch, ctx: StepContext
    ) -> dict[Modality, Tensor]:
        """Zero the features of dropped modalities."""
        kept = keep_one(draws(batch, ctx), self._rates, batch.present)
        return drop_features(features, kept, batch.modalities)


def keep_one(uniform: Tensor, rates: Tensor, present: Tensor) -> Tensor:
    """Give which modalities a sample keeps, at least one it has; [batch, modality] bool."""
    kept = uniform >= rates
    has_kept = (kept & present).any(1, keepdim=True)
    largest = torch.where(present, uniform, -1.0).argmax(1, keepdim=True)
    position = torch.arange(uniform.shape[1], device=uniform.device)
    return torch.where(has_kept, kept, kept | (position == largest))
