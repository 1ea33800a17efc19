"""From a verdict and the facts of the recipe to lines that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.rules._advice import has_recipe, recipe_argument, run_argument
from mmtool.diagnose.rules._thresholds import STAKE
from mmtool.diagnose.verdict.estimates import Quantity
from mmtool.diagnose.verdict.judge import Judgement
from mmtool.diagnose.verdict.method_needs import RecipeFacts, lacks
from mmtool.diagnose.verdict.remedies import (
    ADDITIVE,
    INTERACTING,
    REMEDIES,
    ROBUSTNESS,
    Remedy,
)
from mmtool.diagnose.verdict.wording import joined

MOST = 3
SCALES = "ogm"
"""The advised method that multiplies gradients by a factor, which Adam cancels."""
BALANCED = ("balanced", "balanced-redundant", "balanced-complementary", "class-specific")
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to try, ready to paste."""

    text: str
    recipe_patch: str = ""
    command: str = ""
    preconditions: tuple[str, ...] = ()
    method: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "text": self.text,
            "recipe_patch": self.recipe_patch,
            "command": self.command,
            "preconditions": list(self.preconditions),
            "method": self.method,
        }

    def in_words(self) -> str:
        """Give it as lines for a terminal."""
        given = f" (if: {'; '.join(self.preconditions)})" if self.preconditions else ""
        return f"{self.text}{given}" + (f"\n{self.command}" if self.command else "")


def facts_of(run: Run) -> RecipeFacts:
    """Give what of a run's recipe decides which methods it can take."""
    return RecipeFacts(
        fusion=run.fusion,
        num_modalities=len(run.modalities),
        task=run.task,
        optimizer=str(run.option("train", "optimizer") or "adamw"),
        method=run.method,
        unimodal=str(run.option("model", "unimodal") or "auto"),
    )


def advise(
    run: Run, found: Judgement, robustness: Mapping[str, Quantity] | None = None
) -> list[Advice]:
    """Give what to try next, the first thing first."""
    advice = _what_is_missing(run, found) if found.code == "inconclusive" else _tried(run, found)
    exposed = _exposed(robustness or {})
    if found.code in BALANCED and exposed:
        facts = facts_of(run)
        last = [_written(run, one, exposed, facts) for one in remedies(ROBUSTNESS, facts)]
        advice += [one for one in last if one is not None]
    if has_recipe(run):
        return advice
    # Of a run from another loop the words hold, but there is no recipe that a line could change.
    return [replace(one, recipe_patch="", command="") for one in advice]


def _tried(run: Run, found: Judgement) -> list[Advice]:
    facts = facts_of(run)
    tried = [_written(run, one, found.modalities, facts) for one in remedies(found.code, facts)]
    advice = [one for one in tried if one is not None][:MOST]
    if found.code == "no-signal":
        advice += _other_fusions(run, facts)
    return advice


def remedies(code: str, facts: RecipeFacts) -> list[Remedy]:
    """Give the rows for a verdict that a recipe can take."""
    return [one for one in REMEDIES if code in one.codes and _suits(one, facts)]


def _suits(one: Remedy, facts: RecipeFacts) -> bool:
    if facts.num_modalities < one.min_modalities:
        return False
    if one.has_classes and facts.task == "regression":
        return False
    if one.fusions and facts.fusion and facts.fusion not in one.fusions:
        return False
    if one.method in (None, "none"):
        return True
    return one.method != facts.method and lacks(one.method, facts, one.new_fusion) is None


