"""Tells what kind of log a path is, and reads it."""

from __future__ import annotations

import gzip
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from mmtool.errors import EnvironmentLacks, RequestError, RunDirectoryError
from mmtool.runlog.foreign.assemble import tables_from
from mmtool.runlog.foreign.kineto import read_traces
from mmtool.runlog.foreign.mapping import FILE_NAME, load_map, names_in
from mmtool.runlog.foreign.spreadsheet import read_csv, read_json_lines, read_trainer_state
from mmtool.runlog.foreign.tensorboard import MARK, event_files, read_tensorboard
from mmtool.runlog.reader import RunTables

Kind: TypeAlias = Literal["tensorboard", "csv", "jsonl", "trainer_state", "trace"]
WORDS: dict[Kind, str] = {
    "tensorboard": "TensorBoard events",
    "csv": "a CSV table",
    "jsonl": "JSON lines",
    "trainer_state": "the state of Hugging Face's Trainer",
    "trace": "a profiler's trace",
}
_PEEK_BYTES = 2**16
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_TRACE_NAME = re.compile(r"\.(?:pt\.)?trace\.json(?:\.gz)?$")
READ_HERE = (
    "a run directory, TensorBoard events, metrics.csv and other tables (.csv, .tsv, .jsonl), "
    "trainer_state.json, and profiler traces (.json, .json.gz) are read"
)


def kind_of(path: Path) -> Kind | None:
    """Tell what kind of foreign log a file or folder is; None for anything else."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        return _kind_of_file(path) if path.is_file() else None
    except OSError as error:
        raise EnvironmentLacks(
            f"{path} cannot be read: {error.strerror or error}",
            where=str(error.filename or path),
            fix=f"ls -ld {path}",
        ) from error


def load_foreign(path: Path) -> RunTables:
    """Read a foreign log; what it has no columns for is empty in the tables."""
    kind = kind_of(path)
    if kind is None:
        raise RunDirectoryError(
            f"{path} is no log that is known here", where=str(path), why=READ_HERE
        )
    try:
        tables = _read(kind, path)
    except OSError as error:
        raise EnvironmentLacks(
            f"{path.name} cannot be read: {error.strerror or error}",
            where=str(path),
            fix=f"ls -lL {path}",
        ) from error
    return replace(tables, head={**tables.head, "kind": WORDS[kind], "foreign": kind})


def _read(kind: Kind, path: Path) -> RunTables:
    if kind == "trace":
        return read_traces(_in_folder(path, kind))
    names = load_map(path)
    about: dict[str, object] = {}
    if kind == "tensorboard":
        tracks = read_tensorboard(path)
    elif kind == "csv":
        tracks = read_csv(_in_folder(path, kind)[0], names)
    elif kind == "jsonl":
        tracks = read_json_lines(path, names)
    else:
        tracks, about = read_trainer_state(_in_folder(path, kind)[0], names)
    tables = tables_from(tracks, names, kind, path.name, about)
    if tables.steps.empty and tables.epochs.empty:
        raise RequestError(
            f"{path.name} holds nothing whose meaning is known",
            where=str(path),
            why=f"its names: {names_in(tracks.names) or 'none'}",
            fix=f"say in {FILE_NAME} beside it what they stand for:\n"
            f'[tags]\n"validation_top1" = "val.acc"',
        )
    return tables


def _kind_of_folder(path: Path) -> Kind | None:
    for kind in ("trainer_state", "csv", "trace"):
        if _in_folder(path, kind):
            return kind
    return "tensorboard" if event_files(path) else None


def _in_folder(path: Path, kind: Kind) -> list[Path]:
    """Give the files of a kind that a folder stands for."""
    if path.is_file():
        return [path]
    names = sorted(entry.name for entry in os.scandir(path))
    if kind == "trainer_state":
        return _trainer_states(path, names)
    if kind == "csv":
        versions = [path / name / "metrics.csv" for name in names if name.startswith("version_")]
        newest = sorted(versions, key=lambda file: _digits(file.parent.name))[-1:]
        return [file for file in (path / "metrics.csv", *newest) if file.is_file()][:1]
    return [path / name for name in names if _TRACE_NAME.search(name)]


def _trainer_states(path: Path, names: list[str]) -> list[Path]:
    """Give the state of a Trainer's folder: its own, else that of the last checkpoint."""
    checkpoints = sorted(filter(_CHECKPOINT.fullmatch, names), key=_digits, reverse=True)
    candidates = [path, *(path / name for name in checkpoints)]
    return [f for folder in candidates if (f := folder / "trainer_state.json").is_file()]


def _digits(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found[0]) if found else -1


def _kind_of_file(path: Path) -> Kind | None:
    name = path.name.lower()
    if MARK in name:
        return "tensorboard"
    if name.endswith((".csv", ".tsv")):
        return "csv"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if name.endswith((".json", ".json.gz")):
        start = _start_of(path)
        if re.search(rb'"log_history"\s*:', start):
            return "trainer_state"
        is_trace = re.search(rb'"(?:traceEvents|ph)"\s*:|"deviceProperties"\s*:', start)
        return "trace" if is_trace or _TRACE_NAME.search(name) else None
    return None


def _start_of(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            return file.read(_PEEK_BYTES)
    except (gzip.BadGzipFile, EOFError):
        return b""
