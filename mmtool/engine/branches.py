"""Epochs that are trained and then taken back: what `plan_branches` of a method asks for.

Every branch begins at the same state and visits, draws, augments and decays its learning rate as
the run itself would from here on, so that two branches differ by nothing but the method's losses.
What training changes is kept in host memory and put back bit by bit afterwards. Nothing of a branch
reaches the step curve, the evaluations, the checkpoints or the choice of the best weights; the log
tells of it in events that name it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from mmtool.data.loader import LoadedShare
from mmtool.data.samplers import num_batches
from mmtool.engine import sharded
from mmtool.engine.checkpoint import small_state, take_small_state
from mmtool.engine.epoch_statistics import collect
from mmtool.engine.gradient_sync import check_replicas
from mmtool.engine.job import Job, Progress
from mmtool.engine.visits import shares
from mmtool.methods._base import Branch, BranchResult

_SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Kept:
    """A training state in host memory; every rank keeps its own."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]


def keep(job: Job) -> Kept:
    """Copy all that training changes."""
    weights = {name: _copied(sharded.local(v)) for name, v in _tensors(job)}
    return Kept(weights, _copied(job.optimizer.state_dict()), _copied(small_state(job)))


@torch.no_grad()
def put_back(job: Job, kept: Kept) -> None:
    """Go back to a kept state, in place; it can be put back again."""
    for name, value in _tensors(job):
        sharded.local(value).copy_(kept.weights[name])
    job.optimizer.load_state_dict(_copied(kept.optimizer))
    take_small_state(job, _copied(kept.state))
    job.evidence.clear()


def _tensors(job: Job) -> list[tuple[str, Any]]:
    """Give parameters and buffers by name, those too that no checkpoint holds."""
    model = job.model
    return [*model.named_parameters(), *model.named_buffers()]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


class TrainShare(Protocol):
    """Runs one step of a branch and gives whether any rank was asked to stop."""

    def __call__(self, loaded: LoadedShare, steps_per_epoch: int, *, branch: str) -> bool:
        """Run it."""


@dataclass(slots=True)
class BranchLog:
    """Stands in for the run's log: sums up the steps of a branch, says of the rest where it was."""

    job: Job
    emit: Callable[..., None]
    own: Progress
    """Where the run itself stands, for those who ask while a branch is trained."""
    branch: str = ""
    losses: list[float] = field(default_factory=list)
    ms: float = 0.0

    def __call__(self, kind: str, **fields: Any) -> None:
        """Take an event of a branch."""
        if kind == "step":
            self.losses.append(fields["loss"])
            self.ms += fields["ms"]["step"]
            return
        self._tell(kind, **fields)

    def end_epoch(self, number: int) -> None:
        """Tell what one epoch of the branch gave."""
        loss = sum(self.losses) / max(1, len(self.losses))
        words = f"branch {self.branch}, epoch {number + 1}: loss {loss:.4f}"
        fields = {"branch_epoch": number, "loss": loss, "ms": self.ms}
        self._tell("event", what="branch", step=self.own.step, message=words, **fields)
        self.losses, self.ms = [], 0.0

    def end(self, result: BranchResult) -> None:
        """Tell the mean losses around the branch."""
        found = {"before": dict(result.before), "after": dict(result.after)}
        words = f"branch {self.branch}: taken back"
        self._tell("event", what="branch", step=self.own.step, message=words, **found)

    def _tell(self, kind: str, **fields: Any) -> None:
        trained, self.job.progress = self.job.progress, self.own
        try:
            self.emit(kind, branch=self.branch, **fields)
        finally:
            self.job.progress = trained


def try_branches(
    job: Job,
    branches: Sequence[Branch],
    log: BranchLog,
    *,
    train: TrainShare,
    flush: Callable[[], None],
) -> dict[str, BranchResult] | None:
    """Train each branch from here and take it back; None where a rank was asked to stop.

    `flush` is called where the log of the steps so far is wanted.
    """
    kept = keep(job)
    before = _losses(job)
    results: dict[str, BranchResult] = {}
    for branch in branches:
        log.branch = branch.name
        for number in range(branch.epochs):
            if _train_epoch(job, branch.name, train, flush):
                put_back(job, kept)
                return None
            log.end_epoch(number)
        check_replicas(job.ranks, job.groups, job.shards.parameters)
        job.running.average(job.ranks)
        results[branch.name] = BranchResult(before, _losses(job))
        put_back(job, kept)
        log.end(results[branch.name])
    return results


def _train_epoch(job: Job, name: str, train: TrainShare, flush: Callable[[], None]) -> bool:
    """Train one epoch of a branch, every sample once; give whether to stop."""
    config, progress = job.recipe.train, job.progress
    visits = job.dataset.epoch_order(
        job.train_visits(), seed=config.seed, epoch=progress.epoch, batch_size=config.batch_size
    )
    steps = num_batches(len(visits), config.batch_size)
    progress.step_in_epoch = 0
    with closing(job.loader.run(shares(job, visits, steps), epoch=progress.epoch)) as loaded_shares:
        for loaded in loaded_shares:
            should_stop = train(loaded, steps, branch=name)
            progress.step += 1
            progress.step_in_epoch += 1
            if progress.step_in_epoch % job.recipe.log.every_steps == 0 or should_stop:
                flush()
            if should_stop:
                return True
    flush()
    progress.epoch += 1
    return False


def _losses(job: Job) -> dict[str, float]:
    """Mean losses over whole splits in evaluation mode, as `split.modality` and `split.fused`."""
    return {
        f"{split}.{name}": float(value)
        for split in _SPLITS
        if len(job.dataset.rows(split))
        for name, value in collect(job, "losses", split).items()
    }
