"""What every rule is given: the run, the numbers computed from it and what was found so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmtool.diagnose.finding import Finding
from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import Balance
from mmtool.diagnose.metrics.steps import StepTimes
from mmtool.diagnose.rules import _thresholds as limits


@dataclass(frozen=True, slots=True)
class Facts:
    """Input of `check`; a metric the log cannot give is None."""

    run: Run
    balance: Balance | None = None
    steps: StepTimes | None = None
    system: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    """Findings of the rules that ran before this one."""
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rules that cannot run on this log, with the columns each one lacks."""

    def fired(self, *rules: str) -> bool:
        """Tell whether one of these rules found something."""
        return any(finding.rule in rules for finding in self.findings)

    @property
    def judgeable(self) -> Balance | None:
        """The balance, if there is enough data for a statement about modalities."""
        if self.balance is None or balance_gaps(self) or self.fired("no-signal"):
            return None
        return self.balance


def balance_gaps(facts: Facts) -> list[tuple[str, str]]:
    """Give what is lacking for a statement about balance, each with what would supply it."""
    balance = facts.balance
    if balance is None:
        return [("no per-modality validation rows", "let the run finish at least one epoch")]
    gaps = []
    if balance.num_epochs < limits.MIN_EPOCHS:
        gaps.append(
            (
                f"{balance.num_epochs} of at least {limits.MIN_EPOCHS} epochs logged",
                f"-s train.epochs={limits.MIN_EPOCHS} or more, or --resume an interrupted run",
            )
        )
    if balance.n < limits.MIN_VAL_SAMPLES:
        gaps.append(
            (
                f"{balance.n} of at least {limits.MIN_VAL_SAMPLES} validation samples",
                "a dataset prepared without --limit, or a split with more validation samples",
            )
        )
    top = balance.strongest
    if top is None or top.share is None:
        gaps.append(
            (
                "no flip rate for every modality (epoch_modalities.flip)",
                "a run of this version of mmtool, which logs flip after every epoch",
            )
        )
    elif top.share.half_width > limits.MAX_SHARE_HALF_WIDTH:
        gaps.append(
            (
                f"the reliance share is only known to +-{top.share.half_width:.2f}",
                "more validation samples, or more epochs if hardly any prediction depends on input",
            )
        )
    return gaps
