"""What each modality is worth: Shapley values over coalitions of modalities.

    phi_m = sum over S without m of |S|! (M - |S| - 1)! / M!  (v(S + m) - v(S)),    v({}) = 0

Written as one weight per coalition and modality, so that a value is a weighted sum of v(S). With
many modalities the mean over a few random orders stands for the sum over all M! of them; both add
up to v(everything).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import TypeAlias

import torch
from torch import Tensor

from mmtool.types import Fuse, Modality

Coalition: TypeAlias = tuple[int, ...]
"""Positions of some modalities, ascending."""

Weights: TypeAlias = Mapping[Coalition, tuple[float, ...]]
"""For each coalition, what its value counts for each modality."""


def coalitions(num_modalities: int) -> tuple[Coalition, ...]:
    """Give every set of modalities but the empty one, small ones first."""
    return tuple(
        chosen
        for size in range(1, num_modalities + 1)
        for chosen in combinations(range(num_modalities), size)
    )


def exact_weights(num_modalities: int) -> dict[Coalition, tuple[float, ...]]:
    """Give the weights of the Shapley value over all coalitions."""
    return {
        chosen: tuple(
            _share(len(chosen) - 1, num_modalities)
            if position in chosen
            else -_share(len(chosen), num_modalities)
            for position in range(num_modalities)
        )
        for chosen in coalitions(num_modalities)
    }


def _share(num_before: int, num_modalities: int) -> float:
    """Share of the orders in which exactly some given modalities come before another given one."""
    return 1.0 / (num_modalities * comb(num_modalities - 1, num_before))


def sampled_weights(orders: Sequence[Sequence[int]]) -> dict[Coalition, tuple[float, ...]]:
    """Give the weights of the mean, over some orders, of what each modality adds on its arrival."""
    part, num_modalities = 1.0 / len(orders), len(orders[0])
    weights: dict[Coalition, list[float]] = {}
    for order in orders:
        for place, modality in enumerate(order):
            after = tuple(sorted(order[: place + 1]))
            weights.setdefault(after, [0.0] * num_modalities)[modality] += part
            if place:
                weights[tuple(sorted(order[:place]))][modality] -= part
    return {chosen: tuple(each) for chosen, each in weights.items()}


def attributed(values: Mapping[Coalition, Tensor], weights: Weights) -> Tensor:
    """Give the worth of each modality from the values of coalitions; [modality, ...]."""
    num_modalities = len(next(iter(weights.values())))
    return torch.stack(
        [
            torch.stack(
                [each[m] * values[chosen] for chosen, each in weights.items() if each[m] != 0.0]
            ).sum(0)
            for m in range(num_modalities)
        ]
    )


def only(
    features: Mapping[Modality, Tensor],
    chosen: Coalition,
    modalities: Sequence[Modality],
    absent: Mapping[Modality, Tensor],
) -> dict[Modality, Tensor]:
    """Give features with every modality outside the coalition replaced by what stands for it."""
    return {
        m: features[m]
        if position in chosen
        else absent[m].to(features[m].dtype).expand_as(features[m])
        for position, m in enumerate(modalities)
    }


def sample_values(
    collected: Mapping[str, Tensor],
    modalities: Sequence[Modality],
    fuse: Fuse,
    absent: Mapping[Modality, Tensor],
) -> Tensor:
    """Give what each modality is worth to each sample; [sample, modality], float64.

    v(S) is the number of modalities of S that the sample has, if the fusion of S alone gives the
    right class, and 0 otherwise. A modality that a sample lacks is worth nothing to it.
    """
    features = {m: collected[m] for m in modalities}
    present, label = collected["present"].bool(), collected["label"]
    values = {}
    for chosen in coalitions(len(modalities)):
        logits = fuse(only(features, chosen, modalities, absent))
        size = present[:, list(chosen)].sum(1, dtype=torch.float64)
        values[chosen] = torch.where(logits.argmax(1) == label, size, 0.0)
    phi = attributed(values, exact_weights(len(modalities))).T
    return torch.where(present, phi, 0.0)


def mean_values(values: Tensor, present: Tensor) -> Tensor:
    """Give the mean worth of each modality over the samples that have it, 1 without any."""
    counts = present.sum(0)
    means = torch.where(present, values, 0.0).sum(0) / counts.clamp_min(1)
    return torch.where(counts > 0, means, 1.0)


def can_be_singled_out(present: Tensor) -> Tensor:
    """Give where a modality is there beside another; alone it is what the sample already is."""
    return present & (present.sum(1, keepdim=True) > 1)
