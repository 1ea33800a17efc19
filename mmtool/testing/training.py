"""Train a recipe in this process, without a run directory: what contract tests compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.job import Job
from mmtool.engine.loop import fit
from mmtool.engine.stop import StopRequest
from mmtool.errors import StoppedResumable


class StopAfter(StopRequest):
    """Asks to stop once so many steps were begun, as a signal would."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self._left = num_steps

    @property
    def is_set(self) -> bool:
        """Whether that many steps were begun; asked once per step."""
        self._left -= 1
        return self._left <= 0


def ignore(kind: str, **fields: Any) -> None:
    """Take an event and do nothing with it."""
    del kind, fields


def train_here(
    recipe: Recipe,
    *,
    data_root: Path,
    checkpoints: Path,
    ranks: Ranks | None = None,
    stop_after: int | None = None,
    is_resumed: bool = False,
    emit: Callable[..., None] = ignore,
) -> dict[str, Tensor]:
    """Train to the end, or until `stop_after` steps, and give the weights then held."""
    job = build_job(recipe, ranks or Ranks(), data_root=data_root)
    stop = StopRequest() if stop_after is None else StopAfter(stop_after)
    try:
        fit(job, emit=emit, checkpoints=checkpoints, stop=stop, is_resumed=is_resumed)
    except StoppedResumable:
        if stop_after is None:
            raise
    finally:
        job.close()
    return weights(job)


def weights(job: Job) -> dict[str, Tensor]:
    """Give a copy of all parameters and buffers."""
    whole = job.shards.whole_state(job.model)
    plain = torch.contiguous_format
    return {name: value.detach().clone(memory_format=plain) for name, value in whole.items()}
