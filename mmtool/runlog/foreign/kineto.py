"""Chrome traces of PyTorch's profiler, of NVIDIA and AMD devices or of a CPU alone.

The events are read one by one from the text, so that a trace of any size needs the memory of the
numbers that are kept of it. `ts` and `dur` are in microseconds; a trace whose `ts` are too large
for that since 1970 has them in nanoseconds.
"""

from __future__ import annotations

import gzip
import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np

from mmtool.errors import RunDirectoryError
from mmtool.runlog.foreign.trace import Annotation, TraceEvents, summarise, tables_of_traces
from mmtool.runlog.reader import RunTables

CHUNK = 2**20
_EVENTS_START = re.compile(r'"traceEvents"\s*:\s*\[')
_RANK = re.compile(r'"rank"\s*:\s*(\d+)')
_RANK_IN_NAME = re.compile(r"rank[-_]?(\d+)")
_DEVICE_CATS = {"kernel": 0, "gpu_memcpy": 1, "memcpy": 1, "gpu_memset": 2, "memset": 2}
_RUNTIME_CATS = frozenset({"cuda_runtime", "cuda_driver", "hip_runtime", "runtime"})
_ANNOTATION_CATS = frozenset({"user_annotation", "gpu_user_annotation"})
_COLLECTIVE = re.compile(r"nccl|rccl", re.IGNORECASE)
_WAITS = re.compile(r"(?:cuda|hip|cu)\w*Synchronize$")
_NANOSECONDS_FROM, _LATEST = 1e17, 1e20
_MAX_ANNOTATIONS = 500_000
COLLECTIVE = 3


def read_traces(files: list[Path]) -> RunTables:
    """Read the traces of one or more ranks."""
    found: list[TraceEvents] = []
    warnings: list[str] = []
    for place, file in enumerate(files):
        builder = _Builder()
        with _opened(file) as stream:
            around = builder.read(stream, file, warnings)
        rank = _RANK.search(around) or _RANK_IN_NAME.search(file.name)
        known = int(rank[1]) if rank else place
        taken = {events.rank for events in found}
        found.append(builder.events(place if known in taken else known))
    found.sort(key=lambda events: events.rank)
    return tables_of_traces(files[0], summarise(found), found, warnings)


def _opened(file: Path) -> IO[str]:
    if file.name.endswith(".gz"):
        return gzip.open(file, "rt", encoding="utf-8", errors="replace")
    return file.open(encoding="utf-8", errors="replace")


@dataclass(slots=True)
class _Builder:
    """Keeps of each event only what the summary needs."""

    device: array[float] = field(default_factory=lambda: array("d"))
    """ts, dur, class, device, correlation and again."""
    launches: array[float] = field(default_factory=lambda: array("d"))
    """ts, correlation and again."""
    waits: array[float] = field(default_factory=lambda: array("d"))
    """ts, dur, thread and again."""
    annotations: list[Annotation] = field(default_factory=list)
    threads: dict[Any, int] = field(default_factory=dict)
    origin: float | None = None
    """Time of the first event read; subtracted at once, as nanoseconds are too long for floats."""
    first: float = float("inf")
    last: float = float("-inf")
    num_events: int = 0

    def read(self, stream: IO[str], file: Path, warnings: list[str]) -> str:
        """Read a trace to its end, or to where it was cut off; give what stands around its list."""
        around: list[str] = []
        try:
            for event in _events(stream, around):
                if isinstance(event, dict) and event.get("ph") == "X":
                    self._add(event)
        except (ValueError, EOFError, gzip.BadGzipFile, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            if not self.num_events:
                raise RunDirectoryError(
                    f"{file.name} is not a trace: {error}",
                    where=str(file),
                    why="a trace has a list of events, traceEvents",
                ) from error
            warnings.append(f"{file.name} was cut off after {self.num_events} events ({error})")
        return "".join(around)

    def events(self, rank: int) -> TraceEvents:
        """Give what was kept as arrays, in microseconds."""
        device = np.array(self.device).reshape(-1, 5)
        launches = np.array(self.launches).reshape(-1, 2)
        waits = np.array(self.waits).reshape(-1, 3)
        scale = 1e-3 if (self.origin or 0.0) > _NANOSECONDS_FROM else 1.0
        base = self.first if self.num_events else 0.0
        for table, timed in ((device, 2), (launches, 1), (waits, 2)):
            table[:, 0] -= base
            table[:, :timed] *= scale
        annotations = [
            Annotation(a.name, (a.start - base) * scale, a.duration * scale, a.thread, a.is_device)
            for a in self.annotations
        ]
        span = max(self.last - base, 0.0) * scale if self.num_events else 0.0
        return TraceEvents(rank, device, launches, waits, annotations, span)

    def _add(self, event: dict[str, Any]) -> None:
        ts, duration = event.get("ts"), event.get("dur")
        if not _is_time(ts) or not _is_time(duration):
            return
        cat, name = str(event.get("cat") or "").lower(), str(event.get("name") or "")
        if cat == "trace":  # the profiler's own span, longer than what it saw
            return
        self.num_events += 1
        self.origin = ts if self.origin is None else self.origin
        ts -= self.origin
        self.first, self.last = min(self.first, ts), max(self.last, ts + duration)
        args = event.get("args")
        args = args if isinstance(args, dict) else {}
        if cat in _DEVICE_CATS:
            kind = COLLECTIVE if cat == "kernel" and _COLLECTIVE.search(name) else _DEVICE_CATS[cat]
            number = _whole(args.get("device", event.get("pid")))
            self.device.extend((ts, duration, kind, number, _whole(args.get("correlation"))))
        elif cat in _RUNTIME_CATS:
            if _WAITS.match(name):
                self.waits.extend((ts, duration, self._thread(event)))
            if (correlation := _whole(args.get("correlation"))) >= 0:
                self.launches.extend((ts, correlation))
        elif cat in _ANNOTATION_CATS and len(self.annotations) < _MAX_ANNOTATIONS:
            is_device = cat.startswith("gpu")
            self.annotations.append(Annotation(name, ts, duration, self._thread(event), is_device))

    def _thread(self, event: dict[str, Any]) -> int:
        key = (event.get("pid"), event.get("tid"))
        return self.threads.setdefault(str(key), len(self.threads))


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < _LATEST


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < 2**53 else -1


def _events(stream: IO[str], around: list[str]) -> Iterator[Any]:
    """Give the members of the list of events, reading no more than a chunk ahead."""
    text, at = _skip_to_events(stream, around)
    decode = json.JSONDecoder(parse_constant=lambda _: None).raw_decode
    is_done = False
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at < len(text) and text[at] == "]":
            around.append((text[at:] + stream.read(CHUNK))[:CHUNK])
            return
        try:
            event, end = decode(text, at)
        except ValueError:
            if is_done:
                raise
            more = stream.read(max(CHUNK, len(text) - at))
            is_done = not more
            text, at = text[at:] + more, 0
            continue
        yield event
        at = end
        if at > CHUNK:
            text, at = text[at:], 0


def _skip_to_events(stream: IO[str], around: list[str]) -> tuple[str, int]:
    """Find where the list begins: of the key traceEvents wherever it stands, or the whole file."""
    text = stream.read(CHUNK)
    if text.lstrip()[:1] == "[":
        return text, text.index("[") + 1
    while True:
        found = _EVENTS_START.search(text)
        if found is not None:
            around.append(text[: found.start()])
            return text, found.end()
        more = stream.read(CHUNK)
        if not more:
            raise ValueError("it has no traceEvents")
        # The key may lie across the end of a chunk.
        text = text[-64:] + more
