import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.randomness import fold, sample_uniform


def test_numbers_are_uniform_and_uncorrelated_between_keys():
    index = torch.arange(100_000)

    first, second = sample_uniform(index, 1, 2, 3), sample_uniform(index, 1, 2, 4)

    assert first.min() >= 0
    assert first.max() < 1
    counts = torch.histc(first, 20, 0, 1)
    # 19 degrees of freedom; 50 is far beyond the 99.9 % quantile of 43.8.
    assert ((counts - 5000) ** 2 / 5000).sum() < 50
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert correlation.abs() < 0.02


def test_a_number_depends_on_its_own_index_only():
    index = torch.tensor([5, 17, 3, 2**40])

    together = sample_uniform(index, 9)
    alone = torch.cat([sample_uniform(index[i : i + 1], 9) for i in range(4)])

    assert torch.equal(together, alone)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_fold_fits_in_64_bits_and_heeds_order(first, second):
    assert 0 <= fold(first, second) < 2**64
    assert (fold(first, second) == fold(second, first)) == (first == second)
