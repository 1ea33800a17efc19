"""A recipe as text again: resolved TOML that loads to an equal recipe, and a flat mapping."""

import datetime
from typing import Any

from mmtool.config.checks import INERT
from mmtool.config.schema import Recipe
from mmtool.config.shape import UNSET, Tree, dotted, leaves, plugin_kind, quoted, quoted_key


def to_toml(recipe: Recipe) -> str:
    """Give a whole recipe as TOML, defaults included; keys without effect are left out."""
    lines: list[str] = []
    _table(_effective(recipe), (), lines)
    return "\n".join(lines).strip() + "\n"


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Give every value by dotted key; None for what is unset."""
    return {dotted(path): value for path, value in leaves(recipe.model_dump())}


def toml_value(value: object) -> str:
    """Write one value as TOML on one line; None as the text `"unset"`."""
    if value is None:
        return quoted(UNSET)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, dict):
        inside = ", ".join(f"{quoted_key(key)} = {toml_value(v)}" for key, v in value.items())
        return f"{{{inside}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(member) for member in value)}]"
    return quoted(str(value))


def _effective(recipe: Recipe) -> Tree:
    tree = recipe.model_dump()
    for key, switch, needed in INERT:
        if tree["train"][switch] != needed:
            del tree["train"][key]
    return tree


def _table(tree: Tree, path: tuple[str, ...], lines: list[str]) -> None:
    values = {key: value for key, value in tree.items() if not (isinstance(value, dict) and value)}
    tables = {key: value for key, value in tree.items() if isinstance(value, dict) and value}
    if path and (values or not tables):
        lines += ["", f"[{dotted(path)}]"]
    for key, value in values.items():
        # A plugin's default need not be None, so only there an unset option has to be said.
        if value is not None or _is_in_plugin(path):
            lines.append(f"{quoted_key(key)} = {toml_value(value)}")
    for key, table in tables.items():
        _table(table, (*path, key), lines)


def _is_in_plugin(path: tuple[str, ...]) -> bool:
    return any(plugin_kind(path[:length]) for length in range(1, len(path) + 1))
