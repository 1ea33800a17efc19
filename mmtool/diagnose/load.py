"""From a run directory to everything diagnosis may know about the run; no torch, no engine."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from typing import Any

from mmtool.errors import EnvironmentLacks, RunDirectoryError
from mmtool.runlog.foreign.load import READ_HERE, kind_of, load_foreign
from mmtool.runlog.reader import RunTables, load_run
from mmtool.runlog.rundir import is_run


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its log tables, its recipe and the machine it ran on."""

    path: Path
    tables: RunTables
    recipe_text: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in the order in which they are iterated everywhere."""
        return tuple(sorted(str(m) for m in self.tables.head.get("modalities") or ()))

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 when the log does not say."""
        classes = self.tables.head.get("classes") or ()
        return classes if isinstance(classes, int) else len(classes)

    @property
    def task(self) -> str:
        """What was learnt: single_label, multi_label or regression."""
        return str(self.tables.head.get("task") or "single_label")

    @property
    def metric(self) -> str:
        """What the log's scores are: accuracy, label_accuracy or r2."""
        return str(self.tables.head.get("metric") or "accuracy")

    @property
    def chance(self) -> float | None:
        """Score of the best constant answer on the validation split.

        Naming the most frequent class; of a log that does not say, only accuracy has a guess.
        """
        given = self.tables.head.get("chance")
        if given is None:
            given = self._chance_in_epochs
        if given is not None:
            return float(given)
        is_guessable = self.metric == "accuracy" and self.num_classes
        return 1 / self.num_classes if is_guessable else None

    @property
    def _chance_in_epochs(self) -> float | None:
        """As a loop of somebody's own logs it, who knows the labels only when it evaluates."""
        epochs = self.tables.epochs
        if "chance" not in epochs.columns:
            return None
        known = epochs[epochs["split"] == "val"]["chance"].dropna()
        return float(known.iloc[-1]) if len(known) else None

    @property
    def log_classes(self) -> float:
        """Loss of a uniform guess in nats, the unit of the overfitting gap.

        The loss of several labels is a mean over yes and no answers.
        """
        return log(2 if self.task == "multi_label" else max(self.num_classes, 2))

    @property
    def method(self) -> str:
        """Name of the balancing method."""
        return str(self.tables.head.get("method") or self.option("method", "name") or "none")

    @property
    def dataset_key(self) -> object:
        """What two runs must share to be measured on the same samples."""
        head = self.tables.head
        return head.get("dataset_hash") or head.get("dataset")

    @property
    def finished(self) -> bool:
        """Whether the run reached its end by itself; a foreign log does not tell if it did not."""
        if self.foreign:
            done, planned = (self.tables.head.get(key) for key in ("steps_done", "max_steps"))
            return done is None or planned is None or bool(done >= planned)
        end = self.tables.end or {}
        return bool(end.get("status", self.tables.status.get("state")) == "done")

    def option(self, *keys: str) -> Any:
        """Give one value of the resolved recipe, or None."""
        value: Any = self.recipe
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value

    @property
    def foreign(self) -> str:
        """What kind of log it is if mmtool did not write it: tensorboard, csv, trace, ..."""
        return str(self.tables.head.get("foreign") or "")

    @property
    def fusion(self) -> str:
        """Name of the fusion, empty when neither recipe nor log says."""
        named = self.option("model", "fusion")
        if isinstance(named, Mapping):
            named = named.get("name")
        return str(named or self.tables.head.get("fusion") or "")


def open_run(path: Path) -> Run:
    """Read a run directory, finished, killed or still running, or a log that another tool wrote."""
    real = _resolved(path)
    if real.is_file() and is_run(real.parent.parent) and real.parent.name == "log":
        real = real.parent.parent
    if not is_run(real):
        return _open_foreign(real, path)
    unread: list[str] = []
    text = _read(real / "resolved.toml", unread)
    recipe_text = text or _read(real / "recipe.toml", unread)
    environment = _json(_read(real / "env.json", unread))
    tables = load_run(real)
    return Run(
        path=real,
        tables=replace(tables, warnings=(*tables.warnings, *unread)),
        recipe_text=recipe_text,
        recipe=_toml(text),
        environment=environment,
    )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        if path.is_symlink():
            raise RunDirectoryError(
                f"{path} is a link that leads nowhere",
                where=str(path),
                why=f"it points to {path.readlink()}, which is gone or leads back to it",
                fix=f"ls -l {path.parent}",
            ) from error
        if isinstance(error, PermissionError):
            raise EnvironmentLacks(
                f"no permission to read {path}", where=str(path), fix=f"ls -ld {path.parent}"
            ) from error
        raise RunDirectoryError(
            f"there is no run directory {path}",
            fix="ls runs    # and give one of these, or runs/latest",
        ) from error


def _open_foreign(real: Path, path: Path) -> Run:
    if kind_of(real) is not None:
        return Run(path=real, tables=load_foreign(real))
    if real.is_dir() and not any(real.iterdir()):
        what = f"{path} is an empty directory"
    elif real.is_dir():
        what = f"{path} is a directory, but not a run and no log of another tool"
    else:
        what = f"{path} is a file, but no log that is known here"
    raise RunDirectoryError(
        what, where=str(real), why=READ_HERE, fix="ls runs    # and give one of these, or latest"
    )


def _read(path: Path, unread: list[str]) -> str:
    """Give a text; one that cannot be read is noted, and the rest of the run is read without it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        unread.append(f"{path.name} cannot be read ({error.strerror or error})")
        return ""


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
