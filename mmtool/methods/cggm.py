"""Speed up modalities whose classifiers improve less, and align their gradients (CGGM).

Guo, Jin, Chen and Zhao, "Classifier-guided gradient modulation for enhanced multimodal learning",
NeurIPS 2024.

    a_m(t)  = accuracy of classifier m on the batch (mean score where the task has no classes)
    d_m     = a_m(t) - a_m(t-1)
    B_m     = (sum_j d_j - d_m) / sum_j d_j
    theta_m gradient <- rho B_m g
    L       = CE(z) + lambda L_gm,   L_gm = mean over m of |B_m| - B_m cos(G_m, g_m)
    G_m     = gradient of CE(z) with respect to a linear reading of feature m
    g_m     = gradient of CE(z_m) with respect to classifier m

Gradients are scaled by this step's B; L_gm takes B and cos from the step before. Where nothing
changed in sum, B is 1 - 1/M, its value for equal progress. A modality without samples in a batch is
left alone in that step. Classifiers are the model's detached linear probes, which have an optimiser
of their own.

    point            paper                released code                 here
    G, g             gradients            the weights themselves        gradients: (p - y) f^T, for
                                                                        every fusion and task
    what L_gm does   turns gradients      loss of the step before:      cos expanded to first order
                                          its graph is gone or stale    about the last step's G, g:
                                                                        no second backward pass
    classifiers      small transformers   small transformers            linear
    B                unbounded; flips     the same, + 1e-8, clipped     the same; `limit` bounds it
                     sign with the sum    gradient norm                 to [0, limit]
    first step       -                    a(0) = 0                      not modulated

Accuracies of single batches differ mostly by chance, so B is large and of either sign: set `limit`
or train.clip_norm. With AdamW use apply = "update".
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, ModelFacts, StepContext
from mmtool.methods._scaling import Apply, scale_by
from mmtool.methods._scores import counted
from mmtool.methods._task import sample_loss, sample_score
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs, TaskKind

STAGE = "objective, gradient"
COST = "a linear classifier per modality"

RIGHT, COUNT = "right", "right_count"


class Options(schema.Options):
    """Strength of both modulations."""

    rho: schema.Positive = 1.3
    """Factor on every coefficient."""
    lam: float = 0.2
    """Weight of the loss that aligns directions; 0 leaves it out."""
    limit: schema.Positive | None = None
    """Bounds B to [0, limit]; unset is the paper's, without bounds."""
    apply: Apply = "gradient"
    """Scale the gradient, or the optimiser's update (for AdamW)."""


