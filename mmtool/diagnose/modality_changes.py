"""What changed about each modality from one group of runs to another, and how the verdicts did.

    d = mean over runs of `other` - mean over runs of `base`,   d +- t sqrt(V_base + V_other)
    V = (s^2 + e^2) / S     s  deviation over the S seeds, or the usual one where S = 1
                            e  root mean square of the standard errors of the runs' own intervals
    t of f = (V_base + V_other)^2 / sum over groups with S > 1 of (s^2 / S)^2 / (S - 1) degrees of
    freedom (Welch and Satterthwaite: only a deviation that was estimated is in doubt)

e counts the validation samples of both groups as different ones although they are the same, so the
interval is rather too wide. The score of a modality by itself is compared answer by answer instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from mmtool.diagnose.changes import Group, variance
from mmtool.diagnose.metrics.bootstrap import difference, resampled_scores, t_point
from mmtool.diagnose.metrics.intervals import Z95
from mmtool.diagnose.paired import Answers, drawn_units
from mmtool.diagnose.report.views import answer_rows
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.steady import judgement_of

SHARE_SPREAD = 0.05
"""Deviation of the reliance share over seeds where none was measured: .006 to .086 in toy runs."""
QUESTIONS = ("reliance", "availability", "informativeness")
OWN = "own score"
Plain = Mapping[str, Any]


def modality_changes(
    base: Group, other: Group, reports: Sequence[Plain], answers: Answers
) -> dict[str, dict[str, Any]]:
    """Give, by modality and question, the difference with its interval and what it is called."""
    before = [answer_rows(reports[at]["metrics"]) for at in base.members]
    after = [answer_rows(reports[at]["metrics"]) for at in other.members]
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for rows in before for name in rows):
        row = {q: _logged(name, q, before, after) for q in QUESTIONS}
        row[OWN] = _paired(name, base, other, answers)
        known = {question: change for question, change in row.items() if change is not None}
        if known:
            found[name] = known
    return found


def _logged(
    name: str, question: str, before: Sequence[Plain], after: Sequence[Plain]
) -> dict[str, Any] | None:
    one, two = (
        [known for rows in some if (known := rows.get(name, {}).get(question)) is not None]
        for some in (before, after)
    )
    if not one or not two:
        return None
    spread = SHARE_SPREAD if question == "reliance" else limits.SEED_SPREAD
    value = _mean(two) - _mean(one)
    total, doubt = 0.0, 0.0
    for some in (one, two):
        seeds, own = _variances(some, spread)
        total += (seeds + own) / len(some)
        doubt += (seeds / len(some)) ** 2 / (len(some) - 1) if len(some) > 1 else 0.0
    freedom = max(int(total**2 / doubt), 1) if doubt > 0 else 0
    half = t_point(freedom) * sqrt(total)
    return _change(question, value, value - half, value + half) | {
        "before": _mean(one),
        "after": _mean(two),
    }


def _mean(estimates: Sequence[Plain]) -> float:
    return sum(float(e["value"]) for e in estimates) / len(estimates)


def _variances(estimates: Sequence[Plain], spread: float) -> tuple[float, float]:
    """Give the variance over seeds, and that of a single run's estimate."""
    values = [float(e["value"]) for e in estimates]
    seeds = variance(values) if len(values) > 1 else spread**2
    errors = [
        ((e["high"] - e["low"]) / (2 * Z95)) ** 2
        for e in estimates
        if e.get("low") is not None and e.get("high") is not None
    ]
    return seeds, sum(errors) / len(errors) if errors else 0.0


def _paired(name: str, base: Group, other: Group, answers: Answers) -> dict[str, Any] | None:
    """Compare what a modality answers by itself on the samples that every run saw it in."""
    members = [*base.members, *other.members]
    kept = [answers.found.get(at) for at in members]
    right = [one.right(name) for one in kept if one is not None and name in one.answers]
    if len(right) < len(members) or right[0].ndim > 1:
        return None
    stacked = np.stack(right)
    seen = ~np.isnan(stacked).any(axis=0)
    if not seen.any():
        return None
    scores = stacked[:, seen]
    first = answers.found[members[0]]
    resampled = resampled_scores(scores, drawn_units(first)[seen])
    num, means = len(base.members), [float(row.mean()) for row in scores]
    values = means[:num], means[num:]
    found = difference(resampled[:num], resampled[num:], values, spread=limits.SEED_SPREAD)
    return _change(OWN, found.value, found.low, found.high) | {
        "before": sum(values[0]) / num,
        "after": sum(values[1]) / len(values[1]),
        "split": answers.split,
    }


def _change(question: str, value: float, low: float, high: float) -> dict[str, Any]:
    up, down = ("rose", "fell") if question == "reliance" else ("improved", "regressed")
    wording = "no change detected" if low <= 0 <= high else up if value > 0 else down
    return {"difference": value, "ci95": [low, high], "wording": wording}


def verdicts(group: Group, reports: Sequence[Plain]) -> dict[str, int]:
    """Count the verdicts on the runs of a group, the most frequent first."""
    told = Counter(judgement_of(reports[at]).words for at in group.members)
    return dict(told.most_common())


def verdict_change(before: Mapping[str, int], after: Mapping[str, int]) -> str | None:
    """Say how the verdict changed; None where most runs of both groups have the same one."""
    if next(iter(before), None) == next(iter(after), None):
        return None
    return f"verdict {_told(before)} before, {_told(after)} now"


def _told(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    if total == 1:
        return next(iter(counts))
    return ", ".join(f"{words} ({count} of {total} runs)" for words, count in counts.items())
