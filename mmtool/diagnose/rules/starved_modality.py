"""A modality is hardly used although it could do more.

A modality is weak when the upper end of its reliance share lies below 0.44 of a fair share. It is
starved if one of these holds:

* a run that trained it alone (`mmtool diagnose RUN SOLO_RUN`) is ahead of what its encoder has
  learnt here by more than 0.02, interval included: the encoder is under-trained;
* its probe is well above chance and at least 0.6 as far above as the dominant modality's, while the
  fused accuracy does not change without it: the fused head neglects it.

A weak modality with a poor probe and no such run may be starved or may simply carry little. The
rule then says that it cannot tell and prints the commands that would.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.balance import Balance
from mmtool.diagnose.metrics.names import constant_answer
from mmtool.diagnose.rules._advice import decide_command, train_longer_encoder, use_the_features
from mmtool.diagnose.rules._weakness import (
    Weakness,
    evidence,
    weakness_confidence,
    weaknesses,
)

NEEDS = ("epoch_modalities.flip|shift",)


def check(facts: Facts) -> list[Finding]:
    """Name every modality that is held back, and those of which that is not known."""
    balance = facts.judgeable
    if balance is None or len(balance.modalities) < 2:
        return []
    weak = [w for w in weaknesses(balance) if w.modality in balance.weak]
    return [f for w in weak if (f := _finding(facts, balance, w)) is not None]


def _finding(facts: Facts, balance: Balance, weak: Weakness) -> Finding | None:
    m, name = weak.modality, weak.modality.modality
    share = m.share.value if m.share else 0.0
    given = evidence(m, balance) | {"ratio_to_dominant": weak.ratio, "cause": weak.cause}
    learnt = _learnt(weak)
    if weak.cause == "undertrained" and m.reference is not None:
        what = (
            f"{name} is starved: trained alone it reaches {m.reference.acc.value:.2f}, "
            f"here {learnt} and the decision relies on it for {share:.0%}"
        )
        advice = train_longer_encoder(facts.run)
    elif weak.cause == "neglected":
        what = (
            f"{name} is starved: {learnt} ({constant_answer(balance.metric)} "
            f"{balance.chance or 0:.2f}), but the decision relies on it for {share:.0%} only"
        )
        advice = use_the_features(facts.run, name)
    elif weak.cause == "undecided":
        return Finding(
            rule="starved-modality",
            severity="info",
            modality=name,
            what=(
                f"{name} is hardly used ({share:.0%}) and {learnt}: this "
                f"run cannot tell a starved modality from one that carries little"
            ),
            evidence=given,
            advice=decide_command(facts.run, name),
        )
    else:
        return None
    return Finding(
        rule="starved-modality",
        severity="warn",
        modality=name,
        what=what,
        evidence=given,
        advice=advice,
        confidence=weakness_confidence(weak, balance),
    )


def _learnt(weak: Weakness) -> str:
    m = weak.modality
    if m.probe is not None:
        return f"a probe of its encoder reaches {m.probe.value:.2f}"
    if m.unimodal is not None:
        return f"its own logits reach {m.unimodal.value:.2f} (no probe was logged)"
    return "what its encoder has learnt is not logged"
