"""Give a weak modality more classifiers, each trained on what those before left over (AUG).

Jiang, Huang and Yang, "Rethinking multimodal learning from the perspective of mitigating
classification ability disproportion", NeurIPS 2025 (sustained boosting, adaptive assignment).

Modality m has n_m >= 1 learners, a layer and a ReLU each, read by one head h that all share:

    z_m^t = h(relu(A_m^t f_m)),   o_m = sum_{t < n_m} z_m^t,   z_m = o_m + z_m^{n_m}

In turn, a step for each modality on its encoder, its learners in use and h, with the loss

    n_m = 1:  CE(z_m, y)
    n_m > 1:  CE(z_m, y) + CE(o_m, y) + (1 - residual q_y) CE(z_m^{n_m}, y),    q = softmax(o_m)

whose last term has the residual y - residual (y * q) for a label; q is a constant. Every
epochs / checks epochs, and after the first, s_m = sum over the epoch of softmax(z_m)_y is compared:

    weakest m gets a learner  if  mean of the others' s / s_m > ratio + margin
    prediction                    sum_m a_m z_m / sum_m a_m over the modalities a sample has

    point            paper              released code                   here
    new learners     trained            created after the optimiser,    allocated before training,
                                        which never hears of them:      without gradient until
                                        they stay as initialised        they are in use
    their number     one per check      as in the paper                 max_learners bounds it
    first call       -                  the head's required argument w  -
                                        is not passed: it crashes
    residual         lambda             0.5 (comments: 0.2)             0.5
    a_m              a weighted sum     0.4 audio, 0.6 video            merge, 1 for all
    threshold        two modalities     1.01 one way, 1/0.99 the other  1.01; the weakest against
                                                                        the mean of the others
    selection        -                  best epoch on the test set      as the recipe says

A layer in use begins with an optimiser state of zero and takes part from the epoch after the check.
The fusion gets no gradient and is left as it was; the model's logits per modality are probes, and
what the learners reach is each modality's accuracy with the others absent.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._per_modality import values_of
from mmtool.methods._scores import COUNT, SCORE, counted
from mmtool.methods._task import sample_loss, sample_score
from mmtool.methods._turns import has_any, own_weight
from mmtool.types import (
    FUSION_GROUP,
    Batch,
    GradGroups,
    GroupName,
    Modality,
    Needs,
    Outputs,
    SubStep,
)

STAGE = "schedule, objective, inference"
COST = "M optimiser steps per batch, up to max_learners layers per modality"


class Options(schema.Options):
    """Size, number and assignment of the learners."""

    hidden: schema.Count = 256
    """Width of each learner's layer."""
    max_learners: schema.Count = 11
    """Most learners of one modality; all are allocated at the start."""
    checks: schema.Count = 10
    """How often in a run a learner may be added."""
    residual: schema.Fraction = 0.5
    """How much of what earlier learners say is taken off the label of the last one."""
    ratio: schema.Positive = 1.0
    """Ratio of scores above which the weakest modality gets a learner."""
    margin: Annotated[float, Field(ge=0.0)] = 0.01
    """By how much the ratio must be exceeded."""
    merge: dict[str, schema.Positive] = Field(default={})
    """Weight of a modality in the prediction, where it is not 1: {audio = 0.67}."""


class _Learners(nn.Module):
    """The layers of one modality; those beyond the first wait until they are in use."""

    def __init__(self, width: int, hidden: int, number: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(width, hidden) for _ in range(number))
        self.in_use: Tensor
        # Saved with the weights, so that an exported model predicts as the run did.
        self.register_buffer("in_use", (torch.arange(number) == 0).float())


