"""Measurements with time stamps, brought onto an even grid.

A release's own reader parses a file once; windows of it are then cut by time. Between two stamps
the signal is a straight line, also across lost values as long as the gap is short enough to bridge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtool.media.container import file_key, where
from mmtool.media.failure import MediaError
from mmtool.media.kept import Kept
from mmtool.media.kinds import WRITTEN, recognise
from mmtool.media.spec import Recording, SeriesSpec, Source

_KEPT_BYTES = 512 << 20
# Stamps in seconds since 1970 resolve a quarter of a microsecond.
_ROUNDING_S = 1e-6
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Orderly:
    """A recording whose times increase, and what was found when it was brought into order."""

    recording: Recording
    was_unsorted: bool
    rate_hz: int | None


def window_of(source: Source, spec: SeriesSpec) -> tuple[Numbers, Orderly]:
    """Give [time, channel] of the recording `source.key` between the source's times.

    With `spec.rate_hz` value i is that of the time start + i / rate; without it the rows recorded
    between start and end are given as they are.
    """
    found = _recording(source)
    times_s = found.recording.times_s
    if spec.rate_hz is None:
        last = np.inf if source.end_s is None else source.end_s
        rows = slice(*np.searchsorted(times_s, [source.start_s, last]).tolist())
        return found.recording.values[rows].astype(np.float64), found
    start_s = source.start_s
    if source.end_s is None:
        start_s = max(start_s, float(times_s[0]))
        num_steps = int((float(times_s[-1]) - start_s) * spec.rate_hz + _ROUNDING_S) + 1
    else:
        num_steps = round((source.end_s - start_s) * spec.rate_hz)
    if spec.max_steps is not None:
        num_steps = min(num_steps, spec.max_steps)
    if num_steps < 1:
        raise MediaError("too-short", f"{where(source)}: the window holds no step of the grid")
    grid_s = start_s + np.arange(num_steps) / spec.rate_hz
    return on_grid(found.recording, grid_s, spec.max_gap_s, _place(source)), found


def on_grid(recording: Recording, grid_s: Numbers, max_gap_s: float, place: str) -> Numbers:
    """Give the values [time, channel] at the times of a grid by linear interpolation.

    A time between two valid values that are further apart than `max_gap_s`, or further than that
    from the first or last one, has none: `MediaError("no-data")`.
    """
    reach_s = max_gap_s + _ROUNDING_S
    first, last = np.searchsorted(
        recording.times_s, [grid_s[0] - reach_s, grid_s[-1] + reach_s]
    ).tolist()
    times_s = recording.times_s[first:last]
    values = recording.values[first:last]
    valid = np.isfinite(values)
    found = np.empty((len(grid_s), values.shape[1]))
    # Sensors mostly lose all channels at once, so one look at the gaps serves many channels.
    groups = _equal_columns(valid)
    for columns in groups:
        rows = valid[:, columns[0]]
        before, after = recording.values[:first, columns], recording.values[last:, columns]
        lost_s = _first_without_data(times_s[rows], grid_s, reach_s, before, after)
        if lost_s is not None:
            message = f"{place}: channel {columns[0] + 1} has no value within {max_gap_s:g} s"
            raise MediaError("no-data", f"{message} of {lost_s:.3f} s")
        found[:, columns] = _on_lines(times_s[rows], values[rows][:, columns], grid_s)
    return found


def _first_without_data(
    times_s: Numbers, grid_s: Numbers, reach_s: float, before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> float | None:  # fmt: skip
    """Say where the grid falls into a gap; `before` and `after` lie outside of its reach."""
    if not len(times_s):
        return float(grid_s[0])
    position = np.searchsorted(times_s, grid_s, side="right")
    # What lies out of reach is further than any gap that is bridged; nothing at all is the edge of
    # the recording, where the nearest value holds on.
    left_s = np.concatenate([[-np.inf if np.isfinite(before).any() else np.nan], times_s])[position]
    right_s = np.concatenate([times_s, [np.inf if np.isfinite(after).any() else np.nan]])[position]
    gap_s = np.where(np.isnan(left_s), right_s - grid_s, right_s - left_s)
    gap_s = np.where(np.isnan(right_s), grid_s - left_s, gap_s)
    met = (grid_s - left_s <= _ROUNDING_S) | (right_s - grid_s <= _ROUNDING_S)
    lost = (gap_s > reach_s) & ~met
    return float(grid_s[np.argmax(lost)]) if lost.any() else None


def _on_lines(times_s: Numbers, values: NDArray[np.float32], grid_s: Numbers) -> Numbers:
    if len(times_s) == 1:
        return np.repeat(values.astype(np.float64), len(grid_s), axis=0)
    left = np.clip(np.searchsorted(times_s, grid_s, side="right") - 1, 0, len(times_s) - 2)
    share = (grid_s - times_s[left]) / (times_s[left + 1] - times_s[left])
    share = np.clip(share, 0.0, 1.0)[:, None]
    return values[left] * (1.0 - share) + values[left + 1] * share


def _equal_columns(valid: NDArray[np.bool_]) -> list[list[int]]:
    if valid.all():
        return [list(range(valid.shape[1]))]
    groups: dict[bytes, list[int]] = {}
    for column in range(valid.shape[1]):
        groups.setdefault(valid[:, column].tobytes(), []).append(column)
    return list(groups.values())


def _recording(source: Source) -> Orderly:
    read = source.read
    if read is None:
        raise ValueError("the source names no reader")
    whole = replace(source, key=None, row=None, start_s=0.0, end_s=None)
    key = (read, source.member, file_key(source.path), *map(file_key, source.parts))
    recordings = _kept.get(key, lambda: _read(whole))
    if source.key is not None and source.key in recordings:
        return recordings[source.key]
    if source.key is None and len(recordings) == 1:
        return next(iter(recordings.values()))
    wanted = "no recording" if source.key is None else f"no recording {source.key!r}"
    there = ", ".join(sorted(recordings)) or "none"
    raise MediaError("missing", f"{where(source)}: {wanted} among those of the file: {there}")


def _read(source: Source) -> dict[str, Orderly]:
    if not source.path.is_dir():
        recognise(source, fine=(*WRITTEN, "pickle", "gzip", "zip"))
    assert source.read is not None
    try:
        recordings = source.read(source)
    except FileNotFoundError as error:
        raise MediaError("missing", f"{where(source)}: {error}") from error
    except (ValueError, LookupError, OSError, EOFError) as error:
        message = f"{where(source)}: its reader fails ({type(error).__name__}: {error})"
        raise MediaError("decode-error", message) from error
    return {name: _in_order(one, f"{where(source)}: {name}") for name, one in recordings.items()}


def _in_order(recording: Recording, place: str) -> Orderly:
    times_s = np.asarray(recording.times_s, np.float64)
    values = np.asarray(recording.values, np.float32)
    values = values[:, None] if values.ndim == 1 else values
    if times_s.ndim != 1 or values.ndim != 2 or len(times_s) != len(values):
        shapes = f"times {list(times_s.shape)}, values {list(values.shape)}"
        raise MediaError("decode-error", f"{place}: {shapes}: one time per row was expected")
    if not len(times_s):
        raise MediaError("no-data", f"{place}: has no rows")
    if not np.isfinite(times_s).all():
        raise MediaError("decode-error", f"{place}: row {np.argmin(np.isfinite(times_s))} no time")
    steps_s = np.diff(times_s)
    was_unsorted = bool((steps_s <= 0).any())
    if was_unsorted:
        times_s, kept = np.unique(times_s, return_index=True)
        values, steps_s = values[kept], np.diff(times_s)
    usual_s = float(np.median(steps_s)) if len(steps_s) else 0.0
    values.flags.writeable = times_s.flags.writeable = False
    rate_hz = round(1.0 / usual_s) if usual_s else None
    return Orderly(Recording(times_s, values), was_unsorted, rate_hz or None)


def _place(source: Source) -> str:
    return where(source) if source.key is None else f"{where(source)}: {source.key}"


def _num_bytes(recordings: Mapping[str, Orderly]) -> int:
    return sum(
        one.recording.times_s.nbytes + one.recording.values.nbytes for one in recordings.values()
    )


_kept: Kept[dict[str, Orderly]] = Kept(_KEPT_BYTES, _num_bytes)
