"""Start a run: its directory, its ranks, and how it ended.

One rank runs in this process; several run as child processes (see `children`).
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmtool.config.dump import to_toml
from mmtool.config.load import Loaded, load_recipe
from mmtool.config.schema import Recipe
from mmtool.data.dataset import open_dataset
from mmtool.engine.build import build_job
from mmtool.engine.children import run_children
from mmtool.engine.distributed import Ranks, choose_device
from mmtool.engine.rank import LAUNCH_FILE, run_rank
from mmtool.engine.stop import StopRequest
from mmtool.errors import (
    MmtoolError,
    RequestError,
    RunDirectoryError,
    StoppedResumable,
)
from mmtool.runlog.env import describe_environment
from mmtool.runlog.follow import follow
from mmtool.runlog.rundir import RunDir, create_run, point_latest


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asks for."""

    loaded: Loaded
    runs_root: Path
    data_root: Path
    label: str | None = None
    argv: list[str] = field(default_factory=list)
    on_event: Callable[[dict[str, Any]], None] | None = None


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where the run lies and how it ended."""

    run: Path
    state: str
    summary: dict[str, Any]


def train(request: TrainRequest) -> TrainResult:
    """Create a run directory and train the recipe in it."""
    recipe = request.loaded.recipe
    open_dataset(recipe.data, request.data_root).store.close()
    check_devices(recipe)
    run = create_run(request.runs_root, request.loaded.name, label=request.label)
    run.write_recipe(request.loaded.text, to_toml(recipe))
    env = {**describe_environment(request.argv), "origins": dict(request.loaded.origins)}
    run.write_env(env)
    _write_launch(run, data_root=request.data_root, attempt=1, is_resumed=False)
    point_latest(request.runs_root, run)
    return _execute(run, recipe, request.on_event, attempt=1)


def resume(
    run_path: Path,
    *,
    data_root: Path | None = None,
    argv: list[str] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Continue a run from its last good checkpoint."""
    run = RunDir(run_path)
    status = run.read_status()
    if status.get("state") == "done":
        raise RunDirectoryError(
            f"run {run.path.name} is already done",
            fix=f"mmtool diagnose {run.path}, or train the recipe again",
        )
    recipe = load_recipe(str(run.resolved_path)).recipe
    launch = json.loads((run.path / LAUNCH_FILE).read_text(encoding="utf-8"))
    check_devices(recipe)
    attempt = int(launch["attempt"]) + 1
    root = data_root or Path(launch["data_root"])
    has_checkpoint = any(run.ckpt_dir.glob("step[0-9]*"))
    _write_launch(run, data_root=root, attempt=attempt, is_resumed=has_checkpoint, argv=argv)
    return _execute(run, recipe, on_event, attempt=attempt)


def check(request: TrainRequest) -> dict[str, Any]:
    """Give what a run would be, without starting it."""
    recipe = request.loaded.recipe
    check_devices(recipe)
    job = build_job(recipe, Ranks(), data_root=request.data_root)
    try:
        counts = {n: sum(p.numel() for _, p in m) for n, m in job.groups.items()}
        trained = sum(counts.values())
        slots = 2 if recipe.train.optimizer == "adamw" else int(recipe.train.momentum > 0)
        return {
            "dataset": str(job.dataset.store.path),
            "dataset_hash": job.dataset.store.hash,
            "protocol": job.dataset.protocol,
            "splits": {s: len(job.dataset.rows(s)) for s in ("train", "val", "test")},
            "modalities": list(job.dataset.modalities),
            "unimodal": job.model.way,
            "parameters": counts,
            "steps_per_epoch": job.steps_per_epoch(),
            "num_steps": job.steps_per_epoch() * recipe.train.epochs,
            "state_bytes": 4 * trained * (2 + slots),
            "warnings": list(job.warnings),
        }
    finally:
        job.close()


def check_devices(recipe: Recipe) -> None:
    """Refuse more GPUs than there are; a smaller number is never taken silently."""
    launch = recipe.launch
    device = choose_device(launch.device)
    if device.type == "cuda":
        visible = torch.cuda.device_count()
        if launch.gpus > visible:
            shown = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
            raise RequestError(
                f"asked for {launch.gpus} GPUs, {visible} visible (CUDA_VISIBLE_DEVICES={shown})",
                fix=f"--gpus {visible}",
            )
    elif launch.gpus > 1 and launch.device != "cpu":
        raise RequestError(
            f"asked for {launch.gpus} GPUs, this machine has none",
            why="CPU processes stand in for GPUs only when asked to",
            fix=f"--device cpu --gpus {launch.gpus}",
        )


def _write_launch(run: RunDir, *, data_root: Path, attempt: int, **fields: Any) -> None:
    facts = {"data_root": str(data_root.resolve()), "attempt": attempt, **fields}
    (run.path / LAUNCH_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _execute(
    run: RunDir,
    recipe: Recipe,
    on_event: Callable[[dict[str, Any]], None] | None,
    *,
    attempt: int,
) -> TrainResult:
    """Run all ranks to their end and leave the outcome in status.json."""
    with run.lock():
        facts = {"attempt": attempt, "pid": os.getpid(), "host": socket.gethostname()}
        run.write_status(state="running", reason="", resumable=False, **facts)
        started = time.monotonic()
        try:
            with _following(run, on_event):
                if recipe.launch.gpus == 1:
                    with StopRequest() as stop:
                        run_rank(run, stop)
                else:
                    run_children(run, recipe.launch.gpus)
        except StoppedResumable as stopped:
            run.write_status(state="stopped", reason=stopped.what, resumable=True)
            stopped.where = str(run.path)
            stopped.fix = f"mmtool train --resume {run.path}"
            raise
        except BaseException as error:
            resumable = any(run.ckpt_dir.glob("step[0-9]*"))
            run.write_status(state="failed", reason=str(error), resumable=resumable)
            if isinstance(error, MmtoolError) and not error.where:
                error.where = str(run.path)
            raise
        seconds = round(time.monotonic() - started, 3)
        run.write_status(state="done", reason="", resumable=False, seconds=seconds)
    return TrainResult(run.path, "done", {"seconds": seconds})


@contextmanager
def _following(run: RunDir, on_event: Callable[[dict[str, Any]], None] | None) -> Iterator[None]:
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
