"""Learn from unimodal teachers, and let one modality at a time lead, the weakest first (G2D).

Rakib and Bagavathi, "G2D: boosting multimodal learning with gradient-guided distillation", ICCV
2025 (gradient-guided distillation, sequential modality prioritisation).

    L    = CE(z) + sum_m [ features MSE(f_m, f_m of teacher m) + logits T^2 KL(p_m || p) ]
           p_m = softmax(teacher m / T),   p = softmax(z / T)
    s_m  = mean over the batch of teacher m's probability of the true class
    k_m  = 1 for the modality that leads, 0 for the others,  g_m <- k_m g_m

The first share of the epochs is divided into M - 1 equal turns: in turn i the modality with the
i-th smallest s_m leads and the other encoders get no gradient at all; they still run as in
training, and momentum and weight decay of the optimiser go on. Then all train together. Scores are
those of the step's global batch, as the teachers give them, so that they do not depend on the
student.

    point              paper                      released code             here
    scores             teacher confidence         sums over the batch, a    means over the samples
                                                  comparison all the same   that have the modality
    what is zeroed     the encoder's gradient     4-d weights only; biases  parameters = "all", or
                                                  and norms still train     "conv" as released
    modalities         any, weakest leads first   two, by name              any; M - 1 turns
    length             set per dataset            epochs 0 to 150 of 300,   share = 0.5
                                                  both ends included
    equal scores       -                          ValueError stops the run  the first by name leads;
                                                                            order names who does
    fused logits       target of every teacher    as in the paper           as in the paper
    teachers           trained before             reads their weights       trained first, once
                                                  again in every epoch
    KL                 -                          batch mean, T^2           the same
    selection          -                          best epoch on the test    as the recipe says
                                                  set
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scores import mean_scores, score_sums
from mmtool.methods._task import sample_loss
from mmtool.methods._teachers import TeacherOptions, answer_distance, feature_distance, present
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs

STAGE = "objective, gradient"
COST = "a forward pass of each frozen teacher, and training them once"

FUSED = "fused"
_NotNegative = Annotated[float, Field(ge=0.0)]


class Options(TeacherOptions):
    """Which models teach, how much they count and how long one modality leads."""

    features: _NotNegative = 1.0
    """Weight of the distance between features; 0 allows for teachers of another width too."""
    logits: _NotNegative = 1.0
    """Weight of the distance between the fused answers and each teacher's."""
    temperature: schema.Positive = 1.0
    """Temperature of the answers that are compared."""
    share: schema.Fraction = 0.5
    """Share of the epochs in which one modality leads; 0 only distils."""
    parameters: Literal["all", "conv"] = "all"
    """What gets no gradient: whole encoders, or weights of convolutions as in the released code."""
    order: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Who leads, turn by turn, for example ["audio"]; unset asks the teachers in every step.
    Where they have learnt the training data by heart, all are sure and the lead goes to and fro."""


class Method(BalancingMethod):
    """Gradient-guided distillation."""

    needs: ClassVar[Needs] = Needs(teachers=True, teacher_width=True, min_modalities=2)
    options: Options

    def asked(self) -> Needs:
        """Ask for teachers of equal width where features are compared."""
        if self.options.features:
            return self.needs
        return Needs(teachers=True, min_modalities=2)

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Remember the task, and who leads when, where the recipe says so."""
        self._task = facts.task
        order = self.options.order
        if order is None:
            self._places: Tensor | None = None
            return {}
        if len(set(order)) < len(order) or not set(order) <= set(facts.modalities):
            raise RequestError(
                f"{', '.join(order)} is no order of modalities",
                where="method.order",
                why=f"the model has: {', '.join(facts.modalities)}; each may lead once",
                fix=f"-s method.order={facts.modalities[0]}",
            )
        rest = [m for m in facts.modalities if m not in order]
        places = [float([*order, *rest].index(m)) for m in facts.modalities]
        self._places = torch.tensor(places, device=facts.device)
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss, and both distances of every modality."""
        del ctx
        terms = {FUSED: sample_loss(outputs.logits, batch)}
        for modality, target in outputs.teacher_features.items():
            if self.options.features:
                distance = feature_distance(outputs.features[modality], target)
                terms[f"feature.{modality}"] = present(batch, modality, distance)
            if self.options.logits:
                distance = answer_distance(
                    outputs.logits,
                    outputs.teacher_logits[modality],
                    self._task,
                    self.options.temperature,
                )
                terms[f"logit.{modality}"] = present(batch, modality, distance)
        return terms

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Add the weighted distances to the fused loss."""
        del ctx
        weights = {"feature": self.options.features, "logit": self.options.logits, FUSED: 1.0}
        return torch.stack([weights[n.partition(".")[0]] * t for n, t in terms.items()]).sum()

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the teachers' true-class probabilities."""
        del ctx
        # Under names of their own: the log's score is the student's.
        return {f"teacher_{n}": s for n, s in score_sums(outputs.teacher_logits, batch).items()}

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Take the gradient from all encoders but the one that leads."""
        sums = {name.removeprefix("teacher_"): value for name, value in ctx.stats.items()}
        scores = mean_scores(sums)
        ctx.log_each("teacher_score", scores)
        num_turns = len(self.options.order or ctx.modalities[1:])
        turn = leading_turn(ctx.epoch, ctx.epochs, num_turns, self.options.share)
        ranked = scores if self._places is None else self._places
        factors = torch.ones_like(scores) if turn is None else leading(ranked, turn)
        ctx.log_each("coef", factors)
        if turn is None:
            return
        for position, modality in enumerate(ctx.modalities):
            grads.scale(modality, factors[position], self.options.parameters)


def leading_turn(epoch: int, epochs: int, num_turns: int, share: float) -> int | None:
    """Give whose turn it is to lead, 0 being the weakest; None where all train together."""
    num_epochs = round(share * epochs)
    if epoch >= num_epochs:
        return None
    return epoch * num_turns // num_epochs


def leading(scores: Tensor, turn: int) -> Tensor:
    """Give 1 for the modality with the turn-th smallest score and 0 for the others; [modality].

    A modality that no sample of the batch has counts as the strongest.
    """
    order = torch.where(scores.isnan(), torch.inf, scores).argsort(stable=True)
    places = torch.arange(len(scores), device=scores.device)
    return torch.where(order[turn] == places, 1.0, 0.0)
