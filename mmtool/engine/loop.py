"""Epochs, evaluation points, checkpoints and the ways a run ends."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmtool.data.loader import LoadedShare
from mmtool.data.samplers import Share, Visits, num_batches, rank_share, shuffled
from mmtool.engine.build import Job
from mmtool.engine.checkpoint import (
    choose_checkpoint,
    load_checkpoint,
    load_weights,
)
from mmtool.engine.evaluate import (
    collect,
    encode_rows,
    evaluate,
    evaluation_mode,
    train_sample,
)
from mmtool.engine.grads import check_replicas
from mmtool.engine.metriclog import MetricLog
from mmtool.engine.optim import learning_rate, set_learning_rate
from mmtool.engine.saving import Saver
from mmtool.engine.step import train_step
from mmtool.engine.stop import StopRequest
from mmtool.engine.timing import PhaseClock
from mmtool.errors import StoppedResumable, WorkFailed
from mmtool.methods._base import EpochContext, StepContext
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

    def save(self) -> None:
        """Begin to write a checkpoint of the training state."""
        _average_buffers(self.job)
        self.saver.save()


def fit(
    job: Job,
    *,
    emit: Emit,
    checkpoints: Path,
    stop: StopRequest,
    is_resumed: bool,
    beat: Beat = no_beat,
) -> None:
    """Train to the end of the recipe, or until asked to stop; then evaluate on test."""
    saver = Saver(job, checkpoints, emit)
    run = Fit(job, emit, checkpoints, stop, MetricLog(PhaseClock(job.device)), saver, beat)
    if is_resumed:
        _resume(run)
    else:
        _take_snapshot(job, "initial")
    _check_model(job)
    for warning in job.warnings:
        emit("event", what="warning", message=warning)
    while job.progress.epoch < job.recipe.train.epochs:
        _train_epoch(run)
        _finish_epoch(run)
    _finish_run(run)


def _check_model(job: Job) -> None:
    """Fail before the first step if the logits per modality are not what the model claims."""
    some = encode_rows(job, job.dataset.rows("train")[:_NUM_CHECKED])
    with evaluation_mode(job.model):
        check_decomposition(job.model, some.features)


def _resume(run: Fit) -> None:
    path, refused = choose_checkpoint(run.checkpoints)
    for problem in refused:
        run.emit("event", what="warning", message=f"checkpoint passed over: {problem}")
    load_checkpoint(run.job, path)
    run.emit("event", what="resume", step=run.job.progress.step, name=path.name)


def _train_epoch(run: Fit) -> None:
    job, progress, config = run.job, run.job.progress, run.job.recipe.train
    ctx = _epoch_context(job)
    if progress.step_in_epoch == 0:
        _take_snapshot(job, "epoch_start")
        job.method.begin_epoch(ctx)
        job.plan = job.method.plan_epoch(ctx)
    visits, is_weighted = _planned_visits(job)
    steps_per_epoch = num_batches(len(visits), config.batch_size)
    loaded_shares = job.loader.run(_shares(job, visits, steps_per_epoch), epoch=progress.epoch)
    for loaded in loaded_shares:
        should_stop = run_step(run, loaded, steps_per_epoch, is_weighted=is_weighted)
        progress.step += 1
        progress.step_in_epoch += 1
        is_epoch_done = progress.step_in_epoch == steps_per_epoch
        if len(run.metrics) >= job.recipe.log.every_steps or is_epoch_done or should_stop:
            _flush(run)
        if should_stop:
            run.save()
            run.saver.finish()
            raise StoppedResumable(
                f"stopped by {run.stop.reason or 'another rank'} after step {progress.step}",
                why="the training state was saved",
                fix="mmtool train --resume RUN",
            )
        if progress.step % job.recipe.launch.check_every_steps == 0:
            check_replicas(job.ranks, job.groups, job.shards.parameters)
        every = config.checkpoint_every_steps
        if every is not None and progress.step % every == 0 and not is_epoch_done:
            run.save()
    progress.step_in_epoch = 0


def _planned_visits(job: Job) -> tuple[Visits, bool]:
    """Give the visits of this epoch in their order, and whether samples are weighted."""
    plan = job.plan
    visits = job.train_visits()
    if plan is not None:
        visits = Visits(
            visits.rows[plan.index.cpu().numpy()],
            plan.keep.cpu().numpy(),
            None if plan.weight is None else plan.weight.float().cpu().numpy(),
        )
    ordered = shuffled(visits, seed=job.recipe.train.seed, epoch=job.progress.epoch)
    return ordered, visits.weight is not None


def _shares(job: Job, visits: Visits, steps_per_epoch: int) -> Iterator[Share]:
    """Give this rank's part of every global batch still to come."""
    for step in range(job.progress.step_in_epoch, steps_per_epoch):
        yield rank_share(
            visits,
            step,
            batch_size=job.recipe.train.batch_size,
            rank=job.ranks.rank,
            world=job.ranks.world,
            micro_batches=job.recipe.train.accumulate,
        )