class Method(BalancingMethod):
    """Sustained boosting with adaptive classifier assignment."""

    needs: ClassVar[Needs] = Needs(unimodal="head", min_modalities=2)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Allocate every learner and the shared head."""
        options = self.options
        self._modalities = facts.modalities
        merge = values_of(1.0, options.merge, facts.modalities, where="method.merge")
        self._merge = torch.tensor(merge, device=facts.device)
        self._numbers = dict.fromkeys(facts.modalities, 1)
        self._sums = torch.zeros(len(merge), dtype=torch.float64, device=facts.device)
        self._counts = torch.zeros_like(self._sums)
        self._of_step: dict[Modality, tuple[Tensor, Tensor]] = {}
        self._head = _layer(options.hidden, facts.num_classes)
        self._learners = {
            m: _Learners(facts.feature_dims[m], options.hidden, options.max_learners)
            for m in facts.modalities
        }
        return {**self._learners, FUSION_GROUP: self._head}

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Take learners that were assigned after the last epoch into use."""
        del ctx
        for modality, number in self._numbers.items():
            gate = self._learners[modality].in_use
            gate.copy_(torch.arange(len(gate), device=gate.device) < number)

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Give every modality a turn with the shared head."""
        self._of_step = {}
        return [SubStep((m,), (m, FUSION_GROUP), m) for m in ctx.modalities]

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of all learners, of those before the last, and of the last one's rest."""
        modality = _turn(ctx)
        logits = self._logits(outputs, modality)
        terms = boosting_losses(logits, batch, self.options.residual)
        has = has_any(batch, (modality,))
        return {f"{modality}.{name}": torch.where(has, t, 0.0) for name, t in terms.items()}

    def _logits(self, outputs: Outputs, modality: Modality) -> list[Tensor]:
        """Give the logits of each learner in use; [batch, class] each."""
        feature = outputs.features[modality].float()
        layers = list(self._learners[modality].layers)[: self._numbers[modality]]
        return [self._head(layer(feature).relu()) for layer in layers]

    @torch.no_grad()
    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the score of the modality whose turn it is."""
        modality = _turn(ctx)
        total = torch.stack(self._logits(outputs, modality)).sum(0)
        mask = counted(batch)  # the others are absent in this turn
        scores = torch.where(mask, sample_score(total, batch).unsqueeze(1), 0.0).sum(0)
        return {
            SCORE: scores,
            COUNT: mask.sum(0, dtype=scores.dtype),
            "weight": own_weight(batch, (modality,)),
        }

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Remember the scores of this turn."""
        del grads
        self._of_step[_turn(ctx)] = (ctx.stats[SCORE], ctx.stats[COUNT])

    def end_step(self, ctx: StepContext) -> None:
        """Add the step's scores to those of the epoch, and log them."""
        sums = torch.stack([s for s, _ in self._of_step.values()]).sum(0)
        counts = torch.stack([c for _, c in self._of_step.values()]).sum(0)
        ctx.log_each("score", sums / counts)
        for modality, number in self._numbers.items():
            ctx.log("learners", torch.full_like(sums[0], number), modality)
        taken = torch.ones_like(sums[0], dtype=torch.bool)
        if ctx.is_skipped is not None:
            taken = ~ctx.is_skipped
        self._sums = self._sums + torch.where(taken, sums, 0.0)
        self._counts = self._counts + torch.where(taken, counts, 0.0)

    def end_epoch(self, ctx: EpochContext) -> None:
        """Assign a learner to the weakest modality if it is far enough behind."""
        options = self.options
        means = self._sums / self._counts
        self._sums, self._counts = torch.zeros_like(self._sums), torch.zeros_like(self._counts)
        if not is_check(ctx.epoch, ctx.epochs, options.checks):
            return
        found = behind([float(mean) for mean in means], options.ratio + options.margin)
        if found is not None:
            modality = ctx.modalities[found]
            self._numbers[modality] = min(self._numbers[modality] + 1, options.max_learners)

    def predict(self, outputs: Outputs) -> Tensor:
        """Give the weighted mean of the modalities that a sample has."""
        parts = [self._total(outputs.features[m], m) for m in self._modalities]
        logits = torch.stack(parts)
        weights = self._merge.to(logits).unsqueeze(1).expand(-1, logits.shape[1])
        if outputs.present is not None:
            weights = weights * outputs.present.T
        weights = weights / weights.sum(0).clamp_min(1e-12)
        return (weights.unsqueeze(-1) * logits).sum(0)

    def _total(self, feature: Tensor, modality: Modality) -> Tensor:
        learners = self._learners[modality]
        parts = [self._head(layer(feature.float()).relu()) for layer in learners.layers]
        gates = learners.in_use.view(-1, 1, 1)
        return (torch.stack(parts) * gates).sum(0)

    def state_dict(self) -> dict[str, Any]:
        """Give the number of learners, and this epoch's scores so far."""
        return {"numbers": dict(self._numbers), "sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the number of learners and the scores."""
        self._numbers = {m: int(state["numbers"][m]) for m in self._modalities}
        self._sums = state["sums"].to(self._sums)
        self._counts = state["counts"].to(self._counts)


def _turn(ctx: StepContext) -> Modality:
    return ctx.modalities[0] if ctx.sub is None else ctx.sub.name


def _layer(num_inputs: int, num_outputs: int) -> nn.Linear:
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def boosting_losses(logits: Sequence[Tensor], batch: Batch, residual: float) -> dict[str, Tensor]:
    """Give the losses of learners in their order, [batch, class] each; [batch] by term."""
    total = torch.stack(list(logits)).sum(0)
    terms = {"all": sample_loss(total, batch)}
    if len(logits) > 1:
        before = torch.stack(list(logits[:-1])).sum(0)
        rest = 1 - residual * sample_score(before.detach(), batch)
        terms["before"] = sample_loss(before, batch)
        terms["residual"] = rest * sample_loss(logits[-1], batch)
    return terms


def is_check(epoch: int, epochs: int, checks: int) -> bool:
    """Say whether scores are compared after this epoch; always after the first."""
    every = max(1, epochs // checks)
    return epoch == 0 or (epoch + 1) % every == 0


def behind(scores: Sequence[float], threshold: float) -> int | None:
    """Give the position of the weakest modality if the others' mean is so many times its score.

    The first of several equally weak ones. A score that is NaN, for want of samples, is left out.
    """
    known = [(score, position) for position, score in enumerate(scores) if score == score]
    if len(known) < 2:
        return None
    weakest, position = min(known)
    others = [score for score, p in known if p != position]
    return position if sum(others) / len(others) > threshold * weakest else None
