"""From a run directory to tables: sorted and without repetitions, whatever state the run is in."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmtool.errors import EnvironmentLacks, RunDirectoryError
from mmtool.runlog.collect import STEP_KEYS, LogRow, collect, modalities_of
from mmtool.runlog.columns import Columns
from mmtool.runlog.events import Event
from mmtool.runlog.lines import LogLines
from mmtool.runlog.rundir import RunDir, is_run

PHASES = ("step", "data", "transfer", "forward", "backward", "sync", "optimizer")
STEP_COLUMNS = (*STEP_KEYS, *(f"ms_{phase}" for phase in PHASES))
STEP_MODALITY_COLUMNS = ("rank", "step", "epoch", "modality", "score", "coef", "gnorm")
EPOCH_COLUMNS = ("epoch", "step", "split", "n", "loss", "acc")
_NO_EPOCH_COLUMNS = frozenset({"k", "t", "m", "bad"})
EPOCH_METRICS = ("acc", "nll", "how", "alone", "drop", "flip", "probe", "probe_nll")
EPOCH_MODALITY_COLUMNS = ("epoch", "split", "modality", *EPOCH_METRICS)
SYSTEM_COLUMNS = ("rank", "t", "cpu_percent", "rss_mb", "load1")
EVENT_COLUMNS = ("rank", "attempt", "t", "what", "step")

_TEXT_COLUMNS = frozenset({"modality", "how", "split", "what", "skipped", "gpus", "metric"})
_WHOLE_COLUMNS = frozenset({"rank", "attempt"})
_COUNTS = ("rank", "attempt", "step", "epoch", "n")
MAX_SYSTEM_SAMPLES = 40_000

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunTables:
    """Everything a run logged; an empty table has its columns all the same."""

    head: dict[str, Any]
    """Head of the first rank's last attempt, empty when none was written."""
    status: dict[str, Any]
    attempts: tuple[dict[str, Any], ...]
    """Heads of all attempts of the first rank, oldest first."""
    steps: pd.DataFrame
    """One row per rank and step; loss terms are columns `term_<name>`."""
    step_modalities: pd.DataFrame
    """One row per rank, step and modality, one column per metric."""
    epochs: pd.DataFrame
    """One row per epoch and split; scores that only some tasks have are further columns."""
    epoch_modalities: pd.DataFrame
    """One row per epoch, split and modality."""
    system: pd.DataFrame
    """One row per sample; `gpus` as logged, and flat as `gpu_<metric>_<index>`."""
    events: pd.DataFrame
    """What happened, by time, of every attempt."""
    end: dict[str, Any] | None
    """End line of the last attempt; None while it runs and after a kill."""
    warnings: tuple[str, ...] = ()
    """Sentences about what could not be read."""
    trace: Mapping[str, Any] = field(default_factory=dict)
    """Of a profiler's trace, what the device and the host did; see runlog.foreign.trace."""


def load_run(path: Path) -> RunTables:
    """Read a run directory: finished, killed at any moment, resumed, or still being written."""
    run = RunDir(path)
    logs = _numbered(run.log_dir, "rank")
    status = run.read_status()
    if not is_run(path):
        raise RunDirectoryError(
            f"{path} is not a run directory" if path.is_dir() else f"there is no directory {path}",
            where=str(path),
            why="a run holds log/ beside status.json or recipe.toml",
            fix="ls runs    # and give one of these, or latest",
        )
    found = collect(logs)
    system, warnings = _read_system(_numbered(run.log_dir, "system.rank"))
    if not found.heads:
        warnings.append("the log has no head line: the run ended before training began")
    return RunTables(
        head=found.heads[-1] if found.heads else {},
        status=status,
        attempts=found.heads,
        steps=_grown(found.steps, STEP_COLUMNS),
        step_modalities=_grown(found.step_modalities, STEP_MODALITY_COLUMNS),
        epochs=table_of(map(_epoch, found.epochs), EPOCH_COLUMNS),
        epoch_modalities=table_of(_epoch_modalities(found.epochs), EPOCH_MODALITY_COLUMNS),
        system=system,
        events=table_of(map(_event, found.events), EVENT_COLUMNS),
        end=found.end,
        warnings=(*found.warnings, *warnings),
    )


