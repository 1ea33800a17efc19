"""One modality owns the decision.

Reliance of a modality is the share of predictions that flip when it is permuted over the validation
samples, relative to the flips of all modalities. The rule fires when the lower end of the largest
share's interval exceeds the bound for that number of modalities (0.72 for two, 0.60 for three).
Predictions of a regression do not flip: how far they shift takes the place of how many flip.

It warns only if that costs something: another modality is known to be able to do more, from its
probe in this run or from a run that trained it alone. If nothing is known, it says so and gives the
commands that would decide it; if the others have been shown to carry little, dominance is right.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import decide_command, train_longer_encoder, use_the_features
from mmtool.diagnose.rules._weakness import (
    Weakness,
    dominance_confidence,
    evidence,
    weaknesses,
)

NEEDS = ("epoch_modalities.flip|shift",)


def check(facts: Facts) -> Finding | None:
    """Name the modality on which nearly every decision rests."""
    balance = facts.judgeable
    if balance is None or len(balance.modalities) < 2:
        return None
    top = balance.strongest
    bound = limits.dominant_share(len(balance.modalities))
    if top is None or top.share is None or top.share.low <= bound:
        return None
    others = weaknesses(balance)
    held_back = [w for w in others if w.could_do_more]
    undecided = [w for w in others if w.cause == "undecided"]
    given = evidence(top, balance) | {
        "dominance": balance.dominance,
        "share_bound": bound,
        "since_epoch": balance.since_epoch,
    }
    since = {None: "", 0: " from the first epoch on"}.get(
        balance.since_epoch, f" since epoch {balance.since_epoch}"
    )
    relied = (
        f"of the predictions that change when a modality is permuted, {top.share.value:.0%} change "
        "with it"
        if balance.reliance_key == "flip"
        else f"of the distance that predictions move when modalities are permuted, "
        f"{top.share.value:.0%} comes from it"
    )
    return Finding(
        rule="dominant-modality",
        severity="warn" if held_back else "info",
        modality=top.modality,
        what=(
            f"{top.modality} dominates{since}: {relied}; {_meaning(held_back, undecided, others)}"
        ),
        evidence=given,
        advice=_advice(facts, held_back, undecided),
        confidence=dominance_confidence(balance),
    )


def _names(some: list[Weakness]) -> str:
    return " and ".join(w.modality.modality for w in some)


def _meaning(held_back: list[Weakness], undecided: list[Weakness], others: list[Weakness]) -> str:
    if held_back:
        return f"{_names(held_back)} could do more"
    if undecided:
        return f"whether {_names(undecided)} could do more cannot be told from this run alone"
    return f"{_names(others)} has been shown to carry little more, so this is not a failure"


def _advice(facts: Facts, held_back: list[Weakness], undecided: list[Weakness]) -> str:
    if any(w.cause == "undertrained" for w in held_back):
        return train_longer_encoder(facts.run)
    if held_back:
        return use_the_features(facts.run, _names(held_back))
    if undecided:
        return decide_command(facts.run, undecided[0].modality.modality)
    return "do not balance; the weaker modality buys robustness at most, consider its cost"
