"""Drop features of modalities that are ahead, more often the further ahead they are (OPM).

Wei, Hu, Du and Wen, "On-the-fly modulation for balanced multimodal learning", TPAMI 2024.

    rho_m = s_m / mean of the others' s,   s_m = mean true-class probability
    q_m   = clip(q_base (1 + lam tanh(rho_m - 1)), 0, 1)  if rho_m > 1, else 0
    f_m,i <- d_m,i f_m,i / (1 - theta),    d_m,i ~ Bernoulli(1 - q_m) per sample
    theta = sum_m dim_m q_m / sum_m dim_m

A step drops at all with probability `execute_probability`, after the warm-up epochs. Samples that
lose every modality they have get no loss.

With `ogm` the gradients are modulated as well (OPM+OGM): {alpha = 2.6, end_epoch = 80} is what the
authors use for CREMA-D. A zero is neutral only for additive fusions (concat, sum); film and gated
read it as a value.

    point            paper                released code                 here
    s comes from     this batch           this batch, one device        the step before, all ranks,
                                                                        undropped features: nothing
                                                                        to wait for in the forward
    emptied samples  left out             removed; a batch without      weight 0, so that every rank
                                          samples is skipped            keeps its batch
    theta            a constant           gets a gradient               a constant
    weak modality    -                    "OGM_plus" multiplies it      left out
                                          by 4
    more than two    -                    -                             the mean of the others
    running it       -                    a syntax error and a module   -
                                          that is missing

Draws are a function of (seed, step, sample), the same for any number of ranks and micro-batches.
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
from mmtool.methods.ogm import Method as GradientModulation
from mmtool.methods.ogm import Options as GradientOptions
from mmtool.types import Batch, GradGroups, GroupName, Modality, Needs, Outputs

STAGE = "forward, gradient"
COST = "logits per modality"

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
    ogm: GradientOptions | None = None
    """Modulates gradients too, with these options of method ogm: {alpha = 2.6}; unset does not."""


class Method(BalancingMethod):
    """On-the-fly prediction modulation."""

    needs: ClassVar[Needs] = Needs(unimodal="any", scales_gradients=True, min_modalities=2)
    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._modulation = None if options.ogm is None else GradientModulation(options.ogm)

    def scaling_option(self) -> str | None:
        """Name the option of the gradient modulation, where there is one."""
        option = None if self._modulation is None else self._modulation.scaling_option()
        return option and f"ogm.{option}"

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
        weight = torch.ones(batch.size, device=batch.label.device)
        if batch.weight is not None:
            weight = batch.weight.float()
        if self._counts is not None:
            weight = weight * self._counts
        return {**score_sums(outputs.unimodal, batch), "weight": weight.sum()}

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log, and modulate the gradients if asked to."""
        ctx.log_each("score", mean_scores(ctx.stats))
        q = self._drop_probabilities()
        ctx.log_each("drop", q if self._is_active(ctx) else torch.zeros_like(q))
        if self._modulation is not None:
            self._modulation.edit_grads(grads, ctx)

    def end_step(self, ctx: StepContext) -> None:
        """Remember this step's scores for the next one, unless it was skipped."""
        scores = mean_scores(ctx.stats).to(self._scores.dtype)
        if ctx.is_skipped is not None:
            scores = torch.where(ctx.is_skipped, self._scores, scores)
        self._scores = scores

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