def run_step(
    run: Fit, loaded: LoadedShare, steps_per_epoch: int, *, is_weighted: bool = False
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
    )
    lr = learning_rate(config, progress.step, job.steps_per_epoch())
    set_learning_rate(job.optimizer, lr)
    clock.begin_step(data_ms=loaded.wait_ms, transfer_ms=loaded.transfer_ms)
    should_stop = train_step(job, loaded, ctx, clock, is_stopping=run.stop.is_set)
    clock.end_step()
    run.metrics.add(
        ctx.metrics, step=progress.step, epoch=progress.epoch, n=loaded.global_size, lr=lr
    )
    return should_stop


def _flush(run: Fit) -> None:
    """Write the waiting step metrics; fail when too many steps in a row were not finite."""
    progress, config = run.job.progress, run.job.recipe.train
    run.saver.poll()
    for record in run.metrics.flush():
        run.emit("step", **record)
        progress.bad_steps = progress.bad_steps + 1 if record["skipped"] else 0
        if record["skipped"]:
            run.emit("event", what="nonfinite", step=record["step"])
        if progress.bad_steps >= config.max_bad_steps:
            raise WorkFailed(
                f"the gradient was not finite in {progress.bad_steps} steps in a row, "
                f"the last of them step {record['step']}",
                why="the weights were left as they were before those steps",
                fix="lower train.lr, set train.clip_norm = 1.0, or use train.precision = fp32",
            )


def _finish_epoch(run: Fit) -> None:
    """Evaluate, let the method act, keep the best weights, save."""
    job, progress = run.job, run.job.progress
    check_replicas(job.ranks, job.groups, job.shards.parameters)
    _average_buffers(job)
    _evaluate(run, "train", train_sample(job))
    val_rows = job.dataset.rows("val")
    if len(val_rows):
        _evaluate(run, "val", val_rows)
    ctx = _epoch_context(job)
    job.method.end_epoch(ctx)
    job.method.edit_parameters(_parameters_and_snapshots(job), ctx)
    progress.epoch += 1
    accuracy = job.metrics.get("val.acc", -1.0)
    if accuracy > progress.best_accuracy and job.recipe.train.select == "best":
        progress.best_accuracy, progress.best_epoch = accuracy, progress.epoch - 1
        run.saver.save_best()
    run.save()


def _finish_run(run: Fit) -> None:
    """Evaluate the selected weights on test, which never selects them."""
    job = run.job
    run.saver.finish()
    if job.recipe.train.select == "best":
        path, refused = choose_checkpoint(run.checkpoints, "best")
        for problem in refused:
            run.emit("event", what="warning", message=f"best weights passed over: {problem}")
        load_weights(job, path)
    test_rows = job.dataset.rows("test")
    if len(test_rows):
        _evaluate(run, "test", test_rows)


def _evaluate(run: Fit, split: str, rows: np.ndarray) -> None:
    job, progress = run.job, run.job.progress
    fields = evaluate(job, split, rows)
    epoch = progress.epoch
    if split == "test":
        is_best = job.recipe.train.select == "best"
        epoch = progress.best_epoch if is_best else progress.epoch - 1
    run.emit("epoch", epoch=epoch, step=progress.step, **fields)
    job.metrics[f"{split}.loss"] = fields["loss"]
    job.metrics[f"{split}.acc"] = fields["acc"]
    for modality, row in fields["m"].items():
        job.metrics[f"{split}.acc.{modality}"] = row["acc"]


def _epoch_context(job: Job) -> EpochContext:
    def collector(statistic: str, split: str = "train") -> dict[str, torch.Tensor]:
        return collect(job, statistic, split)

    return EpochContext(
        modalities=job.dataset.modalities,
        num_classes=job.dataset.num_classes,
        epoch=job.progress.epoch,
        epochs=job.recipe.train.epochs,
        collect=collector,
        metrics=dict(job.metrics),
        device=job.device,
    )


def _take_snapshot(job: Job, moment: str) -> None:
    if moment in job.method.needs.snapshots:
        for name in job.gradients.names():
            values = [p.detach().clone() for _, p in job.groups[name]]
            job.snapshots[f"{name}@{moment}"] = values


def _parameters_and_snapshots(job: Job) -> dict[str, list[torch.Tensor]]:
    current = {n: [p.detach() for _, p in job.groups[n]] for n in job.gradients.names()}
    return {**current, **job.snapshots}


def _average_buffers(job: Job) -> None:
    """Give every rank the mean of the ranks' running statistics (batch normalisation)."""
    if job.ranks.world == 1:
        return
    floats = [
        b
        for name, b in sorted(job.model.named_buffers())
        if name.endswith(("running_mean", "running_var"))
    ]
    job.ranks.sum_many_(floats)
    if floats:
        torch._foreach_div_(floats, float(job.ranks.world))
