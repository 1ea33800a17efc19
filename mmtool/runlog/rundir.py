"""The directory of one run: where each file lies, who may write it, and how it is found again."""

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmtool.errors import NotWritable, RunDirectoryError
from mmtool.runlog.lock import hold_lock
from mmtool.runlog.whole import replace_whole
from mmtool.text import plural, suggestion

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
    def launch_path(self) -> Path:
        """What the ranks of the current attempt need beside the recipe."""
        return self.path / "launch.json"

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

    def write_launch(self, facts: Mapping[str, Any]) -> None:
        """Keep what the launcher tells the ranks."""
        replace_text(self.launch_path, _as_json(facts))

    def write_status(self, **fields: Any) -> None:
        """Replace the given fields of `status.json` atomically and keep the others."""
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        replace_text(
            self.status_path, _as_json({**self.read_status(), **fields, "updated": updated})
        )

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
    name = file_name(f"{recipe_name}-{label}" if label else recipe_name)
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


def make_run(path: Path) -> RunDir:
    """Make the directory of a run whose name says what it computes; one that exists is kept."""
    try:
        for folder in _FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    return RunDir(path)


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


def resolve_run(text: str, runs_root: Path) -> RunDir:
    """Find a run by path, by name, by the start of its name, or as `latest`."""
    path = Path(text)
    for candidate in (path, runs_root / text):
        if is_run(candidate):
            return RunDir(candidate.resolve())
    if path.name == "latest":
        parent = runs_root if text == "latest" else path.parent
        return _read_latest(parent, runs_root)
    if text and path.is_dir():
        raise RunDirectoryError(
            f"{text} is a directory, but not a run",
            where=str(path.resolve()),
            why="a run holds log/ and status.json or recipe.toml",
            fix=_list_fix(path if run_names(path) else runs_root),
        )
    names = run_names(runs_root)
    matches = [name for name in names if name.startswith(text)] if text else []
    if len(matches) == 1:
        return RunDir((runs_root / matches[0]).resolve())
    if matches:
        raise RunDirectoryError(
            f"{text!r} is the start of {plural(len(matches), 'run')}",
            where=str(runs_root),
            why="\n    ".join(("it could be", *matches[-5:])),
            fix=f"give more of the name, for example {matches[-1]}",
        )
    raise RunDirectoryError(
        f"there is no run {text!r}",
        where=str(runs_root),
        why=_suggestion(path.name, names),
        fix=_list_fix(runs_root),
    )


def is_run(path: Path) -> bool:
    """Tell whether a directory has what every run has."""
    marks = ("status.json", "recipe.toml", "resolved.toml")
    return (path / "log").is_dir() and (
        any((path / mark).is_file() for mark in marks) or any((path / "log").glob("rank*.jsonl"))
    )


def run_names(runs_root: Path) -> list[str]:
    """Give the names of all runs below a folder, oldest first."""
    if not runs_root.is_dir():
        return []
    return sorted(p.name for p in runs_root.iterdir() if not p.is_symlink() and is_run(p))


def _read_latest(parent: Path, runs_root: Path) -> RunDir:
    """Follow `latest.txt`, written where the file system has no links."""
    text = parent / "latest.txt"
    if text.is_file():
        named = parent / text.read_text(encoding="utf-8").strip()
        if is_run(named):
            return RunDir(named.resolve())
    link = parent / "latest"
    gone = link.is_symlink() and not link.exists()
    raise RunDirectoryError(
        f"the latest run, {link.readlink()}, was removed" if gone else "there is no latest run",
        where=str(parent),
        why=_newest(run_names(parent)),
        fix=_list_fix(runs_root),
    )


def _suggestion(text: str, names: list[str]) -> str:
    containing = [name for name in names if text and text in name]
    if containing:
        return f"did you mean {containing[-1]!r}?"
    return suggestion(text, names, otherwise=_newest(names))


def _newest(names: list[str]) -> str:
    return f"the newest run is {names[-1]}" if names else "there are no runs yet"


def _list_fix(runs_root: Path) -> str:
    return f"ls {runs_root}" if runs_root.is_dir() else "mmtool train RECIPE"


def replace_text(path: Path, text: str) -> None:
    """Write a whole file so that a reader sees the old or the new one, never a part."""
    try:
        replace_whole(path, text.encode())
    except OSError as error:
        raise NotWritable(
            f"{path.name} cannot be written: {error.strerror or error}",
            where=str(path),
            fix=f"df -h {path.parent}    # make room, or choose another folder with --runs-dir",
        ) from error


def _claim(runs_root: Path, name: str) -> RunDir:
    """Make a directory that no other process got; two runs may start in the same second."""
    while True:
        path = runs_root / f"{_timestamp()}_{name}_{secrets.token_hex(2)}"
        with suppress(FileExistsError):
            path.mkdir()
            return RunDir(path)


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def file_name(text: str) -> str:
    """Give text as a name that every file system takes."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return kept.strip("-.")[:80] or "run"


def _as_json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=1, ensure_ascii=False, default=str) + "\n"


def _cannot_write(runs_root: Path, error: OSError) -> NotWritable:
    return NotWritable(
        f"a run directory cannot be made: {error.strerror or error}",
        where=str(runs_root),
        why="every run keeps its recipe, log and checkpoints there",
        fix="export MMTOOL_RUNS=/a/folder/with/room",
    )
