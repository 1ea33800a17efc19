"""A run and its recipe as arguments of commands to paste."""

from __future__ import annotations

import shlex
from pathlib import Path

from mmtool.diagnose.load import Run


def recipe_argument(run: Run) -> str:
    """Give the recipe of the run as an argument of `mmtool train`."""
    recipe = run.path / "resolved.toml"
    if not recipe.is_file():
        return "RECIPE"
    return shlex.quote(_shown(recipe))


def run_argument(run: Run) -> str:
    """Give the run directory as an argument of `mmtool diagnose`."""
    return shlex.quote(_shown(run.path))


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
