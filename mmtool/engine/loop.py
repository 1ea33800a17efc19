"""Epochs, evaluation points, checkpoints and the ways a run ends."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmtool.data.loader import LoadedShare
from mmtool.data.samplers import num_batches
from mmtool.engine import planted
from mmtool.engine.accounting import account
from mmtool.engine.between_epochs import (
    begin_epoch,
    epoch_context,
    parameters_and_snapshots,
    take_snapshot,
)
from mmtool.engine.branches import BranchLog, try_branches
from mmtool.engine.evaluate import encode_rows, evaluate, evaluation_mode
from mmtool.engine.finish import finish_run, report
from mmtool.engine.gradient_sync import check_replicas
from mmtool.engine.job import Job
from mmtool.engine.memory import advice, is_out_of_memory
from mmtool.engine.metriclog import MetricLog
from mmtool.engine.nonfinite import explain, in_words, stopped
from mmtool.engine.optim import learning_rate, set_learning_rate
from mmtool.engine.resume import resume
from mmtool.engine.saving import Saver
from mmtool.engine.step import train_step
from mmtool.engine.stop import StopRequest
from mmtool.engine.timing import PhaseClock
from mmtool.engine.train_sample import measures_train, train_sample
from mmtool.engine.visits import planned_visits, shares
from mmtool.errors import MmtoolError, StoppedResumable
from mmtool.methods._base import StepContext
from mmtool.models.build import check_decomposition
from mmtool.randomness import fold

_NUM_CHECKED = 8

Emit = Callable[..., None]
"""Writes one event to the run log: emit(kind, **fields)."""

Beat = Callable[[int], None]
"""Is told at the beginning of every step which one it is (0-based)."""


def no_beat(step: int) -> None:
    """Tell nobody about a step."""
    del step


@dataclass(slots=True)
class Fit:
    """One run of a job on this rank."""

    job: Job
    emit: Emit
    checkpoints: Path
    stop: StopRequest
    metrics: MetricLog
    saver: Saver
    beat: Beat = no_beat
    directory: Path | None = None
    """The run directory, where answers are kept; None keeps none."""

    def save(self) -> None:
        """Begin to write a checkpoint of the training state."""
        # What the log has not seen yet would be missing from it after a resume.
        _flush(self)
        self.job.running.average(self.job.ranks)
        self.saver.save()


def fit(
    job: Job,
    *,
    emit: Emit,
    checkpoints: Path,
    stop: StopRequest,
    is_resumed: bool,
    beat: Beat = no_beat,
    may_change: bool = False,
    directory: Path | None = None,
) -> None:
    """Train to the end of the recipe, or until asked to stop; then evaluate on test."""
    saver = Saver(job, checkpoints, emit)
    metrics = MetricLog(PhaseClock(job.device))
    run = Fit(job, emit, checkpoints, stop, metrics, saver, beat, directory)
    try:
        if is_resumed:
            resume(job, saver, checkpoints, emit, may_change=may_change)
        else:
            take_snapshot(job, "initial")
        _fit(run)
    except MmtoolError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise advice(job.recipe, job.ranks.rank, str(error)) from error
    finally:
        saver.abandon()


def _fit(run: Fit) -> None:
    job = run.job
    _check_model(job)
    for warning in job.warnings:
        run.emit("event", what="warning", message=warning)
    if job.loader.is_resident:
        run.emit("event", what="placement", message=f"all columns are on {job.device}")
    while job.progress.epoch < job.recipe.train.epochs:
        _train_epoch(run)
        _finish_epoch(run)
    run.saver.finish()
    finish_run(job, run.emit, run.checkpoints, run.directory)


def _check_model(job: Job) -> None:
    """Fail before the first step if the logits per modality are not what the model claims."""
    some = encode_rows(job, job.dataset.rows("train")[:_NUM_CHECKED])
    if not all(bool(torch.isfinite(f).all()) for f in some.features.values()):
        return  # bad data, which the first step that meets it explains
    with evaluation_mode(job.model):
        check_decomposition(job.model, some.features)


def _train_epoch(run: Fit) -> None:
    job, config = run.job, run.job.recipe.train
    if job.progress.step_in_epoch == 0:
        _try_branches(run)
        begin_epoch(job)
    progress = job.progress
    visits, is_weighted = planned_visits(job)
    steps_per_epoch = num_batches(len(visits), config.batch_size)
    coming = shares(job, visits, steps_per_epoch)
    # Closed also when a step fails: a loader that outlives the interpreter would take it down.
    with closing(job.loader.run(coming, epoch=progress.epoch)) as loaded_shares:
        for loaded in loaded_shares:
            should_stop = run_step(run, loaded, steps_per_epoch, is_weighted=is_weighted)
            _after_step(run, steps_per_epoch, should_stop=should_stop)
    progress.step_in_epoch = 0


def _try_branches(run: Fit) -> None:
    """Train along the branches that the method names, if any, and come back."""
    job = run.job
    branches = job.method.plan_branches(epoch_context(job)) if job.method.needs.branches else ()
    if not branches:
        return
    if job.progress.step == 0:
        run.save()  # a run that ends within a branch continues from before it
    log = BranchLog(job, run.emit, replace(job.progress))
    apart = replace(run, emit=log, metrics=MetricLog(PhaseClock(job.device)))
    results = try_branches(
        job, branches, log, train=partial(run_step, apart), flush=partial(_flush, apart)
    )
    if results is None:
        run.saver.finish()
        raise _stopped(run, "; the branch it was in begins again")
    job.method.end_branches(results, epoch_context(job))


def _stopped(run: Fit, why: str = "") -> StoppedResumable:
    return StoppedResumable(
        f"stopped by {run.stop.reason or 'another rank'} after step {run.job.progress.step}",
        why=f"the training state was saved{why}",
        fix="mmtool train --resume RUN",
    )


def _after_step(run: Fit, steps_per_epoch: int, *, should_stop: bool) -> None:
    """Count the step; write the log, compare the ranks, save and stop when it is time."""
    job, progress, config = run.job, run.job.progress, run.job.recipe.train
    progress.step += 1
    progress.step_in_epoch += 1
    is_epoch_done = progress.step_in_epoch == steps_per_epoch
    if len(run.metrics) >= job.recipe.log.every_steps or is_epoch_done or should_stop:
        _flush(run)
    if should_stop:
        run.save()
        run.saver.finish()
        raise _stopped(run)
    if progress.step % job.recipe.launch.check_every_steps == 0:
        check_replicas(job.ranks, job.groups, job.shards.parameters)
    every = config.checkpoint_every_steps
    if every is not None and progress.step % every == 0 and not is_epoch_done:
        run.save()


def run_step(
    run: Fit,
    loaded: LoadedShare,
    steps_per_epoch: int,
    *,
    is_weighted: bool = False,
    branch: str | None = None,
) -> bool:
    """Run one step with its learning rate, random numbers and timing; give whether to stop."""
    job, progress, clock = run.job, run.job.progress, run.metrics.clock
    config = job.recipe.train
    run.beat(progress.step)
    # Everything random in a step is a function of the step, so a resume needs no generator state;
    # dropout differs between ranks, what methods draw is the same on all.
    key = fold(config.seed, progress.step + 1)
    torch.manual_seed(fold(key, job.ranks.rank + 1) >> 1)
    generator = torch.Generator(device=job.device)
    generator.manual_seed(key >> 1)
    ctx = StepContext(
        modalities=job.dataset.modalities,
        num_classes=job.dataset.num_classes,
        epoch=progress.epoch,
        step=progress.step,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        generator=generator,
        is_weighted=is_weighted,
        branch=branch,
    )
    # By the place in the epoch: a plan may make epochs longer or shorter than one visit of each.
    place = progress.epoch * steps_per_epoch + progress.step_in_epoch
    lr = learning_rate(config, place, steps_per_epoch)
    set_learning_rate(job.optimizer, lr)
    clock.begin_step(data_ms=loaded.wait_ms, transfer_ms=loaded.transfer_ms)
    num_parts = progress.num_parts
    loaded = planted.before_step(job, loaded)
    should_stop = train_step(job, loaded, ctx, clock, is_stopping=run.stop.is_set)
    if progress.num_parts != num_parts:
        words = f"out of memory: micro-batches are cut into {progress.num_parts} parts from now on"
        run.emit("event", what="memory", step=progress.step, message=words)
    clock.end_step()
    with job.overhead.part("log"):
        run.metrics.add(
            ctx.metrics, step=progress.step, epoch=progress.epoch, n=loaded.global_size, lr=lr
        )
    return should_stop


def _flush(run: Fit) -> None:
    """Write the waiting step metrics; stop where a step was not finite, as the recipe says."""
    progress, config = run.job.progress, run.job.recipe.train
    run.saver.poll()
    operators = run.metrics.clock.take_operators()
    if operators is not None:
        run.emit("event", what="operators", step=progress.step, num=operators)
    compiled = run.job.compiled.report()
    if compiled is not None:
        run.emit("event", what="compile", **compiled.as_fields())
    for record in run.job.overhead.read_with(run.metrics.flush):
        is_overflow = bool(record.pop("overflow", 0.0))  # the loss scale was too large, not data
        with run.job.overhead.whole("log"):
            run.emit("step", **record)
        is_bad = record["skipped"] and not is_overflow
        progress.bad_steps = progress.bad_steps + 1 if is_bad else 0
        if not is_bad:
            continue
        step = record["step"]
        found = explain(run.job, run.job.evidence.of(step), record)
        words = f"step {step} was skipped: {in_words(found)}"
        run.emit("event", what="nonfinite", step=step, message=words, **found)
        if config.on_nonfinite == "stop" or progress.bad_steps >= config.max_bad_steps:
            raise stopped(step, progress.bad_steps, found, on_nonfinite=config.on_nonfinite)
    run.job.evidence.clear()


def _finish_epoch(run: Fit) -> None:
    """Evaluate, let the method act, keep the best weights, save."""
    job, progress = run.job, run.job.progress
    check_replicas(job.ranks, job.groups, job.shards.parameters)
    job.running.average(job.ranks)
    if measures_train(job):
        with job.overhead.whole("train_sample"):
            _evaluate(run, "train", train_sample(job))
    if len(val_rows := job.dataset.rows("val")):
        _evaluate(run, "val", val_rows)
    account(job, run.emit)
    ctx = epoch_context(job)
    job.method.end_epoch(ctx)
    progress.epoch += 1
    accuracy = job.metrics.get("val.acc", float("-inf"))
    if accuracy > progress.best_accuracy and job.recipe.train.select == "best":
        progress.best_accuracy, progress.best_epoch = accuracy, progress.epoch - 1
        run.saver.save_best()
    # After the best weights were kept, which are those that were evaluated.
    job.method.edit_parameters(parameters_and_snapshots(job), ctx)
    run.save()


def _evaluate(run: Fit, split: str, rows: np.ndarray) -> None:
    job, started = run.job, time.perf_counter()
    report(job, run.emit, split, evaluate(job, split, rows), job.progress.epoch)
    ms = (time.perf_counter() - started) * 1e3
    at = {"step": job.progress.step, "epoch": job.progress.epoch}
    run.emit("event", what="evaluation", split=split, ms=ms, **at)
