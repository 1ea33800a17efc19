import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.media.decode import decode
from mmtool.media.failure import MediaError
from mmtool.media.kept import Kept
from mmtool.media.recordings import on_grid
from mmtool.media.spec import Recording, SeriesSpec, Source

GAP_S = 0.5


def line(times_s: np.ndarray) -> np.ndarray:
    """Give two channels that are straight lines over time."""
    return np.stack([3.0 * times_s - 1.0, 5.0 - 0.5 * times_s], axis=1)


def read_table(source: Source) -> Mapping[str, Recording]:
    """Read a text of rows `time value value`, blank separated; NaN where lost."""
    table = np.atleast_2d(np.genfromtxt(source.path))
    return {"hand": Recording(table[:, 0], table[:, 1:].astype(np.float32))}


@pytest.fixture
def written(tmp_path):
    def write(times_s, values) -> Source:
        path = tmp_path / "s01.dat"
        np.savetxt(path, np.column_stack([times_s, values]))
        return Source(path, read=read_table, key="hand")

    return write


def window(source: Source, start_s: float, end_s: float | None) -> Source:
    return Source(source.path, read=source.read, key=source.key, start_s=start_s, end_s=end_s)


steps = st.lists(st.floats(0.01, 0.45), min_size=10, max_size=40)


@given(steps, st.floats(-5, 5), st.floats(1.0, 120.0))
def test_straight_lines_are_met_at_every_time_of_the_grid(steps_s, begin_s, rate_hz):
    times_s = begin_s + np.cumsum(steps_s)
    grid_s = np.arange(times_s[0], times_s[-1], 1 / rate_hz)

    found = on_grid(Recording(times_s, line(times_s)), grid_s, GAP_S, "a")

    np.testing.assert_allclose(found, line(grid_s), atol=1e-6)


@given(steps, st.floats(-1e5, 1e5))
def test_a_shift_of_the_stamps_shifts_the_window(steps_s, shift_s):
    times_s = np.cumsum(steps_s)
    values = np.random.default_rng(3).normal(size=(len(times_s), 2)).astype(np.float32)
    grid_s = np.arange(times_s[0] + 1e-3, times_s[-1], 0.1)

    found = on_grid(Recording(times_s, values), grid_s, GAP_S, "a")
    shifted = on_grid(Recording(times_s + shift_s, values), grid_s + shift_s, GAP_S, "a")

    np.testing.assert_allclose(shifted, found, atol=1e-6)


@given(st.integers(1, 120), st.integers(0, 200), st.integers(0, 1))
def test_lost_values_are_bridged_as_far_as_the_gap_allows_and_no_further(length, first, channel):
    times_s = np.arange(200) / 100
    values = line(times_s)
    last = min(200, first + length)
    values[first:last, channel] = np.nan
    left_s, right_s = (first - 1) / 100, last / 100
    edge = first == 0 or last == 200
    if first == last:
        gap_s = 0.0
    elif edge:
        gap_s = right_s if first == 0 else 1.99 - left_s
    else:
        gap_s = right_s - left_s
    everything_lost = last - first == 200
    recording = Recording(times_s, values.astype(np.float32))

    if everything_lost or gap_s > GAP_S + 1e-9:
        with pytest.raises(MediaError, match=f"channel {channel + 1} has no value") as caught:
            on_grid(recording, times_s, GAP_S, "a")
        assert caught.value.reason == "no-data"
    else:
        found = on_grid(recording, times_s, GAP_S, "a")
        expected = line(times_s)
        if edge and first < last:
            nearest = last if first == 0 else first - 1
            expected[first:last, channel] = expected[nearest, channel]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_gap_that_reaches_out_of_the_window_is_still_a_gap():
    times_s = np.array([0.0, 0.1, 0.2, 3.0, 3.1])
    recording = Recording(times_s, np.arange(5.0, dtype=np.float32)[:, None])

    with pytest.raises(MediaError) as caught:
        on_grid(recording, np.arange(4) / 10, 0.5, "a")

    assert caught.value.reason == "no-data"
    # At the end of the recording itself the last value holds on.
    assert on_grid(recording, 3.0 + np.arange(4) / 10, 0.5, "a")[:, 0].tolist() == [3, 4, 4, 4]
    assert on_grid(recording, np.arange(3) / 10, 0.5, "a")[:, 0] == pytest.approx([0, 1, 2])


@pytest.mark.parametrize(("seconds", "rate_hz"), [(2.56, 50), (5.12, 33.3), (0.1, 20), (1.0, 7)])
def test_the_grid_has_as_many_steps_as_the_window_promises(written, seconds, rate_hz):
    times_s = np.arange(0, 12, 0.02)
    source = window(written(times_s, line(times_s)), 1.37, 1.37 + seconds)

    found = decode(source, SeriesSpec(rate_hz=rate_hz))

    assert len(found.array) == round(seconds * rate_hz)
    grid_s = 1.37 + np.arange(len(found.array)) / rate_hz
    np.testing.assert_allclose(found.array, line(grid_s), atol=1e-4)
    assert found.facts.rate_hz == 50
    assert found.facts.flags == ()


