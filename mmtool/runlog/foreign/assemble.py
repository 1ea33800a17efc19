"""From named scalars to the tables of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmtool.runlog.foreign.mapping import COLUMNS, NameMap, Target
from mmtool.runlog.foreign.tracks import Tracks
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

Points = NDArray[np.float64]
_STEP, _EPOCH, _TIME, _VALUE = range(4)


@dataclass(slots=True)
class _Sorted:
    """Tracks by what they stand for."""

    steps: dict[str, Points] = field(default_factory=dict)
    splits: dict[tuple[str, str, str], Points] = field(default_factory=dict)
    """By split, modality ("" for the fused model) and metric."""
    epochs: Points | None = None
    unknown: list[str] = field(default_factory=list)


def tables_from(
    tracks: Tracks, names: NameMap, source: str, run: str, about: Mapping[str, Any]
) -> RunTables:
    """Give the tables of a log of scalars; what no name stands for is said."""
    found = _sorted(tracks, names)
    warnings = list(tracks.warnings)
    numbers, doubtful = _evaluations(found)
    if doubtful:
        warnings.append(
            "the log does not tell epochs apart: evaluations are counted in their order"
        )
    thinned = [name for name, track in tracks if track.is_thinned]
    if thinned:
        warnings.append(f"of {len(thinned)} long series every second value or fewer was read")
    modalities = dict.fromkeys([*names.modalities, *(m for _, m, _ in found.splits if m)])
    head = {
        **about,
        **names.about,
        "source": source,
        "run": run,
        "modalities": sorted(modalities),
        "unread": found.unknown,
    }
    return RunTables(
        head=head,
        status={},
        attempts=(head,),
        steps=_steps(found),
        step_modalities=table_of([], STEP_MODALITY_COLUMNS),
        epochs=table_of(_epoch_rows(found, numbers), EPOCH_COLUMNS),
        epoch_modalities=table_of(_modality_rows(found, numbers), EPOCH_MODALITY_COLUMNS),
        system=table_of([], SYSTEM_COLUMNS),
        events=table_of([], EVENT_COLUMNS),
        end=None,
        warnings=tuple(warnings),
    )


def _sorted(tracks: Tracks, names: NameMap) -> _Sorted:
    found = _Sorted()
    for name, track in tracks:
        target = names.target(name)
        if target is None:
            found.unknown.append(name)
            continue
        points = _latest(track.points())
        points[:, _VALUE] *= target.scale
        if target.split:
            _merge(found.splits, (target.split, target.modality, target.field), points)
        elif target.field == "epoch":
            found.epochs = points
        elif not _is_column(target):
            _merge(found.steps, target.field, points)
    return found


def _is_column(target: Target) -> bool:
    return target.field in COLUMNS and not target.split


def _merge(known: dict[Any, Points], key: Any, points: Points) -> None:
    """Take further points under a name that several series stand for; the first one counts."""
    before = known.get(key)
    if before is not None:
        points = _latest(np.concatenate([points, before]))
    known[key] = points


def _latest(points: Points) -> Points:
    """Sort by step; of a step that was written again the last value counts."""
    order = np.argsort(points[:, _STEP], kind="stable")
    points = points[order]
    is_last = np.ones(len(points), dtype=bool)
    is_last[:-1] = np.diff(points[:, _STEP]) != 0
    return points[is_last]


def _steps(found: _Sorted) -> pd.DataFrame:
    if not found.steps:
        return table_of([], STEP_COLUMNS)
    numbers = np.unique(np.concatenate([p[:, _STEP] for p in found.steps.values()]))
    columns: dict[str, Any] = {
        "rank": np.zeros(len(numbers), dtype=np.int64),
        "step": numbers.astype(np.int64),
        "epoch": _epochs_at(found, numbers),
        "attempt": np.zeros(len(numbers), dtype=np.int64),
    }
    for name, points in found.steps.items():
        column = np.full(len(numbers), np.nan)
        column[np.searchsorted(numbers, points[:, _STEP])] = points[:, _VALUE]
        columns[name] = column
    for name in STEP_COLUMNS:
        is_text = name == "skipped"
        columns.setdefault(
            name, np.full(len(numbers), None if is_text else np.nan, object if is_text else float)
        )
    order = [*STEP_COLUMNS, *(name for name in columns if name not in STEP_COLUMNS)]
    return pd.DataFrame({name: columns[name] for name in order})


def _epochs_at(found: _Sorted, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the epoch of each step, as its own rows or the log's track of epochs tell."""
    known = [p[:, [_STEP, _EPOCH]] for p in found.steps.values()]
    if found.epochs is not None:
        known.append(found.epochs[:, [_STEP, _VALUE]])
    pairs = np.concatenate(known)
    pairs = pairs[~np.isnan(pairs[:, 1])]
    if not len(pairs):
        return np.full(len(numbers), np.nan)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    place = np.searchsorted(pairs[:, 0], numbers, side="right") - 1
    return np.where(place >= 0, pairs[np.maximum(place, 0), 1], np.nan)


def _evaluations(found: _Sorted) -> tuple[dict[tuple[str, float], int], bool]:
    """Give the epoch of each split's evaluations by their step, and whether it is only a count."""
    by_split: dict[str, dict[float, float]] = {}
    for (split, _, _), points in found.splits.items():
        known = by_split.setdefault(split, {})
        for step, epoch in points[:, [_STEP, _EPOCH]]:
            if np.isnan(epoch) and found.epochs is not None:
                epoch = _value_at(found.epochs, step)
            known[step] = epoch if np.isnan(known.get(step, np.nan)) else known[step]
    numbers: dict[tuple[str, float], int] = {}
    doubtful = False
    for split, known in by_split.items():
        epochs = [known[step] for step in sorted(known)]
        is_told = not np.isnan(epochs).any() and len({int(e) for e in epochs}) == len(epochs)
        doubtful = doubtful or not is_told
        for place, step in enumerate(sorted(known)):
            numbers[split, step] = int(known[step]) if is_told else place
    return numbers, doubtful


def _value_at(points: Points, step: float) -> float:
    place = int(np.searchsorted(points[:, _STEP], step))
    is_there = place < len(points) and points[place, _STEP] == step
    return float(points[place, _VALUE]) if is_there else float("nan")


def _epoch_rows(found: _Sorted, numbers: Mapping[tuple[str, float], int]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for (split, modality, metric), points in found.splits.items():
        for step, _, _, value in points:
            row = rows.setdefault((split, step), _row(split, step, numbers))
            if not modality:
                row[metric] = float(value)
    return [rows[key] for key in sorted(rows, key=lambda k: (numbers[k], k[0]))]


def _modality_rows(
    found: _Sorted, numbers: Mapping[tuple[str, float], int]
) -> list[dict[str, Any]]:
    rows: dict[tuple[str, float, str], dict[str, Any]] = {}
    for (split, modality, metric), points in found.splits.items():
        for step, _, _, value in points if modality else ():
            key = (split, step, modality)
            row = rows.setdefault(key, {**_row(split, step, numbers), "modality": modality})
            row[metric] = float(value)
    return [rows[key] for key in sorted(rows, key=lambda k: (numbers[k[:2]], k[0], k[2]))]


def _row(split: str, step: float, numbers: Mapping[tuple[str, float], int]) -> dict[str, Any]:
    return {"epoch": numbers[split, step], "step": int(step) + 1, "split": split}
