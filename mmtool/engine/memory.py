"""What a step does when a rank runs out of memory: advice, or the same batch in smaller parts.

The global batch and what the step computes stay the same, except that batch normalisation sees
smaller batches and that dropout is drawn for other batch sizes.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mmtool.config.schema import Recipe
from mmtool.data.samplers import split_evenly
from mmtool.engine.distributed import PeerLost
from mmtool.engine.job import Job
from mmtool.errors import OutOfMemory
from mmtool.methods._base import StepContext
from mmtool.types import Batch

_CPU_WORDS = "can't allocate memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that there was no memory for a tensor."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_WORDS in str(error)


def in_parts(batches: Sequence[Batch], factor: int) -> list[Batch]:
    """Cut every micro-batch into `factor` parts, or as many as it has samples."""
    if factor == 1:
        return list(batches)
    return [
        _slice(batch, part)
        for batch in batches
        for part in split_evenly(batch.size, min(factor, batch.size))
    ]


def _slice(batch: Batch, part: slice) -> Batch:
    return replace(
        batch,
        inputs={m: x[part] for m, x in batch.inputs.items()},
        lengths={m: x[part] for m, x in batch.lengths.items()},
        present=batch.present[part],
        label=batch.label[part],
        index=batch.index[part],
        weight=None if batch.weight is None else batch.weight[part],
    )


def can_recover(job: Job) -> bool:
    """Tell whether the other ranks can learn of it: not if they already wait inside a backward."""
    return job.ranks.world == 1 or job.recipe.launch.sync == "explicit"


def make_room(job: Job, ctx: StepContext, own_error: str | None) -> None:
    """Prepare to repeat the sub-step in twice as many parts, or stop; alike on every rank."""
    factor = job.progress.num_parts
    largest = -(-job.recipe.train.batch_size // job.ranks.world)
    smallest = -(-largest // job.recipe.train.accumulate)
    if job.recipe.train.on_oom == "stop" or factor >= smallest:
        if own_error is None:
            raise PeerLost(f"another rank ran out of memory in step {ctx.step}")
        raise advice(job.recipe, job.ranks.rank, own_error, step=ctx.step, factor=factor)
    job.progress.num_parts = factor * 2
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
    # What is random must be drawn again as in a first attempt.
    torch.manual_seed(torch.initial_seed())
    ctx.generator.manual_seed(ctx.generator.initial_seed())


def advice(
    recipe: Recipe, rank: int, error: str, *, step: int | None = None, factor: int = 1
) -> OutOfMemory:
    """Give the error that says what to set."""
    train, world = recipe.train, recipe.launch.gpus
    num_micro = train.accumulate * factor
    of_rank = -(-train.batch_size // world)
    micro_size = -(-of_rank // num_micro)
    where = "" if step is None else f" in step {step}"
    if micro_size > 1:
        fix = f"-s train.accumulate={num_micro * 2} (the result stays the same)"
        if train.on_oom == "stop" and recipe.launch.sync == "explicit":
            fix += ", or -s train.on_oom=halve"
        elif recipe.launch.sync == "explicit":
            fix += f", or -s train.batch_size={max(world, train.batch_size // 2)}"
    elif recipe.launch.sync != "fsdp":
        fix = "a smaller model, -s train.precision=bf16, or -s launch.sync=fsdp on several GPUs"
    else:
        fix = "a smaller model, -s train.precision=bf16, or more GPUs"
    return OutOfMemory(
        f"rank {rank} ran out of memory{where}",
        why=f"a micro-batch has {micro_size} samples (train.batch_size = {train.batch_size}, "
        f"{world} ranks, {num_micro} micro-batches): {error.splitlines()[0][:200]}",
        fix=fix,
    )
