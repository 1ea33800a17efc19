"""Which samples a step sees: a pure function of (seed, epoch, step), never of the number of ranks.

A global batch is a slice of the epoch's permutation; each rank takes a contiguous share of it, cut
into micro-batches. Nothing needs saving: a resumed run computes the same order again.
"""

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Visits:
    """The samples of one epoch in the order they are visited."""

    rows: np.ndarray  # [visits] int64, store rows
    keep: np.ndarray | None = None  # [visits, modality] bool
    weight: np.ndarray | None = None  # [visits] float32

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> "Visits":
        """Give the visits at these positions."""
        return Visits(
            self.rows[positions],
            None if self.keep is None else self.keep[positions],
            None if self.weight is None else self.weight[positions],
        )


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of one global batch."""

    step: int
    global_size: int
    micro: tuple[Visits, ...]


def shuffled(visits: Visits, *, seed: int, epoch: int) -> Visits:
    """Give the visits in the order of this epoch."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return visits.take(generator.permutation(len(visits)))


def num_batches(num_visits: int, batch_size: int) -> int:
    """Number of global batches in an epoch; the last may be smaller."""
    return -(-num_visits // batch_size)


def split_evenly(size: int, parts: int) -> list[slice]:
    """Cut `size` items into contiguous parts whose sizes differ by at most one."""
    bounds = [part * size // parts for part in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def rank_share(
    visits: Visits,
    step: int,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    micro_batches: int = 1,
) -> Share:
    """Give one rank's micro-batches of global batch `step`.

    A rank that the last, small batch leaves without a sample gets one padding sample of weight 0
    with every modality absent, so that all ranks run the same collectives.
    """
    start = step * batch_size
    positions = np.arange(start, min(start + batch_size, len(visits)))
    mine = positions[split_evenly(len(positions), world)[rank]]
    if len(mine) == 0:
        return Share(step, len(positions), (_padding(visits.take(positions[:1])),))
    parts = min(micro_batches, len(mine))
    micro = tuple(visits.take(mine[part]) for part in split_evenly(len(mine), parts))
    return Share(step, len(positions), micro)


def _padding(visit: Visits) -> Visits:
    width = 1 if visit.keep is None else visit.keep.shape[1]
    return Visits(visit.rows, np.zeros((1, width), dtype=bool), np.zeros(1, dtype=np.float32))
