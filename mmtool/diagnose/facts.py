"""What every rule is given: the run, the numbers computed from it and what was found so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmtool.diagnose.finding import Finding
from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import Balance
from mmtool.diagnose.metrics.steps import StepTimes


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
