"""Where a step's time goes, without waiting for the device.

On the CPU host marks are exact. On a GPU an event is recorded at each mark and read when the step
metrics are flushed: that copy has already waited for every earlier event. An event that the device
has not come to even then leaves its phase out of the sum; nothing here ever waits.

Between two steps a GPU may have work left, so that waiting for data costs nothing. What counts
there is the gap the device saw: it is the loader's as far as the host waited for it, then the
loop's own (evaluation, checkpoints, writing the log), and what is left a copy's.

An encoder's backward pass begins where the gradient of its features arrives and ends where that of
the next encoder does: autograd runs backwards through what ran forwards, encoder after encoder.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmtool.engine.marks import DeviceMarks, HostMarks, Marks
from mmtool.engine.operators import count_operators
from mmtool.types import Modality

PHASES = ("data", "transfer", "forward", "backward", "sync", "optimizer")
_COMPUTING = ("forward", "backward")
"""Where this thread computes on a CPU: what it waited for there is then the machine's doing."""
COUNTED_STEP = 3
"""The step of an attempt whose operators are counted: early enough to be no steady one."""


@dataclass(slots=True)
class _Step:
    """One step as it is measured: what the host knows at once, and points to be read later."""

    host: dict[str, float]
    started: float
    begin: Any
    before: Any | None
    """End of the step before, None for the first one."""
    is_queue_empty: bool | None
    spans: list[tuple[str, Any, Any]] = field(default_factory=list)
    end: Any = None
    inside_ms: float = 0.0


class PhaseClock:
    """Collects milliseconds per phase for every step since the last `read`."""

    def __init__(self, device: torch.device, marks: Marks | None = None) -> None:
        self._on_gpu = device.type == "cuda"
        if marks is None and self._on_gpu:
            marks = DeviceMarks(lambda: torch.cuda.Event(enable_timing=True))
        self._marks: Marks = marks or HostMarks()
        self._steps: list[_Step] = []
        self._last_end: Any | None = None
        self._ended: float | None = None
        self._backward: tuple[str, Any] | None = None
        self._num_steps = 0
        self._num_operators = 0

    def begin_step(self, *, data_ms: float, transfer_ms: float) -> None:
        """Open a step whose data took this long to arrive."""
        now = time.perf_counter()
        asked = now - (data_ms + transfer_ms) / 1e3
        between = 0.0 if self._ended is None else max(0.0, (asked - self._ended) * 1e3)
        is_empty = None
        if self._on_gpu and self._last_end is not None:
            is_empty = self._marks.is_past(self._last_end)
        host = {"data": data_ms, "transfer": transfer_ms, "between": between}
        self._steps.append(_Step(host, now, self._marks.mark(), self._last_end, is_empty))
        self._num_steps += 1

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute the time inside to a phase; a phase may be entered several times a step."""
        is_timed = name in _COMPUTING and not self._on_gpu
        worked = time.thread_time() if is_timed else 0.0
        first = self._marks.mark()
        yield
        step = self._steps[-1]
        step.spans.append((name, first, self._marks.mark()))
        if is_timed:
            step.host["cpu"] = step.host.get("cpu", 0.0) + (time.thread_time() - worked) * 1e3

    def encoder(self, modality: Modality) -> Any:
        """Attribute the time inside to the forward pass of an encoder, as a part of a phase."""
        return self.phase(f"forward_ms.{modality}")

    def watch_backward(
        self, features: Mapping[Modality, Tensor], terms: Mapping[str, Tensor]
    ) -> None:
        """Have the next backward pass tell when it comes to each encoder.

        Every loss term begins with the fusion, also where each is differentiated on its own.
        """
        self._backward = None  # what a pass that ran out of memory left open
        for term in terms.values():
            if term.requires_grad:
                term.register_hook(partial(self._arrive, "fusion_backward"))
        for modality, feature in features.items():
            if feature.requires_grad:
                feature.register_hook(partial(self._arrive, f"backward_ms.{modality}"))

    def end_backward(self) -> None:
        """Close the last encoder's backward pass."""
        self._close_backward(self._marks.mark() if self._backward else None)

    def _arrive(self, name: str, gradient: Tensor) -> None:
        del gradient
        if self._backward is not None and self._backward[0] == name:
            return
        now = self._marks.mark()
        self._close_backward(now)
        self._backward = (name, now)

    def _close_backward(self, now: Any) -> None:
        if self._backward is not None:
            self._steps[-1].spans.append((*self._backward, now))
            self._backward = None

    def count_operators(self, terms: Mapping[str, Tensor]) -> None:
        """Count the operators behind some losses, in one early step alone."""
        if self._num_steps == COUNTED_STEP:
            self._num_operators += count_operators(terms.values())

    def take_operators(self) -> int | None:
        """Give the operators of the counted step, once it is over and once only."""
        if self._num_steps < COUNTED_STEP or not self._num_operators:
            return None
        counted, self._num_operators = self._num_operators, 0
        return counted

    def end_step(self) -> None:
        """Close the step."""
        step = self._steps[-1]
        self._backward = None  # what an error left open
        self._ended = time.perf_counter()
        step.inside_ms = (self._ended - step.started) * 1e3
        step.end = self._last_end = self._marks.mark()

    def read(self) -> list[dict[str, Any]]:
        """Give and forget all closed steps; on a GPU call this after a copy from the device.

        Each has milliseconds by name, `forward_ms.<modality>` and `backward_ms.<modality>` among
        them; on a CPU `cpu`, this thread's processor time in forward and backward; on a GPU
        `queue_empty`, whether the device had run out of work when the batch was there.
        """
        steps, self._steps = self._steps, []
        found = [self._read(step) for step in steps]
        for step in steps:
            ends = [point for _, *points in step.spans for point in points]
            # Steps share an end with the next one, which may not be read yet.
            self._marks.free([step.begin, *dict.fromkeys(ends)])
            if step.before is not None:
                self._marks.free([step.before])
        return found

    def _read(self, step: _Step) -> dict[str, Any]:
        record: dict[str, Any] = dict.fromkeys(PHASES, 0.0)
        record |= step.host
        inside = step.inside_ms
        if self._on_gpu:
            inside = self._read_device(step, record)
        for name, first, last in step.spans:
            ms = self._marks.between(first, last)
            if ms is not None:
                record[name] = record.get(name, 0.0) + ms
        record["step"] = inside + record["data"] + record["transfer"]
        return record

    def _read_device(self, step: _Step, record: dict[str, Any]) -> float:
        """Split the gap before the step by cause; give what the step itself took."""
        if step.is_queue_empty is not None:
            record["queue_empty"] = step.is_queue_empty
        gap = None if step.before is None else self._marks.between(step.before, step.begin)
        if gap is not None:
            record["data"] = min(record["data"], gap)
            record["between"] = min(record["between"], gap - record["data"])
            record["transfer"] = gap - record["data"] - record["between"]
        inside = self._marks.between(step.begin, step.end)
        return step.inside_ms if inside is None else inside
