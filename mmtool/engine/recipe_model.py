"""From a recipe to its method and its model, without data or optimiser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn

from mmtool import registry
from mmtool.config.plugins import plugin_options
from mmtool.config.schema import Recipe
from mmtool.errors import RequestError
from mmtool.methods._base import BalancingMethod
from mmtool.models.build import build_model
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import InputSpec, Modality


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
