"""From the log files of all ranks to the events that count, after kills and resumes.

A step may have been logged twice. The line of the highest attempt wins, and what an earlier attempt
logged beyond the point of a later resume is left out, repeated or not: the training that counts
never went there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtool.runlog.events import Event
from mmtool.runlog.lines import check_schema, read_events

_ROW_KINDS = frozenset({"step", "epoch", "event"})


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
    steps: tuple[LogRow, ...]
    epochs: tuple[LogRow, ...]
    events: tuple[LogRow, ...]
    warnings: tuple[str, ...]


def collect(logs: Mapping[int, Path]) -> Collected:
    """Read the log of every rank and keep the events that count, sorted."""
    heads: list[Event] = []
    end: Event | None = None
    rows: dict[str, list[LogRow]] = {kind: [] for kind in _ROW_KINDS}
    ignored: Counter[str] = Counter()
    warnings: list[str] = []
    for rank, path in sorted(logs.items()):
        log = read_events(path)
        check_schema(log.events, path)
        warnings += log.warnings
        attempt = 0
        for event in log.events:
            kind = event["k"]
            if kind == "head":
                attempt = whole(event.get("attempt")) or attempt + 1
            if kind in rows and _is_usable(event):
                rows[kind].append(LogRow(rank, attempt, event))
            elif kind not in ("head", "end"):
                ignored[kind] += 1
            elif rank == min(logs):
                # A new attempt takes back the end of the one before.
                end = event if kind == "end" else None
                heads += [event] if kind == "head" else []
    warnings += [f"{n} lines of kind {kind!r} are ignored" for kind, n in sorted(ignored.items())]
    starts = _starts([*rows["step"], *rows["event"]])
    return Collected(
        heads=tuple(heads),
        end=end,
        steps=_winners(rows["step"], starts, ("step",)),
        epochs=_winners(rows["epoch"], starts, ("epoch", "split")),
        events=tuple(sorted(rows["event"], key=lambda r: (_time(r.event), r.rank))),
        warnings=tuple(warnings),
    )


def whole(value: Any) -> int | None:
    """Give the value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_usable(event: Event) -> bool:
    if event["k"] == "step":
        return whole(event.get("step")) is not None
    if event["k"] == "epoch":
        return whole(event.get("epoch")) is not None and isinstance(event.get("split"), str)
    return True


def _starts(rows: Iterable[LogRow]) -> dict[int, int]:
    """Give the step at which each attempt began: where it resumed, else its first logged step."""
    starts: dict[int, int] = {}
    for row in rows:
        is_sign = row.event["k"] == "step" or row.event.get("what") == "resume"
        if is_sign and row.step is not None:
            starts[row.attempt] = min(row.step, starts.get(row.attempt, row.step))
    return starts


def _winners(
    rows: Iterable[LogRow], starts: Mapping[int, int], keys: tuple[str, ...]
) -> tuple[LogRow, ...]:
    """Drop what a later attempt took back; of what is left twice keep the highest attempt."""
    best: dict[tuple[Any, ...], LogRow] = {}
    per_rank = keys == ("step",)
    for row in rows:
        if _is_superseded(row, starts):
            continue
        key = (row.rank if per_rank else 0, *(row.event[k] for k in keys))
        other = best.get(key)
        # Every rank that logs an epoch logs the same reduced numbers; the first rank's are kept.
        if other is None or (row.attempt, -row.rank) >= (other.attempt, -other.rank):
            best[key] = row
    return tuple(best[key] for key in sorted(best))


def _is_superseded(row: LogRow, starts: Mapping[int, int]) -> bool:
    if row.step is None:
        return False
    # A step carries its own number, an epoch the number of steps done before it.
    last = row.step if row.event["k"] == "step" else row.step - 1
    return any(start <= last for attempt, start in starts.items() if attempt > row.attempt)


def _time(event: Event) -> float:
    t = event.get("t")
    return float(t) if isinstance(t, int | float) else 0.0
