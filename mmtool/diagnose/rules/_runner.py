"""Runs every rule of the folder in order and gathers what they find."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from mmtool import registry
from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import SEVERITIES, Finding
from mmtool.diagnose.tables import missing

DEFAULT_ORDER = 50


def rule_id(name: str) -> str:
    """Give the id of a rule file: `loader_bound` is `loader-bound`."""
    return name.replace("_", "-")


def load_rules() -> list[tuple[str, ModuleType]]:
    """Give every rule by id, in the order in which they run."""
    loaded = [(rule_id(n), registry.load("rules", n)) for n in registry.names("rules")]
    return sorted(loaded, key=lambda rule: (getattr(rule[1], "ORDER", DEFAULT_ORDER), rule[0]))


def run_rules(facts: Facts) -> tuple[Finding, ...]:
    """Give all findings, the most severe first and otherwise in the order of the rules."""
    rules = load_rules()
    skipped = {
        name: lacking
        for name, module in rules
        if (lacking := missing(facts.run.tables, tuple(getattr(module, "NEEDS", ()))))
    }
    facts = replace(facts, skipped=skipped)
    task, unsuited = facts.run.task, []
    for name, module in rules:
        if name in skipped:
            continue
        if task in getattr(module, "NOT_FOR", {}):
            unsuited.append(_unsuited(name, task, module.NOT_FOR[task]))
            continue
        found = module.check(facts)
        if found is None:
            continue
        new = [found] if isinstance(found, Finding) else list(found)
        facts = replace(facts, findings=(*facts.findings, *new))
    # Last, so that no rule takes them for a statement about the run.
    facts = replace(facts, findings=(*facts.findings, *unsuited))
    return tuple(sorted(facts.findings, key=lambda f: -SEVERITIES.index(f.severity)))


def _unsuited(rule: str, task: str, reason: str) -> Finding:
    return Finding(
        rule="not-judged",
        severity="info",
        what=f"{rule} is not judged for {task}: {reason}",
        evidence={"rule": rule, "task": task},
    )