def _numbered(folder: Path, stem: str) -> dict[int, Path]:
    """Give the files `<stem><number>.jsonl` of a folder by their number."""
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise EnvironmentLacks(
            f"the log cannot be read: {error.strerror or error}",
            where=str(folder),
            fix=f"ls -ld {folder}",
        ) from error
    form = re.compile(rf"{re.escape(stem)}(\d+)\.jsonl")
    return {int(found[1]): folder / name for name in names if (found := form.fullmatch(name))}


def _epoch(row: LogRow) -> Record:
    known = {key: row.event.get(key) for key in EPOCH_COLUMNS}
    return known | {k: v for k, v in row.event.items() if k not in _NO_EPOCH_COLUMNS}


def _epoch_modalities(rows: Iterable[LogRow]) -> Iterator[Record]:
    for row in rows:
        keys = {"epoch": row.event["epoch"], "split": row.event["split"]}
        for modality, metrics in modalities_of(row.event):
            yield {**metrics, **keys, "modality": modality}


def _event(row: LogRow) -> Record:
    fields = {key: value for key, value in row.event.items() if key != "k"}
    return {**fields, "rank": row.rank, "attempt": row.attempt}


def _read_system(logs: Mapping[int, Path]) -> tuple[pd.DataFrame, list[str]]:
    records: list[Record] = []
    warnings: list[str] = []
    for rank, path in sorted(logs.items()):
        lines = LogLines(path)
        try:
            records += _thinned(lines, rank)
        except OSError as error:
            warnings.append(f"{path.name} cannot be read ({error.strerror or error})")
        warnings += lines.warnings
    frame = table_of(records, SYSTEM_COLUMNS)
    return frame.sort_values(["rank", "t"], kind="stable", ignore_index=True), warnings


def _thinned(lines: Iterable[Event], rank: int) -> list[Record]:
    """Give the samples of a rank, of too many every second, fourth and so on."""
    kept: list[Record] = []
    stride = 1
    for number, event in enumerate(event for event in lines if event["k"] == "sys"):
        if number % stride:
            continue
        fields = {key: value for key, value in event.items() if key not in ("k", "bad")}
        kept.append({**fields, **_flat_gpus(event), "rank": rank})
        if len(kept) > MAX_SYSTEM_SAMPLES:
            kept, stride = kept[::2], stride * 2
    return kept


def _flat_gpus(event: Event) -> Record:
    gpus = event.get("gpus")
    return {
        f"gpu_{metric}_{index}": value
        for index, gpu in enumerate(gpus if isinstance(gpus, list) else ())
        if isinstance(gpu, dict)
        for metric, value in gpu.items()
    }


def _grown(rows: Columns, columns: Sequence[str]) -> pd.DataFrame:
    """Give a table of what was read row by row, with at least these columns."""
    names = [name for name in dict.fromkeys([*columns, *rows.names]) if name != "at"]
    data: dict[str, Any] = {}
    for name in names:
        values = rows.values(name)
        if name in _TEXT_COLUMNS or values.dtype == object:
            data[name] = values.astype(object)
        else:
            is_count = name in _COUNTS and not np.isnan(values).any()
            whole = is_count and (len(values) > 0 or name in _WHOLE_COLUMNS)
            data[name] = values.astype(np.int64) if whole else values
    return pd.DataFrame(data, columns=names)


def table_of(records: Iterable[Record], columns: Sequence[str]) -> pd.DataFrame:
    """Give a table with at least these columns, which exist even where there are no rows."""
    listed = list(records)
    known = dict.fromkeys(columns)
    for record in listed:
        known.update(dict.fromkeys(record))
    frame = pd.DataFrame.from_records(listed, columns=list(known))
    for name in frame.columns:
        if not frame[name].isna().all():
            continue
        if name in _TEXT_COLUMNS:
            frame[name] = frame[name].astype("object")
        else:
            frame[name] = frame[name].astype("int64" if name in _WHOLE_COLUMNS else "float64")
    return frame
