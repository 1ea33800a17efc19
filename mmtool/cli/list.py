"""`mmtool list`: what exists, and the page of each thing."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from mmtool import registry
from mmtool.cli.completion import entry_names, kind_names
from mmtool.cli.method_facts import method_facts
from mmtool.cli.options import DataRootOption, command, refuse_with
from mmtool.cli.output import Output, align
from mmtool.errors import UnknownName
from mmtool.paths import data_root as find_data_root
from mmtool.text import suggestion

SCHEMA = "mmtool.list/1"
_SINGULAR = {kind.removesuffix("s"): kind for kind in registry.KINDS}
_USE = {
    "methods": 'method.name = "{}"',
    "encoders": 'model.encoders.<modality> = "{}"',
    "fusion": 'model.fusion = "{}"',
    "datasets": "mmtool prepare {}",
    "recipes": "mmtool recipe copy {}",
}


@command
def list_things(
    output: Output,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help=", ".join(registry.KINDS) + ".", autocompletion=kind_names
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One of them: print its page.", autocompletion=entry_names
        ),
    ] = None,
    data_root: DataRootOption = None,
) -> None:
    """List methods, datasets, encoders, fusion, rules, recipes.

    \b
    mmtool list                  how many of each kind
    mmtool list methods          with stage, cost and constraints
    mmtool list method ogm       the page of a method and its options
    """
    if kind is None:
        refuse_with("no kind", {"--data-root": data_root}, why="only datasets look there")
        _counts(output)
        return
    kind = _kind(kind)
    if kind != "datasets":
        refuse_with(kind, {"--data-root": data_root}, why="only datasets look there")
    root = find_data_root(data_root)
    if name is None:
        _listing(output, kind, root)
    else:
        _page(output, kind, name, root)


def _kind(word: str) -> str:
    kind = _SINGULAR.get(word, word)
    if kind not in registry.KINDS:
        raise UnknownName(
            f"there is no kind {word!r} to list",
            where="command line",
            why=f"kinds: {', '.join(registry.KINDS)}",
            fix=suggestion(word, [*registry.KINDS, *_SINGULAR], otherwise="mmtool list"),
        )
    return kind


def _counts(output: Output) -> None:
    counts = {kind: len(registry.entries(kind)) for kind in registry.KINDS}
    rows = [(kind, str(count), f"mmtool list {kind}") for kind, count in counts.items()]
    output.table(SCHEMA, {"kinds": counts}, rows)


def _prepared(root: Path, name: str) -> Path | None:
    from mmtool.store.schema import MANIFEST_NAME

    store = root / name
    return store if (store / MANIFEST_NAME).is_file() else None


def _listing(output: Output, kind: str, root: Path) -> None:
    listed = []
    rows = []
    for entry in registry.entries(kind).values():
        summary = registry.summary(entry)
        shown: dict[str, Any] = {"name": entry.name, "summary": summary}
        row = [entry.name, summary]
        if kind == "datasets":
            store = _prepared(root, entry.name)
            shown["prepared"] = store
            row.insert(1, "prepared" if store else "-")
        if kind == "methods":
            facts = method_facts(entry)
            shown |= asdict(facts)
            row[1:1] = [facts.stage, facts.cost, ", ".join(facts.constraints) or "any recipe"]
        listed.append(shown)
        rows.append(row)
    if kind == "methods":
        rows.insert(0, ["method", "stage", "adds to a step", "needs", ""])
    output.table(SCHEMA, {"kind": kind, "entries": listed}, rows)
    if not listed:
        output.info(f"there are no {kind}")


def _page(output: Output, kind: str, name: str, root: Path) -> None:
    # A rule's id is written with dashes where its file has underscores.
    entry = registry.get(kind, name.replace("-", "_") if kind == "rules" else name)
    page = registry.docstring(entry).strip()
    options = _options(output, kind, entry.name)
    data: dict[str, Any] = {"kind": kind, "name": entry.name, "page": page, "options": options}
    text = [page or f"{entry.name} has no page"]
    if options:
        rows = [("option", "type", "default", "")]
        rows += [(o["name"], o["type"], o["default"], o["help"]) for o in options]
        text += ["", *align(rows)]
    if kind == "datasets":
        store = _prepared(root, entry.name)
        data["prepared"] = store
        text += ["", f"prepared: {store or 'no'}"]
    if kind in _USE:
        text += ["", f"use: {_USE[kind].format(entry.name)}"]
    output.result(SCHEMA, data, text)


def _options(output: Output, kind: str, name: str) -> list[dict[str, str]]:
    if kind in ("recipes", "rules"):
        return []
    try:
        module = registry.load(kind, name)
    except ImportError as error:
        output.warning(f"the options of {name} are not shown: {error}")
        return []
    return options_table(module)


def options_table(module: ModuleType) -> list[dict[str, str]]:
    """Give the options that a plugin declares, as texts."""
    from mmtool.config.schema import Options

    model = getattr(module, "Options", None)
    if not (isinstance(model, type) and issubclass(model, Options)):
        return []
    properties: dict[str, Any] = model.model_json_schema().get("properties", {})
    rows = []
    for name, field in model.model_fields.items():
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        default = "required" if field.is_required() else _text(value)
        help_text = " ".join((field.description or "").split())
        rows.append(
            {
                "name": name,
                "type": _type(properties.get(name, {})),
                "default": default,
                "help": help_text,
            }
        )
    return rows


def _text(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        parts: Sequence[str] = [_type(part) for part in schema["anyOf"]]
        return " | ".join(part for part in parts if part != "unset")
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    kinds = {
        "integer": "whole number",
        "string": "text",
        "boolean": "true | false",
        "array": "list",
        "object": "table",
        "null": "unset",
    }
    kind = kinds.get(schema.get("type", ""), schema.get("type", "value"))
    return " ".join([kind, *bounds])
