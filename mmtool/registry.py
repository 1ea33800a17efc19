"""A folder is a registry: `mmtool/methods/ogm.py` is the method `ogm`.

Names come from file names, help lines from the first docstring line read through `ast`, so listing
imports nothing heavy. Third parties add entry points in the group `mmtool.<kind>`, and a recipe may
name a file directly: `name = "./my_method.py"`.
"""

import ast
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from mmtool.errors import Bug, UnknownName
from mmtool.paths import bundled
from mmtool.text import suggestion

PACKAGES = {
    "methods": "mmtool.methods",
    "encoders": "mmtool.models.encoders",
    "fusion": "mmtool.models.fusion",
    "rules": "mmtool.diagnose.rules",
}
KINDS = (*PACKAGES, "datasets", "recipes")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be named in a recipe or on the command line."""

    kind: str
    name: str
    path: Path | None
    target: str
    """Module path for packages and entry points, file path for datasets and recipes."""


def _folder(kind: str) -> Path:
    if kind == "datasets":
        return bundled("data_prep")
    if kind == "recipes":
        return bundled("recipes")
    return Path(__file__).parent.joinpath(*PACKAGES[kind].split(".")[1:])


def entries(kind: str) -> dict[str, Entry]:
    """Give every entry of a kind by name, built-in ones first."""
    suffix = ".toml" if kind == "recipes" else ".py"
    found: dict[str, Entry] = {}
    folder = _folder(kind)
    # Recipes may lie in folders of their own: recipes/bench/x.toml is the recipe bench/x.
    below = sorted(folder.glob(f"*/*{suffix}")) if kind == "recipes" else []
    for path in (*sorted(folder.glob(f"*{suffix}")), *below):
        if path.stem.startswith("_"):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        package = PACKAGES.get(kind)
        target = f"{package}.{path.stem}" if package else str(path)
        found[name] = Entry(kind, name, path, target)
    if kind in PACKAGES:
        for point in sorted(entry_points(group=f"mmtool.{kind}"), key=lambda p: p.name):
            if point.name in found:
                raise Bug(
                    f"entry point {point.value!r} takes the name {point.name!r}, "
                    f"which {kind} already has",
                    fix="rename the entry point in the package that declares it",
                )
            found[point.name] = Entry(kind, point.name, None, point.value.split(":")[0])
    return found


def names(kind: str) -> list[str]:
    """Give the names of a kind, without importing any of them."""
    return list(entries(kind))


def get(kind: str, name: str) -> Entry:
    """Find one entry or explain which names exist."""
    known = entries(kind)
    plain = name.replace("-", "_")  # rules print as `under-trained`
    for spelling in (name, plain):
        if spelling in known:
            return known[spelling]
    singular = kind.removesuffix("s")
    raise UnknownName(
        f"there is no {singular} named {name!r}",
        why=f"known {kind}: {', '.join(known) or 'none'}",
        fix=suggestion(name, known, otherwise=f"mmtool list {kind}"),
    )


def source(entry: Entry) -> str:
    """Read the text of an entry without importing it; empty where it cannot be found."""
    path = entry.path
    if path is None:
        spec = importlib.util.find_spec(entry.target)
        if spec is None or spec.origin is None:
            return ""
        path = Path(spec.origin)
    return path.read_text(encoding="utf-8")


def docstring(entry: Entry) -> str:
    """Read the page of an entry without importing it; a recipe's page is its leading comment."""
    text = source(entry)
    if entry.kind == "recipes":
        comment = []
        for line in text.splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.removeprefix("#").removeprefix(" "))
        return "\n".join(comment)
    return ast.get_docstring(ast.parse(text)) or ""


def summary(entry: Entry) -> str:
    """Give the first line of an entry's page; of a recipe's, whose lines are wrapped, the first
    sentence."""
    page = docstring(entry)
    if entry.kind != "recipes":
        return page.partition("\n")[0].strip()
    paragraph = " ".join(page.partition("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return sentence + dot.strip()


def load(kind: str, name: str, *, relative_to: Path | None = None) -> ModuleType:
    """Import one plugin by name, or by file when the name is a path ending in `.py`."""
    if name.endswith(".py"):
        return load_file((relative_to or Path.cwd()) / name)
    entry = get(kind, name)
    if kind in PACKAGES:
        return importlib.import_module(entry.target)
    return load_file(Path(entry.target))


def load_all(kind: str) -> dict[str, ModuleType]:
    """Import every plugin of a kind; entry points, which are slow to list, are asked for once."""
    return {name: importlib.import_module(e.target) for name, e in entries(kind).items()}


def load_file(path: Path) -> ModuleType:
    """Import a plugin from a file under a private module name."""
    path = path.resolve()
    if not path.is_file():
        raise UnknownName(f"there is no plugin file {path}", fix="check the path in the recipe")
    module_name = "mmtool_file_" + "_".join(path.with_suffix("").parts[-2:]).replace("-", "_")
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UnknownName(f"{path} cannot be loaded as Python", fix="name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
