"""The rules in their order, asked on the samples and on every resample of them.

verdict       what the first rule that applies says on the samples
confidence    share of resamples on which the whole sequence ends in the same verdict about the
              same modalities
runner-up     what most of the other resamples say; of an inconclusive record, what the rules
              would say if the probes were all a modality could reach
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import TypeAlias

from mmtool import registry
from mmtool.diagnose.verdict.evidence import Case, Evidence

Answer: TypeAlias = tuple[str, tuple[str, ...]]
"""Code and modalities."""
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict and how sure it is."""

    code: str
    modalities: tuple[str, ...]
    sentence: str
    severity: str
    confidence: float | None
    tally: Counter[Answer]
    runner_up: tuple[Answer, float | None] | None
    supplies: tuple[str, ...] = ()
    """Of an inconclusive record, what would supply what is missing."""
    also: tuple[tuple[Answer, str], ...] = ()
    """What later rules say of other modalities, with the first line of the rule's page."""


def verdict_rules() -> list[ModuleType]:
    """Give the files of the rules that end in a verdict, in the order in which they are asked."""
    return list(_verdict_rules(tuple(registry.names("rules"))))


@cache
def _verdict_rules(names: tuple[str, ...]) -> tuple[ModuleType, ...]:
    loaded = registry.load_all("rules")
    asked = [loaded[name] for name in names if hasattr(loaded[name], "applies")]
    return tuple(sorted(asked, key=lambda module: (module.ORDER, module.__name__)))


def first(
    rules: Sequence[ModuleType], evidence: Evidence
) -> tuple[ModuleType, tuple[str, ...]] | None:
    """Give the first rule that applies, with the modalities it names."""
    for module in rules:
        named = module.applies(evidence)
        if named is not None:
            return module, tuple(named)
    return None


def judge(case: Case) -> Judgement:
    """Give the verdict on a case."""
    rules = verdict_rules()
    views = case.views()
    found = first(rules, views[0])
    assert found is not None, "the last rule holds for whatever is left"
    module, named = found
    answer = (str(module.CODE), named)
    answers = [_answer(rules, view) for view in views[1:]]
    tally = Counter(answers)
    total = sum(tally.values())
    others = [pair for pair in tally.most_common() if pair[0] != answer]
    runner_up: tuple[Answer, float | None] | None = None
    if answer[0] == INCONCLUSIVE:
        runner_up = _leaning(rules, views)
    elif others:
        runner_up = others[0][0], others[0][1] / total
    supplies = getattr(module, "supplies", None)
    return Judgement(
        code=answer[0],
        modalities=named,
        sentence=str(module.sentence(views[0], named)),
        severity=str(module.SEVERITY),
        confidence=tally[answer] / total if total else None,
        tally=tally,
        runner_up=runner_up,
        supplies=tuple(supplies(views[0])) if supplies else (),
        also=_also(rules, views[0], module, named),
    )


def _answer(rules: Sequence[ModuleType], evidence: Evidence) -> Answer:
    found = first(rules, evidence)
    return ("", ()) if found is None else (str(found[0].CODE), found[1])


def _leaning(
    rules: Sequence[ModuleType], views: Sequence[Evidence]
) -> tuple[Answer, float | None] | None:
    """Give what would be said with the probes taken for all that a modality could reach."""
    others = [module for module in rules if module.CODE != INCONCLUSIVE]
    if views[0].dominant is None or views[0].get("joint") is None:
        return None
    tally = Counter(_answer(others, replace(view, takes_probes=True)) for view in views)
    # Sure or not, it stands on an assumption; no share of resamples says how sure that is.
    return tally.most_common(1)[0][0], None


def _also(
    rules: Sequence[ModuleType], evidence: Evidence, chosen: ModuleType, named: tuple[str, ...]
) -> tuple[tuple[Answer, str], ...]:
    """Give what later rules say of modalities that the verdict does not name."""
    if chosen.CODE in (INCONCLUSIVE, "one-modality") or not named:
        return ()
    found: list[tuple[Answer, str]] = []
    told = set(named)
    for module in rules[rules.index(chosen) + 1 :]:
        rest = tuple(m for m in module.applies(evidence) or () if m not in told)
        if rest:
            page = str(module.__doc__ or "").partition("\n")[0]
            found.append(((str(module.CODE), rest), page))
            told |= set(rest)
    return tuple(found)
