"""Start a run: its directory, its ranks, and how it ended.

One rank runs in this process; several run as child processes (see `children`), and then this
process never loads torch. Tasks that torchrun or srun started join each other (see `joined`).
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmtool.config.dump import to_toml
from mmtool.config.load import Loaded, load_recipe
from mmtool.config.schema import Recipe
from mmtool.data.dataset import open_dataset
from mmtool.engine import fault
from mmtool.engine.attempt import failed, read_launch
from mmtool.engine.chain import Chain, PlannedLink, check_same, plan_links, refuse_unfinished
from mmtool.engine.devices import check_devices, crowding
from mmtool.engine.joined import Task, announce, leading, train_task
from mmtool.engine.supervise import begin_attempt, supervise
from mmtool.engine.watchdog import PromptStop, Watchdog
from mmtool.errors import Bug, MmtoolError, RunDirectoryError, StoppedResumable
from mmtool.runlog.env import describe_environment
from mmtool.runlog.follow import follow
from mmtool.runlog.rundir import RunDir, create_run, make_run, point_latest
from mmtool.types import Modality

_TASKS = "tasks that were started together are the ranks of one run"

OnEvent = Callable[[dict[str, Any]], None]
OnLink = Callable[[RunDir], AbstractContextManager[OnEvent | None]]
"""Watches a run that is trained on behalf of another."""


def unwatched(run: RunDir) -> AbstractContextManager[OnEvent | None]:
    """Watch nothing."""
    del run
    return nullcontext()


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asks for."""

    loaded: Loaded
    runs_root: Path
    data_root: Path
    label: str | None = None
    argv: list[str] = field(default_factory=list)
    on_event: OnEvent | None = None
    on_link: OnLink = unwatched
    task: Task | None = None
    """What this process is among tasks that were started together."""
    is_elsewhere: bool = False
    """Whether the run will execute on other machines than this one."""
    directory: Path | None = None
    """The run directory, where it is not to be named after the present time."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the run's env.json says beside the environment."""


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
            manner = _Manner(request.on_event, request.on_link, request.task)
            return _execute(run, request.loaded.recipe, manner)


def prepare_run(request: TrainRequest) -> RunDir:
    """Check what a run needs and make its directory, ready to be started or resumed."""
    recipe = request.loaded.recipe
    fault.is_planted()
    open_dataset(recipe.data, request.data_root).store.close()
    if request.task is None and not request.is_elsewhere:
        check_devices(recipe)
        _warn(request.on_event, crowding(recipe))
    planned = plan_links(recipe, request.runs_root, request.data_root)
    if request.task is not None or (request.is_elsewhere and recipe.launch.gpus > 1):
        refuse_unfinished(planned, why=_TASKS)
    if request.directory is None:
        run = create_run(request.runs_root, request.loaded.name, label=request.label)
    else:
        run = make_run(request.directory)
    run.write_recipe(request.loaded.text, to_toml(recipe))
    env = {**describe_environment(request.argv), "origins": dict(request.loaded.origins)}
    run.write_env({**env, **request.facts})
    run.write_launch({"data_root": str(request.data_root.resolve()), "attempt": 0})
    return run


def resume(
    run_path: Path,
    *,
    data_root: Path | None = None,
    argv: list[str] | None = None,
    on_event: OnEvent | None = None,
    on_link: OnLink = unwatched,
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
            manner = _Manner(on_event, on_link, task)
            return _execute(run, recipe, manner, data_root=root, argv=argv, may_change=may_change)


@dataclass(frozen=True, slots=True)
class _Manner:
    """Who watches a run, and what this process is among its ranks."""

    on_event: OnEvent | None
    on_link: OnLink
    task: Task | None


def _execute(run: RunDir, recipe: Recipe, manner: _Manner, **asked: Any) -> TrainResult:
    """Train what comes before the run, run all its ranks and leave the outcome in status.json."""
    facts = {"pid": os.getpid(), "host": socket.gethostname()}
    run.write_status(state="running", reason="", resumable=False, exit_code=None, **facts)
    started = time.monotonic()
    try:
        links = _finish_links(run, recipe, manner, asked)
        attempt = begin_attempt(run, **asked, **links)
        run.write_status(reason="", attempt=attempt, **links)
        with _following(run, manner.on_event):
            _run_ranks(run, recipe, manner.task)
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


def _finish_links(
    run: RunDir, recipe: Recipe, manner: _Manner, asked: dict[str, Any]
) -> dict[str, Any]:
    """Train the runs that this one builds on; give what it has to know of them."""
    launch = read_launch(run.path)
    root = Path(asked.get("data_root", launch["data_root"]))
    planned = plan_links(recipe, run.path.parent, root)
    if not planned:
        return {}
    if manner.task is not None:
        refuse_unfinished(planned, why=_TASKS)

    found = _train_links(
        run, planned, manner, root, note=lambda words: run.write_status(reason=words)
    )
    if any(run.ckpt_dir.glob("step[0-9]*")) and not asked.get("may_change"):
        check_same(launch.get("teachers", {}), found, run.path)
    return {"teachers": found}


def train_beside(
    run: RunDir, planned: Sequence[PlannedLink], root: Path, *, on_event: OnEvent, on_link: OnLink
) -> dict[Modality, dict[str, str]]:
    """Train the models of links that a finished run is compared with; the run stays as it is."""
    manner = _Manner(on_event, on_link, None)
    return _train_links(run, planned, manner, root, note=_unsaid)


def _unsaid(words: str) -> None:
    del words


def _train_links(
    run: RunDir,
    planned: Sequence[PlannedLink],
    manner: _Manner,
    root: Path,
    *,
    note: Callable[[str], None],
) -> dict[Modality, dict[str, str]]:
    def execute(link: RunDir, link_recipe: Recipe) -> None:
        with manner.on_link(link) as on_event:
            _execute(link, link_recipe, replace(manner, on_event=on_event), data_root=str(root))

    def say(message: str) -> None:
        if manner.on_event is not None:
            manner.on_event({"k": "event", "what": "link", "message": message})

    return Chain(run, root, execute, say, note).finish(planned)


def _run_ranks(run: RunDir, recipe: Recipe, task: Task | None) -> None:
    if task is None and recipe.launch.gpus > 1:
        supervise(run, recipe)
        return
    if task is not None:
        announce(str(run.path.resolve()))
        train_task(run, task)
        return
    # Before torch is loaded: a signal in those seconds must not kill.
    limit = recipe.launch.timeout_s
    with PromptStop(run) as stop, Watchdog(run, stop, timeout_s=limit):
        try:
            from mmtool.engine.rank import run_rank

            run_rank(run, stop)
        except Exception as error:
            known = failed(error, where=str(run.path))
            if known is error:
                raise
            raise known from error


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
