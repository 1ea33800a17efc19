"""What an encoder still learns when it is trained alone: the trained one, for a third of the run.

The recipe of one modality alone goes through the same training step; it differs from the run only
in where the encoder begins and how long it is trained, along the same curve of learning rates. The
run's own model is not touched.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mmtool.config.links import alone
from mmtool.config.schema import Recipe
from mmtool.data.samplers import num_batches
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.job import Job
from mmtool.engine.loop import Fit, run_step
from mmtool.engine.metriclog import MetricLog
from mmtool.engine.saving import Saver
from mmtool.engine.stop import StopRequest
from mmtool.engine.timing import PhaseClock
from mmtool.engine.visits import shares
from mmtool.store.remote import is_url
from mmtool.types import Modality

SHARE = 3
"""The run's epochs, and those of its schedule, are divided by this."""


def epochs_of(recipe: Recipe) -> int:
    """Give for how many epochs each encoder is trained."""
    return max(1, round(recipe.train.epochs / SHARE))


def single_process(recipe: Recipe) -> Recipe:
    """Give the recipe as one process runs it, in which nothing is sharded or compiled."""
    launch = recipe.launch.model_copy(
        update={"gpus": 1, "sync": "explicit", "overlap": False, "compile": False, "streams": False}
    )
    return recipe.model_copy(update={"launch": launch})


@contextmanager
def encoder_alone(job: Job, modality: Modality) -> Iterator[Job]:
    """Give a job of one modality that begins with the encoder of another job; it is closed."""
    own = build_job(_recipe(job, modality), Ranks(device=job.device), data_root=Path.cwd())
    try:
        encoder = job.model.encoders[modality]
        own.model.encoders[modality].load_state_dict(encoder.state_dict())
        own.model.mean_feature(modality).copy_(job.model.mean_feature(modality))
        yield own
    finally:
        own.close()


def _recipe(job: Job, modality: Modality) -> Recipe:
    recipe = single_process(alone(job.recipe, modality))
    store = job.dataset.store
    place = store.location if is_url(store.location) else str(Path(store.location).resolve())
    config = recipe.train
    shorter = {
        "epochs": epochs_of(job.recipe),
        "warmup_epochs": config.warmup_epochs / SHARE,
        "step_epochs": max(1, round(config.step_epochs / SHARE)),
    }
    kept = {"select": "last", "checkpoint": "gathered"}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"dataset": place}),
            "train": config.model_copy(update={**shorter, **kept}),
            "log": recipe.log.model_copy(update={"probes": False}),
        }
    )


def train_all_epochs(job: Job) -> None:
    """Train every epoch of a job without log, evaluation or checkpoint."""
    run = Fit(
        job,
        _ignore,
        Path(),
        StopRequest(),
        MetricLog(PhaseClock(job.device)),
        Saver(job, Path(), _ignore),
    )
    config, progress = job.recipe.train, job.progress
    while progress.epoch < config.epochs:
        visits = job.dataset.epoch_order(
            job.train_visits(),
            seed=config.seed,
            epoch=progress.epoch,
            batch_size=config.batch_size,
        )
        steps = num_batches(len(visits), config.batch_size)
        progress.step_in_epoch = 0
        with closing(job.loader.run(shares(job, visits, steps), epoch=progress.epoch)) as loaded:
            for share in loaded:
                run_step(run, share, steps)
                progress.step += 1
                progress.step_in_epoch += 1
        run.metrics.flush()
        progress.epoch += 1


def _ignore(kind: str, **fields: object) -> None:
    del kind, fields
