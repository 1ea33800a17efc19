"""The modalities are in balance as far as this log can tell.

Said only if there was enough data to find an imbalance and no rule about balance fired. Runs last.
Adds whether the modalities complement each other (each is missed when permuted, and together they
beat the best alone) or are redundant (together they are no better than the best alone).
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.balance import Balance
from mmtool.diagnose.metrics.names import score_key

NEEDS = ("epoch_modalities.flip|shift",)
ORDER = 100
ABOUT_BALANCE = ("dominant-modality", "starved-modality", "unimodal-overfit", "no-signal")
COMPLEMENTARY_DROP = 0.10
COMPLEMENTARY_GAIN = 0.05
REDUNDANT_GAIN = 0.02


def check(facts: Facts) -> Finding | None:
    """Say that no imbalance was found, and in which way the modalities share the work."""
    balance = facts.judgeable
    if balance is None or len(balance.modalities) < 2 or facts.fired(*ABOUT_BALANCE):
        return None
    shares = {m.modality: m.share.value for m in balance.modalities if m.share}
    score = score_key(balance.metric)
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Finding(
        rule="no-imbalance",
        severity="info",
        what=f"no imbalance found: reliance is shared ({listed}){_relation(balance)}",
        evidence={
            "epoch": balance.epoch,
            "split": balance.split,
            "n": balance.n,
            "dominance": balance.dominance,
            "shares": shares,
            score: balance.fused.value if balance.fused else None,
            f"{score}_ci95": [balance.fused.low, balance.fused.high] if balance.fused else None,
        },
    )


def _relation(balance: Balance) -> str:
    best = max((m.potential.value for m in balance.modalities if m.potential), default=None)
    if best is None or balance.fused is None:
        return ""
    gain = balance.fused.value - best
    drops = [m.drop.value for m in balance.modalities if m.drop]
    if gain > COMPLEMENTARY_GAIN and drops and min(drops) > COMPLEMENTARY_DROP:
        return "; the modalities complement each other"
    if gain < REDUNDANT_GAIN:
        return "; together they are no better than the best alone, the other buys robustness only"
    return ""