def test_without_an_end_the_grid_goes_to_the_last_stamp_and_without_a_rate_rows_stay(written):
    times_s = 0.3 + np.arange(8) / 4
    source = written(times_s, line(times_s))

    whole = decode(source, SeriesSpec(rate_hz=2)).array
    rows = decode(window(source, 0.5, 1.1), SeriesSpec()).array

    np.testing.assert_allclose(whole, line(0.3 + np.arange(4) / 2), atol=1e-5)
    np.testing.assert_allclose(rows, line(times_s[1:4]), atol=1e-5)
    assert len(decode(source, SeriesSpec(rate_hz=2, max_steps=3)).array) == 3


def test_unsorted_and_repeated_stamps_are_put_in_order_and_told(written):
    times_s = np.array([0.0, 0.2, 0.1, 0.3, 0.3, 0.4])

    found = decode(window(written(times_s, line(times_s)), 0, 0.4), SeriesSpec(rate_hz=10))

    assert found.facts.flags == ("unsorted-times",)
    np.testing.assert_allclose(found.array, line(np.arange(4) / 10), atol=1e-6)


def test_a_sensor_that_never_changes_is_kept_and_flagged(written):
    times_s = np.arange(20) / 10

    found = decode(window(written(times_s, np.ones((20, 2))), 0, 1), SeriesSpec(rate_hz=10))

    assert found.facts.flags == ("constant",)


@pytest.mark.parametrize(
    ("content", "key", "reason", "words"),
    [
        ("0 1\n1 2\n", "wrist", "missing", "no recording 'wrist' .* hand"),
        ("0 nan\n1 nan\n", "hand", "no-data", "hand: channel 1"),
        ("nan 1\n1 2\n", "hand", "decode-error", "row 0 no time"),
        ("0 1\n1 2 3\n", "hand", "decode-error", "its reader fails"),
        ("", "hand", "empty", "fetch it again"),
        ("<html></html>", "hand", "not-media", "web page"),
        ("80 1\n81 2\n", "hand", "no-data", "no value within 0.5 s"),
    ],
)
def test_recordings_that_hold_nothing_usable_say_why(tmp_path, content, key, reason, words):
    path = tmp_path / "s01.dat"
    path.write_text(content)

    with pytest.raises(MediaError, match=words) as caught:
        decode(Source(path, read=read_table, key=key, end_s=1.0), SeriesSpec(rate_hz=4))

    assert caught.value.reason == reason
    assert "s01.dat" in str(caught.value)


def test_threads_parse_a_file_once_and_a_replaced_file_again(tmp_path):
    calls, lock = [], threading.Lock()

    def read(source: Source) -> Mapping[str, Recording]:
        with lock:
            calls.append(source)
        assert (source.key, source.start_s, source.end_s) == (None, 0.0, None)
        return read_table(source)

    path = tmp_path / "a.dat"
    times_s = np.arange(300) / 10
    np.savetxt(path, np.column_stack([times_s, line(times_s)]))
    sources = [Source(path, read=read, start_s=i, end_s=i + 1) for i in range(20)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda s: decode(s, SeriesSpec(rate_hz=10)).array, sources))

    assert len(calls) == 1
    for start_s, values in enumerate(found):
        np.testing.assert_allclose(values, line(start_s + np.arange(10) / 10), atol=1e-4)
    np.savetxt(path, np.column_stack([times_s[:50], line(times_s[:50])]))
    decode(sources[0], SeriesSpec(rate_hz=10))
    assert len(calls) == 2


def test_memory_holds_only_so_many_bytes_and_always_the_latest():
    reads = []
    kept: Kept[bytes] = Kept(100, len)

    def ask(key: str, size: int) -> None:
        kept.get(key, lambda: (reads.append(key), bytes(size))[1])

    ask("a", 60)
    ask("b", 30)
    ask("a", 60)
    assert reads == ["a", "b"]
    ask("c", 20)  # pushes out b, the least recently used
    ask("a", 60)
    ask("b", 30)
    assert reads == ["a", "b", "c", "b"]
    ask("huge", 1000)
    ask("huge", 1000)
    ask("a", 60)
    assert reads == ["a", "b", "c", "b", "huge", "a"]


def test_a_failed_reading_is_tried_again():
    kept: Kept[int] = Kept(100, lambda _: 8)

    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)

    assert kept.get("a", lambda: 5) == 5
