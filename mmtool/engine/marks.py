"""Points in time of a step: read from the host's clock, or recorded on a GPU and read later."""

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Marks(Protocol):
    """Makes points in time and tells how far apart two of them are, never waiting for either."""

    def mark(self) -> Any:
        """Give a point that lies after everything asked of the device so far."""

    def is_past(self, point: Any) -> bool:
        """Tell whether the device has come to the point."""

    def between(self, first: Any, last: Any) -> float | None:
        """Give milliseconds, None if the device has not come to the last point yet."""

    def free(self, points: Iterable[Any]) -> None:
        """Take back points that nobody asks about again."""


class HostMarks:
    """The host's clock, exact where the host itself computes."""

    def mark(self) -> float:
        """Give now."""
        return time.perf_counter()

    def is_past(self, point: float) -> bool:
        """Tell that it is: the host has always come to where it is."""
        del point
        return True

    def between(self, first: float, last: float) -> float | None:
        """Give milliseconds."""
        return (last - first) * 1e3

    def free(self, points: Iterable[float]) -> None:
        """Do nothing, for numbers cost nothing."""


class DeviceMarks:
    """Events recorded on the stream that is current, used again once they were read.

    `make` gives a new event; of those torch has, `torch.cuda.Event(enable_timing=True)`.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._spare: list[Any] = []

    def mark(self) -> Any:
        """Record an event."""
        event = self._spare.pop() if self._spare else self._make()
        event.record()
        return event

    def is_past(self, point: Any) -> bool:
        """Ask the driver, which answers at once."""
        return bool(point.query())

    def between(self, first: Any, last: Any) -> float | None:
        """Give milliseconds of the device, None while either is still to come."""
        if not (first.query() and last.query()):
            return None
        return float(first.elapsed_time(last))

    def free(self, points: Iterable[Any]) -> None:
        """Keep events for later steps."""
        self._spare.extend(points)
