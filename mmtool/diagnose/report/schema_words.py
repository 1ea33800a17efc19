"""The words of a JSON Schema that the published one is put together from."""

from __future__ import annotations

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
ESTIMATE: Schema = {"$ref": "#/$defs/estimate"}
POINTS: Schema = {
    "type": "array",
    "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
}


def object_of(properties: Schema, *, optional: tuple[str, ...] | None = None) -> Schema:
    """Give an object; every key may be absent, unless it is told which ones may."""
    required = [] if optional is None else [key for key in properties if key not in optional]
    found: Schema = {"type": "object", "properties": properties}
    return found | ({"required": required} if required else {})


def by_name(value: Schema) -> Schema:
    """Give an object whose values are all of one form."""
    return {"type": "object", "additionalProperties": value}


def list_of(items: Schema) -> Schema:
    """Give a list of one form."""
    return {"type": "array", "items": items}


def or_null(value: Schema) -> Schema:
    """Give what is this or null."""
    return {"anyOf": [value, {"type": "null"}]}


def or_empty(value: Schema) -> Schema:
    """Give what is this, null, or an object without keys."""
    return {"anyOf": [value, {"type": "null"}, {"type": "object", "maxProperties": 0}]}


def known() -> Schema:
    """Give a number, an estimate or null."""
    return {"anyOf": [NUMBER, ESTIMATE, {"type": "null"}]}
