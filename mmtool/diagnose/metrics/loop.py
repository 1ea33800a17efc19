"""What a training loop does besides its steps: evaluation, checkpoints, and pauses unaccounted for.

The log has, with every step, the time since the step before (`between`); events say how much of it
was evaluation and how much a checkpoint kept training waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import has, number, rows


@dataclass(frozen=True, slots=True)
class Pause:
    """A stretch in which training stood still."""

    step: int
    ms: float
    cause: str
    """checkpoint, step (the step itself was long) or unknown."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The wall clock of the steady steps and of what lies before each, in milliseconds."""

    wall_ms: float
    evaluation_ms: float
    num_evaluations: int
    checkpoint_ms: float
    num_checkpoints: int
    unknown_ms: float
    """Between steps, neither evaluation nor checkpoint: writing the log, the method, pauses."""
    pauses: tuple[Pause, ...]
    """Longer than a multiple of the median step; evaluation is none."""

    @property
    def paused_ms(self) -> float:
        """What all pauses took together."""
        return sum(pause.ms for pause in self.pauses)

    def share(self, ms: float) -> float:
        """Give a time as a share of the wall clock."""
        return ms / self.wall_ms if self.wall_ms > 0 else 0.0


def compute_loop(steady: pd.DataFrame, events: pd.DataFrame) -> Loop | None:
    """Give the loop around some steps of one rank, None where the log does not tell of it."""
    if not has(steady, "ms_between"):
        return None
    evaluation, num_evaluations = _by_step(events, "evaluation", "ms", steady)
    checkpoint, num_checkpoints = _by_step(events, "checkpoint", "stall_ms", steady)
    frame = pd.DataFrame(
        {
            "at": steady["step"].astype("int64"),
            "step": steady["ms_step"],
            "between": steady["ms_between"].fillna(0.0),
        }
    )
    frame["evaluation"] = frame["at"].map(evaluation).fillna(0.0).clip(upper=frame["between"])
    left = frame["between"] - frame["evaluation"]
    frame["checkpoint"] = frame["at"].map(checkpoint).fillna(0.0).clip(upper=left)
    frame["unknown"] = left - frame["checkpoint"]
    return Loop(
        wall_ms=float(frame["step"].sum() + frame["between"].sum()),
        evaluation_ms=float(frame["evaluation"].sum()),
        num_evaluations=num_evaluations,
        checkpoint_ms=float(frame["checkpoint"].sum()),
        num_checkpoints=num_checkpoints,
        unknown_ms=float(frame["unknown"].sum()),
        pauses=_pauses(frame),
    )


def _by_step(
    events: pd.DataFrame, what: str, key: str, steady: pd.DataFrame
) -> tuple[dict[int, float], int]:
    """Add up events by the step that came after them."""
    if not has(events, key):
        return {}, 0
    within = set(steady["step"].astype("int64"))
    found: dict[int, float] = {}
    count = 0
    for event in rows(events, what=what):
        step, ms = number(event, "step"), number(event, key)
        if step is None or ms is None or int(step) not in within:
            continue
        found[int(step)] = found.get(int(step), 0.0) + ms
        count += 1
    return found, count


def _pauses(frame: pd.DataFrame) -> tuple[Pause, ...]:
    """Find what is longer than so many median steps; of a long step, what it was longer by."""
    median = float(frame["step"].median())
    bound = limits.PAUSE_STEPS * median
    found = []
    for cause, column, less in (
        ("step", frame["step"], median),
        ("checkpoint", frame["checkpoint"], 0.0),
        ("unknown", frame["unknown"], 0.0),
    ):
        long = column > bound
        found += [
            Pause(int(at), float(ms) - less, cause)
            for at, ms in zip(frame["at"][long], column[long], strict=True)
        ]
    return tuple(sorted(found, key=lambda pause: -pause.ms))
