"""Train every modality on its own and add up what they say (unimodal ensemble, UME).

Du, Teng, Li, Liu, Yuan, Wang, Yuan and Zhao, "On uni-modal feature learning in supervised
multi-modal learning", ICML 2023. The control for every method: where modalities are conditionally
independent given the label, adding log-probabilities is the best that can be done.

    L      = sum_m CE(z_m),    z_m = the classifier of encoder m, and nothing else reads f_m
    p(y) ~ exp(sum over the modalities a sample has of log softmax(z_m)_y)

Encoders and classifiers of different modalities share no parameter, so that training them in one
run is training them one by one: each gets the gradient of its own loss, averaged over the samples
that have the modality, and an optimiser state of its own. Only train.clip_norm couples them (one
norm over all of them decides; leave it unset), and a step that is not finite is skipped for all.
The fusion gets no gradient and is left as it was; the fused logits are not used.

A multi-label or regression task adds nothing up: the prediction is the mean of the classifiers'
outputs over the modalities a sample has. A sample with none gets zeros.

    paper                           | released code | here
    one run per modality            | -             | one run, the same gradients
    mean of unimodal predictions    | -             | combine = log_probabilities (default),
                                    |               |   probabilities or logits
    every sample has every modality | -             | sums leave out what a sample lacks
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._separate import mean_over_own, own_counts
from mmtool.methods._task import own_losses
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs, SubStep, TaskKind

STAGE = "baseline, inference"
COST = "none; no fused loss"

Combine = Literal["log_probabilities", "probabilities", "logits"]
_SMALLEST = 1e-30


class Options(schema.Options):
    """How the classifiers' answers become one."""

    combine: Combine = "log_probabilities"
    """Sum of log-probabilities, mean of probabilities, or mean of logits (single-label tasks)."""


class Method(BalancingMethod):
    """Unimodal ensemble."""

    needs: ClassVar[Needs] = Needs(unimodal="head", trains_heads=True)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Remember how many modalities there are, and the task."""
        self._modalities, self._task = facts.modalities, facts.task
        return {}

    def plan_step(self, ctx: StepContext) -> Sequence[SubStep]:
        """Step on the encoders and their classifiers only."""
        return (SubStep(ctx.modalities, ctx.modalities, "separate"),)

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the loss of each classifier."""
        return own_losses(outputs, batch, ctx.modalities)

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give how many samples have each modality."""
        del outputs, ctx
        return own_counts(batch)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Average over the samples that have the modality."""
        mean_over_own(grads, ctx, ctx.modalities)

    def predict(self, outputs: Outputs) -> Tensor:
        """Combine the classifiers of the modalities that a sample has."""
        logits = torch.stack([outputs.unimodal[m].float() for m in self._modalities])
        if outputs.present is None:
            present = torch.ones_like(logits[:, :, 0], dtype=torch.bool)
        else:
            present = outputs.present.T
        return combined(logits, present, self._task, self.options.combine)


def combined(
    logits: Tensor, present: Tensor, task: TaskKind, combine: Combine = "log_probabilities"
) -> Tensor:
    """Give the ensemble's logits of [modality, batch, class], [modality, batch]; [batch, class]."""
    if task != "single_label" or combine == "logits":
        return _mean_of_present(logits, present)
    if combine == "log_probabilities":
        return torch.where(present.unsqueeze(-1), logits.log_softmax(-1), 0.0).sum(0)
    return _mean_of_present(logits.softmax(-1), present).clamp_min(_SMALLEST).log()


def _mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    counts = present.sum(0).clamp_min(1).unsqueeze(-1)
    return torch.where(present.unsqueeze(-1), values, 0.0).sum(0) / counts
