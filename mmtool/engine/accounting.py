"""After each epoch a run tells what measuring cost it, and measures less where that is too much."""

from collections.abc import Callable

from mmtool.engine.job import Job


def account(job: Job, emit: Callable[..., None]) -> None:
    """Log the overhead since the last account; thin out the norms if the recipe allows."""
    costs, config = job.overhead.account(job.ranks), job.recipe.log
    every = config.norms_every_steps * job.progress.norms_factor
    words = {}
    if config.thin_norms and costs.calls_for_thinning:
        # The costs are a mean over ranks, so all of them decide alike.
        job.progress.norms_factor *= 2
        words["message"] = (
            f"measuring took {costs.share:.1%} of the time: norms are taken every {2 * every} "
            "steps from now on; log.thin_norms = false keeps the interval"
        )
    where = {"step": job.progress.step, "epoch": job.progress.epoch}
    fields = {**costs.as_fields(), "norms_every_steps": every}
    emit("event", what="overhead", **where, **fields, **words)
