"""Visit a sample again with one modality alone, where that modality was worth little to it (SMV).

Wei, Feng, Wang and Hu, "Enhancing multimodal cooperation via sample-level modality valuation",
CVPR 2024; the fine-grained variant.

    v(S)    = |S| if the fusion of the modalities S alone gives the right class, else 0
    phi_m,i = Shapley value of modality m for sample i;  two: phi_a = (v(a) + v(a,v) - v(v)) / 2
    copies  = 3 if phi < -0.1,  2 if phi < 0.4,  1 if phi < 1,  0 otherwise

The coming epoch visits each sample once as it is, and as often as `copies` says with modality m
alone. A fair share is phi = 1, for any number of modalities. Values are found anew before an epoch,
by one pass of the encoders over the training split and 2^M - 1 fusions of its features; epochs get
longer by the copies, and the schedule of the learning rate goes by the share of the epoch done.

    paper               | released code           | here
    the others zero     | features zero, after    | the others absent: their mean feature stands for
                        |   the encoders          |   them in both places; their encoders get no
                        |                         |   gradient from the copy
    every modality      | as in the paper         | |S| counts what a sample has; no copy of what it
                        |                         |   lacks, or of the only one it has
    two modalities      | as in the paper         | any number: a copy keeps m and nothing else
    -                   | crashes before the end  | warm-up epochs visit each sample once
                        |   of a longer warm-up   |
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, DataPlan, EpochContext, ModelFacts, StepContext
from mmtool.methods._valuation import can_be_singled_out, mean_values, sample_values
from mmtool.types import GradGroups, GroupName, Needs

STAGE = "data"
COST = "one pass over the training split per epoch, and up to 3 M more visits"

_THRESHOLDS = (-0.1, 0.4, 1.0)
_ROUNDING = 1e-6


class Options(schema.Options):
    """When samples are valued."""

    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """Epochs at the start that visit each sample once."""
    every: schema.Count = 1
    """Epochs for which a valuation is used before the next one."""


class Method(BalancingMethod):
    """Sample-level modality valuation, one decision per sample."""

    needs: ClassVar[Needs] = Needs(
        epoch_statistics=frozenset({"features"}),
        sample_index=True,
        min_modalities=2,
        max_modalities=8,
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start without values."""
        self._values = torch.full((len(facts.modalities),), torch.nan, device=facts.device)
        self._copies: Tensor | None = None
        return {}

    def plan_epoch(self, ctx: EpochContext) -> DataPlan | None:
        """Value every sample and add copies where a modality was worth little."""
        since = ctx.epoch - self.options.warmup_epochs
        if since < 0:
            return None
        if self._copies is None or since % self.options.every == 0:
            collected = ctx.collect("features")
            present = collected["present"].bool()
            values = sample_values(collected, ctx.modalities, ctx.fuse, ctx.absent)
            self._values = mean_values(values, present).to(self._values)
            self._copies = torch.where(can_be_singled_out(present), num_copies(values), 0)
        return plan(self._copies)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log what each modality was worth on average, and how long the epoch is."""
        del grads
        ctx.log_each("value", self._values)
        ctx.log("steps", torch.full_like(self._values[0], float(ctx.steps_per_epoch)))

    def state_dict(self) -> dict[str, Any]:
        """Give the values and the copies that are in use."""
        return {"values": self._values, "copies": self._copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the values and the copies."""
        self._values = state["values"].to(self._values)
        self._copies = state["copies"]


def num_copies(values: Tensor) -> Tensor:
    """Give how often a sample is visited again with each modality alone; the shape of values."""
    bounds = torch.tensor(_THRESHOLDS, dtype=values.dtype, device=values.device) - _ROUNDING
    return (values.unsqueeze(-1) < bounds).sum(-1)


def plan(copies: Tensor) -> DataPlan:
    """Give an epoch of each sample as it is and of the copies, [sample, modality]."""
    num_samples, num_modalities = copies.shape
    everyone = torch.arange(num_samples, device=copies.device)
    index, keep = [everyone], [copies.new_ones(copies.shape, dtype=torch.bool)]
    for position in range(num_modalities):
        again = everyone.repeat_interleave(copies[:, position])
        alone = torch.zeros(len(again), num_modalities, dtype=torch.bool, device=copies.device)
        alone[:, position] = True
        index.append(again)
        keep.append(alone)
    return DataPlan(torch.cat(index), torch.cat(keep))
