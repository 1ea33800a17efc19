"""What methods that train modalities in turn share: whom a sub-step counts, and equal widths."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmtool.errors import RequestError
from mmtool.methods._base import ModelFacts
from mmtool.types import Batch, Modality


def has_any(batch: Batch, modalities: Sequence[Modality]) -> Tensor:
    """Give which samples have at least one of the modalities; [batch] bool."""
    columns = [batch.present[:, batch.modalities.index(m)] for m in modalities]
    return torch.stack(columns).any(0)


def own_weight(batch: Batch, modalities: Sequence[Modality]) -> Tensor:
    """Give the summed weight of the samples that have one of the modalities; 0-d.

    As the statistic `weight` it makes the engine average over these samples alone.
    """
    has = has_any(batch, modalities).float()
    return (has if batch.weight is None else has * batch.weight.float()).sum()


def equal_width(facts: ModelFacts, method: str, why: str) -> int:
    """Give the width that all features have, or refuse features that differ."""
    widths = {facts.feature_dims[m] for m in facts.modalities}
    if len(widths) > 1:
        found = ", ".join(f"{m}: {facts.feature_dims[m]}" for m in facts.modalities)
        raise RequestError(
            f"method {method!r} needs features of equal width",
            where="model.encoders",
            why=f"{why}; features per modality: {found}",
            fix="give the encoders equal widths",
        )
    return widths.pop()
