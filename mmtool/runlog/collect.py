"""From the log files of all ranks to the events that count, after kills and resumes.

A step may have been logged twice. The line of the highest attempt wins, and what an earlier attempt
logged beyond the point of a later resume is left out, repeated or not: the training that counts
never went there.

Lines are read one by one, and of more steps than `MAX_STEPS` only every so many-th is kept, so that
a log of any size is read in bounded memory.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import EnvironmentLacks
from mmtool.runlog.columns import Columns
from mmtool.runlog.events import Event
from mmtool.runlog.lines import LogLines, check_schema

MAX_STEPS = 240_000
MAX_EVENTS = 20_000
MAX_EPOCH_LINES = 50_000
_LARGEST = 2**53  # whole numbers up to here are exact as floats
STEP_KEYS = (
    *("rank", "step", "epoch", "n", "loss", "lr", "gnorm", "skipped", "attempt"),
    "queue_empty",
)
_STEP_START = re.compile(rb'\{"k":\s*"step",\s*"t":\s*[-+\d.eE]+,\s*"step":\s*(\d{1,15}),')
_TEXT_COLUMNS = frozenset({"skipped", "modality"})


@dataclass(frozen=True, slots=True)
class LogRow:
    """One event with the rank and the attempt that wrote it."""

    rank: int
    attempt: int
    event: Event

    @property
    def step(self) -> int | None:
        """Step of the event, None when it has none."""
        return whole(self.event.get("step"))


@dataclass(frozen=True, slots=True)
class Collected:
    """What the ranks of a run logged and what still counts of it."""

    heads: tuple[Event, ...]
    """Of the first rank, oldest attempt first."""
    end: Event | None
    """Of the first rank's last attempt."""
    steps: Columns
    """Sorted by rank and step."""
    step_modalities: Columns
    epochs: tuple[LogRow, ...]
    events: tuple[LogRow, ...]
    warnings: tuple[str, ...]


def collect(logs: Mapping[int, Path]) -> Collected:
    """Read the log of every rank and keep the events that count, sorted."""
    collector = _Collector(first_rank=min(logs, default=0))
    unreadable: list[OSError] = []
    for rank, path in sorted(logs.items()):
        try:
            collector.read(rank, path)
        except OSError as error:
            unreadable.append(error)
            collector.warnings.append(
                f"{path.name} cannot be read ({error.strerror or error}); its rank is missing"
            )
    if unreadable and len(unreadable) == len(logs):
        raise EnvironmentLacks(
            f"the log cannot be read: {unreadable[0].strerror or unreadable[0]}",
            where=str(unreadable[0].filename or next(iter(logs.values()))),
            fix=f"ls -lL {next(iter(logs.values())).parent}",
        )
    return collector.collected()


