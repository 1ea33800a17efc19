"""What one rank does with a run directory.

Everything a rank needs lies in the run directory, so a resumed rank does exactly the same.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmtool.config.load import load_recipe
from mmtool.config.schema import Recipe
from mmtool.engine import fault
from mmtool.engine.allocator import keep_freed_memory
from mmtool.engine.attempt import read_launch
from mmtool.engine.build import build_job
from mmtool.engine.device_memory import allocator_counts
from mmtool.engine.distributed import PeerLost, Ranks, choose_device, join, leave
from mmtool.engine.job import Job
from mmtool.engine.loop import fit
from mmtool.engine.pulse import Pulse
from mmtool.engine.room import check_room, checkpoint_bytes
from mmtool.engine.scoring import METRICS
from mmtool.engine.stop import StopRequest
from mmtool.errors import EnvironmentLacks, MmtoolError
from mmtool.runlog.events import SCHEMA
from mmtool.runlog.rundir import RunDir
from mmtool.runlog.system import SystemSampler, own_cgroup
from mmtool.runlog.writer import EventWriter

_HEARTBEAT_S = 2.0


def run_rank(run: RunDir, stop: StopRequest) -> None:
    """Train the run on this rank until it is done, stopped or failed."""
    launch = read_launch(run.path)
    recipe = load_recipe(str(run.resolved_path)).recipe
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(recipe.launch.device, local_rank)
    world = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    if world > 1 and device.type == "cpu" and recipe.launch.device != "cpu":
        raise EnvironmentLacks(
            f"{world} ranks were started on GPUs, but torch sees none",
            why="CPU processes stand in for GPUs only when asked to",
            fix="--device cpu, or install torch with CUDA: mmtool doctor",
        )
    set_threads(recipe, device, world)
    ranks = _join(device, timeout_s=recipe.launch.timeout_s)
    try:
        with EventWriter(run.log_path(ranks.rank)) as writer:
            _train(run, recipe, ranks, writer, launch, stop)
    finally:
        leave(ranks)


def _join(device: torch.device, *, timeout_s: float) -> Ranks:
    try:
        return join(device, timeout_s=timeout_s)
    except RuntimeError as err:
        raise PeerLost(
            f"the ranks did not find each other: {err}",
            why="another rank ended, or took longer than launch.timeout_s to start",
        ) from err


def set_threads(recipe: Recipe, device: torch.device, world: int) -> None:
    """Share the usable cores among the ranks, unless recipe or environment say otherwise.

    On a CPU, freed memory is also kept for the next step.
    """
    keep_freed_memory(device)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    shared = max(1, len(os.sched_getaffinity(0)) // world)
    if device.type == "cpu":
        torch.set_num_threads(
            recipe.launch.threads or (int(asked) if asked.isdecimal() else shared)
        )


def _train(
    run: RunDir,
    recipe: Recipe,
    ranks: Ranks,
    writer: EventWriter,
    launch: dict[str, Any],
    stop: StopRequest,
) -> None:
    links, root = launch.get("teachers", {}), Path(launch["data_root"])
    job = build_job(recipe, ranks, data_root=root, links=links)
    facts = {"schema": SCHEMA, "run": run.path.name, "rank": ranks.rank, "world": ranks.world}
    writer.write("head", **facts, attempt=launch["attempt"], **run_facts(job))
    heartbeat = _Heartbeat(run, ranks, job)

    def emit(kind: str, **fields: Any) -> None:
        # Reduced numbers are the same on every rank; the others log only their own times.
        if kind == "step" and not ranks.is_first:
            fields = {k: fields[k] for k in ("step", "epoch", "n", "ms")}
        if kind in ("step", "epoch", "event") and (ranks.is_first or kind == "step"):
            writer.write(kind, **fields)
        sampler.note_event(fields.get("what"))
        heartbeat.beat()

    pulse, is_told = Pulse(ranks.rank), False

    def beat(step: int) -> None:
        nonlocal is_told
        pulse.mark(step)
        fault.at_step(ranks.rank, step)
        if stop.is_set and not is_told and ranks.is_first:
            is_told = True
            words = f"{stop.reason}: saving at the end of this step (Ctrl-C again to kill)"
            writer.write("event", what="signal", step=step, message=words)

    if launch.get("restart") and ranks.is_first:
        _say_restart(launch["restart"], writer)
    status, reason = "failed", ""
    with EventWriter(run.system_log_path(ranks.rank)) as system_log:
        sampler = SystemSampler(
            _noting(job, system_log),
            recipe.log.system_every_s,
            cgroup=own_cgroup(),
            extra=partial(allocator_counts, ranks.device),
        )
        sampler.start()
        try:
            _find_room(run, job, writer)
            fit(
                job,
                emit=emit,
                checkpoints=run.ckpt_dir,
                stop=stop,
                is_resumed=bool(launch["is_resumed"]),
                beat=beat,
                may_change=bool(launch.get("may_change")),
                directory=run.path,
            )
            status = "done"
        except MmtoolError as error:
            status = "stopped" if error.exit_code == 75 else "failed"
            reason = error.what
            raise
        finally:
            sampler.stop()
            writer.write("end", status=status, reason=reason)
            job.close()


def _noting(job: Job, system_log: EventWriter) -> Callable[..., None]:
    """Give what writes a sample of the system and counts what sampling costs."""

    def note(**fields: Any) -> None:
        system_log.write("sys", **fields)
        job.overhead.of_thread("system")

    return note


def _say_restart(restart: dict[str, Any], writer: EventWriter) -> None:
    words = f"restart {restart['number']}: {restart['reason']}"
    writer.write("event", what="restart", message=words, number=restart["number"])


def _find_room(run: RunDir, job: Job, writer: EventWriter) -> None:
    """Stop, or warn, where the checkpoints will not fit on the disk."""
    warning = check_room(run.ckpt_dir, checkpoint_bytes(job)) if job.ranks.is_first else None
    if warning is not None:
        writer.write("event", what="warning", message=warning)


def run_facts(job: Job) -> dict[str, Any]:
    """Give the fields of the `head` event."""
    dataset, config = job.dataset, job.recipe
    measured = "val" if len(dataset.rows("val")) else "train"
    return {
        "modalities": list(dataset.modalities),
        "classes": list(dataset.classes),
        "task": dataset.task,
        "metric": METRICS[dataset.task],
        "dataset": config.data.dataset,
        "dataset_hash": dataset.store.hash,
        "protocol": dataset.protocol,
        "method": config.method.name,
        "fusion": config.model.fusion.name,
        "optimizer": config.train.optimizer,
        "unimodal": job.model.way,
        "batch_size": config.train.batch_size,
        "epochs": config.train.epochs,
        "seed": config.train.seed,
        "steps_per_epoch": job.steps_per_epoch(),
        **{f"num_{s}": len(dataset.rows(s)) for s in ("train", "val", "test")},
        "chance": dataset.constant_score(measured),
        "parameters": {n: sum(p.numel() for _, p in m) for n, m in job.groups.items()},
        "device": str(job.device),
    }


class _Heartbeat:
    """Keeps step and epoch in status.json fresh, at most every two seconds."""

    def __init__(self, run: RunDir, ranks: Ranks, job: Job) -> None:
        self._run, self._job = run, job
        self._is_first = ranks.is_first
        self._next = 0.0

    def beat(self) -> None:
        """Write the progress if it is time."""
        now = time.monotonic()
        if not self._is_first or now < self._next:
            return
        self._next = now + _HEARTBEAT_S
        progress = self._job.progress
        self._run.write_status(step=progress.step, epoch=progress.epoch)
