import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.prepare.statistics import Moments, moments_of

parts = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), min_size=1, max_size=6)


@given(parts=parts, offset=st.sampled_from([0.0, 1e6]))
def test_merged_parts_give_the_moments_of_the_whole(
    parts: list[list[float]], offset: float
) -> None:
    merged = Moments()
    for part in parts:
        merged.merge(moments_of(np.asarray(part) + offset, "spectrogram"))
    whole = np.concatenate(parts) + offset
    assert merged.count == whole.size
    np.testing.assert_allclose(merged.mean, [whole.mean()], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.spread, [whole.var() * whole.size], rtol=1e-6, atol=1e-6)


@given(part=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9))
def test_moments_survive_a_restart_exactly(part: list[float]) -> None:
    found = moments_of(np.asarray(part), "spectrogram")
    again = Moments(**json.loads(json.dumps(found.as_json())))
    assert again.as_json() == found.as_json()


@pytest.mark.parametrize(
    ("array", "kind", "mean", "std"),
    [
        (np.array([[[0]], [[255]], [[51]]], np.uint8), "frames", [0.0, 1.0, 0.2], [1.0] * 3),
        (np.array([16384, -16384], np.int16), "wave", [0.0], [0.5]),
        (np.array([[1.0, 5.0], [3.0, 5.0]], np.float32), "series", [2.0, 5.0], [1.0, 1.0]),
    ],
)
def test_units_and_channels_follow_the_kind_and_a_constant_has_deviation_one(
    array: np.ndarray, kind: str, mean: list[float], std: list[float]
) -> None:
    result = moments_of(array, kind).result(kind)
    np.testing.assert_allclose(result["mean"], mean)
    np.testing.assert_allclose(result["std"], std)


def test_an_empty_sample_counts_for_nothing() -> None:
    merged = moments_of(np.array([1.0, 3.0]), "spectrogram")
    merged.merge(moments_of(np.zeros(0), "spectrogram"))
    assert (merged.count, merged.mean.tolist()) == (2, [2.0])