def whole(value: Any) -> int | None:
    """Give the value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(slots=True)
class _Collector:
    first_rank: int
    heads: list[Event] = field(default_factory=list)
    end: Event | None = None
    steps: "_Steps" = field(default_factory=lambda: _Steps())
    epochs: list[LogRow] = field(default_factory=list)
    events: list[LogRow] = field(default_factory=list)
    num_left_out: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=dict)
    """Step at which each attempt began: where it resumed, else its first logged step."""
    attempt: int = 0

    def read(self, rank: int, path: Path) -> None:
        """Read the file of one rank."""
        lines = LogLines(path, wants=self._wants)
        self.attempt = 0
        for event in lines:
            kind = event["k"]
            if kind == "head":
                check_schema([event], path)
                self.attempt = whole(event.get("attempt")) or self.attempt + 1
            if kind == "step" and _number_of(event) is not None:
                self._started(event["step"])
                self.steps.add(rank, self.attempt, event, self.starts)
            elif kind == "epoch" and _is_usable_epoch(event):
                self._add_epoch(LogRow(rank, self.attempt, event))
            elif kind == "event":
                self._add_event(LogRow(rank, self.attempt, event))
            elif kind not in ("head", "end"):
                self.ignored[kind] += 1
            elif rank == self.first_rank:
                # A new attempt takes back the end of the one before.
                self.end = event if kind == "end" else None
                self.heads += [event] if kind == "head" else []
        self.warnings += lines.warnings

    def collected(self) -> Collected:
        """Give what counts of everything that was read."""
        self.warnings += [
            f"{n} lines of kind {kind!r} are ignored" for kind, n in sorted(self.ignored.items())
        ]
        if self.steps.stride > 1:
            self.warnings.append(
                f"the log is long: of its steps, those whose number divides by {self.steps.stride} "
                f"were read"
            )
        self.warnings += [
            f"{n} further {what} are left out" for what, n in self.num_left_out.items()
        ]
        self.steps.settle(self.starts)
        return Collected(
            heads=tuple(self.heads),
            end=self.end,
            steps=self.steps.rows,
            step_modalities=self.steps.modalities,
            epochs=_winners(self.epochs, self.starts),
            events=tuple(sorted(self.events, key=lambda r: (_time(r.event), r.rank))),
            warnings=tuple(self.warnings),
        )

    def _add_epoch(self, row: LogRow) -> None:
        if len(self.epochs) < MAX_EPOCH_LINES:
            self.epochs.append(row)
        else:
            self.num_left_out["epoch lines"] += 1

    def _add_event(self, row: LogRow) -> None:
        if row.event.get("what") == "resume" and row.step is not None:
            self._started(row.step)
        if len(self.events) < MAX_EVENTS:
            self.events.append(row)
        else:
            self.num_left_out["events"] += 1

    def _started(self, step: int) -> None:
        self.starts[self.attempt] = min(step, self.starts.get(self.attempt, step))

    def _wants(self, line: bytes) -> bool:
        """Spare the parsing of a step that would not be kept."""
        if self.steps.stride == 1 or not line.endswith(b"}\n"):
            return True
        found = _STEP_START.match(line)
        if found is None:
            return True
        step = int(found[1])
        self._started(step)
        return step % self.steps.stride == 0


class _Steps:
    """Steps and their modalities, thinned when they become too many."""

    def __init__(self) -> None:
        self.rows = Columns(_TEXT_COLUMNS)
        self.modalities = Columns(_TEXT_COLUMNS)
        self.stride = 1
        self._most = MAX_STEPS

    def add(self, rank: int, attempt: int, event: Event, starts: Mapping[int, int]) -> None:
        """Append a step, unless its number is passed over."""
        if event["step"] % self.stride:
            return
        keys = {"rank": rank, "step": event["step"], "epoch": event.get("epoch")}
        for modality, metrics in modalities_of(event):
            at = {"at": len(self.rows), "modality": modality}
            self.modalities.add({**metrics, **keys, **at})
        self.rows.add(_flat_step(rank, attempt, event))
        if len(self.rows) > self._most:
            self._thin(starts)

    def settle(self, starts: Mapping[int, int]) -> None:
        """Drop what a later attempt took back or repeated, and sort."""
        self._keep(_counting(self.rows, starts))

    def _thin(self, starts: Mapping[int, int]) -> None:
        self.settle(starts)
        steps = self.rows.numbers("step")
        while np.count_nonzero(steps % self.stride == 0) > self._most // 2:
            self.stride *= 2
        self._keep(np.flatnonzero(steps % self.stride == 0))

    def _keep(self, rows: NDArray[np.intp]) -> None:
        place = np.full(len(self.rows), -1, dtype=np.intp)
        place[rows] = np.arange(len(rows))
        self.rows.keep(rows)
        if not len(self.modalities):
            return
        moved = place[self.modalities.numbers("at").astype(np.intp)]
        order = np.argsort(moved, kind="stable")
        kept = order[moved[order] >= 0]
        self.modalities.keep(kept)
        self.modalities.replace("at", moved[kept])


def _flat_step(rank: int, attempt: int, event: Event) -> dict[str, Any]:
    record = {key: event[key] for key in STEP_KEYS if key in event}
    record["rank"], record["attempt"] = rank, attempt
    for key, prefix in (("ms", "ms_"), ("terms", "term_")):
        found = event.get(key)
        if isinstance(found, dict):
            record.update({prefix + name: value for name, value in found.items()})
    return record


def _counting(rows: Columns, starts: Mapping[int, int]) -> NDArray[np.intp]:
    """Give the rows that count, by rank and step: the highest attempt's, and of it the last."""
    if not len(rows):
        return np.zeros(0, dtype=np.intp)
    rank, step, attempt = (rows.numbers(name) for name in ("rank", "step", "attempt"))
    order = np.lexsort((np.arange(len(rows)), attempt, step, rank))
    counts = np.ones(len(order), dtype=bool)
    counts[:-1] = (np.diff(rank[order]) != 0) | (np.diff(step[order]) != 0)
    for one in np.unique(attempt):
        taken_back = min((s for other, s in starts.items() if other > one), default=None)
        if taken_back is not None:
            counts &= ~((attempt[order] == one) & (step[order] >= taken_back))
    return order[counts]


def modalities_of(event: Event) -> list[tuple[str, Mapping[str, Any]]]:
    """Give what an event says of each modality, by name."""
    found = event.get("m")
    named = found.items() if isinstance(found, dict) else ()
    return sorted((m, metrics) for m, metrics in named if isinstance(metrics, dict))


def _number_of(event: Event) -> int | None:
    step = whole(event.get("step"))
    return step if step is not None and abs(step) < _LARGEST else None


def _is_usable_epoch(event: Event) -> bool:
    return whole(event.get("epoch")) is not None and isinstance(event.get("split"), str)


def _winners(rows: Iterable[LogRow], starts: Mapping[int, int]) -> tuple[LogRow, ...]:
    """Drop what a later attempt took back; of what is left twice keep the highest attempt."""
    best: dict[tuple[Any, ...], LogRow] = {}
    for row in rows:
        if _is_superseded(row, starts):
            continue
        key = (row.event["epoch"], row.event["split"])
        other = best.get(key)
        # Every rank that logs an epoch logs the same reduced numbers; the first rank's are kept.
        if other is None or (row.attempt, -row.rank) >= (other.attempt, -other.rank):
            best[key] = row
    return tuple(best[key] for key in sorted(best))


def _is_superseded(row: LogRow, starts: Mapping[int, int]) -> bool:
    if row.step is None:
        return False
    # A step carries its own number, an epoch the number of steps done before it.
    return any(start <= row.step - 1 for attempt, start in starts.items() if attempt > row.attempt)


def _time(event: Event) -> float:
    t = event.get("t")
    return float(t) if isinstance(t, int | float) else 0.0
