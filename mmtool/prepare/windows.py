"""Cut labelled recordings into windows of seconds."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording with the label that most of it has."""

    start_s: float
    end_s: float
    label: int
    share: float
    """Share of its rows that have the label."""


def label_windows(
    times_s: ArrayLike,
    labels: ArrayLike,
    *,
    window_s: float,
    stride_s: float,
    min_share: float = 0.8,
    max_gap_s: float = 1.0,
) -> Iterator[Window]:
    """Give the windows in which at least `min_share` of the rows have one label of 0 or more.

    Negative labels are no activity. Windows begin where recording begins, also after a pause of
    more than `max_gap_s`, and never reach across one.
    """
    times = np.asarray(times_s, dtype=np.float64)
    found = np.asarray(labels, dtype=np.int64)
    if len(times) != len(found):
        raise ValueError(f"{len(times)} times and {len(found)} labels")
    pauses = np.flatnonzero((np.diff(times) > max_gap_s) | (np.diff(times) < 0)) + 1
    for part in np.split(np.arange(len(times)), pauses):
        if len(part) > 1:
            yield from _windows(times[part], found[part], window_s, stride_s, min_share)


def _windows(
    times: np.ndarray, labels: np.ndarray, window_s: float, stride_s: float, min_share: float
) -> Iterator[Window]:
    step_s = float(np.median(np.diff(times)))
    last_s = float(times[-1]) + step_s
    count = int(np.floor((last_s - float(times[0]) - window_s) / stride_s + 1e-6)) + 1
    for number in range(max(0, count)):
        start_s = float(times[0]) + number * stride_s
        inside = labels[
            np.searchsorted(times, start_s - 1e-9) : np.searchsorted(
                times, start_s + window_s - 1e-9
            )
        ]
        if not len(inside):
            continue
        names, counts = np.unique(inside, return_counts=True)
        label, share = int(names[counts.argmax()]), float(counts.max() / len(inside))
        if label >= 0 and share >= min_share:
            yield Window(start_s, start_s + window_s, label, share)
