"""Teach the model not to grow more confident when a modality is taken away (CML).

Ma, Zhang, Zhang, Wu, Fu, Zhou and Hu, "Calibrating multimodal learning", ICML 2023.

    T_1 < T_2 < ... < T_M = all    modalities removed one after the other, in a random order
    L = 1/M sum_k CE(z(T_k)) + lam sum_(k < M) max(0, conf(T_k) - conf(all))
    conf(T) = max_y softmax(z(T))_y

z(T) is the fusion of the modalities of T, with the mean feature in place of the others. Gradients
reach both confidences. Modalities that a sample lacks are removed first, which changes nothing, so
that no loss is asked of a sample without input. In a multi-label task the confidence is the mean of
max(p, 1 - p) over the answers; a regression has none and is refused.

    paper                | reimplementations        | here
    order per sample     | one order for an epoch   | order = "sample" (default) or "epoch"
    max of each sample   | max of the batch's sum   | of each sample; the other depends on how a
                         |                          |   batch is cut and is left out
    never more sure      | against all modalities   | against = "full" (default), or "previous" for
      with one removed   |                          |   each set against the next larger one

The authors released no training code of the method itself.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._dropping import draws
from mmtool.methods._task import sample_loss
from mmtool.randomness import sample_uniform
from mmtool.types import Batch, Needs, Outputs, TaskKind

STAGE = "objective"
COST = "M - 1 fusions"

FULL, PARTIAL, CALIBRATION = "fused", "partial", "calibration"
_SALT_EPOCH = 0xC311


class Options(schema.Options):
    """Weight of the calibration loss, and which sets it compares."""

    lam: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the calibration loss."""
    against: Literal["full", "previous"] = "full"
    """Compare each set with all modalities, or with the next larger set."""
    order: Literal["sample", "epoch"] = "sample"
    """Draw the order of removal anew for each sample and step, or once for an epoch."""


class Method(BalancingMethod):
    """Calibrating multimodal learning."""

    needs: ClassVar[Needs] = Needs(
        subsets="mean", min_modalities=2, tasks=frozenset({"single_label", "multi_label"})
    )
    options: Options

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss, the summed losses of the smaller sets, and the calibration loss."""
        assert outputs.fuse is not None, "the method asks for it"
        ranks = removal_ranks(self._draws(batch, ctx), batch.present)
        answers = []  # of one modality, of two, ...
        for size in range(1, len(batch.modalities)):
            kept = ranks < size  # [batch, modality]
            features = {
                m: torch.where(kept[:, position, None], f, outputs.absent[m].to(f.dtype))
                for position, m in enumerate(batch.modalities)
                for f in (outputs.features[m],)
            }
            answers.append(outputs.fuse(features))
        answers.append(outputs.logits)
        confidences = torch.stack([confidence(z, batch.task) for z in answers])
        return {
            FULL: sample_loss(outputs.logits, batch),
            PARTIAL: torch.stack([sample_loss(z, batch) for z in answers[:-1]]).sum(0),
            CALIBRATION: calibration(confidences, self.options.against),
        }

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Average the losses of all sets and add the weighted calibration loss."""
        mean = (terms[FULL] + terms[PARTIAL]) / len(ctx.modalities)
        return mean + self.options.lam * terms[CALIBRATION]

    def _draws(self, batch: Batch, ctx: StepContext) -> Tensor:
        if self.options.order == "sample":
            return draws(batch, ctx)
        one = torch.zeros_like(batch.index[:1])
        each = [sample_uniform(one, ctx.epoch, _SALT_EPOCH, m) for m in range(len(ctx.modalities))]
        return torch.stack(each, dim=1).expand(batch.size, -1)


def removal_ranks(drawn: Tensor, present: Tensor) -> Tensor:
    """Give each modality's place among those kept longest, 0 for the last one; [batch, modality].

    A modality that is there is kept longer than any that is not.
    """
    return (drawn + (~present).to(drawn.dtype)).argsort(dim=1, stable=True).argsort(1)


def confidence(logits: Tensor, task: TaskKind) -> Tensor:
    """Give how sure an answer is, from the smallest possible share to 1; [batch]."""
    if task == "multi_label":
        sure = logits.sigmoid()
        return torch.maximum(sure, 1 - sure).mean(1)
    return logits.softmax(1).amax(1)


def calibration(confidences: Tensor, against: Literal["full", "previous"] = "full") -> Tensor:
    """Give how much smaller sets are more sure than larger ones, of [set, batch]; [batch].

    Sets come in growing order, the last one being all modalities.
    """
    larger = confidences[-1:] if against == "full" else confidences[1:]
    return (confidences[:-1] - larger).clamp_min(0).sum(0)
