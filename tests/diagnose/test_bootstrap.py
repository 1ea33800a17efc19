"""The paired bootstrap: what it resamples, and how often it is wrong."""

import numpy as np
import pytest

from mmtool.diagnose.metrics.bootstrap import difference, resampled_r2, resampled_scores

RNG = np.random.default_rng(0)


def groups_of(size: int) -> np.ndarray:
    return np.arange(size)


def test_the_deviation_over_resamples_is_the_standard_error_of_a_rate():
    right = (RNG.random((1, 400)) < 0.7).astype(float)
    scores = resampled_scores(right, groups_of(400))

    rate = right.mean()
    assert scores.mean() == pytest.approx(rate, abs=0.002)
    assert scores.std() == pytest.approx((rate * (1 - rate) / 400) ** 0.5, rel=0.1)


def test_samples_of_one_group_are_drawn_together():
    right = np.repeat((RNG.random((1, 40)) < 0.7).astype(float), 10, axis=1)
    apart = resampled_scores(right, groups_of(400)).std()
    together = resampled_scores(right, np.repeat(np.arange(40), 10)).std()

    assert together == pytest.approx(apart * 10**0.5, rel=0.15)


def test_all_runs_see_the_same_resamples():
    one = (RNG.random((1, 50)) < 0.5).astype(float)
    scores = resampled_scores(np.vstack([one, one]), groups_of(50))

    assert np.array_equal(scores[0], scores[1])


def test_r2_on_a_resample_is_r2_of_the_samples_drawn():
    target = RNG.normal(size=(30, 2))
    errors = RNG.random((1, 30, 2))
    single = resampled_r2(errors, target, np.zeros(30, dtype=np.int64), num=1)

    expected = (1 - errors[0].mean(0) / target.var(0)).mean()
    assert single[0, 0] == pytest.approx(expected)


def test_equal_runs_do_not_differ_and_opposite_ones_change_the_sign():
    a = resampled_scores((RNG.random((3, 300)) < 0.6).astype(float), groups_of(300))
    b = resampled_scores((RNG.random((3, 300)) < 0.8).astype(float), groups_of(300))
    values = [0.6] * 3, [0.8] * 3

    assert difference(a, a, ([0.6] * 3, [0.6] * 3), spread=0.01).wording == "no change detected"
    assert difference(a, b, values, spread=0.01).wording == "improved"
    assert difference(b, a, values[::-1], spread=0.01).wording == "regressed"


def test_a_single_run_is_given_the_usual_spread_over_seeds():
    right = np.ones((2, 100))
    right[1, :1] = 0.0
    scores = resampled_scores(right, groups_of(100))
    found = difference(scores[:1], scores[1:], ([1.0], [0.99]), spread=0.01)

    assert found.high - found.low > 2 * 1.9 * 0.01 * 2**0.5


def test_of_groups_that_do_not_differ_about_one_in_twenty_is_called_changed():
    """Three seeds each; samples of different difficulty and seeds of different skill."""
    calls = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        hard = rng.normal(1.0, 1.0, 200)
        skill = rng.normal(0.0, 0.25, (6, 1))
        right = (rng.normal(size=(6, 200)) < hard + skill).astype(float)
        scores = resampled_scores(right, groups_of(200), num=400, seed=trial)
        values = list(right[:3].mean(1)), list(right[3:].mean(1))
        found = difference(scores[:3], scores[3:], values, spread=0.01)
        calls.append(found.wording != "no change detected")

    assert np.mean(calls) <= 0.09
