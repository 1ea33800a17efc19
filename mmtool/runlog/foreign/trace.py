"""What a profiler's trace says: how busy the device was, with what, and what the host did.

A device's busy time is the time in which at least one of its streams ran something. Communication
is what NCCL's and RCCL's kernels take; the part of it during which nothing else was computed is
exposed. Times of an annotation on the device are those of the kernels that were launched within it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.runlog.foreign.spans import Spans, common, total, union, within
from mmtool.runlog.reader import (
    EPOCH_COLUMNS,
    EPOCH_MODALITY_COLUMNS,
    EVENT_COLUMNS,
    STEP_COLUMNS,
    STEP_MODALITY_COLUMNS,
    SYSTEM_COLUMNS,
    RunTables,
    table_of,
)

SHORT_KERNEL_US = 10.0
_KERNEL, _MEMCPY, _MEMSET, _COLLECTIVE = range(4)
_STEP = re.compile(r"ProfilerStep#(\d+)")
_PHASES = (
    (re.compile(r"enumerate\(DataLoader\)#.*"), "data"),
    (re.compile(r"Optimizer\.step#.*"), "optimizer"),
)
OWN = "mmtool."
_OWN_PHASES = ("data", "transfer", "forward", "backward", "sync", "optimizer")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A named span on the host, or the profiler's mirror of one on the device; microseconds."""

    name: str
    start: float
    duration: float
    thread: int
    is_device: bool


@dataclass(frozen=True, slots=True)
class TraceEvents:
    """What is kept of the trace of one rank; microseconds since its first event."""

    rank: int
    device: NDArray[np.float64]
    """[event, (start, duration, class, device, correlation)]"""
    launches: NDArray[np.float64]
    """[call, (start, correlation)]"""
    waits: NDArray[np.float64]
    """[call, (start, duration, thread)] of host calls that wait for the device."""
    annotations: list[Annotation]
    span: float

    def steps(self) -> list[Annotation]:
        """Give the profiled steps as the host saw them, each once."""
        found = [a for a in self.annotations if _STEP.fullmatch(a.name) and not a.is_device]
        by_name = {a.name: a for a in sorted(found, key=lambda a: a.duration)}
        return sorted(by_name.values(), key=lambda a: a.start)


def summarise(ranks: Sequence[TraceEvents]) -> dict[str, Any]:
    """Give the facts of all ranks as plain data."""
    return {
        "devices": [row for events in ranks for row in _devices(events)],
        "hosts": [_host(events) for events in ranks],
        "steps": [row for events in ranks for row in _steps(events)],
        "annotations": [row for events in ranks for row in _annotations(events)],
    }


def tables_of_traces(
    path: Path, summary: dict[str, Any], ranks: Sequence[TraceEvents], warnings: list[str]
) -> RunTables:
    """Give the tables of a trace: its steps with their phases, and the summary."""
    head = {"source": "trace", "run": path.name, "world": len(ranks), "modalities": []}
    if not summary["devices"]:
        warnings = [*warnings, "the trace has no events of a device: it is of the host alone"]
    return RunTables(
        head=head,
        status={},
        attempts=(head,),
        steps=table_of(_step_rows(ranks), STEP_COLUMNS),
        step_modalities=table_of([], STEP_MODALITY_COLUMNS),
        epochs=table_of([], EPOCH_COLUMNS),
        epoch_modalities=table_of([], EPOCH_MODALITY_COLUMNS),
        system=table_of([], SYSTEM_COLUMNS),
        events=table_of([], EVENT_COLUMNS),
        end=None,
        warnings=tuple(warnings),
        trace=summary,
    )


def _spans(rows: NDArray[np.float64]) -> Spans:
    return union(rows[:, 0], rows[:, 0] + rows[:, 1])


def _window(events: TraceEvents) -> tuple[float, float]:
    """Give the time that is judged: the profiled steps, or all of the trace without any."""
    steps = events.steps()
    if not steps:
        return 0.0, events.span
    return steps[0].start, max(s.start + s.duration for s in steps)


def _devices(events: TraceEvents) -> list[dict[str, Any]]:
    start, end = _window(events)
    rows = []
    for number in np.unique(events.device[:, 3]):
        own = events.device[events.device[:, 3] == number]
        # What the last step launched may run after it: the window ends with the device.
        end_of_device = max(end, float((own[:, 0] + own[:, 1]).max()))
        inside = own[(own[:, 0] + own[:, 1] > start) & (own[:, 0] < end_of_device)]
        rows.append(
            {"rank": events.rank, "device": int(number)}
            | _device(inside, start, end_of_device, len(events.steps()))
        )
    return rows


