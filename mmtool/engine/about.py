"""What weights have to say of themselves: recipe, classes, modalities, normalisation, version."""

import json
from typing import Any

from mmtool import __version__
from mmtool.config.dump import to_toml
from mmtool.engine.job import Job
from mmtool.types import Modality

SCHEMA = "mmtool-weights/1"


def about_weights(job: Job, *, step: int, epoch: int) -> dict[str, str]:
    """Give the metadata of a weights file: texts, most of them JSON or TOML."""
    dataset = job.dataset
    return {
        "format": "pt",
        "schema": SCHEMA,
        "mmtool": __version__,
        "recipe": to_toml(job.recipe),
        "classes": json.dumps(list(dataset.classes)),
        "task": dataset.task,
        "modalities": json.dumps({m: _modality(job, m) for m in dataset.modalities}),
        "dataset": job.recipe.data.dataset,
        "dataset_hash": dataset.store.hash,
        "protocol": dataset.protocol,
        "step": str(step),
        "epoch": str(epoch),
    }


def _modality(job: Job, modality: Modality) -> dict[str, Any]:
    """Give what an encoder's input was: its column, shape after transforms and normalisation."""
    dataset = job.dataset
    name = dataset.columns[modality]
    column, spec = dataset.store.columns[name], dataset.input_specs()[modality]
    is_normalised = dataset.config.normalize == "train" and column.kind != "tokens"
    found = column.stats.get(dataset.protocol) if is_normalised else None
    return {
        "column": name,
        "kind": spec.kind,
        "dtype": column.dtype,
        "shape": list(spec.shape),
        "ragged": spec.ragged,
        "mean": None if found is None else list(found["mean"]),
        "std": None if found is None else list(found["std"]),
    }
