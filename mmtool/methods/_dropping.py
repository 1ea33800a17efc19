"""Draws per sample and modality, and features with some modalities zeroed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmtool.methods._base import StepContext
from mmtool.randomness import fold, sample_uniform
from mmtool.types import Batch, Modality

_SALT_MODALITY = 0x0D20
_SALT_STEP = 0x57E9


def draws(batch: Batch, ctx: StepContext) -> Tensor:
    """Give uniform numbers in [0, 1), a function of (seed, step, sample, modality) alone.

    [batch, modality]; the same whatever micro-batch or rank a sample is on.
    """
    seed = ctx.generator.initial_seed()
    return torch.stack(
        [
            sample_uniform(batch.index, seed, _SALT_MODALITY, position)
            for position in range(len(batch.modalities))
        ],
        dim=1,
    )


def step_draw(ctx: StepContext) -> float:
    """Give one uniform number in [0, 1) for the whole step, the same on every rank."""
    return float(fold(ctx.generator.initial_seed(), _SALT_STEP) >> 11) * 2.0**-53


def drop_features(
    features: dict[Modality, Tensor],
    kept: Tensor,
    modalities: Sequence[Modality],
    scale: Tensor | None = None,
) -> dict[Modality, Tensor]:
    """Give features with dropped ones zero and, with a 0-d `scale`, the kept ones multiplied."""
    edited = dict(features)
    for position, modality in enumerate(modalities):
        feature = features[modality]
        factor = kept[:, position, None].to(feature.dtype)
        if scale is not None:
            factor = factor * scale.to(feature.dtype)
        edited[modality] = feature * factor
    return edited
