"""Tables of numbers: CSV, that of Lightning's CSVLogger too, JSON lines, `trainer_state.json`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmtool.errors import RunDirectoryError
from mmtool.runlog.foreign.mapping import COLUMNS, NameMap
from mmtool.runlog.foreign.tracks import NOT_KNOWN, Tracks
from mmtool.runlog.lines import raw_lines

Row = Mapping[str, Any]
_DELIMITERS = (",", ";", "\t")


def read_csv(path: Path, names: NameMap) -> Tracks:
    """Read a table with a head line; cells that are no numbers are left empty."""
    tracks = Tracks()
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline(2**20)
        file.seek(0)
        delimiter = max(_DELIMITERS, key=first.count)
        _fill(tracks, _csv_rows(csv.reader(file, delimiter=delimiter), tracks.warnings), names)
    return tracks


def read_json_lines(path: Path, names: NameMap) -> Tracks:
    """Read one JSON object per line; nested names are joined with a slash."""
    tracks = Tracks()
    _fill(tracks, _json_rows(path, tracks.warnings), names)
    return tracks


def read_trainer_state(path: Path, names: NameMap) -> tuple[Tracks, dict[str, Any]]:
    """Read the history of Hugging Face's Trainer, and what its file says of the run."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        history = state["log_history"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{path.name} is not the state of a Trainer: {type(error).__name__}",
            where=str(path),
            why="its log_history cannot be read",
        ) from error
    tracks = Tracks()
    # The last row sums the whole run up, under names of single steps.
    rows = (row for row in history if isinstance(row, dict) and "train_runtime" not in row)
    _fill(tracks, map(_with_epochs_from_zero, rows), names)
    known = {
        "steps_done": state.get("global_step"),
        "max_steps": state.get("max_steps"),
        "epochs": state.get("num_train_epochs"),
        "batch_size": state.get("train_batch_size"),
    }
    return tracks, {key: value for key, value in known.items() if value is not None}


def _with_epochs_from_zero(row: Row) -> Row:
    """Give the epoch that a row is part of: the Trainer writes how many have passed, as 1.0."""
    epoch = row.get("epoch")
    if not isinstance(epoch, int | float):
        return row
    return {**row, "epoch": max(math.ceil(epoch) - 1, 0)}


def _csv_rows(reader: Iterable[list[str]], warnings: list[str]) -> Iterator[Row]:
    names: list[str] | None = None
    try:
        for cells in reader:
            if names is None:
                names = [name.strip() for name in cells]
            elif cells:
                yield dict(zip(names, cells, strict=False))
    except csv.Error as error:
        warnings.append(f"the table cannot be read further: {error}")


def _json_rows(path: Path, warnings: list[str]) -> Iterator[Row]:
    num_damaged = 0
    with path.open("rb") as file:
        for line in raw_lines(file):
            if line is not None and line.isspace():
                continue
            try:
                row = json.loads(line or b"")
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield dict(_flat(row, ""))
            else:
                num_damaged += 1
    if num_damaged:
        warnings.append(f"{path.name}: {num_damaged} lines that are no objects were left out")


def _flat(value: Row, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        if isinstance(entry, dict):
            yield from _flat(entry, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", entry


def _fill(tracks: Tracks, rows: Iterable[Row], names: NameMap) -> None:
    """Put rows into tracks; a row without a step has the one before it, or its place."""
    columns: dict[str, str | None] = {}
    last_step = -1.0
    for row in rows:
        at = dict.fromkeys(COLUMNS, NOT_KNOWN)
        values: list[tuple[str, float]] = []
        for name, cell in row.items():
            number = _number(cell)
            if number is None:
                continue
            if name not in columns:
                target = names.target(name)
                is_column = target is not None and target.field in COLUMNS and not target.split
                columns[name] = target.field if target is not None and is_column else None
            column = columns[name]
            if column is None:
                values.append((name, number))
            elif at[column] != at[column]:
                at[column] = number
        has_step = at["step"] == at["step"]
        counts_rows = "step" not in columns.values()
        last_step = at["step"] if has_step else last_step + counts_rows
        for name, number in values:
            tracks.add(name, last_step, number, epoch=at["epoch"], t=at["time"])


def _number(cell: Any) -> float | None:
    """Give a cell as a number: NaN counts as one, an empty cell and text do not."""
    if isinstance(cell, bool) or cell is None or cell == "":
        return None
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
