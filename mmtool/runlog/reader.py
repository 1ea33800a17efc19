"""From a run directory to tables: sorted, without repetitions, whatever state the run is in.

After a resume a step may have been logged twice. The line of the highest attempt wins, and what an
earlier attempt logged beyond the point of the resume is left out, repeated or not: the training
that counts never went there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mmtool.errors import RunDirectoryError
from mmtool.runlog.events import Event
from mmtool.runlog.lines import check_schema, read_events
from mmtool.runlog.rundir import RunDir

PHASES = ("step", "data", "transfer", "forward", "backward", "sync", "optimizer")
STEP_KEYS = ("rank", "step", "epoch", "n", "loss", "lr", "gnorm", "skipped", "attempt")
STEP_COLUMNS = (*STEP_KEYS, *(f"ms_{phase}" for phase in PHASES))
STEP_MODALITY_COLUMNS = ("rank", "step", "epoch", "modality", "score", "coef", "gnorm")
EPOCH_COLUMNS = ("epoch", "step", "split", "n", "loss", "acc")
EPOCH_METRICS = ("acc", "nll", "how", "alone", "drop", "flip", "probe", "probe_nll")
EPOCH_MODALITY_COLUMNS = ("epoch", "split", "modality", *EPOCH_METRICS)
SYSTEM_COLUMNS = ("rank", "t", "cpu_percent", "rss_mb", "load1")
EVENT_COLUMNS = ("rank", "attempt", "t", "what", "step")

_KNOWN_KINDS = frozenset({"head", "step", "epoch", "event", "end"})
_WORDS = frozenset({"modality", "how", "split", "what"})
_WHOLE = frozenset({"rank", "step", "epoch", "attempt"})


@dataclass(frozen=True, slots=True)
class RunTables:
    """Everything a run logged; an empty table has its columns all the same."""

    head: dict[str, Any]
    """Head of the last attempt of the first rank, empty when none was written."""
    status: dict[str, Any]
    attempts: tuple[dict[str, Any], ...]
    """Heads of all attempts of the first rank, oldest first."""
    steps: pd.DataFrame
    """One row per rank and step; loss terms are columns `term_<name>`."""
    step_modalities: pd.DataFrame
    """One row per rank, step and modality, one column per metric."""
    epochs: pd.DataFrame
    epoch_modalities: pd.DataFrame
    system: pd.DataFrame
    """One row per sample; `gpus` as logged, and flat as `gpu_<metric>_<index>`."""
    events: pd.DataFrame
    end: dict[str, Any] | None
    """End line of the last attempt; None while it runs and after a kill."""
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Collected:
    """Events of all ranks with the attempt each belongs to."""

    heads: list[Event] = field(default_factory=list)
    end: dict[str, Any] | None = None
    rows: list[tuple[int, int, Event]] = field(default_factory=list)
    """(rank, attempt, event)"""
    warnings: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)

    def of_kind(self, kind: str) -> list[tuple[int, int, Event]]:
        """Give the rows of one kind."""
        return [row for row in self.rows if row[2]["k"] == kind]


def load_run(path: Path) -> RunTables:
    """Read a run directory: finished, killed at any moment, resumed, or still being written."""
    run = RunDir(path)
    logs = _numbered(run.log_dir, "rank")
    status = run.read_status()
    if not logs and not status:
        raise RunDirectoryError(
            f"{path} is not a run directory",
            where=str(path),
            why="a run has log/rank0.jsonl and status.json; neither is there",
            fix=f"ls -d {path.parent}/*/log",
        )
    found = _collect(logs)
    starts = _starts(found)
    steps = [r for r in found.of_kind("step") if _counts(r, starts, limit="step")]
    epochs = [r for r in found.of_kind("epoch") if _counts(r, starts, limit="done")]
    system, complaints = _system(run)
    found.warnings += complaints
    if not found.heads:
        found.warnings.append("no head line yet: the run was stopped before training began")
    for kind, count in sorted(found.unknown.items()):
        found.warnings.append(f"{count} lines of the unknown kind {kind!r} are ignored")
    return RunTables(
        head=found.heads[-1] if found.heads else {},
        status=status,
        attempts=tuple(found.heads),
        steps=_steps(steps),
        step_modalities=_step_modalities(steps),
        epochs=_epochs(epochs),
        epoch_modalities=_epoch_modalities(epochs),
        system=system,
        events=_events(found.of_kind("event")),
        end=found.end,
        warnings=tuple(found.warnings),
    )


def _numbered(folder: Path, stem: str) -> dict[int, Path]:
    """Give the files `<stem><number>.jsonl` of a folder in the order of their numbers."""
    names = {p.name[len(stem) : -len(".jsonl")]: p for p in folder.glob(f"{stem}*.jsonl")}
    return {int(n): names[n] for n in sorted((n for n in names if n.isdecimal()), key=int)}


def _collect(logs: Mapping[int, Path]) -> _Collected:
    found = _Collected()
    for rank, path in logs.items():
        log = read_events(path)
        check_schema(log.events, path)
        found.warnings += log.warnings
        is_first = rank == min(logs)
        attempt = 0
        for event in log.events:
            kind = event["k"]
            if kind == "head":
                attempt = _as_int(event.get("attempt"), attempt + 1)
            if kind not in _KNOWN_KINDS:
                found.unknown[kind] += 1
            elif kind == "head" and is_first:
                found.heads.append(event)
                found.end = None
            elif kind == "end" and is_first:
                found.end = event
            elif kind not in ("head", "end"):
                found.rows.append((rank, attempt, event))
    return found


def _starts(found: _Collected) -> dict[int, int]:
    """Give the step at which each attempt began: where it resumed, else its first logged step."""
    starts: dict[int, int] = {}
    for _, attempt, event in found.rows:
        is_resume = event["k"] == "event" and event.get("what") == "resume"
        step = _as_int(event.get("step"), -1)
        if step >= 0 and (is_resume or event["k"] == "step"):
            starts[attempt] = min(step, starts.get(attempt, step))
    return starts


def _counts(row: tuple[int, int, Event], starts: Mapping[int, int], *, limit: str) -> bool:
    """Tell whether no later attempt began before this row; `done` rows stand after their step."""
    _, attempt, event = row
    last = _as_int(event.get("step"), -1) - (limit == "done")
    if last < (-1 if limit == "done" else 0):
        return limit == "done"
    return all(last < start for later, start in starts.items() if later > attempt)


def _steps(rows: list[tuple[int, int, Event]]) -> pd.DataFrame:
    records = []
    for rank, attempt, event in rows:
        record = {key: event.get(key) for key in STEP_KEYS if key in event}
        record |= {"rank": rank, "attempt": attempt}
        record |= {f"ms_{name}": value for name, value in _mapping(event, "ms").items()}
        record |= {f"term_{name}": value for name, value in _mapping(event, "terms").items()}
        records.append(record)
    return _table(records, STEP_COLUMNS, key=("rank", "step"))


def _step_modalities(rows: list[tuple[int, int, Event]]) -> pd.DataFrame:
    records = [
        {**metrics, "rank": rank, "step": event.get("step"), "epoch": event.get("epoch")}
        | {"modality": modality}
        for rank, _, event in _by_attempt(rows)
        for modality, metrics in _modalities(event)
    ]
    return _table(records, STEP_MODALITY_COLUMNS, key=("rank", "step", "modality"))


def _epochs(rows: list[tuple[int, int, Event]]) -> pd.DataFrame:
    records = [
        {key: event.get(key) for key in EPOCH_COLUMNS} for _, _, event in _by_attempt(rows)
    ]
    return _table(records, EPOCH_COLUMNS, key=("epoch", "split"))
