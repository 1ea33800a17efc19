"""Which keys a recipe may hold and what type each has: the schema, walked by key path."""

import re
from collections.abc import Callable, Iterator
from inspect import isclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from mmtool.config.locate import KeyPath
from mmtool.config.schema import Plugin, Recipe

UNSET = "unset"
"""How None is written, in a recipe and after `-s key=`; TOML itself has no null."""

Tree = dict[str, Any]
OptionsOf = Callable[[KeyPath], type[BaseModel] | None]
"""Gives the `Options` of the plugin at a path, or None when it is not known."""


def plugin_kind(path: KeyPath) -> str | None:
    """Give the registry kind of the plugin section at a path, or None for any other key."""
    if path == ("method",):
        return "methods"
    if path == ("model", "fusion"):
        return "fusion"
    if len(path) == 3 and path[:2] == ("model", "encoders"):
        return "encoders"
    return None


def plugin_sections(tree: Tree) -> Iterator[tuple[KeyPath, str, Tree]]:
    """Give the path, registry kind and table of every plugin section that a tree holds."""
    candidates: list[KeyPath] = [("method",), ("model", "fusion")]
    encoders = value_at(tree, ("model", "encoders"))
    if isinstance(encoders, dict):
        candidates += [("model", "encoders", modality) for modality in encoders]
    for path in candidates:
        section = value_at(tree, path)
        kind = plugin_kind(path)
        if kind is not None and isinstance(section, dict):
            yield path, kind, section


def name_plugins(tree: Tree) -> None:
    """Write `fusion = "concat"` as `fusion = {name = "concat"}`, in place, for every plugin."""
    model = tree.get("model")
    encoders = model.get("encoders") if isinstance(model, dict) else None
    for holder, keys in (
        (tree, ["method"]),
        (model, ["fusion"]),
        (encoders, list(encoders) if isinstance(encoders, dict) else []),
    ):
        for key in keys:
            if isinstance(holder, dict) and isinstance(holder.get(key), str):
                holder[key] = {"name": holder[key]}


def value_at(tree: Tree, path: KeyPath) -> Any:
    """Give the value at a path, or None when there is none."""
    node: Any = tree
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return None
        node = node[key]
    return node


def leaves(tree: Tree, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Give every value that is not a table; an empty table counts as a value."""
    for key, value in tree.items():
        path = (*prefix, key)
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def dotted(path: KeyPath) -> str:
    """Write a path the way TOML does, with quotes where a part needs them."""
    return ".".join(quoted_key(part) for part in path)


def quoted_key(part: str) -> str:
    """Give one part of a key, quoted unless it is a bare TOML key."""
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else quoted(part)


def quoted(text: str) -> str:
    """Give text as a basic TOML string on one line."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    written = [escapes.get(c, c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in text]
    return f'"{"".join(written)}"'


def without_wrappers(annotation: Any) -> Any:
    """Strip `Annotated`, and `| None` when one type is left."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if is_optional(annotation):
        others = [kind for kind in get_args(annotation) if kind is not NoneType]
        if len(others) == 1:
            return without_wrappers(others[0])
    return annotation


def is_optional(annotation: Any) -> bool:
    """Say whether a type admits None, which a recipe writes as `unset`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)


def no_options(path: KeyPath) -> None:
    """Know no plugin: the `OptionsOf` for a model that holds none."""
    del path


def type_at(path: KeyPath, options_of: OptionsOf, root: type[BaseModel] = Recipe) -> Any | None:
    """Give the type declared for a key; None when the schema does not have that key."""
    node: Any = root
    for depth, key in enumerate(path):
        holder = without_wrappers(node)
        if holder is Plugin and key == "name":
            node = str
            continue
        if holder is Plugin:
            holder = options_of(path[:depth])
            if holder is None:
                return Any
        if isclass(holder) and issubclass(holder, BaseModel):
            field = holder.model_fields.get(key)
            if field is None:
                return None
            node = field.annotation
        elif get_origin(holder) is dict:
            node = get_args(holder)[1]
        else:
            return Any if holder is Any else None
    return node


def keys_at(path: KeyPath, options_of: OptionsOf, root: type[BaseModel] = Recipe) -> list[str]:
    """Give the keys that the table at a path may hold; empty when any key may stand there."""
    holder = without_wrappers(type_at(path, options_of, root))
    if holder is Plugin:
        options = options_of(path)
        return ["name", *(options.model_fields if options else ())]
    if isclass(holder) and issubclass(holder, BaseModel):
        return [*holder.model_fields, *(() if path or root is not Recipe else ("extends", "suite"))]
    return []


def sections_with(key: str) -> list[str]:
    """Give the dotted keys of the sections of a recipe that hold a key of this name."""
    found = []
    for section, field in Recipe.model_fields.items():
        model = without_wrappers(field.annotation)
        if isclass(model) and model is not Plugin and issubclass(model, BaseModel):
            found += [f"{section}.{key}"] if key in model.model_fields else []
    return found
