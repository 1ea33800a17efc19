"""Runs every rule of the folder that checks for one thing and gathers what they find.

Rules that end in a verdict on balance have `applies` instead of `check` and are asked in order by
`mmtool.diagnose.verdict.judge`.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from mmtool import registry
from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import SEVERITIES, Finding
from mmtool.diagnose.tables import missing

DEFAULT_ORDER = 50
SUPPLIED_BY = {
    "epochs.acc": "at least one finished epoch",
    "steps.skipped": "at least one finished step",
}
OTHERWISE = "a run of this version of mmtool"


def rule_id(name: str) -> str:
    """Give the id of a rule file: `data_bound` is `data-bound`."""
    return name.replace("_", "-")


def load_rules() -> list[tuple[str, ModuleType]]:
    """Give every rule that checks for one thing by id, in the order in which they run."""
    loaded = [(rule_id(name), module) for name, module in registry.load_all("rules").items()]
    checks = [(name, module) for name, module in loaded if hasattr(module, "check")]
    return sorted(checks, key=lambda rule: (getattr(rule[1], "ORDER", DEFAULT_ORDER), rule[0]))


def run_rules(facts: Facts) -> tuple[Finding, ...]:
    """Give all findings, the most severe first and otherwise in the order of the rules."""
    rules = load_rules()
    skipped = {
        name: lacking
        for name, module in rules
        if (lacking := missing(facts.run.tables, tuple(getattr(module, "NEEDS", ()))))
    }
    facts = replace(facts, skipped=skipped)
    task, left_out = facts.run.task, []
    for name, module in rules:
        if name in skipped:
            # What a log has only on some machines is not missed where it is absent.
            if not getattr(module, "IS_OPTIONAL", False):
                left_out.append(_not_checked(name, skipped[name]))
            continue
        if task in getattr(module, "NOT_FOR", {}):
            left_out.append(_unsuited(name, task, module.NOT_FOR[task]))
            continue
        found = module.check(facts)
        if found is None:
            continue
        new = [found] if isinstance(found, Finding) else list(found)
        facts = replace(facts, findings=(*facts.findings, *new))
    # Last, so that no rule takes them for a statement about the run.
    facts = replace(facts, findings=(*facts.findings, *left_out))
    return tuple(sorted(facts.findings, key=lambda f: -SEVERITIES.index(f.severity)))


def _unsuited(rule: str, task: str, reason: str) -> Finding:
    return Finding(
        rule="not-judged",
        severity="info",
        what=f"{rule} is not judged for {task}: {reason}",
        evidence={"rule": rule, "task": task},
    )


def _not_checked(rule: str, lacking: tuple[str, ...]) -> Finding:
    return Finding(
        rule="not-checked",
        severity="info",
        what=f"{rule} was not checked: the log has no {', '.join(lacking)}",
        evidence={"rule": rule, "missing": list(lacking)},
        advice="needed: " + "; ".join({SUPPLIED_BY.get(c, OTHERWISE) for c in sorted(lacking)}),
    )
