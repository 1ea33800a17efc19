"""Validation errors in plain words."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mmtool.config.locate import KeyPath
from mmtool.config.shape import dotted, quoted, sections_with
from mmtool.text import did_you_mean

KeysOf = Callable[[KeyPath], Sequence[str]]

_EXPECTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "small", "at least {}"),
    "greater_than": ("gt", "small", "greater than {}"),
    "less_than_equal": ("le", "large", "at most {}"),
    "less_than": ("lt", "large", "less than {}"),
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong, in words; `is_missing` marks a key that is not there to be pointed at."""

    path: KeyPath
    what: str
    fix: str = ""
    is_missing: bool = False
    about_key: bool = False
    """The key itself is wrong, rather than its value."""


def complaints(error: ValidationError, written: Any, keys_of: KeysOf) -> list[Complaint]:
    """Say everything a validation found; `keys_of` gives the keys a table may hold."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        path = _real_path(detail, written)
        by_path.setdefault(path, []).append(detail)
    return [_complaint(path, details, keys_of) for path, details in by_path.items()]


def unknown_key(path: KeyPath, known: Sequence[str]) -> Complaint:
    """Say that a table does not have a key, and which it has."""
    near = did_you_mean(path[-1], known)
    elsewhere = sections_with(path[-1]) if len(path) <= 2 else []
    if elsewhere:
        fix = f"did you mean {' or '.join(elsewhere)}?"
    elif near:
        fix = f"did you mean {near!r}?"
    else:
        fix = f"known keys: {', '.join(known)}" if known else "remove it: this takes no keys"
    return Complaint(path, f"unknown key {path[-1]!r}", fix, about_key=True)


def kind_of(value: object) -> str:
    """Name the kind of a TOML value in plain words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {value}"
    names: dict[type, str] = {str: "text", list: "a list", dict: "a table"}
    if isinstance(value, (datetime.date, datetime.time)):
        return "a date"
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def _real_path(detail: ErrorDetails, written: Any) -> KeyPath:
    """Cut what pydantic appends to a location to tell the members of a union apart."""
    path: list[str] = []
    node = written
    for part in detail["loc"]:
        if isinstance(node, dict) and part not in node:
            return (*path, str(part)) if detail["type"] == "missing" else tuple(path)
        try:
            node = node[part]
        except (TypeError, IndexError):
            break
        path.append(str(part))
    return tuple(path)


def _complaint(path: KeyPath, details: list[ErrorDetails], keys_of: KeysOf) -> Complaint:
    detail = details[0]
    kind = detail["type"]
    if kind == "extra_forbidden":
        return unknown_key(path, keys_of(path[:-1]))
    if kind == "missing" and not isinstance(detail["loc"][-1], int):
        return _missing(path)
    expected = list(dict.fromkeys(_EXPECTED[d["type"]] for d in details if d["type"] in _EXPECTED))
    if expected:
        value = detail["input"]
        return Complaint(
            path,
            f"expected {' or '.join(expected)}, got {kind_of(value)}",
            _way_out(expected[0], value),
        )
    return Complaint(path, *_about_value(detail))


def _about_value(detail: ErrorDetails) -> tuple[str, str]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "literal_error":
        choices = [part.strip("'") for part in str(context["expected"]).split(", ")]
        choices = [choice.strip("'") for part in choices for choice in part.split("' or '")]
        shown = quoted(value) if isinstance(value, str) else str(value)
        near = did_you_mean(value, choices) if isinstance(value, str) else None
        listed = f"choose one of {', '.join(quoted(choice) for choice in choices)}"
        return f"{shown} is not a choice here", (
            f"did you mean {quoted(near)}? ({listed})" if near else listed
        )
    if kind in _BOUNDS:
        key, side, words = _BOUNDS[kind]
        bound = words.format(_short(context[key]))
        return f"{value} is too {side}: must be {bound}", ""
    if kind in ("too_short", "too_long") or kind == "missing":
        wanted = context.get("min_length", context.get("max_length"))
        words = "too short" if kind != "too_long" else "too long"
        return f"the list is {words}", f"give {wanted} values" if wanted is not None else ""
    if kind == "value_error":
        return str(context["error"]), ""
    message = detail["msg"].replace("Input should be", "expected")
    return message[:1].lower() + message[1:], ""


def _short(bound: Any) -> str:
    return str(int(bound)) if isinstance(bound, float) and bound.is_integer() else str(bound)


def _missing(path: KeyPath) -> Complaint:
    key = dotted(path)
    if path == ("model", "encoders"):
        what, fix = (
            "missing table [model.encoders]",
            "add one encoder per modality (mmtool list encoders)",
        )
    elif len(path) == 1 and path[0] in ("data", "model", "train"):
        what, fix = f"missing table [{key}]", f"add [{key}]"
    elif len(path) == 1:
        what, fix = f"missing key {path[-1]!r}", f"add {path[-1]} = ..."
    else:
        what = f"missing key {path[-1]!r} in [{dotted(path[:-1])}]"
        fix = f"add {path[-1]} = ... below [{dotted(path[:-1])}]"
    return Complaint(path, what, fix, is_missing=True)


def _way_out(expected: str, value: object) -> str:
    """Give the edit that turns a value of the wrong type into what was meant."""
    if isinstance(value, str):
        return _from_text(expected, value.strip())
    if expected == "text" and isinstance(value, (int, float)):
        return f"put quotes around it: {quoted(str(value).lower())}"
    if expected == "a whole number" and isinstance(value, float) and value.is_integer():
        return f"write it without the point: {int(value)}"
    if expected == "true or false" and value in (0, 1):
        return f"write {str(bool(value)).lower()}"
    if expected == "a list" and not isinstance(value, dict):
        return f"write it as a list: [{value}]"
    return ""


def _from_text(expected: str, text: str) -> str:
    if expected == "true or false" and text.lower() in ("true", "false"):
        return f"remove the quotes: {text.lower()}"
    if expected == "a list":
        return f"write it as a list: [{', '.join(quoted(p.strip()) for p in text.split(','))}]"
    if expected in ("a number", "a whole number"):
        whole = expected == "a whole number"
        if _is_number(text, whole=whole):
            return f"remove the quotes: {text}"
        if _is_number(text.replace(",", "."), whole=whole):
            return f"did you mean {text.replace(',', '.')}?"
    return ""


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        int(text) if whole else float(text)
    except ValueError:
        return False
    return True
