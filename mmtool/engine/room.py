"""Whether the run directory's file system has room for the checkpoints, before the first step.

Three have to fit: two are kept, and the next one is whole before the oldest goes.
"""

import shutil
from pathlib import Path

from torch import Tensor

from mmtool.engine.job import Job
from mmtool.errors import NotWritable
from mmtool.text import human_bytes

_NUM_CHECKPOINTS = 3


def checkpoint_bytes(job: Job) -> int:
    """Give about how much a checkpoint takes: the weights and what the optimisers keep of each."""
    weights = sum(t.numel() * t.element_size() for t in job.model.state_dict().values())
    config = job.recipe.train
    slots = 2 if config.optimizer == "adamw" else int(config.momentum > 0)
    trained = [p for members in job.groups.values() for _, p in members]
    moments = slots * sum(p.numel() * p.element_size() for p in trained)
    snapshots = sum(_bytes(values) for values in job.snapshots.values())
    return weights + moments + snapshots


def _bytes(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def check_room(folder: Path, each: int) -> str | None:
    """Refuse a folder without room for one checkpoint of `each` bytes; warn where three lack it."""
    used = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    free = shutil.disk_usage(folder).free
    wanted = max(each, _NUM_CHECKPOINTS * each - used)
    if free >= wanted:
        return None
    numbers = (
        f"{human_bytes(free)} are free, {human_bytes(wanted)} are wanted for "
        f"{_NUM_CHECKPOINTS} checkpoints of {human_bytes(each)} (two kept and one being written)"
    )
    fix = f"free {human_bytes(wanted - free)} there, or choose another disk with --runs-dir"
    if free < each:
        raise NotWritable(
            "there is no room for a checkpoint", where=str(folder), why=numbers, fix=fix
        )
    return f"little room for checkpoints in {folder}: {numbers}; {fix}"
