"""Weigh each modality's own loss by how far it lags: a whole method in one file, for the contract.

L = CE(z) + sum_m w_m CE(z_m),   w = softmax(-s / temperature), s the scores of the last step
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scores import mean_scores, score_sums
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, Needs, Outputs

STAGE = "objective"
COST = "a loss per modality"


class Options(schema.Options):
    temperature: schema.Positive = 0.1


class Method(BalancingMethod):
    needs: ClassVar[Needs] = Needs(unimodal="any", trains_heads=True, min_modalities=2)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[str, torch.nn.Module]:
        self._scores = torch.zeros(len(facts.modalities), device=facts.device)
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        weights = torch.softmax(-self._scores / self.options.temperature, 0).unbind()
        own = own_losses(outputs, batch).items()
        weighted = {m: weight * loss for (m, loss), weight in zip(own, weights, strict=True)}
        return {"fused": sample_loss(outputs.logits, batch), **weighted}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        return score_sums(outputs.unimodal, batch)

    def end_step(self, ctx: StepContext) -> None:
        latest = mean_scores(ctx.stats).nan_to_num()
        self._scores = torch.where(ctx.is_skipped, self._scores, latest)

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self._scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._scores = state["scores"].to(self._scores)
