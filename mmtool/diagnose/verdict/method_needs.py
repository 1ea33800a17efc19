"""What a balancing method cannot do without, read from its file without importing it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mmtool import registry

EXCHANGING_FUSION = "mmtm"
"""Its encoders hear each other, so that no modality can be left out of the fusion afterwards."""


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """What of a recipe decides which methods it can take."""

    fusion: str
    num_modalities: int
    task: str
    optimizer: str = "adamw"
    method: str = "none"
    unimodal: str = "auto"


@dataclass(frozen=True, slots=True)
class MethodNeeds:
    """The part of a method's declared needs that a recipe can fail to meet."""

    min_modalities: int = 1
    max_modalities: int | None = None
    fusions: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    unimodal: str = "none"
    subsets: str = "none"
    teachers: bool = False
    scales_gradients: bool = False
    epoch_statistics: frozenset[str] = field(default_factory=frozenset)


def lacks(method: str, facts: RecipeFacts, fusion: str | None = None) -> str | None:
    """Say why a recipe, with this fusion instead of its own, cannot take a method; None if it can.

    A method that is not there at all cannot be taken either.
    """
    needs = method_needs(method)
    if needs is None:
        return f"there is no method {method}"
    fusion = fusion or facts.fusion
    checks: Sequence[tuple[bool, str]] = (
        (facts.num_modalities < needs.min_modalities, f"at least {needs.min_modalities}"),
        (
            needs.max_modalities is not None and facts.num_modalities > needs.max_modalities,
            f"at most {needs.max_modalities} modalities",
        ),
        (bool(needs.fusions) and fusion not in needs.fusions, "another fusion"),
        (bool(needs.tasks) and facts.task not in needs.tasks, "another task"),
        (
            "class_means" in needs.epoch_statistics and facts.task == "regression",
            "a task with classes",
        ),
        (needs.subsets != "none" and fusion == EXCHANGING_FUSION, "encoders that stand alone"),
        (
            needs.unimodal not in ("none", "any")
            and facts.unimodal not in ("auto", needs.unimodal),
            f"model.unimodal = {needs.unimodal}",
        ),
    )
    return next((f"it needs {what}" for is_missing, what in checks if is_missing), None)


@cache
def method_needs(name: str) -> MethodNeeds | None:
    """Read what a method declares; None when there is no such method."""
    found = registry.entries("methods").get(name)
    if found is None:
        return None
    for node in ast.walk(ast.parse(registry.source(found))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Needs":
            known = {k.arg: _literal(k.value) for k in node.keywords if k.arg in _KEYS}
            return MethodNeeds(**{key: value for key, value in known.items() if value is not None})
    return MethodNeeds()


_KEYS = frozenset(MethodNeeds.__dataclass_fields__)


def _literal(node: ast.expr) -> Any:
    """Give the value of a literal, `frozenset({...})` included; of anything else None."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "frozenset" and node.args:
        return frozenset(_literal(node.args[0]) or ())
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