class Method(BalancingMethod):
    """Classifier-guided gradient modulation."""

    needs: ClassVar[Needs] = Needs(unimodal="head", scales_gradients=True, min_modalities=2)
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start without a step to compare with."""
        num = len(facts.modalities)
        self._accuracy = torch.full((num,), torch.nan, device=facts.device)
        self._weight = torch.zeros(num, device=facts.device)
        self._cosine = torch.zeros(num, device=facts.device)
        self._direction = {
            m: torch.zeros(facts.num_classes, facts.feature_dims[m], device=facts.device)
            for m in facts.modalities
        }
        return {}

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and the misalignment of directions."""
        terms = {"fused": sample_loss(outputs.logits, batch)}
        if self.options.lam == 0:
            return terms
        residual = logit_gradient(outputs.logits, batch.label, batch.task)
        each = []
        for position, modality in enumerate(ctx.modalities):
            turned = along(residual, outputs.features[modality], self._direction[modality])
            weight = self._weight[position]
            value = weight.abs() - weight * (self._cosine[position] + turned)
            each.append(torch.where(batch.present[:, position], value, 0.0))
        return {**terms, "direction": torch.stack(each).mean(0)}

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Add the weighted misalignment to the fused loss."""
        del ctx
        if "direction" not in terms:
            return terms["fused"]
        return terms["fused"] + self.options.lam * terms["direction"]

    @torch.no_grad()
    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give right answers and counts by modality, and the gradients G and g of each."""
        mask = counted(batch)
        right = torch.stack([correctness(outputs.unimodal[m], batch) for m in ctx.modalities], 1)
        sums = {
            RIGHT: torch.where(mask, right, 0.0).sum(0),
            COUNT: mask.sum(0, dtype=torch.float32),
        }
        if self.options.lam == 0:
            return sums
        weight = torch.ones_like(right[:, 0]) if batch.weight is None else batch.weight.float()
        fused = logit_gradient(outputs.logits, batch.label, batch.task)
        for position, modality in enumerate(ctx.modalities):
            own = logit_gradient(outputs.unimodal[modality], batch.label, batch.task)
            feature = outputs.features[modality].float() * (weight * mask[:, position])[:, None]
            sums[f"fused.{modality}"] = fused.float().T @ feature
            sums[f"own.{modality}"] = own.float().T @ feature
        return sums

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Scale each encoder's gradient by rho B."""
        accuracy, progress = self._progress(ctx)
        factors = torch.where(progress.isnan(), 1.0, self.options.rho * self._weights(progress))
        ctx.log_each("accuracy", accuracy)
        ctx.log_each("coef", factors)
        for position, modality in enumerate(ctx.modalities):
            scale_by(grads, modality, factors[position], self.options.apply)

    def end_step(self, ctx: StepContext) -> None:
        """Remember accuracies, B and directions, unless the step was skipped."""
        accuracy, progress = self._progress(ctx)
        stays = torch.zeros_like(accuracy[0], dtype=torch.bool)
        if ctx.is_skipped is not None:
            stays = ctx.is_skipped
        known = torch.where(accuracy.isnan(), self._accuracy, accuracy)
        self._accuracy = torch.where(stays, self._accuracy, known)
        if self.options.lam == 0:
            return
        weight = torch.where(progress.isnan(), 0.0, self._weights(progress))
        self._weight = torch.where(stays, self._weight, weight)
        count = torch.ones_like(accuracy[0]) if ctx.count is None else ctx.count
        cosines = []
        for modality, before in self._direction.items():
            fused, own = ctx.stats[f"fused.{modality}"], ctx.stats[f"own.{modality}"]
            cosine, slope = cosine_and_slope(fused / count.clamp_min(1e-12), own)
            cosines.append(cosine)
            self._direction[modality] = torch.where(stays, before, slope)
        self._cosine = torch.where(stays, self._cosine, torch.stack(cosines))
        ctx.log_each("cosine", self._cosine)

    def _progress(self, ctx: StepContext) -> tuple[Tensor, Tensor]:
        accuracy = ctx.stats[RIGHT] / ctx.stats[COUNT]
        return accuracy, accuracy - self._accuracy

    def _weights(self, progress: Tensor) -> Tensor:
        return coefficients(progress, self.options.limit)

    def state_dict(self) -> dict[str, Any]:
        """Give what the next step compares with."""
        return {
            "accuracy": self._accuracy,
            "weight": self._weight,
            "cosine": self._cosine,
            "direction": dict(self._direction),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what the next step compares with."""
        self._accuracy = state["accuracy"].to(self._accuracy)
        self._weight = state["weight"].to(self._weight)
        self._cosine = state["cosine"].to(self._cosine)
        self._direction = {m: state["direction"][m].to(d) for m, d in self._direction.items()}


_SMALLEST_SUM = 1e-6  # sums of float32 accuracies that cancel leave a few 1e-8


def coefficients(progress: Tensor, limit: float | None = None) -> Tensor:
    """Give B of each modality from its progress, 1 where that is NaN; [modality]."""
    is_known = ~progress.isnan()
    gain = torch.where(is_known, progress, 0.0)
    total, num = gain.sum(), is_known.sum()
    is_level = total.abs() < _SMALLEST_SUM
    even = 1 - 1 / num.clamp_min(1).to(gain.dtype)
    found = torch.where(is_level, even, (total - gain) / torch.where(is_level, 1.0, total))
    if limit is not None:
        found = found.clamp(0.0, limit)
    return torch.where(is_known, found, 1.0)


def correctness(logits: Tensor, batch: Batch) -> Tensor:
    """Give 1 for right answers and 0 for wrong ones, or the score of a task without classes."""
    if batch.task == "single_label":
        return (logits.argmax(1) == batch.label).float()
    return sample_score(logits, batch)


def logit_gradient(logits: Tensor, label: Tensor, task: TaskKind) -> Tensor:
    """Give the derivative of each sample's loss with respect to its logits; [batch, class]."""
    if task == "single_label":
        answer = torch.zeros_like(logits).scatter(1, label[:, None], 1.0)
        return logits.softmax(1) - answer
    size = logits.shape[1]
    if task == "multi_label":
        return (logits.sigmoid() - label) / size
    return 2 * (logits - label) / size


def along(residual: Tensor, feature: Tensor, direction: Tensor) -> Tensor:
    """Give the inner product of each sample's r f^T with a [class, dim] direction; [batch]."""
    return (residual * (feature.to(residual.dtype) @ direction.T.to(residual.dtype))).sum(1)


def cosine_and_slope(fused: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Give cos(G, g) and its derivative with respect to G; both 0 where a norm is."""
    long_fused, long_own = fused.norm(), own.norm()
    is_zero = (long_fused == 0) | (long_own == 0)
    unit_fused = fused / torch.where(is_zero, 1.0, long_fused)
    unit_own = own / torch.where(is_zero, 1.0, long_own)
    cosine = torch.where(is_zero, 0.0, (unit_fused * unit_own).sum())
    slope = (unit_own - cosine * unit_fused) / torch.where(is_zero, 1.0, long_fused)
    return cosine, torch.where(is_zero, 0.0, slope)
