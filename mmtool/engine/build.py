"""From a recipe to everything a training step needs; refuses what cannot work, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn

from mmtool import registry
from mmtool.config.plugins import plugin_options
from mmtool.config.schema import Recipe
from mmtool.data.dataset import Dataset, open_dataset
from mmtool.data.loader import Loader
from mmtool.data.samplers import Visits, num_batches
from mmtool.engine.combinations import check_exchange, check_needs, check_sync
from mmtool.engine.compiled import CompiledEncoders
from mmtool.engine.distributed import Ranks
from mmtool.engine.evidence import EvidenceLog
from mmtool.engine.gradient_sync import GradientSync
from mmtool.engine.grads import Gradients, NamedParameters
from mmtool.engine.optim import build_optimizer, build_probe_optimizer
from mmtool.engine.precision import Precision
from mmtool.engine.replicas import Replicas
from mmtool.engine.running import RunningStatistics
from mmtool.engine.shards import Shards
from mmtool.engine.streams import EncoderStreams
from mmtool.engine.teachers import Teachers
from mmtool.errors import RequestError
from mmtool.methods._base import BalancingMethod, DataPlan, ModelFacts
from mmtool.models.build import build_model
from mmtool.models.groups import exchange_views, parameter_groups
from mmtool.models.multimodal import MultimodalModel
from mmtool.randomness import fold
from mmtool.types import PROBE_GROUP, GroupName, InputSpec, Modality, SubStep


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


def build_job(
    recipe: Recipe,
    ranks: Ranks,
    *,
    data_root: Path,
    relative_to: Path | None = None,
    links: Mapping[Modality, Mapping[str, str]] | None = None,
) -> Job:
    """Construct dataset, model, method and optimiser; the same weights on every rank.

    `links` are the models it builds on, as the launcher found them; None takes untrained ones.
    """
    # It reads trained models with what this file builds them with.
    from mmtool.engine.teaching import take_links, take_stand_ins

    dataset = open_dataset(recipe.data, data_root)
    try:
        job = _build(recipe, ranks, dataset, relative_to)
        if links is None:
            take_stand_ins(job, relative_to)
        else:
            job.warnings = (*job.warnings, *take_links(job, links))
        return job
    except BaseException:
        dataset.store.close()
        raise


def _build(recipe: Recipe, ranks: Ranks, dataset: Dataset, relative_to: Path | None) -> Job:
    method = build_method(recipe, relative_to)
    warnings = (*dataset.notes(), *check_needs(recipe, dataset, method))
    check_sync(recipe, method.asked(), max(ranks.world, recipe.launch.gpus))
    torch.manual_seed(fold(recipe.train.seed, 0) >> 1)
    model = build_recipe_model(recipe, dataset, method, relative_to)
    if model.is_exchanging:
        check_exchange(recipe, method.asked())
    # FSDP2 refuses parameters in any but the plain layout.
    laid_out(model, ranks.device, is_plain=recipe.launch.sync == "fsdp")
    facts = ModelFacts(
        dataset.modalities,
        dataset.num_classes,
        model.feature_dims,
        model.fusion_name,
        ranks.device,
        dataset.task,
    )
    extra = method.setup(facts)
    if extra:
        model.extra = nn.ModuleDict(extra).to(ranks.device)
    for parameter in model.parameters():
        ranks.broadcast_(parameter.data)
    shards = Shards(
        model,
        ranks if recipe.launch.sync == "fsdp" else Ranks(),
        min_parameters=recipe.launch.shard_from,
    )
    groups = shards.localised(parameter_groups(model))
    replicas = Replicas(groups, ranks, is_used=recipe.launch.sync == "ddp")
    summed_elsewhere = [*shards.parameters, *replicas.parameters]
    trained = [p for name, members in groups.items() if name != PROBE_GROUP for _, p in members]
    probes = [p for _, p in groups.get(PROBE_GROUP, [])]
    return Job(
        recipe=recipe,
        ranks=ranks,
        dataset=dataset,
        loader=Loader(dataset, device=ranks.device, seed=recipe.train.seed),
        model=model,
        method=method,
        groups=groups,
        shards=shards,
        gradients=Gradients(
            groups,
            ranks=ranks,
            parts=frozenset(map(id, shards.parameters)),
            views=exchange_views(model),
        ),
        replicas=replicas,
        sync=GradientSync(
            ranks, groups, summed_elsewhere=summed_elsewhere, overlap=recipe.launch.overlap
        ),
        optimizer=build_optimizer(recipe.train, trained),
        probe_optimizer=build_probe_optimizer(probes),
        precision=Precision(recipe.train.precision, ranks.device),
        compiled=CompiledEncoders(model, is_used=recipe.launch.compile),
        running=RunningStatistics(model),
        evidence=EvidenceLog(recipe.log.every_steps),
        streams=EncoderStreams(dataset.modalities, ranks.device, is_used=recipe.launch.streams),
        teachers=Teachers(),
        warnings=warnings,
    )


def build_method(recipe: Recipe, relative_to: Path | None) -> BalancingMethod:
    """Construct the recipe's method from its validated options."""
    module = registry.load("methods", recipe.method.name, relative_to=relative_to)
    options = plugin_options("methods", recipe.method, relative_to)
    return cast(BalancingMethod, module.Method(options))


class InputFacts(Protocol):
    """What a model is built for; a dataset is one."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    def input_specs(self) -> Mapping[Modality, InputSpec]:
        """What each encoder receives."""


def build_recipe_model(
    recipe: Recipe, dataset: InputFacts, method: BalancingMethod, relative_to: Path | None
) -> MultimodalModel:
    """Construct the recipe's model with what its method needs."""
    needs, config = method.asked(), recipe.model
    if needs.unimodal not in ("none", "any"):
        if config.unimodal not in ("auto", needs.unimodal):
            raise RequestError(
                f"method {recipe.method.name!r} needs model.unimodal = {needs.unimodal!r}",
                why=f"the recipe says {config.unimodal!r}",
                fix=f"-s model.unimodal={needs.unimodal}",
            )
        config = config.model_copy(update={"unimodal": needs.unimodal})
    trains_heads = needs.trains_heads and config.unimodal == "head"
    return build_model(
        config,
        dataset.input_specs(),
        dataset.num_classes,
        heads=trains_heads,
        probes=recipe.log.probes or config.unimodal == "head",
        relative_to=relative_to,
    )


def laid_out(model: nn.Module, device: torch.device, *, is_plain: bool = False) -> None:
    """Move a model to its device, in the memory layout in which images are fastest there."""
    model.to(device)
    if not is_plain and (device.type == "cuda" or torch.backends.mkldnn.is_available()):
        model.to(memory_format=torch.channels_last)
