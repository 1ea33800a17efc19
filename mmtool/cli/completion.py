"""Values a shell can complete, from file listings alone."""

from pathlib import Path

from mmtool import registry
from mmtool.paths import runs_root


def recipe_names(incomplete: str) -> list[str]:
    """Give bundled recipes and recipe files in reach."""
    files = [str(path) for path in sorted(Path().glob("*.toml"))]
    files += [str(path) for path in sorted(Path("recipes").rglob("*.toml"))]
    return _starting_with(incomplete, [*registry.names("recipes"), *files])


def dataset_names(incomplete: str) -> list[str]:
    """Give the names of the preparers."""
    return _starting_with(incomplete, registry.names("datasets"))


def run_names(incomplete: str) -> list[str]:
    """Give the names of runs, latest first, and the paths they have from here."""
    from mmtool.runlog.rundir import run_names as names_in

    root = runs_root()
    names = ["latest", *reversed(names_in(root))] if root.is_dir() else []
    paths = [str(root / name) for name in names] if "/" in incomplete else []
    return _starting_with(incomplete, [*names, *paths])


def kind_names(incomplete: str) -> list[str]:
    """Give the kinds of things that can be listed."""
    return _starting_with(incomplete, list(registry.KINDS))


def entry_names(incomplete: str) -> list[str]:
    """Give every name that can be listed, of any kind."""
    known = {name for kind in registry.KINDS for name in registry.names(kind)}
    return _starting_with(incomplete, sorted(known))


def _starting_with(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