def _device(rows: NDArray[np.float64], start: float, end: float, num_steps: int) -> dict[str, Any]:
    span = max(end - start, 1e-9)
    kinds = {kind: _spans(rows[rows[:, 2] == kind]) for kind in range(4)}
    busy = within(_spans(rows), start, end)
    compute, moved = kinds[_KERNEL], kinds[_COLLECTIVE]
    shared = common(compute, moved)
    kernels = rows[(rows[:, 2] == _KERNEL) | (rows[:, 2] == _COLLECTIVE)][:, 1]
    communication = total(moved)
    return {
        "span_ms": span / 1000,
        "busy": busy / span,
        "idle": 1 - busy / span,
        "compute": within(compute, start, end) / span,
        "communication": within(moved, start, end) / span,
        "exposed_communication": max(communication - shared, 0.0) / span,
        "overlap": shared / communication if communication > 0 else None,
        "memcpy": within(kinds[_MEMCPY], start, end) / span,
        "memset": within(kinds[_MEMSET], start, end) / span,
        "num_kernels": len(kernels),
        "kernels_per_step": len(kernels) / num_steps if num_steps else None,
        "kernel_p50_us": float(np.median(kernels)) if len(kernels) else None,
        "short_kernels": float((kernels < SHORT_KERNEL_US).mean()) if len(kernels) else None,
    }


def _host(events: TraceEvents) -> dict[str, Any]:
    start, end = _window(events)
    threads = np.unique(events.waits[:, 2])
    waited = [
        within(_spans(events.waits[events.waits[:, 2] == thread]), start, end) for thread in threads
    ]
    longest = max(waited, default=0.0)
    return {
        "rank": events.rank,
        "span_ms": (end - start) / 1000,
        "num_steps": len(events.steps()),
        "sync_ms": longest / 1000,
        "sync": longest / (end - start) if end > start else 0.0,
        "num_syncs": len(events.waits),
    }


def _steps(events: TraceEvents) -> list[dict[str, Any]]:
    busy = _spans(events.device)
    compute = _spans(events.device[events.device[:, 2] == _KERNEL])
    moved = _spans(events.device[events.device[:, 2] == _COLLECTIVE])
    copied = _spans(events.device[events.device[:, 2] == _MEMCPY])
    rows = []
    for step in events.steps():
        start, end = step.start, step.start + step.duration
        row: dict[str, Any] = {"rank": events.rank, "step": _number(step)}
        row["ms"] = step.duration / 1000
        if len(busy):
            parts = {"busy": busy, "compute": compute, "communication": moved, "memcpy": copied}
            row |= {f"{name}_ms": within(s, start, end) / 1000 for name, s in parts.items()}
        rows.append(row)
    return rows


def _annotations(events: TraceEvents) -> list[dict[str, Any]]:
    """Give the host's and the device's time of each of our annotations, and their number."""
    own = [a for a in events.annotations if a.name.startswith(OWN) and not a.is_device]
    by_launch = _device_time_by_launch(events)
    rows: dict[str, dict[str, Any]] = {}
    for annotation in own:
        row = rows.setdefault(
            annotation.name,
            {"rank": events.rank, "name": annotation.name, "count": 0, "host_ms": 0.0}
            | ({"device_ms": 0.0} if by_launch is not None else {}),
        )
        row["count"] += 1
        row["host_ms"] += annotation.duration / 1000
        if by_launch is not None:
            row["device_ms"] += _launched_within(by_launch, annotation) / 1000
    return sorted(rows.values(), key=lambda row: -row["host_ms"])


def _device_time_by_launch(events: TraceEvents) -> NDArray[np.float64] | None:
    """Give [call, (start, time on the device)] by start; None without a device."""
    known = events.device[events.device[:, 4] >= 0]
    if not len(known) or not len(events.launches):
        return None
    order = np.argsort(known[:, 4], kind="stable")
    ids, durations = known[order, 4], known[order, 1]
    sums = np.concatenate([[0.0], np.cumsum(durations)])
    wanted = events.launches[:, 1]
    low, high = np.searchsorted(ids, wanted), np.searchsorted(ids, wanted, side="right")
    found = np.column_stack([events.launches[:, 0], sums[high] - sums[low]])
    return found[np.argsort(found[:, 0], kind="stable")]


def _launched_within(calls: NDArray[np.float64], annotation: Annotation) -> float:
    """Sum over every thread: a backward pass launches from one that the annotation is not on."""
    end = annotation.start + annotation.duration
    low, high = np.searchsorted(calls[:, 0], [annotation.start, end])
    return float(calls[low:high, 1].sum())


def _step_rows(ranks: Sequence[TraceEvents]) -> list[dict[str, Any]]:
    """Give the steps as a run's log has them, with the phases that annotations tell."""
    rows = []
    for events in ranks:
        phases = [
            (phase, a)
            for a in events.annotations
            if not a.is_device and (phase := _phase(a.name)) is not None
        ]
        starts = np.array([a.start for _, a in phases])
        order = np.argsort(starts, kind="stable")
        for step in events.steps():
            row: dict[str, Any] = {"rank": events.rank, "attempt": 0, "step": _number(step)}
            row["ms_step"] = step.duration / 1000
            low, high = np.searchsorted(starts[order], [step.start, step.start + step.duration])
            for place in order[low:high]:
                phase, annotation = phases[place]
                name = f"ms_{phase}"
                row[name] = row.get(name, 0.0) + annotation.duration / 1000
            rows.append(row)
    return rows


def _phase(name: str) -> str | None:
    for pattern, phase in _PHASES:
        if pattern.fullmatch(name):
            return phase
    phase = name.removeprefix(OWN).split(".")[0]
    return phase if name.startswith(OWN) and phase in _OWN_PHASES else None


def _number(step: Annotation) -> int:
    found = _STEP.fullmatch(step.name)
    return int(found[1]) if found else 0
