"""Drop features of modalities that are ahead, more often the further ahead they are (OPM).

Wei, Hu, Du and Wen, "On-the-fly modulation for balanced multimodal learning", TPAMI 2024.

    rho_m = s_m / mean of the others' s,   s_m = mean true-class probability
    q_m   = clip(q_base (1 + lam tanh(rho_m - 1)), 0, 1)  if rho_m > 1, else 0
    f_m,i <- d_m,i f_m,i / (1 - theta),    d_m,i ~ Bernoulli(1 - q_m) per sample
    theta = sum_m dim_m q_m / sum_m dim_m

A step drops at all with probability `execute_probability`, after the warm-up epochs. Samples that
lose every modality they have get no loss.

Departures from the paper's released code: rho comes from the previous step's scores over all ranks,
on undropped features, so that no collective is needed in the middle of a forward pass; emptied
samples are weighted by zero instead of removed, so that every rank keeps its batch; its
undocumented branch that multiplies the weak modality by 4 is left out. Draws are a function of
(seed, step, sample). A zero is neutral only for additive fusions (concat, sum); film and gated read
it as a value.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._dropping import draws, drop_features, step_draw
from mmtool.methods._scores import mean_scores, ratios, score_sums
from mmtool.methods._task import sample_loss
from mmtool.types import Batch, GradGroups, GroupName, Modality, Needs, Outputs

_LARGEST_THETA = 0.99


class Options(schema.Options):
    """How often and how strongly features are dropped."""

    q_base: schema.Fraction = 0.5
    """Drop probability of a modality that is barely ahead."""
    lam: schema.Fraction = 0.5
    """How much the probability grows with the lead."""
    execute_probability: schema.Fraction = 0.7
    """Probability with which a step drops at all."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """Epochs at the start without dropping."""


class Method(BalancingMethod):
    """On-the-fly prediction modulation."""

    needs: ClassVar[Needs] = Needs(unimodal="any", min_modalities=2)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with no modality known to be ahead."""
        dims = [float(facts.feature_dims[m]) for m in facts.modalities]
        self._dims = torch.tensor(dims, device=facts.device)
        self._scores = torch.full((len(dims),), torch.nan, device=facts.device)
        self._counts: Tensor | None = None
        return {}

    def edit_features(
        self, features: dict[Modality, Tensor], batch: Batch, ctx: StepContext
    ) -> dict[Modality, Tensor]:
        """Zero dropped features and scale up the others."""
        self._counts = None
        if not self._is_active(ctx):
            return features
        q = self._drop_probabilities()
        kept = draws(batch, ctx) >= q  # [batch, modality]
        self._counts = (kept & batch.present).any(1).float()
        return drop_features(features, kept, batch.modalities, survivor_scale(q, self._dims))

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss of samples that kept something."""
        del ctx
        loss = sample_loss(outputs.logits, batch)
        return {"fused": loss if self._counts is None else loss * self._counts}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give true-class probabilities of the undropped features, and how many samples count."""
        del ctx
        weight = torch.ones_like(batch.label, dtype=torch.float32)
        if batch.weight is not None:
            weight = batch.weight.float()
        if self._counts is not None:
            weight = weight * self._counts
        return {**score_sums(outputs.unimodal, batch), "weight": weight.sum()}

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log, and remember this step's scores for the next one."""
        del grads
        scores = mean_scores(ctx.stats)
        ctx.log_each("score", scores)
        q = self._drop_probabilities()
        ctx.log_each("drop", q if self._is_active(ctx) else torch.zeros_like(q))
        self._scores = scores.to(self._scores.dtype)

    def _drop_probabilities(self) -> Tensor:
        return drop_probabilities(self._scores, self.options.q_base, self.options.lam)

    def _is_active(self, ctx: StepContext) -> bool:
        if ctx.epoch < self.options.warmup_epochs:
            return False
        return step_draw(ctx) < self.options.execute_probability

    def state_dict(self) -> dict[str, Any]:
        """Give the scores of the last step."""
        return {"scores": self._scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the scores of the last step."""
        self._scores = state["scores"].to(self._scores)


def drop_probabilities(scores: Tensor, q_base: float, lam: float) -> Tensor:
    """Give q of each modality; 0 for every one that is not ahead. [modality]."""
    rho = ratios(scores)
    q = (q_base * (1 + lam * torch.tanh(rho - 1))).clamp(0.0, 1.0)
    return torch.where(rho > 1, q, 0.0)


def survivor_scale(q: Tensor, dims: Tensor) -> Tensor:
    """Give 1 / (1 - theta), theta being the expected share of dropped feature values; 0-d."""
    theta = (dims * q).sum() / dims.sum()
    return 1 / (1 - theta.clamp(max=_LARGEST_THETA))
