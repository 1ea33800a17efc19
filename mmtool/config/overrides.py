"""`-s key=value`: text from the command line, typed by the schema instead of guessed."""

import tomllib
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from mmtool.config.locate import KeyPath, parse_key
from mmtool.config.plain import Complaint, unknown_key
from mmtool.config.schema import Plugin
from mmtool.config.shape import (
    UNSET,
    OptionsOf,
    dotted,
    is_optional,
    keys_at,
    plugin_kind,
    type_at,
    without_wrappers,
)


@dataclass(frozen=True, slots=True)
class Override:
    """One `-s` argument, split."""

    written: str
    path: KeyPath
    text: str
    position: int
    """Which of the `-s` arguments it is, from zero."""

    @property
    def names_plugin(self) -> bool:
        """Whether it replaces a plugin: `method=ogm` or `method.name=ogm`."""
        return plugin_kind(self.path) is not None or (
            self.path[-1] == "name" and plugin_kind(self.path[:-1]) is not None
        )


def split_override(written: str, position: int = 0) -> Override | Complaint:
    """Split one `-s` argument into key and text, or say what is wrong with it."""
    key, equals, text = written.partition("=")
    example = "write it as -s train.lr=0.01"
    if not equals:
        return Complaint((), f"{written!r} has no '=' between key and value", example)
    try:
        path = parse_key(key.strip())
    except ValueError:
        return Complaint((), f"{key!r} is not a key", example)
    if path == ("extends",):
        return Complaint((), "'extends' cannot be set on the command line", "name that recipe")
    return Override(written, path, text.strip(), position)


def value_of(override: Override, options_of: OptionsOf) -> Any | Complaint:
    """Give the value of an override as a recipe would hold it, or what is wrong with its key.

    Text that does not fit the type is given back as text, for validation to complain about.
    """
    for depth in range(1, len(override.path) + 1):
        path = override.path[:depth]
        if type_at(path, options_of) is not None:
            continue
        holder = type_at(path[:-1], options_of)
        known = keys_at(path[:-1], options_of)
        if not known and without_wrappers(holder) is not Plugin and depth > 1:
            return Complaint(path, f"{dotted(path[:-1])} is one value and has no keys", "")
        return unknown_key(path, known)
    return typed(override.text, type_at(override.path, options_of))


def typed(text: str, annotation: Any) -> Any:
    """Turn text into a value of a type, as TOML would give it."""
    if text == UNSET and is_optional(annotation):
        return None
    kind = without_wrappers(annotation)
    origin = get_origin(kind) or kind
    if origin is Plugin:
        return _toml(text) if text.startswith("{") else {"name": _unquoted(text)}
    if origin in (tuple, list, set, frozenset):
        return _list(text, get_args(kind))
    if origin is dict or (isinstance(origin, type) and issubclass(origin, BaseModel)):
        return _toml(text)
    if origin is str:
        return _unquoted(text)
    if origin in (bool, int, float):
        return _lax(text, origin)
    if origin is Literal:
        plain = _unquoted(text)
        return next((choice for choice in get_args(kind) if str(choice) == plain), plain)
    return _first_fit(text, kind)


def _list(text: str, members: tuple[Any, ...]) -> Any:
    whole = _toml(text) if text.startswith("[") else None
    if isinstance(whole, list):
        return whole
    parts = [part.strip() for part in text.removeprefix("[").removesuffix("]").split(",")]
    if parts[-1] == "":
        parts.pop()
    if not members or (len(members) == 2 and members[1] is Ellipsis) or len(members) == 1:
        return [typed(part, members[0] if members else Any) for part in parts]
    return [
        typed(part, members[min(position, len(members) - 1)]) for position, part in enumerate(parts)
    ]


def _lax(text: str, kind: type) -> Any:
    try:
        return TypeAdapter(kind).validate_python(_unquoted(text), strict=False)
    except ValidationError:
        return text


def _first_fit(text: str, kind: Any) -> Any:
    """Give the first reading of the text that a union or a type of a plugin's own accepts."""
    candidates = [_toml(text), _unquoted(text)]
    for candidate in candidates if kind is not Any else candidates[:1]:
        try:
            TypeAdapter(kind).validate_python(candidate, strict=kind is not Any)
        except ValidationError:
            continue
        return candidate
    return candidates[-1]


def _toml(text: str) -> Any:
    """Read text as a TOML value; text that is none stays text."""
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if list(read) == ["value"] else text


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        read = _toml(text)
        return read if isinstance(read, str) else text
    return text
