"""A recipe by name or path, with overrides, as a checked `Recipe`; or everything wrong with it."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from mmtool import registry
from mmtool.config.checks import drop_overruled, semantic_problems
from mmtool.config.dump import flatten, toml_value
from mmtool.config.layers import ABOUT_FILES, Layers, Source, command_line, parse, read_source
from mmtool.config.locate import KeyPath, Span, parse_key
from mmtool.config.overrides import Override, split_override, value_of
from mmtool.config.plain import Complaint, complaints
from mmtool.config.plugins import Catalogue, Refusal, absolute_files, as_written, check_options
from mmtool.config.render import Spot, Trouble, in_order, render, shown
from mmtool.config.schema import Options, Recipe
from mmtool.config.shape import (
    UNSET,
    is_optional,
    keys_at,
    leaves,
    name_plugins,
    plugin_sections,
    type_at,
    value_at,
)
from mmtool.config.suite import SuiteConfig, read_suite_table, variant_source
from mmtool.errors import Problem, RecipeError, RequestError, UnknownName
from mmtool.text import did_you_mean, plural

_DOES = {"extends": "extend another one", "suite": "be a suite"}
_INSTEAD = {
    "extends": "extend the other one directly, or write its keys out here",
    "suite": "extend the recipe that the suite extends",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked recipe with every plugin option filled in, and where each value came from."""

    recipe: Recipe
    path: Path
    """The file that was read, also for a bundled recipe."""
    name: str
    text: str
    """The file as it stands, before extending and overriding."""
    origins: Mapping[str, str]
    """Dotted key of every value -> `recipes/x.toml:14`, `-s` or `default`."""
    notes: tuple[str, ...]
    """What was dropped because a higher layer made another choice."""
    suite: SuiteConfig | None = None
    """What a suite of recipes holds, where the file is one."""


def load_recipe(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    check_plugins: bool = True,
    variant: str | None = None,
) -> Loaded:
    """Read a recipe; a path first, then a bundled name. All problems are raised as one error.

    Of a suite this is the recipe that its variants change, or one of the variants.
    """
    path, notes = find_recipe(name_or_path)
    source = _read(path, rank=0)
    sources = [source, *_extended(source)]
    suite, complaints_about_suite = read_suite_table(source)
    if variant is not None and suite is not None:
        sources.insert(0, variant_source(source, suite, variant))
    layers = Layers(sources)
    layers.notes[:0] = notes
    catalogue = Catalogue(enabled=check_plugins)
    troubles = [_trouble_in(source, complaint) for complaint in complaints_about_suite]
    troubles += _override(layers, overrides, catalogue)
    drop_overruled(layers)
    _clear_unset(layers, catalogue)
    troubles += [_trouble(layers, complaint) for complaint in _check(layers, catalogue)]
    if troubles:
        raise _error(source, troubles)
    recipe = Recipe.model_validate(layers.tree)
    origins = {key: layers.origin_of(parse_key(key)) for key in flatten(recipe)}
    found = (recipe, path, path.stem, source.text, MappingProxyType(origins), tuple(layers.notes))
    return Loaded(*found, suite)


