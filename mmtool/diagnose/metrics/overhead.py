"""What measuring cost the run, as it told of itself after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.tables import Row, number, rows

GOAL = 0.01


def overhead_table(run: Run) -> dict[str, Any]:
    """Give the share of the run's time that went into measuring, by part; empty of older logs.

    An epoch that was trained again after a failure counts once, as it was at last.
    """
    by_epoch: dict[int, Row] = {}
    for row in rows(run.tables.events, what="overhead"):  # by time
        epoch, share = number(row, "epoch"), number(row, "share")
        if epoch is not None and share is not None:
            by_epoch[int(epoch)] = row
    if not by_epoch:
        return {}
    weights = {epoch: _other_time(row) for epoch, row in by_epoch.items()}
    total = sum(weights.values())
    parts: dict[str, float] = {}
    for epoch, account in by_epoch.items():
        for name, part in _parts(account).items():
            parts[name] = parts.get(name, 0.0) + part * weights[epoch] / total
    last = by_epoch[max(by_epoch)]
    every = number(last, "norms_every_steps")
    return {
        "share": sum(float(by_epoch[e]["share"]) * w for e, w in weights.items()) / total,
        "goal": GOAL,
        "parts": parts,
        "by_epoch": [(epoch, float(row["share"])) for epoch, row in sorted(by_epoch.items())],
        "norms_every_steps": None if every is None else int(every),
    }


def _other_time(row: Mapping[str, Any]) -> float:
    """Give the seconds that were not spent measuring; without them all epochs count alike."""
    wall_s = number(row, "wall_s")
    return 1.0 if not wall_s else wall_s / (1 + float(row["share"]))


def _parts(row: Mapping[str, Any]) -> dict[str, float]:
    parts = row.get("parts")
    if not isinstance(parts, Mapping):
        return {}
    return {str(k): float(v) for k, v in parts.items() if isinstance(v, int | float)}
