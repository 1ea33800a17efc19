"""The directory of one run: where each file lies, who may write it, and how it is found again."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmtool.errors import EnvironmentLacks
from mmtool.runlog.lock import hold_lock

_FOLDERS = ("log", "ckpt", "report")


@dataclass(frozen=True, slots=True)
class RunDir:
    """The files of one run; making one of these touches nothing."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def recipe_path(self) -> Path:
        """The recipe as the user wrote it."""
        return self.path / "recipe.toml"

    @property
    def resolved_path(self) -> Path:
        """The recipe with every default and override filled in."""
        return self.path / "resolved.toml"

    @property
    def env_path(self) -> Path:
        """Versions and hardware."""
        return self.path / "env.json"

    @property
    def status_path(self) -> Path:
        """How far the run is and how it ended."""
        return self.path / "status.json"

    @property
    def log_dir(self) -> Path:
        """Folder of the run logs."""
        return self.path / "log"

    @property
    def ckpt_dir(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "ckpt"

    @property
    def report_dir(self) -> Path:
        """Folder of the reports."""
        return self.path / "report"

    def log_path(self, rank: int) -> Path:
        """Give the file of training events of a rank."""
        return self.log_dir / f"rank{rank}.jsonl"

    def system_log_path(self, rank: int) -> Path:
        """Give the file of machine samples of a rank."""
        return self.log_dir / f"system.rank{rank}.jsonl"

    def write_recipe(self, text: str, resolved: str) -> None:
        """Keep the recipe as written and as resolved."""
        replace_text(self.recipe_path, text)
        replace_text(self.resolved_path, resolved)

    def write_env(self, env: Mapping[str, Any]) -> None:
        """Keep the description of the environment."""
        replace_text(self.env_path, _as_json(env))

    def write_status(self, **fields: Any) -> None:
        """Replace the given fields of `status.json` atomically and keep the others."""
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        replace_text(self.status_path, _as_json({**self.read_status(), **fields, "updated": updated}))

    def read_status(self) -> dict[str, Any]:
        """Give the fields of `status.json`, none when it is absent or damaged."""
        try:
            status = json.loads(self.status_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from writing this run; refuse when one already does."""
        with hold_lock(self.path / "lock.json"):
            yield


def create_run(runs_root: Path, recipe_name: str, *, label: str | None = None) -> RunDir:
    """Make a new run directory; either all of it exists afterwards or nothing."""
    name = _file_name(f"{recipe_name}-{label}" if label else recipe_name)
    try:
        runs_root.mkdir(parents=True, exist_ok=True)
        run = _claim(runs_root, name)
    except OSError as error:
        raise _cannot_write(runs_root, error) from error
    try:
        for folder in _FOLDERS:
            (run.path / folder).mkdir()
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        raise _cannot_write(runs_root, error) from error
    return run


def point_latest(runs_root: Path, run: RunDir) -> None:
    """Let `latest` name this run, at no moment naming nothing."""
    link, text = runs_root / "latest", runs_root / "latest.txt"
    fresh = runs_root / f".latest.{secrets.token_hex(4)}"
    try:
        fresh.symlink_to(run.path.name, target_is_directory=True)
        fresh.replace(link)
    except (OSError, NotImplementedError):
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        replace_text(text, run.path.name + "\n")
    else:
        text.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a whole file so that a reader sees the old or the new one, never a part."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise EnvironmentLacks(
            f"{path.name} cannot be written: {error.strerror or error}",
            where=str(path),
            fix=f"df -h {path.parent}    # make room, or choose another folder with --runs-root",
        ) from error


def _claim(runs_root: Path, name: str) -> RunDir:
    """Make a directory that no other process got; two runs may start in the same second."""
    while True:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = runs_root / f"{stamp}_{name}_{secrets.token_hex(2)}"
        with suppress(FileExistsError):
            path.mkdir()
            return RunDir(path)


def _file_name(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return kept.strip("-.")[:80] or "run"


def _as_json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=1, ensure_ascii=False, default=str) + "\n"


def _cannot_write(runs_root: Path, error: OSError) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"a run directory cannot be made: {error.strerror or error}",
        where=str(runs_root),
        why="every run keeps its recipe, log and checkpoints there",
        fix="export MMTOOL_RUNS=/a/folder/with/room",
    )
