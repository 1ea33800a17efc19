"""One experiment on one rank: what every part of the engine is handed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mmtool.config.schema import Recipe
from mmtool.data.dataset import Dataset
from mmtool.data.loader import Loader
from mmtool.data.samplers import Visits, num_batches
from mmtool.engine.compiled import CompiledEncoders
from mmtool.engine.distributed import Ranks
from mmtool.engine.evidence import EvidenceLog
from mmtool.engine.gradient_sync import GradientSync
from mmtool.engine.grads import Gradients, NamedParameters
from mmtool.engine.overhead import Overhead
from mmtool.engine.precision import Precision
from mmtool.engine.replicas import Replicas
from mmtool.engine.running import RunningStatistics
from mmtool.engine.shards import Shards
from mmtool.engine.streams import EncoderStreams
from mmtool.engine.teachers import Teachers
from mmtool.methods._base import BalancingMethod, DataPlan
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import PROBE_GROUP, GroupName, SubStep


@dataclass(slots=True)
class Progress:
    """How far a run is; saved with every checkpoint."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_accuracy: float = float("-inf")
    """Score on validation, accuracy or what the task has in its place."""
    best_epoch: int = -1
    bad_steps: int = 0
    num_parts: int = 1
    """Into how many parts each micro-batch is cut since a rank ran out of memory."""
    norms_factor: int = 1
    """How many times rarer norms are taken than asked for, since measuring cost too much."""


@dataclass(slots=True)
class Job:
    """One experiment, ready to train on this rank."""

    recipe: Recipe
    ranks: Ranks
    dataset: Dataset
    loader: Loader
    model: MultimodalModel
    method: BalancingMethod
    groups: Mapping[GroupName, NamedParameters]
    gradients: Gradients
    sync: GradientSync
    shards: Shards
    replicas: Replicas
    optimizer: torch.optim.Optimizer
    probe_optimizer: torch.optim.Optimizer | None
    precision: Precision
    compiled: CompiledEncoders
    streams: EncoderStreams
    running: RunningStatistics
    evidence: EvidenceLog
    teachers: Teachers
    overhead: Overhead
    warnings: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    snapshots: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    plan: DataPlan | None = None
    """What this epoch visits; saved, since it may depend on the weights the epoch began with."""

    @property
    def device(self) -> torch.device:
        """Device of this rank."""
        return self.ranks.device

    @property
    def joint_step(self) -> SubStep:
        """The one sub-step of methods that do not split a batch."""
        names = tuple(name for name in self.groups if name != PROBE_GROUP)
        return SubStep(self.dataset.modalities, names)

    def train_visits(self) -> Visits:
        """Every training sample once."""
        return Visits(self.dataset.rows("train"))

    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch that visits each sample once."""
        return num_batches(len(self.train_visits()), self.recipe.train.batch_size)

    def close(self) -> None:
        """Release the store."""
        self.dataset.store.close()
