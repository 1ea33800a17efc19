"""The texts a recipe is made of, laid over each other: what it extends, itself, `-s`.

One rule holds throughout: when a higher layer makes a choice that leaves options of a lower layer
without effect, those options are dropped and the drop is noted. Within one layer they are an error
(see `checks`), for then somebody wrote both on purpose.
"""

import copy
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtool.config.locate import KeyPath, Place, Span, locate
from mmtool.config.overrides import Override
from mmtool.config.plugins import absolute_file, absolute_files
from mmtool.config.render import Spot
from mmtool.config.shape import Tree, dotted, leaves, name_plugins, plugin_sections, value_at

COMMAND_LINE_RANK = 3
ABOUT_FILES = ("extends", "suite")
"""Keys of a recipe file that are no part of the recipe it makes."""
_ALL = -2


@dataclass(slots=True)
class Source:
    """One recipe file and where its keys stand."""

    path: Path
    label: str
    rank: int
    """0 is the recipe itself, 1 what it extends, -1 the variant of a suite."""
    text: str
    tree: Tree = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def spot(self, span: Span | None = None) -> Spot:
        """Give a spot in this file, or the file as a whole."""
        lines = self.text.split("\n")
        line = lines[span.line - 1].rstrip("\r") if span else ""
        return Spot(self.label, self.rank, span, line)

    def forget(self, path: KeyPath) -> None:
        """Forget everything below a path: another layer replaced it."""
        for known in [p for p in self.places if len(p) > len(path) and p[: len(path)] == path]:
            del self.places[known]


class Layers:
    """The merged tree of a recipe, and which layer every value came from."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources
        self.tree: Tree = {}
        self.notes: list[str] = []
        self._overrides: dict[KeyPath, Override] = {}
        self._replaced: dict[KeyPath, Override] = {}
        for source in reversed(sources):
            self._merge(source)

    def _merge(self, source: Source) -> None:
        new = copy.deepcopy(source.tree)
        for key in ABOUT_FILES:
            new.pop(key, None)
        name_plugins(new)
        absolute_files(new, source.path.parent)
        for path, _, table in plugin_sections(new):
            name = table.get("name")
            if isinstance(name, str):
                self.rename_plugin(path, name, of=source.label, rank=source.rank)
        _merge_tables(self.tree, new)

    def rename_plugin(self, path: KeyPath, name: str, *, of: str, rank: int = _ALL) -> None:
        """Drop what sources behind `rank` wrote for the plugin at a path, unless the name stays."""
        old = value_at(self.tree, path)
        if not isinstance(old, dict) or old.get("name", name) == name:
            return
        options = [key for key in old if key != "name"]
        if options:
            self.notes.append(
                f"{of}: {dotted(path)} is now {name!r}; dropped the options of "
                f"{old['name']!r}: {', '.join(options)}"
            )
        for key in options:
            self.drop((*path, key), rank=rank)

    def drop(self, path: KeyPath, *, rank: int = _ALL) -> None:
        """Remove a key from the tree; sources behind `rank` forget that they wrote it."""
        holder = value_at(self.tree, path[:-1])
        if isinstance(holder, dict):
            holder.pop(path[-1], None)
        self._overrides = {
            leaf: given for leaf, given in self._overrides.items() if leaf[: len(path)] != path
        }
        for source in self.sources:
            if source.rank > rank:
                source.forget(path)
                source.places.pop(path, None)

    def override(self, override: Override, value: Any) -> str:
        """Put a value from the command line into the tree; gives a reason when it cannot."""
        path, holder = override.path, self.tree
        if override.names_plugin:
            section = path if path[-1] != "name" or isinstance(value, dict) else path[:-1]
            name = value.get("name") if isinstance(value, dict) else value
            if isinstance(name, str):
                name = absolute_file(name, Path.cwd())
                value = {**value, "name": name} if isinstance(value, dict) else name
                self.rename_plugin(section, name, of=f"-s {override.written}")
            if isinstance(value, dict) and len(value) == 1 and section == path:
                path, value = (*path, "name"), name
            self._replaced[section] = override
        elif isinstance(value, dict):
            self._replaced[path] = override
        for depth, key in enumerate(path[:-1], start=1):
            holder = holder.setdefault(key, {})
            if not isinstance(holder, dict):
                return f"{dotted(path[:depth])} is one value in the recipe, not a table"
        holder[path[-1]] = value
        for source in self.sources:
            source.forget(path)
        inside = leaves(value, path) if isinstance(value, dict) and value else [(path, value)]
        self._overrides |= {leaf: override for leaf, _ in inside}
        return ""

    def rank_of(self, path: KeyPath) -> int:
        """Give how high the layer stands that wrote a key, or anything below it; -1 for none."""
        if any(_related(path, leaf) for leaf in self._overrides):
            return COMMAND_LINE_RANK
        for source in self.sources:
            if self._place(source, path) is not None:
                return 1 - source.rank
        return -1

    def origin_of(self, path: KeyPath) -> str:
        """Give `file:line`, `-s` or `default` for one value."""
        if path in self._overrides or (path[-1] == "name" and path[:-1] in self._overrides):
            return "-s"
        for source in self.sources:
            place = self._place(source, path)
            if place is not None:
                return f"{source.label}:{place.key.line}"
        return "default"

    def spot(self, path: KeyPath, *, is_missing: bool, about_key: bool) -> Spot:
        """Give what to show for a problem with a key: itself, or the nearest table around it."""
        if not is_missing:
            for leaf, override in self._overrides.items():
                if _related(path, leaf):
                    return command_line(override.written, override.position)
            for source in self.sources:
                place = self._place(source, path)
                if place is not None:
                    return source.spot(place.key if about_key else place.value)
        for length in range(len(path) - 1, 0, -1):
            near = path[:length]
            if near in self._replaced:
                by = self._replaced[near]
                return command_line(by.written, by.position)
            for source in self.sources:
                if near in source.places:
                    return source.spot(source.places[near].key)
        return self.sources[0].spot()

    def _place(self, source: Source, path: KeyPath) -> Place | None:
        """Look a key up; `fusion = "concat"` is where `model.fusion.name` stands."""
        if path in source.places:
            return source.places[path]
        if path and path[-1] == "name" and isinstance(value_at(source.tree, path[:-1]), str):
            return source.places.get(path[:-1])
        return None


def command_line(written: str, position: int) -> Spot:
    """Give the spot of an override, in the order in which they were given."""
    return Spot(f"command line: -s {written}", COMMAND_LINE_RANK + position)


def read_source(path: Path, label: str, rank: int) -> Source:
    """Read a recipe file without looking at what it says."""
    return Source(path, label, rank, path.read_bytes().decode("utf-8-sig"))


def parse(source: Source) -> None:
    """Fill in what the text says and where; raises `tomllib.TOMLDecodeError`."""
    source.tree = tomllib.loads(source.text)
    source.places = locate(source.text)


def _merge_tables(base: Tree, new: Tree) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge_tables(base[key], value)
        else:
            base[key] = value


def _related(path: KeyPath, leaf: KeyPath) -> bool:
    shared = min(len(path), len(leaf))
    return path[:shared] == leaf[:shared]
