"""What a suite of runs was meant to hold: `suite.json` in the folder of its runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmtool.runlog.rundir import is_run, replace_text, run_names

SCHEMA = "mmtool-suite/1.0"
FILE_NAME = "suite.json"


@dataclass(frozen=True, slots=True)
class SuiteRecord:
    """A suite as it was last started."""

    name: str
    recipe: str
    """The file, as it was named on the command line."""
    about: str
    """The first line of its leading comment."""
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    runs: Mapping[str, str]
    """Name of each planned run -> its variant and seed, in words."""
    published: Sequence[Mapping[str, Any]] = field(default=())


def write_suite(folder: Path, record: SuiteRecord) -> None:
    """Keep what a suite holds beside its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"schema": SCHEMA, **asdict(record)}
    replace_text(folder / FILE_NAME, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def read_suite(folder: Path) -> SuiteRecord | None:
    """Give what a folder's runs were meant to be; None where no suite was started there."""
    try:
        fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        fields.pop("schema")
        for key in ("seeds", "variants", "published"):
            fields[key] = tuple(fields[key])
        return SuiteRecord(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_folder_of_runs(path: Path) -> bool:
    """Tell whether a directory is no run itself and holds some."""
    return path.is_dir() and not is_run(path) and bool(run_names(path))
