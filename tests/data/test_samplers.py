import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.data.samplers import Visits, num_batches, rank_share, shuffled, split_evenly


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
