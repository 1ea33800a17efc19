"""Sets of time as sorted, disjoint intervals: [n, 2] of starts and ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.float64]
NO_SPANS: Spans = np.zeros((0, 2))


def union(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> Spans:
    """Give the time that at least one of these intervals covers."""
    if not len(starts):
        return NO_SPANS
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    begins = np.ones(len(starts), dtype=bool)
    begins[1:] = starts[1:] > reach[:-1]
    places = np.flatnonzero(begins)
    last = np.append(places[1:], len(starts)) - 1
    return np.stack([starts[places], reach[last]], axis=1)


def total(spans: Spans) -> float:
    """Give the length of a set of time."""
    return float((spans[:, 1] - spans[:, 0]).sum())


def common(a: Spans, b: Spans) -> float:
    """Give the length of the time that both cover."""
    both = np.concatenate([a, b])
    return total(a) + total(b) - total(union(both[:, 0], both[:, 1]))


def within(spans: Spans, start: float, end: float) -> float:
    """Give how much of a window is covered."""
    low, high = np.searchsorted(spans[:, 1], start), np.searchsorted(spans[:, 0], end)
    part = np.clip(spans[low:high], start, end)
    return total(part)
