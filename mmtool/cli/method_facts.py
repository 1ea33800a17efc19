"""What `mmtool list methods` says of a method beside its first line, read without importing it."""

import ast
from dataclasses import dataclass
from typing import Any

from mmtool.registry import Entry, source


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """Where a method acts, what it adds to a step, and what it cannot do without."""

    stage: str
    cost: str
    constraints: tuple[str, ...]


def method_facts(entry: Entry) -> MethodFacts:
    """Read the constants STAGE and COST and the class's declared needs."""
    tree = ast.parse(source(entry))
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    needs: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Needs":
            needs = {k.arg: _literal(k.value) for k in node.keywords if k.arg}
            break
    return MethodFacts(
        str(constants.get("STAGE", "-")),
        str(constants.get("COST", "-")),
        tuple(_constraints(needs)),
    )


def _literal(node: ast.expr) -> Any:
    """Give the value of a literal; a `frozenset({...})` counts as one, anything else is None."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "frozenset" and node.args:
        return _literal(node.args[0])
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


_NAMED = {
    "held_out": "validation split",
    "teachers": "teachers",
    "branches": "branched training",
    "second_order": "second-order gradients",
    "sample_index": "sample index",
}


def _constraints(needs: dict[str, Any]) -> list[str]:
    found = []
    fewest, most = needs.get("min_modalities") or 1, needs.get("max_modalities")
    if most is not None:
        found.append(f"M = {most}" if most == fewest else f"{fewest} <= M <= {most}")
    elif fewest > 1:
        found.append(f"M >= {fewest}")
    if needs.get("fusions"):
        found.append("fusion " + " or ".join(sorted(needs["fusions"])))
    if needs.get("tasks"):
        found.append(" or ".join(sorted(needs["tasks"])))
    if needs.get("unimodal") not in (None, "none", "any"):
        found.append(f"unimodal logits by {needs['unimodal']}")
    return found + [words for name, words in _NAMED.items() if needs.get(name)]
