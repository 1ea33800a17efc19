"""Encoders that are trained each by the loss of its own classifier, as if they were alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmtool.methods._base import StepContext
from mmtool.methods._scores import counted
from mmtool.types import Batch, GradGroups, Modality

COUNT = "own_count"


def own_counts(batch: Batch) -> dict[str, Tensor]:
    """Give how many samples have each modality and count; [modality]."""
    return {COUNT: counted(batch).sum(0, dtype=torch.float32)}


def mean_over_own(grads: GradGroups, ctx: StepContext, modalities: Sequence[Modality]) -> None:
    """Divide each encoder's gradient by the number of samples that have its modality.

    The step divides by the number of all samples, with which a rarer modality would learn slower
    here than in a run of its own.
    """
    if ctx.count is None:
        return
    factors = own_factors(ctx.stats[COUNT], ctx.count)
    for modality in modalities:
        grads.scale(modality, factors[ctx.modalities.index(modality)])


def own_factors(counts: Tensor, count: Tensor) -> Tensor:
    """Give all samples / those that have the modality; 1 where there is none. [modality]."""
    return torch.where(counts > 0, count / counts.clamp_min(1), 1.0)
