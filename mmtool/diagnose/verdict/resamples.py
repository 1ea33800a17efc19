"""Which samples a resample holds, how often, and means over them.

    weight[r, i]   how often sample i is in resample r; row 0 is the samples themselves
    mean_r(x)      sum_i weight[r, i] x_i / sum_i weight[r, i]     over samples where x_i is known

Where samples come in groups whose members resemble each other (a speaker, a recording), groups are
drawn whole. The same weights serve every number, so that differences are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import Floats

SEED = 20_261_122


@dataclass(frozen=True, slots=True)
class Resamples:
    """Weights of every sample on every resample."""

    weight: NDArray[np.float32]  # [1 + resample, n]
    kind: str
    """What was drawn: group or sample."""
    num_clusters: int

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.weight.shape[1])

    def means(self, columns: NDArray[Any], rows: NDArray[np.intp] | None = None) -> Floats:
        """Give the means of columns [n, k] on every resample; [1 + resample, k].

        `rows` are the samples that the columns are about, all of them unless given.
        """
        weight = self.weight if rows is None else self.weight[:, rows]
        known = np.isfinite(columns)
        filled = np.where(known, columns, 0.0).astype(np.float32)
        total = weight @ filled
        if known.all():
            count = weight.sum(axis=1, keepdims=True)
        else:
            count = weight @ known.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (total / count).astype(np.float64)  # type: ignore[no-any-return]


def has_clusters(group: NDArray[Any]) -> bool:
    """Tell whether there are enough groups of several samples to draw groups."""
    _, sizes = np.unique(group, return_counts=True)
    return bool((sizes > 1).any()) and len(sizes) >= limits.MIN_GROUPS


def resamples(group: NDArray[Any], num: int | None = None) -> Resamples:
    """Draw the weights, of whole groups where there are enough of them."""
    num = limits.NUM_RESAMPLES if num is None else num
    by_group = has_clusters(group)
    names, member = np.unique(group, return_inverse=True)
    size = len(names) if by_group else len(group)
    rng = np.random.Generator(np.random.Philox(key=SEED))
    weight = np.ones((num + 1, len(group)), dtype=np.float32)
    for row in weight[1:]:
        counts = np.bincount(rng.integers(0, size, size), minlength=size)
        row[:] = counts[member] if by_group else counts
    return Resamples(weight, "group" if by_group else "sample", size)
