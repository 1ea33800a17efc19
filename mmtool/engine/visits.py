"""Which samples an epoch visits, in which order, and this rank's part of every batch."""

from collections.abc import Iterator

from mmtool.data.samplers import Share, Visits, rank_share
from mmtool.engine.job import Job


def planned_visits(job: Job) -> tuple[Visits, bool]:
    """Give the visits of this epoch in their order, and whether samples are weighted."""
    plan = job.plan
    visits = job.train_visits()
    if plan is not None:
        visits = Visits(
            visits.rows[plan.index.cpu().numpy()],
            plan.keep.cpu().numpy(),
            None if plan.weight is None else plan.weight.float().cpu().numpy(),
        )
    config = job.recipe.train
    ordered = job.dataset.epoch_order(
        visits, seed=config.seed, epoch=job.progress.epoch, batch_size=config.batch_size
    )
    return ordered, visits.weight is not None


def shares(job: Job, visits: Visits, steps_per_epoch: int) -> Iterator[Share]:
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
