"""There is not enough for a verdict on balance.

Names what is missing (epochs, validation samples, columns of the log, precision of the reliance
share) and the command that would supply it. No other verdict is given on numbers that cannot carry
it; what the rules would have said stands beside it as the runner-up. The precision of the share is
asked for only where the fused answer is better than a constant one: otherwise that is the finding.
"""

from __future__ import annotations

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.evidence import Evidence, Gap

CODE = "inconclusive"
ORDER = 0
SEVERITY = "info"


def applies(evidence: Evidence) -> tuple[str, ...] | None:
    """Say so when something is lacking."""
    return () if gaps(evidence) else None


def sentence(evidence: Evidence, modalities: tuple[str, ...]) -> str:
    """Name everything that is lacking."""
    del modalities
    return "balance cannot be judged: " + "; ".join(what for what, _ in gaps(evidence))


def supplies(evidence: Evidence) -> list[str]:
    """Give what would supply it."""
    return [supply for _, supply in gaps(evidence)]


def gaps(evidence: Evidence) -> list[Gap]:
    """Give what is lacking, each with what would supply it."""
    case = evidence.case
    found = list(case.lacking)
    if found and not case.num_epochs:
        # Of rows that are not there, neither their number nor their precision is worth a word.
        return found
    if evidence.get("joint") is None and not found:
        found.append(
            ("no validation score of the fused answer", "a log with epochs.acc of the split val")
        )
    if case.num_epochs < limits.MIN_EPOCHS:
        found.append(
            (
                f"{case.num_epochs} of at least {limits.MIN_EPOCHS} epochs logged",
                f"-s train.epochs={limits.MIN_EPOCHS} or more, or --resume an interrupted run",
            )
        )
    if case.n < limits.MIN_VAL_SAMPLES:
        found.append(
            (
                f"{case.n} of at least {limits.MIN_VAL_SAMPLES} validation samples",
                "a dataset prepared without --limit, or a split with more validation samples",
            )
        )
    top = evidence.dominant
    share = evidence.get("share", top) if top else None
    unsure = share is not None and share.half_width > limits.MAX_SHARE_HALF_WIDTH
    if unsure and share is not None and evidence.has_signal:
        found.append(
            (
                f"the reliance share is only known to +-{share.half_width:.2f}",
                "more validation samples; --deep, which permutes more often",
            )
        )
    return found
