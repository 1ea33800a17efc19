"""What every log of scalars comes down to: named values over steps."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 200_000
MAX_TRACKS = 2000
NOT_KNOWN = float("nan")


class Track:
    """The values of one name; of too many every second, fourth and so on is kept."""

    def __init__(self) -> None:
        self._points = array("d")  # step, epoch, time, value and again
        self._stride = 1
        self._num_seen = 0

    def add(self, step: float, value: float, *, epoch: float, t: float) -> None:
        """Append a value."""
        self._num_seen += 1
        if (self._num_seen - 1) % self._stride:
            return
        self._points.extend((step, epoch, t, value))
        if len(self._points) // 4 > MAX_POINTS:
            self._points = array("d", self.points()[::2].tobytes())
            self._stride *= 2

    @property
    def is_thinned(self) -> bool:
        """Whether values were left out."""
        return self._stride > 1

    def points(self) -> NDArray[np.float64]:
        """Give [point, (step, epoch, time, value)] in the order of the log."""
        return np.array(self._points, dtype=np.float64).reshape(-1, 4)


class Tracks:
    """All names of a log."""

    def __init__(self) -> None:
        self._tracks: dict[str, Track] = {}
        self.warnings: list[str] = []

    def add(
        self,
        name: str,
        step: float,
        value: float,
        *,
        epoch: float = NOT_KNOWN,
        t: float = NOT_KNOWN,
    ) -> None:
        """Append a value to a name."""
        track = self._tracks.get(name)
        if track is None:
            if len(self._tracks) >= MAX_TRACKS:
                return
            track = self._tracks[name] = Track()
        track.add(step, value, epoch=epoch, t=t)

    def __iter__(self) -> Iterator[tuple[str, Track]]:
        return iter(self._tracks.items())

    def __len__(self) -> int:
        return len(self._tracks)

    @property
    def names(self) -> list[str]:
        """All names in the order in which they turned up."""
        return list(self._tracks)
