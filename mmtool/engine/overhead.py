"""What measuring costs a run, as a share of its time; the run times itself.

    probes        training the probes
    norms         norms of parameters and updates, every `log.norms_every_steps` steps
    log           step metrics, from the device to the file
    modalities    what an evaluation asks of single modalities: permuted, alone, probed, ranked
    train_sample  the evaluation of training samples after an epoch
    system        the samples of CPU, memory and GPU (processor time of the sampling thread)

On a GPU a part within a step counts with the larger of two times: that of the host, which launches
it, and that of the device, taken by events which are read after the next copy of metrics has waited
for them. Not counted: what the probes add to the sum of gradients over ranks.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mmtool.engine.distributed import Ranks

PARTS = ("probes", "norms", "log", "modalities", "train_sample", "system")
LIMIT = 0.01
LEAST_S = 60.0
"""Seconds that must have been timed before sampling is thinned: a share of less is chance."""
LEAST_GAIN = LIMIT / 10
"""Share below which taking norms less often would not help."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Mean over ranks of the seconds since the last account."""

    wall_s: float
    parts: Mapping[str, float]

    @property
    def share(self) -> float:
        """Time spent measuring over all other time."""
        spent = sum(self.parts.values())
        return spent / max(self.wall_s - spent, 1e-9)

    def share_of(self, part: str) -> float:
        """Time of one part over all time that was not spent measuring."""
        return self.parts[part] / max(self.wall_s - sum(self.parts.values()), 1e-9)

    @property
    def calls_for_thinning(self) -> bool:
        """Tell whether measuring costs too much and rarer norms would lower that."""
        is_known = self.wall_s >= LEAST_S
        return is_known and self.share > LIMIT and self.share_of("norms") > LEAST_GAIN

    def as_fields(self) -> dict[str, Any]:
        """Give the fields of an `overhead` event."""
        return {
            "share": self.share,
            "parts": {part: self.share_of(part) for part in self.parts},
            "wall_s": self.wall_s,
        }


class Overhead:
    """Adds up the time of measuring on this rank."""

    def __init__(
        self,
        device: torch.device,
        *,
        clock: Callable[[], float] = time.perf_counter,
        new_event: Callable[..., Any] = torch.cuda.Event,
    ) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._clock = clock
        self._new_event = new_event
        self._host = dict.fromkeys(PARTS, 0.0)
        self._gpu = dict.fromkeys(PARTS, 0.0)
        self._events: list[tuple[str, Any, Any]] = []
        self._is_inside = False
        self._thread_s: dict[str, float] = {}
        self._thread_counted: dict[str, float] = {}
        self._since: float | None = None  # until the first step

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside, without waiting for the device; a part within a part is of it."""
        if self._is_inside:
            yield
            return
        events = [self._new_event(enable_timing=True) for _ in range(2 * self._on_gpu)]
        started = self._enter()
        for event in events[:1]:
            event.record()
        try:
            yield
        finally:
            self._is_inside = False
            for event in events[1:]:
                event.record()
            if events:
                self._events.append((name, events[0], events[1]))
            self._host[name] += self._clock() - started

    @contextmanager
    def whole(self, name: str) -> Iterator[None]:
        """Count the time inside, between steps: it begins and ends with the device at rest."""
        if self._is_inside:
            yield
            return
        self._wait()
        started = self._enter()
        try:
            yield
        finally:
            self._is_inside = False
            self._wait()
            self._host[name] += self._clock() - started

    def of_thread(self, name: str) -> None:
        """Count the processor time of the calling thread; one thread may call this for a name."""
        self._thread_s[name] = time.thread_time()

    def read_with(self, flush: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Give the flushed step metrics; their copy has waited for what the device timed."""
        with self.whole("log"):
            records = flush()
        self._read()
        return records

    def _read(self) -> None:
        for name, first, last in self._events:
            last.synchronize()
            self._gpu[name] += first.elapsed_time(last) / 1e3
        self._events = []

    def account(self, ranks: Ranks) -> Costs:
        """Give the costs since the last account, the same on every rank, and begin anew."""
        self._read()
        for name, seconds in list(self._thread_s.items()):
            self._host[name] += seconds - self._thread_counted.get(name, 0.0)
            self._thread_counted[name] = seconds
        now = self._clock()
        begun = now if self._since is None else self._since
        own = [now - begun, *(max(self._host[p], self._gpu[p]) for p in PARTS)]
        total = ranks.sum_(torch.tensor(own, dtype=torch.float64, device=ranks.device), "overhead")
        wall_s, *parts = (total / ranks.world).tolist()
        self._host = dict.fromkeys(PARTS, 0.0)
        self._gpu = dict.fromkeys(PARTS, 0.0)
        self._since = now
        return Costs(wall_s, dict(zip(PARTS, parts, strict=True)))

    def _enter(self) -> float:
        self._is_inside, now = True, self._clock()
        if self._since is None:
            self._since = now
        return now

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.current_stream(self._device).synchronize()
