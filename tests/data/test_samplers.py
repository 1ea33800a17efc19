import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.data.samplers import (
    Visits,
    block_shuffled,
    num_batches,
    rank_share,
    shuffled,
    split_evenly,
)


def epoch(num: int, seed: int = 0, number: int = 0) -> Visits:
    return shuffled(Visits(np.arange(num)), seed=seed, epoch=number)


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 5), st.integers(1, 4))
def test_ranks_and_micro_batches_together_are_the_global_batch(num, batch_size, world, micro):
    visits = epoch(num)
    seen = []
    for step in range(num_batches(num, batch_size)):
        shares = [
            rank_share(
                visits, step, batch_size=batch_size, rank=r, world=world, micro_batches=micro
            )
            for r in range(world)
        ]
        real = [
            v.rows
            for share in shares
            for v in share.micro
            if v.weight is None or v.weight.sum() > 0
        ]
        batch = np.concatenate(real)
        assert len(batch) == shares[0].global_size
        assert {len(share.micro) for share in shares} <= set(range(1, micro + 1))
        seen.append(batch)
    assert np.array_equal(np.concatenate(seen), visits.rows)


@given(st.integers(0, 100), st.integers(1, 9))
def test_even_split_differs_by_at_most_one(size, parts):
    sizes = [s.stop - s.start for s in split_evenly(size, parts)]

    assert sum(sizes) == size
    assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_only():
    assert np.array_equal(epoch(50, 3, 2).rows, epoch(50, 3, 2).rows)
    assert not np.array_equal(epoch(50, 3, 2).rows, epoch(50, 3, 3).rows)
    assert not np.array_equal(epoch(50, 3, 2).rows, epoch(50, 4, 2).rows)
    assert sorted(epoch(50, 3, 2).rows) == list(range(50))


def test_a_rank_without_a_sample_gets_padding_that_weighs_nothing():
    visits = Visits(np.arange(5), keep=np.ones((5, 2), dtype=bool))

    shares = [rank_share(visits, 1, batch_size=4, rank=r, world=2) for r in range(2)]

    padded = [s for s in shares if s.micro[0].weight is not None]
    assert len(padded) == 1
    assert padded[0].micro[0].weight.sum() == 0
    assert not padded[0].micro[0].keep.any()
    assert {s.global_size for s in shares} == {1}


def test_plans_travel_with_their_rows():
    visits = Visits(
        np.array([7, 8, 9]), np.array([[1, 0], [0, 1], [1, 1]], bool), np.array([1.0, 2.0, 3.0])
    )

    mixed = shuffled(visits, seed=1, epoch=0)

    for row, keep, weight in zip(mixed.rows, mixed.keep, mixed.weight, strict=True):
        at = int(row) - 7
        assert keep.tolist() == visits.keep[at].tolist()
        assert weight == pytest.approx(visits.weight[at])


def blocks(num_shards: int, per_shard: int, *, batch_size: int = 64, **options) -> np.ndarray:
    starts = np.arange(num_shards + 1) * per_shard
    arguments = {"seed": 1, "epoch": 0, **options}
    visits = Visits(np.arange(num_shards * per_shard))
    return block_shuffled(visits, starts, batch_size=batch_size, **arguments).rows


def most_open(order: np.ndarray, per_shard: int) -> int:
    """Largest number of shards between their first and their last visit."""
    shard_of, place = order // per_shard, np.arange(len(order))
    num_shards = int(shard_of.max()) + 1
    first, last = np.full(num_shards, len(order)), np.zeros(num_shards, dtype=int)
    np.minimum.at(first, shard_of, place)
    np.maximum.at(last, shard_of, place)
    change = np.zeros(len(order) + 1, dtype=int)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    return int(change.cumsum().max())


def in_batch_distance(order: np.ndarray, batch_size: int = 64) -> float:
    """Mean distance of two samples of a batch over that in a global permutation."""
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    one, other = np.triu_indices(batch_size, 1)
    return float(np.abs(batches[:, one] - batches[:, other]).mean() * 3 / (len(order) + 1))


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    batch_size=st.integers(1, 40),
    num_parts=st.integers(1, 9),
    reach=st.integers(1, 12),
    share=st.floats(0.1, 1.0),
)
def test_a_block_order_visits_each_sample_once(sizes, batch_size, num_parts, reach, share):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.flatnonzero(np.random.default_rng(0).random(starts[-1]) < share)

    found = block_shuffled(
        Visits(rows),
        starts,
        seed=3,
        epoch=1,
        batch_size=batch_size,
        num_parts=num_parts,
        shards_in_reach=reach,
    )

    assert sorted(found.rows) == rows.tolist()


def test_a_block_order_is_a_function_of_seed_and_epoch():
    assert np.array_equal(blocks(100, 20), blocks(100, 20))
    assert not np.array_equal(blocks(100, 20), blocks(100, 20, epoch=1))
    assert not np.array_equal(blocks(100, 20), blocks(100, 20, seed=2))


def test_a_block_order_draws_from_few_shards_at_a_time_and_still_mixes():
    order = blocks(300, 40, shards_in_reach=32)
    everywhere = shuffled(Visits(np.arange(12_000)), seed=1, epoch=0).rows

    assert most_open(order, 40) <= 40
    assert most_open(everywhere, 40) == 300
    assert in_batch_distance(everywhere) > 0.99
    assert in_batch_distance(order) > 0.94
    assert in_batch_distance(np.arange(12_000)) < 0.01


def test_few_shards_get_the_global_permutation():
    assert np.array_equal(blocks(64, 20), shuffled(Visits(np.arange(1280)), seed=1, epoch=0).rows)
    assert not np.array_equal(
        blocks(65, 20), shuffled(Visits(np.arange(1300)), seed=1, epoch=0).rows
    )


@pytest.mark.parametrize("batch_size", [64, 50, 8])
@pytest.mark.parametrize("world", [2, 4, 8])
def test_nodes_read_disjoint_shards_in_an_order_that_knows_no_nodes(world, batch_size):
    num_shards, per_shard = 400, 30
    visits = Visits(blocks(num_shards, per_shard, batch_size=batch_size))
    readers = np.zeros(num_shards, dtype=int)
    for rank in range(world):
        mine: set[int] = set()
        for step in range(num_batches(len(visits), batch_size)):
            share = rank_share(visits, step, batch_size=batch_size, rank=rank, world=world)
            for part in share.micro:
                if part.weight is None:
                    mine |= set((part.rows // per_shard).tolist())
        readers[list(mine)] += 1

    # Only a shard that lies across the end of a run has two readers.
    assert (readers > 1).sum() <= world - 1
    assert (readers >= 1).all()


@given(st.integers(0, 40), st.integers(1, 4), st.integers(1, 4))
def test_the_number_of_samples_consumed_is_all_that_a_resume_needs(step, before, after):
    def consumed(world: int, first: int, last: int) -> list[int]:
        visits = Visits(blocks(100, 6, batch_size=15))
        return [
            int(row)
            for number in range(first, last)
            for rank in range(world)
            for part in rank_share(visits, number, batch_size=15, rank=rank, world=world).micro
            for row in part.rows
        ]

    seen = consumed(before, 0, step)
    rest = consumed(after, len(seen) // 15, 40)

    assert np.array_equal(seen + rest, blocks(100, 6, batch_size=15))
