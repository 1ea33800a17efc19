import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.media import resample as module
from mmtool.media.resample import resample

RATES = [8000, 11_025, 16_000, 22_050, 44_100, 48_000]


@pytest.mark.parametrize("source_hz", RATES)
@pytest.mark.parametrize("target_hz", [8000, 16_000, 22_050])
def test_a_tone_in_the_common_band_stays_the_same_tone(source_hz, target_hz):
    tone = np.sin(2 * np.pi * 1000 * np.arange(source_hz // 2) / source_hz)

    found = resample(tone, source_hz, target_hz)

    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) / target_hz)
    edge = target_hz // 20
    np.testing.assert_allclose(found[edge:-edge], expected[edge:-edge], atol=1e-4)


@pytest.mark.parametrize("tone_hz", [8200, 11_000, 15_000])
def test_what_the_new_rate_cannot_hold_is_gone(tone_hz):
    tone = np.sin(2 * np.pi * tone_hz * np.arange(22_050) / 44_100)

    found = resample(tone, 44_100, 16_000)

    assert np.abs(found[400:-400]).max() < 1e-4


@given(st.sampled_from(RATES), st.sampled_from(RATES), st.integers(0, 3000), st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_the_length_is_exact_and_a_constant_stays_one(source_hz, target_hz, length, level):
    found = resample(np.full(length, level), source_hz, target_hz)

    assert len(found) == math.ceil(length * target_hz / source_hz)
    edge = math.ceil(80 * max(1.0, target_hz / source_hz))
    np.testing.assert_allclose(found[edge:-edge], level, atol=1e-9)


@given(st.integers(7000, 9000), st.integers(1, 700), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_both_ways_of_summing_agree(source_hz, length, seed):
    wave = np.random.default_rng(seed).uniform(-1, 1, length)
    divisor = math.gcd(source_hz, 8000)
    step, phases = source_hz // divisor, 8000 // divisor
    if phases > 200:
        source_hz, step, phases = 7600, 19, 20
    num_samples = -(-length * phases // step)

    by_sample = module._by_sample(wave, step, phases, num_samples)

    np.testing.assert_allclose(
        by_sample, module._by_bank(wave, step, phases, num_samples), atol=1e-5
    )


def test_rates_without_a_common_divisor_work_too():
    tone = np.sin(2 * np.pi * 500 * np.arange(4410) / 44_101)

    found = resample(tone, 44_101, 16_000)

    expected = np.sin(2 * np.pi * 500 * np.arange(len(found)) / 16_000)
    np.testing.assert_allclose(found[300:-300], expected[300:-300], atol=1e-4)
