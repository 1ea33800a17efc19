"""Dimensions of a feature that tell classes apart, and one-way transfer along some of them."""

import torch
from torch import Tensor


def effective_dimensions(features: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Give the dimensions along which samples are nearest to their own class more than on average.

    `features` is [sample, dim], `label` [sample]; -> [dim] bool. A class without samples has no
    mean and is nobody's nearest. Of equally near classes the first one counts.
    """
    if not len(features):
        return torch.zeros(features.shape[1], dtype=torch.bool, device=features.device)
    nearest = torch.full_like(features, torch.inf)
    owner = torch.full_like(features, -1, dtype=torch.int64)
    for number in range(num_classes):
        members = features[label == number]
        if not len(members):
            continue
        distance = (features - members.mean(0)).abs()
        is_nearer = distance < nearest
        nearest = torch.where(is_nearer, distance, nearest)
        owner = torch.where(is_nearer, number, owner)
    hits = (owner == label.unsqueeze(1)).sum(0)
    return hits * len(hits) > hits.sum()  # in whole numbers, so that equals stay equal


def transfer_loss(
    target: Tensor, source: Tensor, others: Tensor, is_other: Tensor, mask: Tensor, tau: float
) -> Tensor:
    """Give -log of the share of the own source among the sources that a target could belong to.

    `target` and `source` are [batch, dim], `others` [slot, dim], `is_other` [batch, slot], `mask`
    [dim]: the dimensions compared. 0 where there is no dimension; [batch].
    """
    chosen = target * mask.to(target.dtype)
    own = (chosen * source).sum(1, keepdim=True) / tau
    rest = (chosen @ others.T / tau).masked_fill(~is_other, -torch.inf)
    loss = torch.cat([own, rest], 1).logsumexp(1) - own.squeeze(1)
    return torch.where(mask.any(), loss, 0.0)


def remembered_sums(
    features: Tensor, index: Tensor, known: Tensor, num_slots: int
) -> dict[str, Tensor]:
    """Give features, indices and counts added up by slot, the slot being the index modulo slots.

    A slot that one sample fell into, over all ranks and micro-batches, holds it unchanged; the
    others are recognised by their counts. feature [slot, dim], index and count [slot].
    """
    slot = index % num_slots
    weight = known.to(features.dtype)
    kept = torch.where(known.unsqueeze(1), features, 0.0)
    empty = features.new_zeros(num_slots)
    numbers = torch.where(known, index, 0).double()
    return {
        "feature": features.new_zeros(num_slots, features.shape[1]).index_add(0, slot, kept),
        "count": empty.index_add(0, slot, weight),
        "index": empty.double().index_add(0, slot, numbers),
    }
