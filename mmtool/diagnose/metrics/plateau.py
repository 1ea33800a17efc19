"""What each encoder's training cost after it had learnt what it would learn.

An encoder's plateau is the first epoch whose validation loss of its probe is within 5 % (and 0.01
nats; of a regression 0.01 variances) of the least it ever had. What was computed for the encoder
after that epoch is known by its own times, where the log has them, else by its share of the
parameters. The probe learns beside the encoder and follows it with a delay, so the plateau is found
rather late and the cost rather too small.

Freezing an encoder then would have saved its backward pass and its part of the optimiser, never its
forward pass. Even that is claimed only where the features stayed as they were: the probe neither
gained nor lost more than chance allows, and the effective rank kept within a quarter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import score_interval
from mmtool.diagnose.metrics.energy import energy_curve
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import Row, has, number, rows

RELATIVE = 1.05
ABSOLUTE = 0.01
MIN_EPOCHS = 3
RANK_DRIFT = 1.25
_NOT_TRAINED = "probes"
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one rank by epoch; in `how` the way they were found."""

    forward: Mapping[int, float]
    backward: Mapping[int, float]
    """With the encoder's part of the optimiser."""
    how: str


def plateau_table(run: Run) -> dict[str, Any]:
    """Give for each modality its plateau and the cost after it; empty where probes are missing."""
    steps = _first_rank(run.tables.steps)
    if steps.empty or not has(steps, "ms_step") or not has(steps, "epoch"):
        total = 0.0
    else:
        total = float(steps["ms_step"].sum()) / 1e3
    found = {}
    for modality in run.modalities:
        history = _history(run, modality)
        if len(history) < MIN_EPOCHS:
            continue
        epoch = plateau_epoch(run, history)
        time = encoder_time(run, steps, modality) if total > 0 else None
        found[modality] = _modality(run, history, epoch, time, total)
    return found


def _history(run: Run, modality: str) -> list[Row]:
    known = rows(run.tables.epoch_modalities, split="val", modality=modality)
    with_loss = [row for row in known if number(row, "probe_nll") is not None]
    return sorted(with_loss, key=lambda row: int(row["epoch"]))


def plateau_epoch(run: Run, history: Sequence[Row]) -> int:
    """Give the first epoch whose loss is all but the least one."""
    least = min(history, key=lambda row: float(row["probe_nll"]))
    bound = RELATIVE * float(least["probe_nll"]) + ABSOLUTE * _unit(run, least)
    return next(int(row["epoch"]) for row in history if float(row["probe_nll"]) <= bound)


def _unit(run: Run, row: Row) -> float:
    """Give a nat or, of a regression, the variance of the target: error over unexplained share."""
    explained = number(row, "probe")
    if run.metric != "r2":
        return 1.0
    return 0.0 if explained is None or explained >= 1 else float(row["probe_nll"]) / (1 - explained)


def encoder_time(run: Run, steps: pd.DataFrame, modality: str) -> Spent | None:
    """Give the time an encoder's training took in each epoch, None if the log tells nothing."""
    share = parameter_share(run, modality)
    optimizer = _seconds(steps, "ms_optimizer", share or 0.0)
    own = _first_rank(run.tables.step_modalities)
    own = own[own["modality"] == modality] if "modality" in own else own
    if has(own, "forward_ms"):
        backward = _seconds(own, "backward_ms")
        how = "times of this encoder"
        return Spent(_seconds(own, "forward_ms"), _added(backward, optimizer), how)
    if share is None or not has(steps, "ms_backward"):
        return None
    backward = _seconds(steps, "ms_backward", share)
    how = "its share of the parameters"
    return Spent(_seconds(steps, "ms_forward", share), _added(backward, optimizer), how)


def parameter_share(run: Run, modality: str) -> float | None:
    """Give a modality's part of all trained parameters, None where the log has no counts."""
    counts = run.tables.head.get("parameters")
    if not isinstance(counts, Mapping) or modality not in counts:
        return None
    total = sum(float(n) for name, n in counts.items() if name != _NOT_TRAINED)
    return float(counts[modality]) / total if total > 0 else None


def _seconds(frame: pd.DataFrame, column: str, share: float = 1.0) -> dict[int, float]:
    """Give seconds by epoch; a step that left an encoder out cost nothing there."""
    if not has(frame, column) or not has(frame, "epoch"):
        return {}
    sums = frame.groupby("epoch")[column].sum()
    return {int(str(epoch)): float(ms) * share / 1e3 for epoch, ms in sums.items()}


def _added(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {e: one.get(e, 0.0) + other.get(e, 0.0) for e in {*one, *other}}


def _modality(
    run: Run, history: Sequence[Row], epoch: int, time: Spent | None, total: float
) -> dict[str, Any]:
    last = int(history[-1]["epoch"])
    is_stable, note = stability(run, history, epoch)
    table: dict[str, Any] = {
        "epoch": epoch,
        "share_of_run": (epoch + 1) / (last + 1),
        "after_share": None,
        "wasted_share": None,
        "hours": None,
        "gpu_hours": None,
        "joules": None,
        "is_stable": is_stable,
        "how": "unknown" if time is None else time.how,
        "note": note,
    }
    if time is None:
        return table
    backward = _after(time.backward, epoch)
    table["after_share"] = min(1.0, (_after(time.forward, epoch) + backward) / total)
    if not is_stable:
        return table
    seconds = backward * int(run.tables.head.get("world") or 1)
    power_w = mean_power_w(run)
    is_gpu = str(run.tables.head.get("device") or "").startswith("cuda")
    table["wasted_share"] = min(1.0, backward / total)
    table["hours"] = seconds / _SECONDS_PER_HOUR
    table["gpu_hours"] = table["hours"] if is_gpu else None
    table["joules"] = None if power_w is None else seconds * power_w
    return table


def stability(run: Run, history: Sequence[Row], epoch: int) -> tuple[bool, str]:
    """Tell whether an encoder's features stayed as they were from an epoch on, and why not."""
    after = [row for row in history if int(row["epoch"]) >= epoch]
    first, last = after[0], after[-1]
    n = int(run.tables.head.get("num_val") or 0)
    was, now = score_interval(first, "probe", n), score_interval(last, "probe", n)
    if was is None or now is None:
        return False, "the log has no probe score, so nothing is claimed"
    if now.low > was.high:
        return False, "its probe still rose afterwards, so nothing is claimed"
    if now.high < was.low:
        return False, "its probe fell afterwards, so nothing is claimed"
    ranks = [r for r in (number(row, "erank") for row in after) if r is not None]
    if not ranks:
        return True, "its effective rank is not in the log"
    if max(ranks) > RANK_DRIFT * min(ranks):
        return False, "its effective rank still moved, so nothing is claimed"
    return True, ""


def mean_power_w(run: Run) -> float | None:
    """Give the mean power of one GPU of the run, None where no GPU told enough of it."""
    curve = energy_curve(run)
    if curve is None or curve.seconds < limits.ENERGY_WINDOW_S:
        return None
    return curve.total / curve.seconds / curve.num_gpus


def _after(seconds: Mapping[int, float], epoch: int) -> float:
    return sum(value for at, value in seconds.items() if at > epoch)


def _first_rank(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.empty or "rank" not in frame:
        return frame
    first: pd.DataFrame = frame[frame["rank"] == frame["rank"].min()]
    return first
