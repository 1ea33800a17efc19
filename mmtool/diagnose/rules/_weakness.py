"""Why a modality is hardly relied on: not trained, not used, nothing to say, or not known.

Without a run that trained the modality alone, a poor encoder and a poor signal look the same; that
case is called undecided and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmtool.diagnose.metrics.balance import Balance, ModalityBalance
from mmtool.diagnose.metrics.intervals import Z95, Interval
from mmtool.diagnose.metrics.names import constant_answer_key
from mmtool.diagnose.rules import _thresholds as limits

Cause = Literal["undertrained", "neglected", "used", "weak_signal", "no_signal", "undecided"]
NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Weakness:
    """One modality that is not the dominant one, and why."""

    modality: ModalityBalance
    cause: Cause
    ratio: float | None
    """Accuracy above chance relative to the dominant modality's."""

    @property
    def could_do_more(self) -> bool:
        """Whether there is evidence that the modality is held back."""
        return self.cause in ("undertrained", "neglected")


def weaknesses(balance: Balance) -> list[Weakness]:
    """Give every modality but the strongest, with the cause of its weakness."""
    top = balance.strongest
    return [
        Weakness(m, _cause(m, balance, ratio := _ratio(m, balance)), ratio)
        for m in balance.modalities
        if top is not None and m is not top
    ]


def _ratio(m: ModalityBalance, balance: Balance) -> float | None:
    top = balance.strongest
    chance = balance.chance or 0.0
    if top is None or top.potential is None or m.potential is None:
        return None
    above = top.potential.value - chance
    return (m.potential.value - chance) / above if above > 0 else None


def _cause(m: ModalityBalance, balance: Balance, ratio: float | None) -> Cause:
    chance = balance.chance or 0.0
    if m.gap is not None and m.gap.low > limits.REFERENCE_GAP:
        return "undertrained"
    informative = (
        m.learnt is not None
        and m.learnt.low > chance + limits.ABOVE_CHANCE
        and ratio is not None
        and ratio >= limits.INFORMATIVE_RATIO
    )
    if informative:
        return "neglected" if unused(m) else "used"
    if m.reference is None:
        return "undecided"
    return "weak_signal" if m.reference.acc.low > chance else "no_signal"


def unused(m: ModalityBalance) -> bool:
    """Tell whether the fused head leaves aside what the encoder has learnt."""
    if m.drop is None and (m.alone is None or m.learnt is None):
        return True
    if m.drop is not None and m.drop.high < limits.UNUSED_DROP:
        return True
    if m.alone is None or m.learnt is None:
        return False
    return m.alone.high < m.learnt.value - limits.ALONE_BELOW_PROBE


def dominance_confidence(balance: Balance) -> float:
    """Give the share of resampled validation counts with the same dominant modality."""
    top = balance.strongest
    flips = [m.flip for m in balance.modalities if m.flip]
    if top is None or top.share is None or len(flips) < len(balance.modalities):
        return 0.0
    index = balance.modalities.index(top)
    drawn = np.stack([_draws(flip, seed) for seed, flip in enumerate(flips)])  # [modality, draw]
    drawn = np.maximum(drawn, 0.0)
    share = drawn[index] / np.maximum(drawn.sum(axis=0), 1e-9)
    margin = top.share.value - top.share.low
    bound = limits.dominant_share(len(balance.modalities))
    return float(np.mean((drawn.argmax(axis=0) == index) & (share - margin > bound)))


def weakness_confidence(weakness: Weakness, balance: Balance) -> float | None:
    """Give the share of resampled validation counts with the same cause."""
    m, top, chance = weakness.modality, balance.strongest, balance.chance or 0.0
    if m.learnt is None:
        return None
    learnt = _draws(m.learnt, 11)
    if weakness.cause == "undertrained" and m.reference is not None and m.gap is not None:
        gap = _draws(m.reference.acc, 12) - learnt
        margin = m.gap.value - m.gap.low
        return float(np.mean(gap - margin > limits.REFERENCE_GAP))
    if top is None or top.potential is None:
        return None
    known = learnt if m.reference is None else np.maximum(learnt, _draws(m.reference.acc, 12))
    above = np.maximum(_draws(top.potential, 13) - chance, 1e-9)
    informative = (known - chance) / above >= limits.INFORMATIVE_RATIO
    margin = m.learnt.value - m.learnt.low
    return float(np.mean(informative & (learnt - margin > chance + limits.ABOVE_CHANCE)))


def _draws(interval: Interval, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    if not interval.is_rate:
        return generator.normal(interval.value, interval.half_width / Z95, NUM_RESAMPLES)
    rate = min(max(interval.value, 0.0), 1.0)
    return generator.binomial(interval.n, rate, NUM_RESAMPLES) / max(interval.n, 1)


def evidence(m: ModalityBalance, balance: Balance) -> dict[str, Any]:
    """Give a modality's numbers under the names that reports use, intervals included."""
    given: dict[str, Any] = {"epoch": balance.epoch, "split": balance.split, "n": balance.n}
    named: dict[str, Interval | None] = {
        "share": m.share,
        balance.reliance_key: m.flip,
        "drop": m.drop,
        "alone": m.alone,
        "probe": m.probe,
        "unimodal": m.unimodal,
        "reference": m.reference.acc if m.reference else None,
        "gap": m.gap,
    }
    for name, interval in named.items():
        if interval is not None:
            given[name] = interval.value
            given[f"{name}_ci95"] = [interval.low, interval.high]
    if m.how and m.unimodal is not None:
        given["unimodal_how"] = m.how
    if m.reference is not None:
        given["reference_run"] = m.reference.run
    given[constant_answer_key(balance.metric)] = balance.chance
    return given
