"""Start a run: its directory, its ranks, and how it ended.

One rank runs in this process; several run as child processes (see `children`), and then this
process never loads torch. Tasks that torchrun or srun started join each other (see `joined`).
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtool.config.dump import to_toml
from mmtool.config.load import Loaded, load_recipe
from mmtool.config.schema import Recipe
from mmtool.data.dataset import open_dataset
from mmtool.engine import fault
from mmtool.engine.child import read_launch
from mmtool.engine.devices import check_devices, crowding
from mmtool.engine.joined import Task, announce, leading, train_task
from mmtool.engine.stop import StopRequest
from mmtool.engine.supervise import begin_attempt, supervise
from mmtool.errors import Bug, MmtoolError, RunDirectoryError, StoppedResumable
from mmtool.runlog.env import describe_environment
from mmtool.runlog.follow import follow
from mmtool.runlog.rundir import RunDir, create_run, point_latest

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asks for."""

    loaded: Loaded
    runs_root: Path
    data_root: Path
    label: str | None = None
    argv: list[str] = field(default_factory=list)
    on_event: OnEvent | None = None
    task: Task | None = None
    """What this process is among tasks that were started together."""
    is_elsewhere: bool = False
    """Whether the run will execute on other machines than this one."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where the run lies and how it ended."""

    run: Path
    state: str
    summary: dict[str, Any]


def train(request: TrainRequest) -> TrainResult:
    """Create a run directory and train the recipe in it."""
    with leading(request.task):
        run = prepare_run(request)
        point_latest(request.runs_root, run)
        with run.lock():
            begin_attempt(run)
            return _execute(run, request.loaded.recipe, request.on_event, request.task)


def prepare_run(request: TrainRequest) -> RunDir:
    """Check what a run needs and make its directory, ready to be started or resumed."""
    recipe = request.loaded.recipe
    fault.is_planted()
    open_dataset(recipe.data, request.data_root).store.close()
    if request.task is None and not request.is_elsewhere:
        check_devices(recipe)
        _warn(request.on_event, crowding(recipe))
    run = create_run(request.runs_root, request.loaded.name, label=request.label)
    run.write_recipe(request.loaded.text, to_toml(recipe))
    env = {**describe_environment(request.argv), "origins": dict(request.loaded.origins)}
    run.write_env(env)
    run.write_launch({"data_root": str(request.data_root.resolve()), "attempt": 0})
    return run


def resume(
    run_path: Path,
    *,
    data_root: Path | None = None,
    argv: list[str] | None = None,
    on_event: OnEvent | None = None,
    task: Task | None = None,
    may_change: bool = False,
) -> TrainResult:
    """Continue a run from its last good checkpoint; `may_change` allows for an edited recipe."""
    with leading(task):
        run = RunDir(run_path)
        with run.lock():
            if run.read_status().get("state") == "done":
                raise RunDirectoryError(
                    f"run {run.path.name} is already done",
                    fix=f"mmtool diagnose {run.path}, or train the recipe again",
                )
            # It was checked when the run was made; every rank checks it again.
            recipe = load_recipe(str(run.resolved_path), check_plugins=False).recipe
            if task is None:
                check_devices(recipe)
            root = str((data_root or Path(read_launch(run.path)["data_root"])).resolve())
            begin_attempt(run, data_root=root, argv=argv, may_change=may_change)
            return _execute(run, recipe, on_event, task)


def _execute(
    run: RunDir, recipe: Recipe, on_event: OnEvent | None, task: Task | None
) -> TrainResult:
    """Run all ranks to their end and leave the outcome in status.json."""
    facts = {
        "attempt": int(read_launch(run.path)["attempt"]),
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    run.write_status(state="running", reason="", resumable=False, exit_code=None, **facts)
    started = time.monotonic()
    try:
        with _following(run, on_event):
            _run_ranks(run, recipe, task)
    except StoppedResumable as stopped:
        run.write_status(state="stopped", reason=stopped.what, resumable=True, exit_code=75)
        stopped.where = str(run.path)
        stopped.fix = f"mmtool train --resume {run.path}"
        raise
    except BaseException as error:
        code = error.exit_code if isinstance(error, MmtoolError) else Bug.exit_code
        resumable = any(run.ckpt_dir.glob("step[0-9]*"))
        reason = error.what if isinstance(error, MmtoolError) else str(error)
        run.write_status(state="failed", reason=reason, resumable=resumable, exit_code=code)
        if isinstance(error, MmtoolError) and not error.where:
            error.where = str(run.path)
        raise
    seconds = round(time.monotonic() - started, 3)
    run.write_status(state="done", reason="", resumable=False, exit_code=0, seconds=seconds)
    return TrainResult(run.path, "done", {"seconds": seconds})


def _run_ranks(run: RunDir, recipe: Recipe, task: Task | None) -> None:
    if task is None and recipe.launch.gpus > 1:
        supervise(run, recipe)
        return
    if task is not None:
        announce(str(run.path.resolve()))
        train_task(run, task)
        return
    # Before torch is loaded: a signal in those seconds must not kill.
    with StopRequest() as stop:
        from mmtool.engine.rank import run_rank

        run_rank(run, stop)


def _warn(on_event: OnEvent | None, messages: list[str]) -> None:
    for message in messages:
        if on_event is not None:
            on_event({"k": "event", "what": "warning", "message": message})


@contextmanager
def _following(run: RunDir, on_event: OnEvent | None) -> Iterator[None]:
    """Hand rank 0's events to the caller while the run goes on."""
    if on_event is None:
        yield
        return
    done = threading.Event()
    log = run.log_path(0)
    start = {"start": log.stat().st_size if log.exists() else 0}  # past earlier attempts
    arguments = (log, done, on_event)
    thread = threading.Thread(target=follow, args=arguments, kwargs=start, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5.0)
