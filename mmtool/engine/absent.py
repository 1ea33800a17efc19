"""What stands for a modality that a method leaves out of the fusion."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtool.engine.job import Job
from mmtool.types import Batch, Modality


def absent_features(
    job: Job, batch: Batch, features: Mapping[Modality, Tensor]
) -> dict[Modality, Tensor]:
    """Give a feature [1 or batch, dim] for each modality, of the kind the method asks for."""
    kind = job.method.needs.subsets
    if kind == "mean":
        return {m: job.model.mean_feature(m).to(f.dtype)[None] for m, f in features.items()}
    if kind == "zero":
        return {m: torch.zeros_like(f[:1]) for m, f in features.items()}
    if kind == "blank":
        return {m: job.model.blank_feature(m, batch).to(f.dtype) for m, f in features.items()}
    return {}
