import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.prepare.windows import label_windows


def test_windows_of_one_label_tile_the_recording() -> None:
    times = np.arange(100) / 10
    found = list(label_windows(times, np.zeros(100), window_s=2.0, stride_s=1.0))
    assert [w.start_s for w in found] == pytest.approx(np.arange(9))
    assert all(w.end_s - w.start_s == 2.0 and w.label == 0 and w.share == 1.0 for w in found)


def test_a_window_that_mixes_labels_is_left_out() -> None:
    times = np.arange(40) / 10
    labels = [1] * 20 + [2] * 20
    found = list(label_windows(times, labels, window_s=1.0, stride_s=0.5, min_share=0.8))
    assert [(w.start_s, w.label) for w in found] == [
        (0.0, 1), (0.5, 1), (1.0, 1), (2.0, 2), (2.5, 2), (3.0, 2),
    ]  # fmt: skip


def test_negative_labels_are_no_activity() -> None:
    assert not list(label_windows(np.arange(30) / 10, [-1] * 30, window_s=1.0, stride_s=1.0))


def test_no_window_reaches_across_a_pause() -> None:
    times = np.concatenate([np.arange(15) / 10, 60 + np.arange(15) / 10])
    found = list(label_windows(times, np.zeros(30), window_s=1.0, stride_s=1.0))
    assert [w.start_s for w in found] == pytest.approx([0.0, 60.0])


def test_times_and_labels_must_belong_together() -> None:
    with pytest.raises(ValueError, match="3 times and 2 labels"):
        list(label_windows([0, 1, 2], [0, 0], window_s=1, stride_s=1))


@given(
    st.lists(st.integers(-1, 2), min_size=2, max_size=60),
    st.floats(0.3, 2.0),
    st.floats(0.1, 1.0),
    st.floats(0.5, 1.0),
)
def test_every_window_keeps_its_promise(
    labels: list[int], window_s: float, stride_s: float, min_share: float
) -> None:
    times = np.arange(len(labels)) / 10
    for window in label_windows(
        times, labels, window_s=window_s, stride_s=stride_s, min_share=min_share
    ):
        inside = (times >= window.start_s - 1e-9) & (times < window.end_s - 1e-9)
        assert window.label >= 0
        assert np.mean(np.asarray(labels)[inside] == window.label) == pytest.approx(window.share)
        assert window.share >= min_share
        assert window.end_s <= times[-1] + 0.1 + 1e-6
