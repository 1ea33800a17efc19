"""JSON Schema of recipes, for completion and checking in editors (taplo, Even Better TOML)."""

from typing import Any

from mmtool import registry
from mmtool.config.plugins import options_model
from mmtool.config.schema import Options, Recipe
from mmtool.config.shape import UNSET
from mmtool.config.suite import SuiteConfig
from mmtool.errors import MmtoolError

Schema = dict[str, Any]

_EXTENDS: Schema = {
    "type": "string",
    "description": "A recipe of the same folder, or a bundled one, that this one changes.",
}


def recipe_json_schema() -> Schema:
    """Give the schema of a recipe file with the options of every plugin that can be listed."""
    schema = Recipe.model_json_schema()
    definitions: Schema = schema["$defs"]
    definitions.pop("Plugin", None)
    required = {"": schema.pop("required", [])}
    for name, definition in definitions.items():
        required[name] = definition.pop("required", [])
    for kind in ("methods", "fusion", "encoders"):
        definitions[kind] = _plugin_section(kind, definitions)
    schema["properties"]["method"] = _refer("methods", schema["properties"]["method"])
    model = definitions["ModelConfig"]["properties"]
    model["fusion"] = _refer("fusion", model["fusion"])
    model["encoders"]["additionalProperties"] = {"$ref": "#/$defs/encoders"}
    schema["properties"]["suite"] = _suite(dict(schema["properties"]), definitions)
    schema["properties"]["extends"] = _EXTENDS
    schema |= {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mmtool recipe",
        "if": {"not": {"required": ["extends"]}},
        "then": _completeness(schema, required),
    }
    cleaned = _without_null(schema)
    assert isinstance(cleaned, dict)
    return cleaned


def _suite(sections: Schema, definitions: Schema) -> Schema:
    """Give the schema of [suite], whose variants hold the sections of a recipe."""
    suite = SuiteConfig.model_json_schema()
    definitions |= suite.pop("$defs", {})
    suite["properties"]["variants"]["additionalProperties"] = {
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
    }
    return suite


def _plugin_section(kind: str, definitions: Schema) -> Schema:
    """Allow a bare name, one table per known plugin, a plugin file, or options alone."""
    names = registry.names(kind)
    tables: list[Schema] = []
    for name in names:
        definitions[f"{kind}.{name}"] = _plugin_table(kind, name, definitions)
        tables.append({"$ref": f"#/$defs/{kind}.{name}"})
    a_file = {"type": "string", "pattern": r"\.py$"}
    return {
        "oneOf": [
            {"enum": names, "description": f"See mmtool list {kind}."},
            a_file,
            *tables,
            {"type": "object", "properties": {"name": a_file}, "required": ["name"]},
            {
                "type": "object",
                "not": {"required": ["name"]},
                "description": "Options for the plugin that the extended recipe names.",
            },
        ]
    }


def _plugin_table(kind: str, name: str, definitions: Schema) -> Schema:
    table: Schema = {
        "type": "object",
        "title": name,
        "description": registry.summary(registry.get(kind, name)),
        "properties": {"name": {"const": name}},
        "required": ["name"],
    }
    try:
        model = options_model(kind, name)
    except MmtoolError:
        return table  # its package is not installed here: any option is let through
    if not (isinstance(model, type) and issubclass(model, Options)):
        return table
    prefix = f"{kind}.{name}."
    own = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    definitions |= {prefix + key: value for key, value in own.pop("$defs", {}).items()}
    table["properties"] |= own.get("properties", {})
    table["required"] = ["name", *own.get("required", [])]
    table["additionalProperties"] = False
    return table


def _refer(kind: str, field: Schema) -> Schema:
    kept = {key: field[key] for key in ("description",) if key in field}
    return {"$ref": f"#/$defs/{kind}", **kept}


def _completeness(schema: Schema, required: dict[str, list[str]]) -> Schema:
    """Demand the keys that only a recipe that extends nothing has to write."""
    sections = {}
    for key, field in schema["properties"].items():
        needed = required.get(str(field.get("$ref", "")).rpartition("/")[2])
        if needed:
            sections[key] = {"required": needed}
    return {"required": required[""], "properties": sections}


def _without_null(node: Any) -> Any:
    """Replace null, which TOML cannot write, by the text that clears a key."""
    if isinstance(node, list):
        return [_without_null(member) for member in node]
    if not isinstance(node, dict):
        return node
    if node == {"type": "null"}:
        return {"const": UNSET}
    kept = {k: v for k, v in node.items() if not (k == "default" and v is None)}
    return {key: _without_null(value) for key, value in kept.items()}