def _written(run: Run, one: Remedy, named: Sequence[str], facts: RecipeFacts) -> Advice | None:
    if one.needs_named and len(named) != 1:
        return None
    others = [m for m in run.modalities if m not in named]
    words = {"m": joined(named) or "the modality", "others": ",".join(others)}
    settings: list[tuple[str, str]] = []
    if one.new_fusion and one.new_fusion != facts.fusion:
        settings.append(("model.fusion", one.new_fusion))
    if one.method not in (None, facts.method):
        settings.append(("method", one.method))
        settings += _scaling(one.method, facts)
    if one.settings and (others or "others" not in str(one.settings)):
        settings += [(key, value.format(**words)) for key, value in one.settings]
    preconditions = [condition.format(**words) for condition in one.preconditions]
    if one.method == SCALES and not facts.optimizer.startswith("adam"):
        preconditions.append(f"{facts.optimizer}, which leaves a gradient scale in effect")
    return Advice(
        text=one.text.format(**words),
        recipe_patch=_patch(run, settings),
        command=_command(run, settings),
        preconditions=tuple(preconditions),
        method=one.method,
    )


def _scaling(method: str, facts: RecipeFacts) -> list[tuple[str, str]]:
    """Adam cancels a factor on the gradient; what can scale the update instead is told to."""
    if method == SCALES and facts.optimizer.startswith("adam"):
        return [("method.apply", "update")]
    return []


def _exposed(robustness: Mapping[str, Quantity]) -> tuple[str, ...]:
    """Give the modality of which most is lost when it is the only one left, if that is much."""
    known = [(m, q) for m, q in robustness.items() if q.estimate.low > STAKE]
    return (max(known, key=lambda pair: pair[1].value)[0],) if known else ()


def _other_fusions(run: Run, facts: RecipeFacts) -> list[Advice]:
    if facts.fusion not in ADDITIVE or facts.num_modalities < 2:
        return []
    return [
        Advice(
            text=f"{facts.fusion} adds up what each modality says and cannot express an "
            f"interaction: try {fusion}",
            recipe_patch=_patch(run, settings),
            command=_command(run, settings),
            preconditions=("the answer is in how the modalities interact",),
        )
        for fusion in INTERACTING
        for settings in ([("model.fusion", fusion), ("method", "none")],)
    ]


def _what_is_missing(run: Run, found: Judgement) -> list[Advice]:
    deep = Advice(
        text="look at the checkpoint again: what every subset of modalities answers, and what each "
        "encoder could still learn",
        command=f"mmtool diagnose {run_argument(run)} --deep",
    )
    advice = [Advice(text=f"needed: {supply}") for supply in found.supplies]
    if not found.supplies:
        advice += [deep] if has_recipe(run) else []
        advice += [_solo(run, m) for m in found.modalities[:1] if len(found.modalities) < 3]
    return advice


def _solo(run: Run, m: str) -> Advice:
    only = shlex.quote(f"data.modalities={m}")
    if not has_recipe(run):
        return Advice(text=f"train {m} alone, log that too, and diagnose both runs together")
    return Advice(
        text=f"or train {m} alone, which says what it could reach",
        command=f"mmtool train {recipe_argument(run)} -s {only} -s method=none\n"
        f"mmtool diagnose {run_argument(run)} runs/latest",
    )


def _command(run: Run, settings: Sequence[tuple[str, str]]) -> str:
    if not settings:
        return ""
    given = " ".join(f"-s {shlex.quote(f'{key}={value}')}" for key, value in settings)
    return f"mmtool train {recipe_argument(run)} {given}"


def _patch(run: Run, settings: Sequence[tuple[str, str]]) -> str:
    """Give the same settings as a recipe that extends the run's own."""
    if not settings:
        return ""
    lines = [f"# in {run_argument(run)}", 'extends = "resolved.toml"']
    sections: dict[str, list[str]] = {}
    for key, value in settings:
        section, _, name = key.partition(".")
        sections.setdefault(section, []).append(f"{name or 'name'} = {_toml(key, value)}")
    for section, entries in sections.items():
        lines += ["", f"[{section}]", *entries]
    return "\n".join(lines) + "\n"


def _toml(key: str, value: str) -> str:
    if key == "data.modalities":
        return "[" + ", ".join(f'"{m}"' for m in value.split(",")) + "]"
    is_bare = value[:1] in "{[" or value.replace(".", "").replace("e-", "").isdigit()
    return value if is_bare else f'"{value}"'
