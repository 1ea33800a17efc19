"""Where a step's time goes, without waiting for the device.

On the CPU host marks are exact. On a GPU an event is recorded at each mark and read when the step
metrics are flushed: that copy has already waited for every earlier event.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("data", "transfer", "forward", "backward", "sync", "optimizer")


class PhaseClock:
    """Collects milliseconds per phase for every step since the last `read`."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._steps: list[dict[str, float]] = []
        self._events: list[list[tuple[str, torch.cuda.Event, torch.cuda.Event]]] = []
        self._started = 0.0

    def begin_step(self, *, data_ms: float, transfer_ms: float) -> None:
        """Open a step whose data took this long to arrive."""
        self._steps.append(dict.fromkeys(PHASES, 0.0))
        self._steps[-1].update(data=data_ms, transfer=transfer_ms)
        self._events.append([])
        self._started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute the time inside to a phase; a phase may be entered several times a step."""
        if self._on_gpu:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._events[-1].append((name, first, last))
            return
        started = time.perf_counter()
        yield
        self._steps[-1][name] += (time.perf_counter() - started) * 1e3

    def end_step(self) -> None:
        """Close the step."""
        record = self._steps[-1]
        inside = (time.perf_counter() - self._started) * 1e3
        record["step"] = inside + record["data"] + record["transfer"]

    def read(self) -> list[dict[str, float]]:
        """Give and forget all closed steps; on a GPU call this after a copy from the device."""
        for record, events in zip(self._steps, self._events, strict=True):
            for name, first, last in events:
                last.synchronize()
                record[name] += first.elapsed_time(last)
        steps, self._steps, self._events = self._steps, [], []
        return steps
