"""THE training step: every method, any number of ranks and micro-batches goes through here.

    for sub in plan_step:                      usually one
        for each micro-batch:  encode -> edit_features -> fuse -> losses -> backward
        agree on flags, sum gradients and statistics over ranks
        edit_grads -> clip -> finite check -> optimiser
    end_step

Nothing here reads a device value back to the host.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from mmtool.data.loader import LoadedShare
from mmtool.engine import planted
from mmtool.engine.absent import absent_features
from mmtool.engine.grads import total_norm
from mmtool.engine.job import Job
from mmtool.engine.memory import advice, can_recover, in_parts, is_out_of_memory, make_room
from mmtool.engine.norms import update_norms
from mmtool.engine.optim import step_if_finite
from mmtool.engine.per_loss import collect_per_term, parameters_of, restore_combined
from mmtool.engine.step_sums import StepSums, count, publish, weighted
from mmtool.engine.timing import PhaseClock
from mmtool.methods._base import StepContext
from mmtool.methods._task import sample_loss
from mmtool.types import PROBE_GROUP, Batch, Modality, Outputs, SubStep


def train_step(
    job: Job, share: LoadedShare, ctx: StepContext, clock: PhaseClock, *, is_stopping: bool
) -> bool:
    """Train on one global batch; give whether any rank was asked to stop."""
    stop_anywhere = is_stopping
    evidence = job.evidence.begin(ctx.step)
    for sub in job.method.plan_step(ctx) or (job.joint_step,):
        ctx.sub = sub
        job.model.set_training(frozen=sub.frozen)
        running = job.running.remember()
        while True:
            tried = _accumulate(job, share, ctx, sub, clock)
            with clock.phase("sync"):
                flags = [stop_anywhere, tried.memory_error is not None]
                coming = parameters_of(tried.terms_by_name, job)
                stop_anywhere, is_short = job.sync.agree(flags, job.shards.unreached(), coming)
            if not is_short:
                break
            job.sync.drop()
            job.running.restore(running)
            make_room(job, ctx, tried.memory_error)
        sums = tried.sums
        with clock.phase("sync"):
            restore_combined(job, tried.terms_by_name, ctx)
            job.sync.sum_(sums.values)
        with clock.phase("optimizer"):
            publish(sums, ctx, share.global_size)
            is_bad = _update(job, sub, sums, ctx, share.global_size)
            skipped = is_bad if ctx.is_skipped is None else ctx.is_skipped | is_bad
            ctx.is_skipped = skipped
            present = sums.values["present"] * ~is_bad
            job.model.update_feature_means(sums.section("feature."), present)
            job.running.restore(running, where=is_bad)
        evidence.losses += tried.losses
        evidence.add_features(sums.section("feature."))
    job.method.end_step(ctx)
    return stop_anywhere


@dataclass(slots=True)
class _Tried:
    """What the micro-batches of one sub-step gave on this rank."""

    sums: StepSums = field(default_factory=StepSums)
    terms_by_name: dict[str, list[Tensor | None]] = field(default_factory=dict)
    losses: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    memory_error: str | None = None


def _accumulate(
    job: Job, share: LoadedShare, ctx: StepContext, sub: SubStep, clock: PhaseClock
) -> _Tried:
    """Differentiate all micro-batches; out of memory is told, for the other ranks wait."""
    tried = _Tried()
    _clear_gradients(job)
    try:
        _differentiate(job, share, ctx, sub, clock, tried)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if not can_recover(job):
            raise advice(job.recipe, job.ranks.rank, str(error), step=ctx.step) from error
        tried = _Tried(memory_error=str(error))
    if tried.memory_error is not None:
        _clear_gradients(job)
        if not job.method.needs.term_gradients:
            job.sync.join()
        return tried
    with clock.phase("sync"):
        job.shards.collect_gradients()
        job.replicas.as_sums()
    return tried


def _differentiate(
    job: Job, share: LoadedShare, ctx: StepContext, sub: SubStep, clock: PhaseClock, tried: _Tried
) -> None:
    batches = in_parts(share.batches, job.progress.num_parts)
    num_shares = len(batches) * job.ranks.world
    for number, whole in enumerate(batches, start=1):
        batch = whole if sub.modalities == whole.modalities else whole.only(sub.modalities)
        is_last = number == len(batches)
        with job.replicas.unsynchronised(is_last=is_last):
            with clock.phase("forward"):
                outputs, encoded, terms = _forward(job, batch, ctx, clock)
                terms = {n: t if t.dim() else t / num_shares for n, t in terms.items()}
                count(job, tried.sums, outputs, encoded, terms, batch, ctx)
            clock.count_operators(terms)
            with clock.phase("backward"):
                if is_last:
                    planted.in_backward(job, ctx.step)
                    if not job.method.needs.term_gradients:
                        job.sync.begin()
                size, by_name = share.global_size, tried.terms_by_name
                _backward(job, terms, encoded, batch, size, ctx, by_name, clock)
        tried.losses.append((batch.index, {n: t.detach() for n, t in terms.items()}))


def _forward(
    job: Job, batch: Batch, ctx: StepContext, clock: PhaseClock
) -> tuple[Outputs, dict[Modality, Tensor], dict[str, Tensor]]:
    """Encode, edit, fuse; losses are computed in float32 outside autocast."""
    model, method = job.model, job.method
    kept: list[tuple[Outputs, dict[Modality, Tensor]]] = []

    def compute() -> dict[str, Tensor]:
        with job.precision.autocast():
            encoded = job.streams.encode(model, batch, method.hears(ctx), timed=clock.encoder)
            reached = job.shards.watch(encoded)
            edited = method.edit_features(dict(reached), batch, ctx)
            with clock.phase("fusion"):
                logits = model.fuse(edited)
            unimodal = {}
            # Ablation costs a fusion per modality; the other ways cost next to nothing, so that the
            # score of every modality is in the log of every run.
            if method.needs.unimodal != "none" or model.way != "ablate":
                unimodal = model.unimodal(reached, trained=method.needs.trains_heads)
            absent = absent_features(job, batch, edited)
        outputs = Outputs(
            edited,
            logits.float(),
            {m: z.float() for m, z in unimodal.items()},
            fuse=partial(_fuse, job),
            absent=absent,
            **job.teachers.answers(batch),
        )
        kept.append((outputs, encoded))
        return method.losses(outputs, batch, ctx)

    terms = job.replicas.losses(compute)
    ((outputs, encoded),) = kept
    return outputs, encoded, terms


def _fuse(job: Job, features: Mapping[Modality, Tensor]) -> Tensor:
    with job.precision.autocast():
        logits: Tensor = job.model.fuse(features)
    return logits.float()


def _backward(
    job: Job,
    terms: Mapping[str, Tensor],
    encoded: dict[Modality, Tensor],
    batch: Batch,
    global_size: int,
    ctx: StepContext,
    collected: dict[str, list[Tensor | None]],
    clock: PhaseClock,
) -> None:
    """Differentiate the local sum over the global count, so that ranks simply add up."""
    share = {
        name: weighted(t, batch).sum() / global_size if t.dim() else t for name, t in terms.items()
    }
    wanted = job.method.needs.term_gradients
    clock.watch_backward(encoded, share)
    if wanted:
        collect_per_term(job, share, wanted, collected)
    else:
        loss = job.method.compose(share, ctx) + job.shards.tie(encoded)
        job.precision.scaled(loss).backward()
    clock.end_backward()
    with job.overhead.part("probes"):
        # An encoder that did not run gives every sample the same feature: nothing to learn from.
        probes = {m: z for m, z in job.model.probe(encoded).items() if m in batch.inputs}
        if probes:
            losses = [weighted(sample_loss(z, batch), batch).sum() for z in probes.values()]
            (torch.stack(losses).sum() / global_size).backward()


def _update(job: Job, sub: SubStep, sums: StepSums, ctx: StepContext, global_size: int) -> Tensor:
    """Edit, clip, check and apply the reduced gradients; give whether they were not finite."""
    gradients, config = job.gradients, job.recipe.train
    for name in gradients.names():
        if name not in sub.groups:
            for _, parameter in job.groups[name]:
                parameter.grad = None
    trained = gradients.trained()
    tensors = [p.grad for p in trained if p.grad is not None]
    job.precision.unscale_(tensors)
    if ctx.is_weighted or "weight" in ctx.stats:
        effective = ctx.stats.get("weight", sums.values["weight"])
        torch._foreach_mul_(tensors, global_size / effective.clamp_min(1e-12))
    norms = {name: gradients.norm(name) for name in sub.groups}
    for name, of_group in norms.items():
        ctx.log("gnorm", of_group, name)
    gradients.generator, gradients.snapshots = ctx.generator, job.snapshots
    gradients.forget_edits()
    job.method.edit_grads(gradients, ctx)
    norm = total_norm(list(norms.values()), job.device)
    gradients.apply_edits()
    is_bad = ~torch.isfinite(norm)
    if gradients.are_replaced:
        is_bad = is_bad | ~torch.isfinite(gradients.norm_of(trained))
    if config.clip_norm is not None:
        edited_norm = gradients.norm_of(trained)
        torch._foreach_mul_(tensors, (config.clip_norm / (edited_norm + 1e-6)).clamp(max=1.0))
    with update_norms(job, sub.groups, ctx):
        remembered = gradients.begin_updates()
        step_if_finite(job.optimizer, is_bad)
        gradients.finish_updates(remembered)
    if job.probe_optimizer is not None and job.groups.get(PROBE_GROUP):
        with job.overhead.part("probes"):
            step_if_finite(job.probe_optimizer, is_bad)
    _note_skipped(job, sums, ctx, is_bad)
    job.precision.update(is_bad.float())
    ctx.log("gnorm", norm)
    return is_bad


def _note_skipped(job: Job, sums: StepSums, ctx: StepContext, is_bad: Tensor) -> None:
    """Log whether any sub-step was skipped, and whether a loss scale too large was the cause."""
    skipped = is_bad.float()
    if job.precision.scales_loss:
        terms = [*sums.section("term.").values(), *sums.section("penalty.").values()]
        losses = torch.stack(terms).sum()
        is_overflow = is_bad & torch.isfinite(losses) & (job.precision.scale >= 1.0)
        ctx.log("overflow", is_overflow.float())
    before = ctx.metrics.get("skipped")
    ctx.log("skipped", skipped if before is None else torch.maximum(before, skipped))


def _clear_gradients(job: Job) -> None:
    job.shards.clear_gradients()
    for members in job.groups.values():
        for _, parameter in members:
            parameter.grad = None
