"""Weights as one safetensors file that knows what it is, and the model back from it.

    mmtool export RUN --to weights.safetensors

    model = load_exported(Path("weights.safetensors")).model
    outputs = model(batch)

The metadata holds the resolved recipe, classes, modalities with shapes and normalisation, and the
version of mmtool; reading it back needs neither the run nor the dataset.
"""

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mmtool.config.schema import Recipe
from mmtool.engine import about, sharded
from mmtool.engine.choose import ABOUT, WEIGHTS, choose_checkpoint
from mmtool.engine.recipe_model import build_method, build_recipe_model, laid_out
from mmtool.errors import CheckpointError, NotWritable, RequestError
from mmtool.methods._base import BalancingMethod, ModelFacts
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import InputSpec, Modality


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written, and which checkpoint it came from."""

    path: Path
    checkpoint: str
    step: int
    epoch: int
    refused: tuple[str, ...]
    """What was wrong with newer checkpoints."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A trained model and what its weights file says of it."""

    model: MultimodalModel
    method: BalancingMethod
    """Its `predict` gives the logits that were evaluated."""
    recipe: Recipe
    classes: tuple[str, ...]
    modalities: Mapping[Modality, Mapping[str, Any]]
    """Column, kind, dtype, shape, ragged, and mean and std by channel (null: not normalised)."""
    metadata: Mapping[str, str]


def export_weights(run: Path, target: Path, *, last: bool = False) -> ExportResult:
    """Write the best weights of a run, or the last ones, to one file; refuse damaged ones."""
    folder = run / "ckpt"
    kind = "best" if not last and any(folder.glob("best[0-9]*")) else "step"
    if kind == "step" and not last and _selects_best(run):
        raise RequestError(
            f"run {run.name} has no best weights yet",
            why='train.select = "best" keeps them from the first evaluation on',
            fix="--last takes the newest checkpoint",
        )
    path, refused = choose_checkpoint(folder, kind)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (path / WEIGHTS).exists():
            shutil.copyfile(path / WEIGHTS, temporary)
            metadata = _metadata(temporary)
        else:
            metadata = _about(path)
            save_file(sharded.read_all(path), temporary, metadata=metadata)
        temporary.replace(target)
    except (OSError, SafetensorError) as err:
        temporary.unlink(missing_ok=True)
        raise NotWritable(f"{target} could not be written: {err}", fix="--to another file") from err
    step, epoch = int(metadata["step"]), int(metadata["epoch"])
    return ExportResult(target, path.name, step, epoch, tuple(refused))


def _selects_best(run: Path) -> bool:
    try:
        recipe = tomllib.loads((run / "resolved.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(recipe.get("train", {}).get("select", "best") == "best")


def load_exported(path: Path, *, device: str = "cpu") -> Exported:
    """Give the trained model of an exported file or a checkpoint, in evaluation mode."""
    file = path / WEIGHTS if (path / WEIGHTS).exists() else path
    is_sharded = file.is_dir()
    metadata = _about(file) if is_sharded else _metadata(file)
    if metadata.get("schema") != about.SCHEMA:
        raise CheckpointError(
            f"{path} is not a file that `mmtool export` wrote",
            why=f"its schema is {metadata.get('schema')!r}, this mmtool reads {about.SCHEMA!r}",
            fix="mmtool export RUN --to FILE",
        )
    recipe = Recipe.model_validate(_without_unset(tomllib.loads(metadata["recipe"])))
    facts = _Facts(json.loads(metadata["modalities"]), json.loads(metadata["classes"]))
    method = build_method(recipe, None)
    model = build_recipe_model(recipe, facts, method, None)
    where = torch.device(device)
    names = tuple(facts.input_specs())
    extra = method.setup(
        ModelFacts(
            names,
            facts.num_classes,
            model.feature_dims,
            model.fusion_name,
            where,
            recipe.data.task,
        )
    )
    if extra:
        model.extra = torch.nn.ModuleDict(extra)
    model.load_state_dict(sharded.read_all(file) if is_sharded else load_file(file))
    laid_out(model, where)
    model.eval()
    classes = tuple(json.loads(metadata["classes"]))
    return Exported(model, method, recipe, classes, facts.modalities, metadata)


def _without_unset(tree: Any) -> Any:
    """Drop what TOML writes as "unset" for want of a null."""
    if isinstance(tree, dict):
        return {k: _without_unset(v) for k, v in tree.items() if v != "unset"}
    return tree


def checkpoint_facts(path: Path) -> dict[str, str]:
    """Give what the weights of a checkpoint say of themselves."""
    return _metadata(path / WEIGHTS) if (path / WEIGHTS).exists() else _about(path)


def _about(path: Path) -> dict[str, str]:
    """Give what a checkpoint in parts says of its weights."""
    about_it: dict[str, str] = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    return about_it


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as err:
        raise CheckpointError(f"{path} cannot be read: {err}") from err


@dataclass(frozen=True, slots=True)
class _Facts:
    """What building a model asks of a dataset."""

    modalities: Mapping[Modality, Mapping[str, Any]]
    classes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes) or 1  # a regression has no classes and one output

    def input_specs(self) -> dict[Modality, InputSpec]:
        return {
            m: InputSpec(kind=f["kind"], shape=tuple(f["shape"]), ragged=f["ragged"])
            for m, f in self.modalities.items()
        }
