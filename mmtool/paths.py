"""Where things lie: bundled content, the data root, the runs root."""

import os
from pathlib import Path


def bundled(name: str) -> Path:
    """Give the folder `recipes` or `data_prep`: inside the installed wheel, or of the checkout."""
    package = Path(__file__).parent
    inside = package / "_bundled" / name
    return inside if inside.is_dir() else package.parent / name


def data_root(given: Path | None = None) -> Path:
    """Give the folder of prepared datasets: the option, `MMTOOL_DATA`, or `./data`."""
    return given or Path(os.environ.get("MMTOOL_DATA") or "data")


def runs_root(given: Path | None = None) -> Path:
    """Give the folder of runs: the option, `MMTOOL_RUNS`, or `./runs`."""
    return given or Path(os.environ.get("MMTOOL_RUNS") or "runs")


def cache_root(given: Path | None = None) -> Path:
    """Give the folder of fetched files: the option, `MMTOOL_CACHE`, or the user's cache folder."""
    if given is not None:
        return given
    if named := os.environ.get("MMTOOL_CACHE"):
        return Path(named)
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path.home() / ".cache") / "mmtool"
