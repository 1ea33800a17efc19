"""Mean and deviation over a stream of arrays, the same to the last bit on every rerun."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHANNEL_AXIS = {"frames": -3, "series": -1}
_UNIT = {"frames": 255.0, "wave": 32768.0}


class Moments:
    """Count, mean and summed squared deviation, per channel; merged as Chan et al. (1979)."""

    def __init__(
        self,
        count: int = 0,
        mean: Sequence[float] | None = None,
        spread: Sequence[float] | None = None,
    ) -> None:
        self.count = count
        self.mean = np.asarray(mean if mean is not None else [], dtype=np.float64)
        self.spread = np.asarray(spread if spread is not None else [], dtype=np.float64)

    def merge(self, other: "Moments") -> None:
        """Take in the moments of further values."""
        if other.count == 0:
            return
        if self.count == 0:
            self.count, self.mean, self.spread = other.count, other.mean, other.spread
            return
        total = self.count + other.count
        step = other.mean - self.mean
        self.mean = self.mean + step * (other.count / total)
        self.spread = self.spread + other.spread + step**2 * (self.count * other.count / total)
        self.count = total

    def as_json(self) -> dict[str, Any]:
        """Give the state in a form that survives a restart exactly."""
        return {"count": self.count, "mean": self.mean.tolist(), "spread": self.spread.tolist()}

    def result(self, kind: str) -> dict[str, list[float]]:
        """Give mean and deviation in the units of the kind; a constant has deviation 1."""
        unit = _UNIT.get(kind, 1.0)
        deviations = [math.sqrt(value / self.count) / unit for value in self.spread.tolist()]
        return {
            "mean": [value / unit for value in self.mean.tolist()],
            "std": [value if value > 0 else 1.0 for value in deviations],
        }


def moments_of(array: NDArray[Any], kind: str) -> Moments:
    """Give the moments of one sample: per channel for frames and series, over all otherwise."""
    axis = _CHANNEL_AXIS.get(kind)
    if array.size == 0:
        return Moments()
    if array.dtype.kind in "iu":
        return _moments_of_integers(array, axis)
    if axis is None:
        values = array.reshape(1, -1).astype(np.float64)
    else:
        values = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
    mean = values.mean(axis=1)
    spread = np.square(values - mean[:, None]).sum(axis=1)
    return Moments(values.shape[1], mean.tolist(), spread.tolist())


def _moments_of_integers(array: NDArray[Any], axis: int | None) -> Moments:
    """Give the moments of pictures or sound from exact sums: without copies in double precision."""
    kept = 0 if axis is None else axis % array.ndim
    over = None if axis is None else tuple(a for a in range(array.ndim) if a != kept)
    wide = np.uint16 if array.dtype == np.uint8 else np.int64
    sums = np.atleast_1d(array.sum(axis=over, dtype=np.int64)).tolist()
    squares = np.atleast_1d(np.multiply(array, array, dtype=wide).sum(axis=over, dtype=np.int64))
    count = array.size // len(sums)
    # Whole numbers of any size: the difference loses nothing.
    spread = [
        (count * square - total * total) / count
        for total, square in zip(sums, squares.tolist(), strict=True)
    ]
    return Moments(count, [total / count for total in sums], spread)
