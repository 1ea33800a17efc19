"""Shapley values from the values of subsets, as one matrix.

    phi_m = sum over S without m of |S|! (M-1-|S|)! / M! (v(S + m) - v(S))

The values are linear in v, so phi = A v with A [modality, subset]. With all subsets A holds exactly
these weights. With some, A solves the weighted least squares problem whose solution they are
(Charnes et al. 1988): the additive game nearest to v, subsets weighted by
(M-1) / (binom(M, |S|) |S| (M - |S|)), whose parts add up to v(all) - v(none).
"""

from __future__ import annotations

from math import comb, factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.verdict.estimates import Floats


def shapley_matrix(kept: NDArray[Any]) -> Floats | None:
    """Give A for subsets [subset, modality], or None when they do not determine the values."""
    num_subsets, num_modalities = kept.shape
    order = {tuple(bool(k) for k in row): place for place, row in enumerate(kept)}
    whole, nothing = (True,) * num_modalities, (False,) * num_modalities
    if whole not in order or nothing not in order:
        return None
    if len(order) == 2**num_modalities:
        return _exact(order, num_subsets, num_modalities)
    return _least_squares(kept.astype(np.float64), order[whole], order[nothing])


def _exact(order: dict[tuple[bool, ...], int], num_subsets: int, num_modalities: int) -> Floats:
    matrix = np.zeros((num_modalities, num_subsets))
    for subset, place in order.items():
        size = sum(subset)
        for m in range(num_modalities):
            others = size - subset[m]
            weight = factorial(others) * factorial(num_modalities - 1 - others)
            matrix[m, place] = (1 if subset[m] else -1) * weight / factorial(num_modalities)
    return matrix


def _least_squares(kept: Floats, whole: int, nothing: int) -> Floats | None:
    num_subsets, num_modalities = kept.shape
    inner = [p for p in range(num_subsets) if p not in (whole, nothing)]
    size = kept.sum(axis=1).astype(int)
    weight = [
        (num_modalities - 1)
        / (comb(num_modalities, size[p]) * size[p] * (num_modalities - size[p]))
        for p in inner
    ]
    # The last modality's part follows from the sum of all.
    free = kept[inner, :-1] - kept[inner, -1:]
    root = np.sqrt(weight)[:, None]
    if np.linalg.matrix_rank(root * free) < num_modalities - 1:
        return None
    target = np.zeros((len(inner), num_subsets))
    target[np.arange(len(inner)), inner] = 1.0
    target[:, nothing] -= 1.0 - kept[inner, -1]
    target[:, whole] -= kept[inner, -1]
    first = np.linalg.pinv(root * free) @ (root * target)
    total = np.zeros(num_subsets)
    total[whole], total[nothing] = 1.0, -1.0
    return np.vstack([first, total - first.sum(axis=0)])
