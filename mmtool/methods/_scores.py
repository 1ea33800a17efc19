"""How well each modality does on a batch, and how far it is ahead of the others.

Pure functions on device tensors: no branch depends on a value. Sums and counts are kept apart so
that they can be added over micro-batches and ranks before a ratio is formed; the mean of ratios is
not the ratio of means.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtool.methods._task import sample_score
from mmtool.types import Batch, Modality

SCORE = "score"
COUNT = "score_count"


def counted(batch: Batch) -> Tensor:
    """Give which samples have a modality and count in the loss; [batch, modality] bool."""
    if batch.weight is None:
        return batch.present
    return batch.present & (batch.weight != 0).unsqueeze(1)


@torch.no_grad()
def score_sums(unimodal: Mapping[Modality, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Give sums of scores (true-class probabilities) and sample counts; [modality] each."""
    mask = counted(batch)
    probabilities = torch.stack(
        [sample_score(unimodal[m], batch) for m in batch.modalities], dim=1
    )  # [batch, modality]
    sums = torch.where(mask, probabilities, 0.0).sum(0)
    return {SCORE: sums, COUNT: mask.sum(0, dtype=sums.dtype)}


def mean_scores(stats: Mapping[str, Tensor]) -> Tensor:
    """Give the mean score by modality; NaN where no sample had the modality."""
    return stats[SCORE] / stats[COUNT]


def ratios(scores: Tensor) -> Tensor:
    """Give rho_m = s_m / mean of the others' s; [modality] -> [modality].

    A modality whose score is NaN was absent: its ratio is 1 and the others' means leave it out. A
    modality without others has ratio 1, so do two zeros; anything against zeros is infinitely far
    ahead.
    """
    known = ~scores.isnan()
    value = torch.where(known, scores, 0.0)
    weight = (~torch.eye(len(scores), dtype=torch.bool, device=scores.device)) & known
    # Rows sum the others directly: total minus own would lose a small score beside a large one.
    others_sum = torch.where(weight, value.unsqueeze(0), 0.0).sum(1)
    num_others = weight.sum(1)
    others = others_sum / num_others.clamp_min(1)
    is_tie = (value == 0) & (others == 0)
    rho = value / others
    return torch.where(~known | (num_others == 0) | is_tie, 1.0, rho)
