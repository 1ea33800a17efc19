"""What the selected weights answer on every sample of a split, kept in the run directory."""

from pathlib import Path

import numpy as np
from torch import Tensor

from mmtool.engine.evaluate import Encoded, evaluation_mode, logits_of
from mmtool.engine.job import Job
from mmtool.engine.scoring import METRICS, answers
from mmtool.methods._task import task_loss
from mmtool.runlog.predictions import Predictions, write_predictions


def keep_predictions(job: Job, encoded: Encoded, split: str, run: Path, *, epoch: int) -> None:
    """Write the answers on a split; of several ranks, the first one does."""
    if not job.ranks.is_first:
        return
    write_predictions(run, _predictions(job, encoded, split, epoch))


def _predictions(job: Job, encoded: Encoded, split: str, epoch: int) -> Predictions:
    dataset, task = job.dataset, job.dataset.task
    with evaluation_mode(job.model):
        fused, unimodal = logits_of(job, encoded)
    rows = _host(encoded.index)
    head = {
        "split": split,
        "task": task,
        "metric": METRICS[task],
        "dataset": job.recipe.data.dataset,
        "dataset_hash": dataset.store.hash,
        "protocol": dataset.protocol,
        "epoch": epoch,
        "step": job.progress.step,
        "unimodal": job.model.way,
        "modalities": list(job.model.modalities),
        "classes": list(dataset.classes),
    }
    present = _host(encoded.present)
    return Predictions(
        head=head,
        row=rows,
        id=np.array(dataset.store.index.ids(rows), dtype=np.str_),
        group=dataset.store.index.group[rows],
        label=_host(encoded.label),
        answer=_host(answers(fused, task)),
        loss=_host(task_loss(fused, encoded.label, task).float()),
        answers={m: _host(answers(unimodal[m].float(), task)) for m in job.model.modalities},
        present={m: present[:, at] for at, m in enumerate(job.model.modalities)},
    )


def _host(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
