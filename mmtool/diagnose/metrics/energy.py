"""How much energy the GPUs took, for what, and how much of it each modality's encoder.

NVML counts energy since the driver was loaded, to about 5 to 10 %, and not finer than some tens of
milliseconds: a stretch below two seconds says nothing. Between two readings power counts as even.
What a modality took is never measured: it is training's energy, apportioned by time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.gpus import (
    Stretch,
    evaluation_stretches,
    first_rank_samples,
    gpus_of,
)
from mmtool.diagnose.metrics.steps import StepTimes
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import number

UNCERTAINTY = 0.10
MAX_GAP_S = 120.0
"""Between two samples that are further apart the run was not running."""


@dataclass(frozen=True, slots=True)
class EnergyCurve:
    """Joules that all GPUs of one machine took since the first sample, at some times."""

    times: Sequence[float]
    joules: Sequence[float]
    how: str
    """counter (NVML's own) or power (sampled power, summed up)."""
    num_gpus: int

    @property
    def total(self) -> float:
        """Everything."""
        return self.joules[-1]

    @property
    def seconds(self) -> float:
        """From the first sample to the last one."""
        return self.times[-1] - self.times[0]

    def within(self, stretch: Stretch) -> float:
        """Give what was taken from one time to another, evenly between two samples."""
        return self._at(stretch[1]) - self._at(stretch[0])

    def _at(self, time: float) -> float:
        place = bisect_right(self.times, time)
        if place == 0:
            return 0.0
        if place == len(self.times):
            return self.joules[-1]
        before, after = self.times[place - 1], self.times[place]
        part = (time - before) / (after - before) if after > before else 0.0
        return self.joules[place - 1] + part * (self.joules[place] - self.joules[place - 1])


def energy_curve(run: Run) -> EnergyCurve | None:
    """Give the energy over time, None where no GPU tells energy or power."""
    samples = first_rank_samples(run)
    count = max((len(gpus_of(sample)) for sample in samples), default=0)
    for how, step in (("counter", _counted), ("power", _summed)):
        joules, times, is_known = [0.0], [float(samples[0]["t"])] if samples else [], False
        for before, after in pairwise(samples):
            taken = [step(before, after, index) for index in range(count)]
            known = [value for value in taken if value is not None]
            is_known = is_known or bool(known)
            joules.append(joules[-1] + sum(known))
            times.append(float(after["t"]))
        if is_known:
            return EnergyCurve(times, joules, how, count)
    return None


def _seconds(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    seconds = float(after["t"]) - float(before["t"])
    return seconds if 0 < seconds <= MAX_GAP_S else None


def _pair(
    before: Mapping[str, Any], after: Mapping[str, Any], index: int, key: str
) -> tuple[float, float] | None:
    both = [gpus_of(sample) for sample in (before, after)]
    values = [number(gpus[index], key) for gpus in both if len(gpus) > index]
    return None if len(values) < 2 or None in values else (values[0], values[1])  # type: ignore[return-value]


def _counted(before: Mapping[str, Any], after: Mapping[str, Any], index: int) -> float | None:
    pair = _pair(before, after, index, "energy_j")
    if pair is None or _seconds(before, after) is None:
        return None
    return pair[1] - pair[0] if pair[1] >= pair[0] else None  # the driver was loaded anew


def _summed(before: Mapping[str, Any], after: Mapping[str, Any], index: int) -> float | None:
    pair, seconds = _pair(before, after, index, "power_w"), _seconds(before, after)
    return None if pair is None or seconds is None else (pair[0] + pair[1]) / 2 * seconds


def energy_table(run: Run, steps: StepTimes | None) -> dict[str, Any]:
    """Give total, phases and modalities as plain data; null with a reason where not known."""
    curve = energy_curve(run)
    if curve is None or curve.seconds < limits.ENERGY_WINDOW_S:
        why = "no GPU of this run tells its energy" if curve is None else "the run was too short"
        cost = modality_cost(None, steps)
        return {"total_j": None, "per_phase": {}, "per_modality": {}, "cost": cost, "why": why}
    evaluations = [s for s in evaluation_stretches(run) if s[1] <= curve.times[-1] + 1.0]
    evaluation = sum(curve.within(stretch) for stretch in evaluations)
    seconds = sum(stretch[1] - stretch[0] for stretch in evaluations)
    training = max(0.0, curve.total - evaluation)
    is_long = seconds >= limits.ENERGY_WINDOW_S
    per_phase = {"training": training, "evaluation": evaluation} if is_long else {}
    cost = modality_cost(training, steps)
    return {
        "total_j": curve.total,
        "total_low_j": curve.total * (1 - UNCERTAINTY),
        "total_high_j": curve.total * (1 + UNCERTAINTY),
        "seconds": curve.seconds,
        "num_gpus": curve.num_gpus,
        "how": curve.how,
        "per_phase": per_phase,
        "evaluation_seconds": seconds,
        "per_step_phase": _within_steps(training, steps),
        "per_modality": {modality: row["joules"] for modality, row in cost.items()},
        "cost": cost,
        "apportioned": ["per_step_phase", "per_modality"],
        "note": "of the GPUs that the first rank sees; of processors it is not known",
    }


def _within_steps(training: float, steps: StepTimes | None) -> dict[str, float]:
    """Apportion training's energy to the phases of a step by their time."""
    return {} if steps is None else {p.name: training * p.share for p in steps.phases}


def modality_cost(training: float | None, steps: StepTimes | None) -> dict[str, Any]:
    """Apportion training's joules to the encoders by their part of a step, and its hours."""
    if steps is None or not steps.encoders:
        return {}
    hours = steps.step.mean_ms * steps.num_logged * steps.num_ranks / 3.6e6
    return {
        e.modality: {
            "joules": None if training is None else training * e.share_of_step,
            "device_hours": hours * e.share_of_step,
            "share": e.share_of_step,
            "how": "apportioned by time",
        }
        for e in steps.encoders
    }
