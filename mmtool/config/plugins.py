"""The options of a plugin, checked against the `Options` model of that plugin's own module."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmtool import registry
from mmtool.config.plain import Complaint, complaints
from mmtool.config.schema import Options, Plugin
from mmtool.config.shape import (
    UNSET,
    OptionsOf,
    Tree,
    is_optional,
    keys_at,
    no_options,
    plugin_sections,
)
from mmtool.errors import EnvironmentLacks, MmtoolError, Problem, RecipeError
from mmtool.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plugin cannot be used."""

    what: str
    fix: str = ""


def plugin_options(kind: str, plugin: Plugin, relative_to: Path | None = None) -> Options:
    """Give the checked options of a plugin; `relative_to` is the folder of a `./file.py` name."""
    model = options_model(kind, plugin.name, relative_to)
    if isinstance(model, Refusal):
        raise RecipeError(model.what, problems=[Problem(("name",), model.what, model.fix)])
    checked = check_options(model, plugin.options)
    if isinstance(checked, Options):
        return checked
    problems = [Problem(c.path, c.what, c.fix) for c in checked]
    listed = "\n".join(f"error: {'.'.join(p.path)}: {p.what}" for p in problems)
    raise RecipeError(
        f"the options of {plugin.name!r} cannot be used", problems=problems, rendered=listed
    )


def options_model(kind: str, name: str, relative_to: Path | None = None) -> type[Options] | Refusal:
    """Import a plugin and give its `Options`; a plugin without one takes no options."""
    try:
        module = registry.load(kind, name, relative_to=relative_to)
    except EnvironmentLacks:
        raise
    except MmtoolError as error:
        return _unknown(kind, name, error)
    except Exception as error:  # noqa: BLE001  importing a plugin runs arbitrary code
        return Refusal(
            f"the plugin {name!r} cannot be imported: {type(error).__name__}: {error}",
            f"python {name}" if name.endswith(".py") else "",
        )
    found = getattr(module, "Options", Options)
    if isinstance(found, type) and issubclass(found, Options):
        return found
    return Refusal(
        f"`Options` of the plugin {name!r} is not derived from mmtool.config.schema.Options",
        "class Options(mmtool.config.schema.Options): ...",
    )


def check_options(model: type[Options], written: Tree) -> Options | list[Complaint]:
    """Validate options as written; None and `"unset"` both clear an optional key."""
    cleared = {
        key: None
        if value == UNSET
        and key in model.model_fields
        and is_optional(model.model_fields[key].annotation)
        else value
        for key, value in written.items()
    }
    try:
        # Through JSON, where a list may fill a tuple: TOML has no tuples and `Options` is strict.
        return model.model_validate_json(json.dumps(cleared, default=str))
    except ValidationError as error:
        return complaints(error, cleared, lambda path: keys_at(path, no_options, model))


def _unknown(kind: str, name: str, error: MmtoolError) -> Refusal:
    if name.endswith(".py"):
        return Refusal(f"there is no plugin file {name}", "check the path")
    known = registry.names(kind)
    near = did_you_mean(name, known)
    listed = f"known {kind}: {', '.join(known)}" if known else f"mmtool list {kind}"
    return Refusal(error.what, f"did you mean {near!r}?" if near else listed)


class Catalogue:
    """Plugins looked up while one recipe is read, each imported once."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._models: dict[tuple[str, str], type[Options] | Refusal] = {}

    def look_up(self, kind: str, name: str) -> type[Options] | Refusal | None:
        """Give the `Options` of a plugin or why there is none; None where plugins go unchecked."""
        if not self._enabled:
            return None
        if (kind, name) not in self._models:
            self._models[kind, name] = options_model(kind, name)
        return self._models[kind, name]

    def options_of(self, tree: Tree) -> OptionsOf:
        """Give a function from the path of a plugin section in a tree to its `Options`."""
        named = {path: (kind, table.get("name")) for path, kind, table in plugin_sections(tree)}

        def options(path: tuple[str, ...]) -> type[Options] | None:
            kind, name = named.get(path, ("", None))
            found = self.look_up(kind, name) if isinstance(name, str) else None
            return found if isinstance(found, type) else None

        return options


def absolute_files(tree: Tree, folder: Path) -> None:
    """Make every `./file.py` plugin name of a tree absolute, in place."""
    for _, _, table in plugin_sections(tree):
        if isinstance(table.get("name"), str):
            table["name"] = absolute_file(table["name"], folder)


def absolute_file(name: str, folder: Path) -> str:
    """Give the absolute path of a plugin file; other names stay as they are."""
    return (folder / name).resolve().as_posix() if name.endswith(".py") else name


def as_written(options: Options) -> dict[str, Any]:
    """Give every option as plain TOML-like values; what is cleared stays as None."""
    return options.model_dump(mode="json")
