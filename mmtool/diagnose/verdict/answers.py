"""Three answers about every modality, side by side and never folded into one.

reliance          how many predictions change when it is permuted; of a regression, how much
                  the score falls
availability      what the fused model makes of it when all others are replaced by their mean
informativeness   what can be read from it alone: probe, headroom or solo run, over the floor of
                  its encoder before the first step
"""

from __future__ import annotations

from typing import Any

from mmtool.diagnose.verdict.evidence import Case


def answers_table(case: Case) -> dict[str, Any]:
    """Give the three answers by modality as plain data."""
    return {m: _answers(case, m) for m in case.modalities}


def _answers(case: Case, m: str) -> dict[str, Any]:
    reliance = case.quantity("flip", m) or case.quantity("drop", m)
    available = case.quantity("alone", m)
    share = case.quantity("share", m)
    return {
        "reliance": reliance and {**reliance.as_dict(), "share": share and share.as_dict()},
        "availability": available and available.as_dict(),
        "informativeness": _informativeness(case, m),
    }


def _informativeness(case: Case, m: str) -> dict[str, Any] | None:
    potential = case.quantity("potential", m)
    if potential is None:
        return None
    parts = {name: case.quantity(name, m) for name in ("floor", "probe", "headroom", "solo", "gap")}
    return {**potential.as_dict(), **{name: q and q.as_dict() for name, q in parts.items()}}
