"""The end of a run: the selected weights are scored on test and their answers kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmtool.engine.checkpoint import load_weights
from mmtool.engine.choose import choose_together
from mmtool.engine.evaluate import encode_rows, measure
from mmtool.engine.job import Job
from mmtool.engine.predictions import keep_predictions

Emit = Callable[..., None]


def finish_run(job: Job, emit: Emit, checkpoints: Path, directory: Path | None) -> None:
    """Score the selected weights on test, which never selects them.

    What they answer on validation and test is kept in the run directory, if there is one.
    """
    is_best = job.recipe.train.select == "best"
    if is_best:
        path, refused = choose_together(job.ranks, checkpoints, "best")
        for problem in refused:
            emit("event", what="warning", message=f"best weights passed over: {problem}")
        load_weights(job, path)
    epoch = job.progress.best_epoch if is_best else job.progress.epoch - 1
    for split in ("val", "test"):
        rows = job.dataset.rows(split)
        if len(rows) == 0 or (split == "val" and directory is None):
            continue
        encoded = encode_rows(job, rows, isolated=True)
        if split == "test":
            report(job, emit, split, measure(job, encoded, split), epoch)
        if directory is None:
            continue
        try:
            keep_predictions(job, encoded, split, directory, epoch=epoch)
        except OSError as error:
            message = f"the answers on {split} could not be written: {error.strerror or error}"
            emit("event", what="warning", message=message)


def report(job: Job, emit: Emit, split: str, fields: dict[str, Any], epoch: int) -> None:
    """Log an evaluation and remember its scores for the method."""
    emit("epoch", epoch=epoch, step=job.progress.step, **fields)
    job.metrics[f"{split}.loss"] = fields["loss"]
    job.metrics[f"{split}.acc"] = fields["acc"]
    for modality, row in fields["m"].items():
        job.metrics[f"{split}.acc.{modality}"] = row["acc"]
        job.metrics[f"{split}.loss.{modality}"] = row["nll"]
