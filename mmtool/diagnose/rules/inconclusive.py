"""There is not enough in the log for a statement.

Names what is missing (epochs, validation samples, columns, precision of the reliance share) and
what would supply it. Other rules stay silent about balance in that case: no warning is given on
numbers that cannot carry it.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts, balance_gaps
from mmtool.diagnose.finding import Finding

ORDER = 0
ABOUT_BALANCE = "epoch_modalities."
SUPPLIED_BY = {
    "epoch_modalities.flip|shift": "a run of this version of mmtool, which logs one of them after "
    "every epoch",
    "epoch_modalities.nll": "a method or model with logits per modality: -s model.unimodal=head",
    "epochs.acc": "at least one finished epoch",
    "steps.skipped": "at least one finished step",
}
OTHERWISE = "a run of this version of mmtool; several ranks for what concerns ranks"
NEEDS_RANKS = ("straggler",)


def check(facts: Facts) -> list[Finding]:
    """Say what cannot be judged and why."""
    found = []
    several = len(facts.run.modalities) != 1
    gaps = balance_gaps(facts) if several else []
    if gaps:
        found.append(
            Finding(
                rule="inconclusive",
                severity="info",
                what="balance cannot be judged: " + "; ".join(what for what, _ in gaps),
                evidence={
                    "n": facts.balance.n if facts.balance else 0,
                    "split": "val",
                    "epoch": facts.balance.epoch if facts.balance else None,
                    "num_epochs": facts.balance.num_epochs if facts.balance else 0,
                    "missing": [what for what, _ in gaps],
                },
                advice="needed: " + "; ".join(supply for _, supply in gaps),
            )
        )
    found += [_skipped(rule, lacking) for rule, lacking in _unexplained(facts, bool(gaps))]
    return found


def _unexplained(facts: Facts, balance_said: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Rules that could not run and are not yet covered by the statement about balance."""
    single = len(facts.run.modalities) == 1
    return [
        (rule, lacking)
        for rule, lacking in facts.skipped.items()
        if rule not in NEEDS_RANKS
        and not ((single or balance_said) and all(c.startswith(ABOUT_BALANCE) for c in lacking))
    ]


def _skipped(rule: str, lacking: tuple[str, ...]) -> Finding:
    return Finding(
        rule="inconclusive",
        severity="info",
        what=f"{rule} was not checked: the log has no {', '.join(lacking)}",
        evidence={"rule": rule, "missing": list(lacking)},
        advice="needed: " + "; ".join({SUPPLIED_BY.get(c, OTHERWISE) for c in sorted(lacking)}),
    )
