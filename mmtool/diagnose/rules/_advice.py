"""A run and its recipe as arguments of commands to paste."""

from __future__ import annotations

import shlex
from pathlib import Path

from mmtool.diagnose.load import Run


def has_recipe(run: Run) -> bool:
    """Tell whether mmtool trained the run, so that it can train it again."""
    return (run.path / "resolved.toml").is_file()


def recipe_argument(run: Run) -> str:
    """Give the recipe of the run as an argument of `mmtool train`."""
    return shlex.quote(_shown(run.path / "resolved.toml")) if has_recipe(run) else "RECIPE"


def run_argument(run: Run) -> str:
    """Give the run directory as an argument of `mmtool diagnose`."""
    return shlex.quote(_shown(run.path))


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
