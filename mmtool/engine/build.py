"""From a recipe to everything a training step needs; refuses what cannot work, with the reason."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from mmtool.config.schema import Recipe
from mmtool.data.dataset import Dataset, open_dataset
from mmtool.data.loader import Loader
from mmtool.engine.combinations import check_exchange, check_needs, check_sync
from mmtool.engine.compiled import CompiledEncoders
from mmtool.engine.distributed import Ranks
from mmtool.engine.evidence import EvidenceLog
from mmtool.engine.gradient_sync import GradientSync
from mmtool.engine.grads import Gradients
from mmtool.engine.job import Job
from mmtool.engine.optim import build_optimizer, build_probe_optimizer
from mmtool.engine.overhead import Overhead
from mmtool.engine.precision import Precision
from mmtool.engine.recipe_model import build_method, build_recipe_model, laid_out
from mmtool.engine.replicas import Replicas
from mmtool.engine.running import RunningStatistics
from mmtool.engine.shards import Shards
from mmtool.engine.streams import EncoderStreams
from mmtool.engine.teachers import Teachers
from mmtool.engine.teaching import take_links, take_stand_ins
from mmtool.methods._base import ModelFacts
from mmtool.models.groups import exchange_views, parameter_groups
from mmtool.randomness import fold
from mmtool.types import PROBE_GROUP, Modality


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
        overhead=Overhead(ranks.device),
        warnings=warnings,
    )
