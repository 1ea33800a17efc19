"""Shapley values as one matrix: the axioms, exactly and from some of the subsets."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.diagnose.verdict.shapley import shapley_matrix


def all_subsets(num: int) -> np.ndarray:
    return np.array(sorted(product([True, False], repeat=num), key=lambda row: -sum(row)))


def by_orders(kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give the mean contribution over all orders in which modalities can join."""
    num = kept.shape[1]
    value = {tuple(row): v for row, v in zip(kept.tolist(), values, strict=True)}
    total = np.zeros(num)
    orders = list(permutations(range(num)))
    for order in orders:
        there = [False] * num
        for m in order:
            before = value[tuple(there)]
            there[m] = True
            total[m] += value[tuple(there)] - before
    return total / len(orders)


@given(st.integers(1, 4), st.integers(0, 1000))
def test_the_matrix_gives_the_mean_contribution_over_all_orders(num: int, seed: int) -> None:
    kept = all_subsets(num)
    values = np.random.default_rng(seed).random(2**num)
    matrix = shapley_matrix(kept)
    assert matrix is not None
    assert matrix @ values == pytest.approx(by_orders(kept, values))
    assert (matrix @ values).sum() == pytest.approx(values[0] - values[-1])


@given(st.integers(0, 1000), st.integers(3, 12))
def test_some_subsets_are_enough_for_what_adds_up(seed: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    whole, nothing = np.ones((1, 6), bool), np.zeros((1, 6), bool)
    some = np.concatenate([np.eye(6, dtype=bool), rng.random((extra, 6)) < 0.5])
    some = np.unique(some[(some.sum(axis=1) > 0) & (some.sum(axis=1) < 6)], axis=0)
    kept = np.concatenate([whole, some, nothing])
    parts = rng.normal(size=6)
    matrix = shapley_matrix(kept)
    assert matrix is not None
    assert matrix @ (0.3 + kept @ parts) == pytest.approx(parts)


def test_the_least_squares_of_all_subsets_is_the_exact_value() -> None:
    kept = all_subsets(4)
    # A subset given twice is no longer the full lattice, and takes the other way.
    twice = np.concatenate([kept, kept[3:4]])
    values = np.random.default_rng(0).random(16)
    values[0], values[-1] = 1.0, 0.0
    exact = shapley_matrix(kept)
    assert exact is not None
    order = {tuple(row): v for row, v in zip(kept.tolist(), values, strict=True)}
    half = shapley_matrix(twice[1:-1])
    assert half is None
    assert exact @ values == pytest.approx(by_orders(kept, np.array(list(order.values()))))


def test_sampled_subsets_come_near_the_exact_values_of_a_game_that_does_not_add_up() -> None:
    rng = np.random.default_rng(3)
    kept = all_subsets(6)
    strength = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    values = 1 - np.exp(-2 * kept @ strength)
    exact = by_orders(kept, values)
    sizes = kept.sum(axis=1)
    singles = np.flatnonzero((sizes == 1) | (sizes == 5))
    others = rng.choice(np.flatnonzero((sizes > 1) & (sizes < 5)), 16, replace=False)
    some = np.sort(np.concatenate([[0, 63], singles, others]))
    matrix = shapley_matrix(kept[some])
    assert matrix is not None
    assert matrix @ values[some] == pytest.approx(exact, abs=0.03)


def test_too_few_subsets_determine_nothing() -> None:
    kept = np.array([[True] * 6, [True, False, False, False, False, False], [False] * 6])
    assert shapley_matrix(kept) is None
    assert shapley_matrix(kept[:2]) is None
