"""Which samples a step sees: a pure function of (seed, epoch, step), never of the number of ranks.

A global batch is a slice of the epoch's permutation; each rank takes a contiguous share of it, cut
into micro-batches. Nothing needs saving: a resumed run computes the same order again, so the number
of samples consumed is the whole state.
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


NUM_PARTS = 8
"""Streams that a block-wise order runs side by side; 1, 2, 4 or 8 nodes share them out evenly."""
SHARDS_IN_REACH = 64
"""Shards that a block-wise order draws from at a time, over all its parts."""


def block_shuffled(
    visits: Visits,
    shard_starts: np.ndarray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    num_parts: int = NUM_PARTS,
    shards_in_reach: int = SHARDS_IN_REACH,
) -> Visits:
    """Give an order of this epoch that draws from few shards at a time and visits each once.

    The shards are shuffled and laid end to end, samples shuffled inside each; the line is cut into
    `num_parts` runs, and in each run a sample at place q gets the key q + uniform(0, spread) and
    the run is sorted by key. So no sample moves further than `spread` places, and the run draws
    from spread / (samples of a shard) + 1 shards at a time. Every batch is filled from all parts in
    fixed places: ranks take contiguous shares of a batch, so R nodes read disjoint runs wherever R
    divides `num_parts`, although the order knows nothing of ranks. Visits in no more shards than
    `shards_in_reach` get the global permutation.

    Measured as the mean distance of ids inside a batch over that of a global permutation (1,000
    shards of 1,000, batch 64): 0.987 within reach of 64 shards, 0.972 of 32, 0.933 of 16; a batch
    of 64 draws from 40, 26 and 14 shards, a global permutation from 62. An epoch begins with one
    shard per part, so that training starts before much is fetched; its first batches are the least
    mixed.
    """
    num_shards = len(np.unique(np.searchsorted(shard_starts, visits.rows, side="right")))
    if num_shards <= shards_in_reach:
        return shuffled(visits, seed=seed, epoch=epoch)
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    line = _shard_line(visits.rows, shard_starts, generator)
    part_of = _part_of_place(len(visits), batch_size, num_parts)
    per_shard = len(visits) / num_shards
    spread = max(0.0, shards_in_reach / num_parts - 1.0) * per_shard
    order = np.empty(len(visits), dtype=np.int64)
    ends = np.cumsum(np.bincount(part_of, minlength=num_parts))
    for part, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
        run = line[begin:end]
        keys = np.arange(len(run)) + generator.random(len(run)) * spread
        order[part_of == part] = run[np.argsort(keys, kind="stable")]
    return visits.take(order)


def _shard_line(
    rows: np.ndarray, shard_starts: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Give visit positions shard by shard, the shards and the samples inside them shuffled."""
    rank_of_shard = generator.permutation(len(shard_starts) - 1)
    mixed = generator.permutation(len(rows))
    shard_of = np.searchsorted(shard_starts, rows[mixed], side="right") - 1
    return mixed[np.argsort(rank_of_shard[shard_of], kind="stable")]


def _part_of_place(num_visits: int, batch_size: int, num_parts: int) -> np.ndarray:
    """Give the part that fills each place of the epoch; cut like the shares of ranks."""
    whole = np.zeros(batch_size, dtype=np.int64)
    for part, piece in enumerate(split_evenly(batch_size, num_parts)):
        whole[piece] = part
    last = np.zeros(num_visits % batch_size, dtype=np.int64)
    for part, piece in enumerate(split_evenly(len(last), num_parts)):
        last[piece] = part
    return np.concatenate([np.tile(whole, num_visits // batch_size), last])


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
