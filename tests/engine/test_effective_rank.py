"""Effective rank: exact where it is known, and nothing where features are constant."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.engine.effective_rank import effective_rank


def drawn(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_it_is_that_of_the_singular_values_of_the_centred_features(shape):
    features = drawn(*shape) + 5.0
    singular = torch.linalg.svdvals((features - features.mean(0)).double())
    share = singular / singular.sum()
    wanted = math.exp(-float((share * share.clamp_min(1e-300).log()).sum()))

    assert effective_rank(features) == pytest.approx(wanted, rel=1e-5)


def test_features_on_a_line_have_rank_one_in_single_precision():
    line = torch.linspace(-1, 1, 300).unsqueeze(1) * drawn(1, 200) + 3.0

    assert effective_rank(line) == pytest.approx(1.0, abs=0.02)


def test_equal_spread_in_k_directions_gives_k():
    corners = torch.cat([torch.eye(5), -torch.eye(5)])

    assert effective_rank(corners) == pytest.approx(5.0)


@pytest.mark.parametrize("value", [0.0, 1e-3, 0.1, 1234.5])
def test_constant_features_have_none(value):
    assert effective_rank(torch.full((100, 16), value)) == 0.0


def test_what_rounding_adds_to_constant_features_does_not_count():
    constant = torch.full((100, 16), 3.3) * (1 + 1e-7 * drawn(100, 16))

    assert effective_rank(constant) == 0.0


@pytest.mark.parametrize("n", [0, 1])
def test_of_too_few_samples_it_is_unknown(n):
    assert math.isnan(effective_rank(drawn(n, 4)))


def test_of_features_that_are_not_finite_it_is_unknown():
    broken = drawn(10, 4)
    broken[3, 1] = float("inf")

    assert math.isnan(effective_rank(broken))


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 30), dim=st.integers(1, 30), seed=st.integers(0, 99),
    scale=st.floats(1e-3, 1e3),
)  # fmt: skip
def test_it_lies_between_one_and_the_rank_whatever_the_scale_and_the_place(n, dim, seed, scale):
    features = drawn(n, dim, seed)
    found = effective_rank(features)

    assert 0.999 <= found <= min(n - 1, dim) + 0.001
    assert effective_rank(features * scale) == pytest.approx(found, rel=1e-4)
    assert effective_rank(features + 2.0) == pytest.approx(found, rel=1e-3)
