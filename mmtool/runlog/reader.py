"""From a run directory to tables: sorted and without repetitions, whatever state the run is in."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmtool.errors import RunDirectoryError
from mmtool.runlog.collect import LogRow, collect
from mmtool.runlog.events import Event
from mmtool.runlog.lines import read_events
from mmtool.runlog.rundir import RunDir, is_run

PHASES = ("step", "data", "transfer", "forward", "backward", "sync", "optimizer")
STEP_KEYS = ("rank", "step", "epoch", "n", "loss", "lr", "gnorm", "skipped", "attempt")
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
        steps=_table(map(_step, found.steps), STEP_COLUMNS),
        step_modalities=_table(_step_modalities(found.steps), STEP_MODALITY_COLUMNS),
        epochs=_table(map(_epoch, found.epochs), EPOCH_COLUMNS),
        epoch_modalities=_table(_epoch_modalities(found.epochs), EPOCH_MODALITY_COLUMNS),
        system=system,
        events=_table(map(_event, found.events), EVENT_COLUMNS),
        end=found.end,
        warnings=(*found.warnings, *warnings),
    )


def _numbered(folder: Path, stem: str) -> dict[int, Path]:
    """Give the files `<stem><number>.jsonl` of a folder by their number."""
    found = {path.name[len(stem) : -len(".jsonl")]: path for path in folder.glob(f"{stem}*.jsonl")}
    return {int(number): path for number, path in found.items() if number.isdecimal()}


def _step(row: LogRow) -> Record:
    record = {key: row.event[key] for key in STEP_KEYS if key in row.event}
    record |= {"rank": row.rank, "attempt": row.attempt}
    record |= {f"ms_{name}": value for name, value in _mapping(row.event, "ms").items()}
    record |= {f"term_{name}": value for name, value in _mapping(row.event, "terms").items()}
    return record


def _step_modalities(rows: Iterable[LogRow]) -> Iterator[Record]:
    for row in rows:
        keys = {"rank": row.rank, "step": row.step, "epoch": row.event.get("epoch")}
        for modality, metrics in _modalities(row.event):
            yield {**metrics, **keys, "modality": modality}


def _epoch(row: LogRow) -> Record:
    known = {key: row.event.get(key) for key in EPOCH_COLUMNS}
    return known | {k: v for k, v in row.event.items() if k not in _NO_EPOCH_COLUMNS}


def _epoch_modalities(rows: Iterable[LogRow]) -> Iterator[Record]:
    for row in rows:
        keys = {"epoch": row.event["epoch"], "split": row.event["split"]}
        for modality, metrics in _modalities(row.event):
            yield {**metrics, **keys, "modality": modality}


def _event(row: LogRow) -> Record:
    fields = {key: value for key, value in row.event.items() if key != "k"}
    return {**fields, "rank": row.rank, "attempt": row.attempt}


def _read_system(logs: Mapping[int, Path]) -> tuple[pd.DataFrame, list[str]]:
    records: list[Record] = []
    warnings: list[str] = []
    for rank, path in sorted(logs.items()):
        log = read_events(path)
        warnings += log.warnings
        for event in log.events:
            if event["k"] == "sys":
                fields = {key: value for key, value in event.items() if key not in ("k", "bad")}
                records.append({**fields, **_flat_gpus(event), "rank": rank})
    frame = _table(records, SYSTEM_COLUMNS)
    return frame.sort_values(["rank", "t"], kind="stable", ignore_index=True), warnings


def _flat_gpus(event: Event) -> Record:
    gpus = event.get("gpus")
    return {
        f"gpu_{metric}_{index}": value
        for index, gpu in enumerate(gpus if isinstance(gpus, list) else ())
        if isinstance(gpu, dict)
        for metric, value in gpu.items()
    }


def _mapping(event: Event, key: str) -> Mapping[str, Any]:
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def _modalities(event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for modality, metrics in sorted(_mapping(event, "m").items()):
        if isinstance(metrics, dict):
            yield modality, metrics


def _table(records: Iterable[Record], columns: Sequence[str]) -> pd.DataFrame:
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