def origin_rows(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Give key, value as TOML text and origin of every value of a recipe."""
    return [
        (key, UNSET if value is None else toml_value(value), loaded.origins[key])
        for key, value in flatten(loaded.recipe).items()
    ]


def is_suite(name_or_path: str) -> bool:
    """Whether a recipe file has a [suite]; one that cannot be read has none."""
    try:
        return "suite" in _read(find_recipe(name_or_path)[0], rank=0).tree
    except RequestError:
        return False


def find_recipe(name_or_path: str) -> tuple[Path, list[str]]:
    """Give the file behind a recipe argument, and a note when it is not the file named."""
    given = Path(name_or_path)
    if given.is_file():
        return given, []
    known = registry.entries("recipes")
    # `recipes/x.toml` is how a bundled recipe is written everywhere, also where only the wheel is.
    stem = given.as_posix().removesuffix(".toml").removeprefix("recipes/")
    if stem in known and known[stem].path is not None:
        notes = [] if name_or_path == stem else [f"no file {given}; using the bundled {stem!r}"]
        return Path(known[stem].target), notes
    if given.is_dir():
        raise RequestError(f"{name_or_path} is a folder", fix="name a recipe file in it")
    beside = {file.stem: file.as_posix() for file in sorted(given.parent.glob("*.toml"))}
    near = did_you_mean(given.name.removesuffix(".toml"), [*beside, *known])
    raise UnknownName(
        f"there is no recipe {name_or_path!r}",
        why="no such file, and no bundled one has that name (mmtool list recipes)",
        fix=f"did you mean {beside.get(near, near)!r}?" if near else "mmtool list recipes",
    )


def _read(path: Path, rank: int) -> Source:
    label = shown(path)
    try:
        source = read_source(path, label, rank)
    except UnicodeDecodeError as error:
        what = f"the file is not UTF-8 text (byte {error.start})"
        spot = Spot(label, rank)
        raise _error(Source(path, label, rank, ""), [_at(spot, what, "save it as UTF-8")]) from None
    except OSError as error:
        raise RequestError(f"{label} cannot be read: {error.strerror}", where=label) from None
    try:
        parse(source)
    except tomllib.TOMLDecodeError as error:
        raise _error(source, [_syntax(source, str(error))]) from None
    return source


def _extended(source: Source) -> list[Source]:
    if "extends" not in source.tree:
        return []
    named = source.tree["extends"]
    spot = source.spot(source.places[("extends",)].value)
    if not isinstance(named, str) or Path(named).name != named.removeprefix("./"):
        what = "'extends' takes the name of one recipe in the same folder, or of a bundled one"
        raise _error(source, [_at(spot, what, 'extends = "other.toml"', ("extends",))])
    stem = Path(named).name.removesuffix(".toml")
    known = registry.entries("recipes")
    beside = source.path.parent / f"{stem}.toml"
    if beside.is_file() and not beside.samefile(source.path):
        base = beside
    elif stem in known and not Path(known[stem].target).samefile(source.path):
        base = Path(known[stem].target)
    else:
        others = {file.stem for file in source.path.parent.glob("*.toml")} | set(known)
        near = did_you_mean(stem, sorted(others - {source.path.stem}))
        what = f"there is no other recipe {named!r} to extend"
        fix = f"did you mean {near + '.toml'!r}?" if near else "mmtool list recipes"
        raise _error(source, [_at(spot, what, fix, ("extends",))])
    parent = _read(base, rank=1)
    for key in ABOUT_FILES:
        if key in parent.tree:
            what = f"{source.label} extends this recipe, so it cannot {_DOES[key]} itself"
            again = parent.spot(parent.places[(key,)].key)
            raise _error(source, [_at(again, what, _INSTEAD[key], (key,))])
    return [parent]


def _override(layers: Layers, written: Sequence[str], catalogue: Catalogue) -> list[Trouble]:
    troubles: list[Trouble] = []
    overrides: list[Override] = []
    for position, text in enumerate(written):
        override = split_override(text, position)
        if isinstance(override, Complaint):
            troubles.append(_at(command_line(text, position), override.what, override.fix))
        else:
            overrides.append(override)
    # Plugin names first: the options of a plugin are typed by the plugin that will be used.
    for override in sorted(overrides, key=lambda override: not override.names_plugin):
        spot = command_line(override.written, override.position)
        value = value_of(override, catalogue.options_of(layers.tree))
        if isinstance(value, Complaint):
            troubles.append(_at(spot, value.what, value.fix, value.path))
            continue
        refused = layers.override(override, value)
        if refused:
            troubles.append(_at(spot, refused, "", override.path))
    name_plugins(layers.tree)
    absolute_files(layers.tree, Path.cwd())
    return troubles


def _clear_unset(layers: Layers, catalogue: Catalogue) -> None:
    options_of = catalogue.options_of(layers.tree)
    for path, value in list(leaves(layers.tree)):
        if value == UNSET and is_optional(type_at(path, options_of)):
            value_at(layers.tree, path[:-1])[path[-1]] = None


def _check(layers: Layers, catalogue: Catalogue) -> list[Complaint]:
    found = list(semantic_problems(layers.tree))
    options_of = catalogue.options_of(layers.tree)
    try:
        Recipe.model_validate(layers.tree)
    except ValidationError as error:
        found += complaints(error, layers.tree, lambda path: keys_at(path, options_of))
    for path, kind, table in plugin_sections(layers.tree):
        found += _check_plugin(path, kind, table, catalogue)
    return found


def _check_plugin(
    path: KeyPath, kind: str, table: dict[str, object], catalogue: Catalogue
) -> list[Complaint]:
    """Check the options of one plugin and write them back with every default filled in."""
    name = table.get("name")
    model = catalogue.look_up(kind, name) if isinstance(name, str) else None
    if model is None:
        return []
    if isinstance(model, Refusal):
        return [Complaint((*path, "name"), model.what, model.fix)]
    checked = check_options(model, {key: value for key, value in table.items() if key != "name"})
    if isinstance(checked, Options):
        table |= as_written(checked)
        return []
    return [Complaint((*path, *c.path), c.what, c.fix, c.is_missing, c.about_key) for c in checked]


def _trouble_in(source: Source, complaint: Complaint) -> Trouble:
    """Point at a key of the file itself, or at the nearest table around it."""
    for length in range(len(complaint.path), 0, -1):
        place = source.places.get(complaint.path[:length])
        if place is not None:
            is_key = complaint.about_key or length < len(complaint.path)
            spot = source.spot(place.key if is_key else place.value)
            return _at(spot, complaint.what, complaint.fix, complaint.path)
    return _at(source.spot(), complaint.what, complaint.fix, complaint.path)


def _trouble(layers: Layers, complaint: Complaint) -> Trouble:
    spot = layers.spot(
        complaint.path, is_missing=complaint.is_missing, about_key=complaint.about_key
    )
    return _at(spot, complaint.what, complaint.fix, complaint.path)


def _at(spot: Spot, what: str, fix: str = "", path: KeyPath = ()) -> Trouble:
    return Trouble(Problem(path, what, fix), spot)


def _syntax(source: Source, message: str) -> Trouble:
    """Point at what tomllib could not read; it stops at the first mistake."""
    what = re.sub(r" \(at .*\)$", "", message)
    match = re.search(r"at line (\d+), column (\d+)", message)
    lines = source.text.split("\n")
    line, column = (int(match[1]), int(match[2])) if match else (len(lines), len(lines[-1]) + 1)
    fix = ""
    if what == "Invalid value":
        fix = 'text stands in quotes: key = "text"; numbers and true, false do not'
    elif what.startswith("Cannot overwrite"):
        what, fix = "a key is written twice", "remove one of the two"
    elif what.startswith("Cannot declare"):
        fix = "write each [table] once"
    what = f"this is not TOML: {what[:1].lower()}{what[1:]}"
    return _at(source.spot(Span(line, column, 1)), what, fix)


def _error(source: Source, troubles: list[Trouble]) -> RecipeError:
    ordered = in_order(troubles)
    return RecipeError(
        f"{plural(len(ordered), 'problem')} in {source.label}; nothing was started",
        problems=[trouble.problem for trouble in ordered],
        rendered=render(ordered),
    )
