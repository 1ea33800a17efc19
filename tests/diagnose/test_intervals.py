"""Intervals contain their value, stay in range and narrow with more samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.diagnose.metrics.intervals import difference, drop_interval, share_interval, wilson

rates = st.floats(0.0, 1.0)
counts = st.integers(1, 5000)


def test_wilson_equals_the_published_value() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    interval = wilson(81 / 263, 263)
    assert interval.low == pytest.approx(0.2553, abs=1e-4)
    assert interval.high == pytest.approx(0.3662, abs=1e-4)


def test_the_difference_equals_the_published_value() -> None:
    # Newcombe 1998, method 10: 56/70 - 48/80 gives 0.0524 to 0.3339.
    interval = difference(wilson(56 / 70, 70), wilson(48 / 80, 80))
    assert interval.low == pytest.approx(0.0524, abs=1e-4)
    assert interval.high == pytest.approx(0.3339, abs=1e-4)


@given(rates, counts)
def test_wilson_contains_its_value_inside_zero_and_one(rate: float, n: int) -> None:
    interval = wilson(rate, n)
    assert 0 <= interval.low <= rate <= interval.high <= 1


@given(st.lists(rates, min_size=2, max_size=5), counts)
def test_shares_add_up_and_lie_in_their_intervals(values: list[float], n: int) -> None:
    named = {str(i): v for i, v in enumerate(values)}
    shares = [share_interval(named, name, n) for name in named]
    assert sum(s.value for s in shares) == pytest.approx(1)
    assert all(0 <= s.low <= s.value <= s.high <= 1 for s in shares)


def test_more_samples_narrow_a_share() -> None:
    named = {"audio": 0.3, "image": 0.3}
    widths = [share_interval(named, "audio", n).half_width for n in (100, 300, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] < 0.15


def test_a_drop_without_flips_is_known_well() -> None:
    assert drop_interval(0.0, 0.0, 500).half_width < 0.005
    assert drop_interval(0.0, 0.5, 500).half_width > 0.05
