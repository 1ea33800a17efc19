"""Groups of runs as numbers, and what changed from one group to another.

With the answers of every run, a change is called improved or regressed where a paired bootstrap
interval leaves out zero (see metrics.bootstrap). Without them, where it exceeds the noise floor:
from the spread over seeds where both groups have at least two, otherwise from the counts of samples
and a typical spread over seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import median
from typing import Any

from mmtool.diagnose.metrics.bootstrap import t_point
from mmtool.diagnose.metrics.intervals import Z95
from mmtool.diagnose.metrics.names import in_words
from mmtool.diagnose.paired import Answers
from mmtool.diagnose.rules import _thresholds as limits

SPLITS = ("val", "test")
_KEYS = {"val": "acc", "test": "test"}


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one recipe that differ in the seed only."""

    label: str
    members: tuple[int, ...]
    scores: Mapping[str, tuple[float, ...]]
    """By split, one score per run that has it."""
    n: Mapping[str, int]
    step_ms: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    error: float | None = None
    """Standard error over samples of a score that is no rate."""
    metric: str = "accuracy"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def mean(self, split: str) -> float | None:
        """Give the mean score over the seeds."""
        scores = self.scores[split]
        return sum(scores) / len(scores) if scores else None

    def deviation(self, split: str) -> float | None:
        """Give the sample deviation of the score over the seeds; None of a single one."""
        scores = self.scores[split]
        return sqrt(variance(scores)) if len(scores) > 1 else None

    def row(self) -> dict[str, Any]:
        """Give the group as plain data."""
        return {
            "label": self.label,
            "num_seeds": len(self.members),
            "acc_mean": self.mean("val"),
            "acc_deviation": self.deviation("val"),
            "test_mean": self.mean("test"),
            "test_deviation": self.deviation("test"),
            "n": dict(self.n),
            "step_p50_ms": _mean(self.step_ms),
            "seconds": median(self.seconds) if self.seconds else None,
            **self.facts,
        }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def variance(values: Sequence[float]) -> float:
    """Give the sample variance."""
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def noise_floor(base: Group, other: Group, split: str = "val") -> float:
    """Give the difference of scores that chance alone would exceed once in twenty times."""
    one, two = base.scores[split], other.scores[split]
    if len(one) > 1 and len(two) > 1:
        freedom = len(one) + len(two) - 2
        pooled = (variance(one) * (len(one) - 1) + variance(two) * (len(two) - 1)) / freedom
        return float(t_point(freedom) * sqrt(pooled * (1 / len(one) + 1 / len(two))))
    floor = 0.0
    for group in (base, other):
        acc = group.mean(split) or 0.0
        of_rate = max(acc * (1 - acc), 0.0) / max(group.n.get(split, 0), 1)
        floor += (of_rate if group.error is None else group.error**2) / len(group.members)
        floor += limits.SEED_SPREAD**2 / len(group.members)
    return Z95 * sqrt(floor)


def change(base: Group, other: Group, answers: Mapping[str, Answers]) -> dict[str, Any]:
    """Give what differs from the baseline to another group, as plain data."""
    found: dict[str, Any] = {
        "baseline": base.label,
        "group": other.label,
        "n": other.n.get("val"),
        "metric": other.metric,
        "num_seeds": [len(base.members), len(other.members)],
    }
    for split in SPLITS:
        found |= _score_change(base, other, split, answers[split])
    if base.step_ms and other.step_ms:
        relative = (_mean(other.step_ms) or 0.0) / (_mean(base.step_ms) or 1.0) - 1
        found |= {
            "step_time_relative": relative,
            "step_time_noise_floor": limits.TIME_NOISE,
            "step_time_wording": _wording(-relative, limits.TIME_NOISE),
        }
    if base.seconds and other.seconds:
        found["training_time_relative"] = median(other.seconds) / median(base.seconds) - 1
    return found


def _score_change(base: Group, other: Group, split: str, answers: Answers) -> dict[str, Any]:
    key, before, after = _KEYS[split], base.mean(split), other.mean(split)
    if before is None or after is None:
        return {}
    paired = answers.difference(base.members, other.members)
    if paired is not None:
        return {
            f"{key}_difference": paired.value,
            f"{key}_difference_ci95": [paired.low, paired.high],
            f"{key}_wording": paired.wording,
        }
    floor = noise_floor(base, other, split)
    return {
        f"{key}_difference": after - before,
        f"{key}_noise_floor": floor,
        f"{key}_wording": _wording(after - before, floor),
    }


def _wording(difference: float, floor: float) -> str:
    if abs(difference) <= floor:
        return "no change detected"
    return "improved" if difference > 0 else "regressed"


def main_split(found: Mapping[str, Any]) -> str:
    """Give the split a change is judged on: test, where both groups have one."""
    return "test" if "test_wording" in found else "val"


def main_wording(found: Mapping[str, Any]) -> str | None:
    """Give improved, regressed or no change detected; None where there is no score in common."""
    wording = found.get(f"{_KEYS[main_split(found)]}_wording")
    return None if wording is None else str(wording)


def how_sure(found: Mapping[str, Any], split: str) -> str:
    """Give the interval, or the noise floor, in words."""
    key = _KEYS[split]
    if f"{key}_difference_ci95" in found:
        low, high = found[f"{key}_difference_ci95"]
        return f"95 % interval {low:+.3f} to {high:+.3f}"
    return f"noise floor {found[f'{key}_noise_floor']:.3f}"


def sentence(found: Mapping[str, Any]) -> str:
    """Say what changed."""
    parts = []
    for split in reversed(SPLITS):
        key, name = _KEYS[split], "validation" if split == "val" else "test"
        if f"{key}_wording" in found:
            parts.append(
                f"{name} {in_words(found['metric'])} {found[f'{key}_wording']} "
                f"({found[f'{key}_difference']:+.3f}, {how_sure(found, split)})"
            )
    if "step_time_wording" in found:
        parts.append(f"step time {found['step_time_wording']} ({found['step_time_relative']:+.0%})")
    return f"{found['group']}: {', '.join(parts) or 'nothing in common to compare'}"
