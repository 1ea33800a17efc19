"""Parts of sentences that several verdicts share."""

from __future__ import annotations

from collections.abc import Sequence

from mmtool.diagnose.metrics.names import constant_answer
from mmtool.diagnose.verdict.evidence import Case, Evidence

REFERENCE = {"solo": "trained alone", "headroom": "trained on alone from here"}


def joined(names: Sequence[str]) -> str:
    """Give names as a list in words."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def constant(case: Case) -> str:
    """Give the score of a constant answer in words."""
    return f"{constant_answer(case.metric)} is {case.chance:.2f}"


def relied(evidence: Evidence, m: str) -> str:
    """Say how much rests on a modality."""
    share = evidence.get("share", m)
    if share is None:
        return f"how much rests on {m} is not known"
    return f"{share.value:.0%} of the decision rests on {m}"


def alone(evidence: Evidence, m: str) -> str:
    """Say what a modality reaches alone."""
    probe, reference = evidence.get("probe", m), evidence.get("reference", m)
    told = [] if probe is None else [f"a probe of its encoder reaches {probe.value:.2f}"]
    if reference is not None:
        found = evidence.case.quantity("reference", m)
        told.append(
            f"{REFERENCE.get(found.source if found else '', 'alone')} it reaches "
            f"{reference.value:.2f}"
        )
    return " and ".join(told) or f"what {m} reaches alone was not measured"


def known_of(evidence: Evidence, modalities: Sequence[str]) -> str:
    """Say of weak modalities what rests on them and what they reach."""
    told = "; ".join(f"{relied(evidence, m)}, {alone(evidence, m)}" for m in modalities)
    return f"{told} ({constant(evidence.case)})"


def led(evidence: Evidence) -> str:
    """Say since when which modality leads, where that is known."""
    top, since = evidence.dominant, evidence.case.since_epoch
    if top is None:
        return ""
    when = {None: "", 0: " from the first epoch on"}.get(since, f" since epoch {since}")
    return f" while {top} leads{when}"
