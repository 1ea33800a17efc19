"""Which training samples are evaluated beside validation, and after which epochs.

To run the encoders over a sample costs a third of training on it, so that of a small dataset the
sample alone would cost more than all other measuring. In a long run it is therefore evaluated
after some of the epochs only: the first, then at equal distances, and the last.
"""

import numpy as np

from mmtool.engine.evaluate import fixed_sample
from mmtool.engine.job import Job

_FORWARD_SHARE = 1 / 3
"""Of a training step, the part that is its forward pass; backward is about twice that."""
_MOST_COST = 0.005
_LEAST_POINTS = 10
"""Points that the curve of a long run has at least, whatever they cost."""


def train_sample(job: Job) -> np.ndarray:
    """Rows of the training split on which accuracy is measured; the same ones every time."""
    rows = job.dataset.rows("train")
    return fixed_sample(job, rows, min(job.recipe.log.train_samples, len(rows)))


def measures_train(job: Job) -> bool:
    """Tell whether the training sample is evaluated after this epoch; the recipe decides."""
    if len(job.dataset.rows("val")) == 0:
        return True
    epoch, epochs = job.progress.epoch, job.recipe.train.epochs
    size = len(job.dataset.rows("train"))
    every = job.recipe.log.train_every_epochs or interval(
        min(job.recipe.log.train_samples, size), size, epochs
    )
    return epoch % every == 0 or epoch + 1 == epochs


def interval(num_samples: int, size: int, epochs: int) -> int:
    """Give the epochs between two evaluations of so many of `size` training samples."""
    wanted = -(-num_samples * _FORWARD_SHARE // (size * _MOST_COST))
    return max(1, min(int(wanted), epochs // _LEAST_POINTS))
