"""From the model section of a recipe to a model; refuses what cannot work, with the reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mmtool import registry
from mmtool.config.plugins import plugin_options
from mmtool.config.schema import ModelConfig, Plugin
from mmtool.errors import Bug, RequestError
from mmtool.models.exchange import connect
from mmtool.models.multimodal import MultimodalModel
from mmtool.text import did_you_mean
from mmtool.types import (
    FUSION_GROUP,
    PROBE_GROUP,
    InputKind,
    InputSpec,
    Modality,
    UnimodalWay,
    sorted_modalities,
)

# Sums of a few thousand float32 products in another order differ by about this much.
_TOLERANCE = 1e-3


def build_model(
    config: ModelConfig,
    inputs: Mapping[Modality, InputSpec],
    num_classes: int,
    *,
    heads: bool = False,
    probes: bool = True,
    relative_to: Path | None = None,
) -> MultimodalModel:
    """Construct encoders and fusion for the modalities in `inputs`, drawing from torch's generator.

    `heads` adds classifiers that train the encoders, `probes` such that only watch them; neither
    changes the other initial weights. `relative_to` is the folder of `./file.py` plugin names.
    """
    modalities = sorted_modalities(inputs)
    _check_names(modalities)
    encoders = {m: _encoder(m, _plugin_of(m, config), inputs[m], relative_to) for m in modalities}
    dims = {m: int(cast(int, encoder.out_dim)) for m, encoder in encoders.items()}
    fusion_module = registry.load("fusion", config.fusion.name, relative_to=relative_to)
    fusion_options = plugin_options("fusion", config.fusion, relative_to)
    fusion = cast(nn.Module, fusion_module.Fusion(fusion_options, dims, num_classes))
    connect(fusion, config.fusion.name, encoders)
    model = MultimodalModel(
        encoders,
        fusion,
        feature_dims=dims,
        num_classes=num_classes,
        fusion_name=config.fusion.name,
        way=_resolve_way(config, is_additive=bool(fusion.additive)),
    )
    if model.way == "head" and not (heads or probes):
        raise RequestError(
            'model.unimodal = "head" needs a classifier per modality, and there is none',
            why="log.probes is off and the method trains no heads",
            fix="-s log.probes=true",
        )
    if heads:
        model.add_heads()
    if probes:
        model.add_probes()
    return model


def _check_names(modalities: Sequence[Modality]) -> None:
    """Refuse modalities whose modules torch could not tell from its own attributes."""
    groups, attributes = (FUSION_GROUP, PROBE_GROUP), nn.ModuleDict()
    for modality in modalities:
        if modality in groups or hasattr(attributes, modality) or "." in modality:
            raise RequestError(
                f"a modality cannot be called {modality!r}",
                why="modules bear the names of modalities, and torch or mmtool has taken this one",
                fix="prepare the dataset again with another name, without dots",
            )


def _plugin_of(modality: Modality, config: ModelConfig) -> Plugin:
    if modality in config.encoders:
        return config.encoders[modality]
    near = did_you_mean(modality, list(config.encoders))
    raise RequestError(
        f"the recipe has no encoder for modality {modality!r}",
        where=f"model.encoders has: {', '.join(sorted(config.encoders)) or 'nothing'}",
        fix=f"rename model.encoders.{near} to model.encoders.{modality}"
        if near
        else f"-s model.encoders.{modality}=mlp (see: mmtool list encoders)",
    )


def _encoder(
    modality: Modality, plugin: Plugin, spec: InputSpec, relative_to: Path | None
) -> nn.Module:
    module = registry.load("encoders", plugin.name, relative_to=relative_to)
    if spec.kind not in module.Encoder.accepts:
        fitting = _encoders_for(spec.kind)
        raise RequestError(
            f"encoder {plugin.name!r} cannot read {modality!r}, which is stored as {spec.kind}",
            where=f"model.encoders.{modality}",
            why=f"it reads {', '.join(sorted(module.Encoder.accepts))}; "
            f"encoders that read {spec.kind}: {', '.join(fitting) or 'none'}",
            fix=f"-s model.encoders.{modality}={fitting[0]}"
            if fitting
            else f"choose another column with data.columns.{modality}",
        )
    options = plugin_options("encoders", plugin, relative_to)
    return cast(nn.Module, module.Encoder(options, spec))


def _encoders_for(kind: InputKind) -> list[str]:
    return [
        name
        for name in registry.names("encoders")
        if kind in registry.load("encoders", name).Encoder.accepts
    ]


def _resolve_way(config: ModelConfig, *, is_additive: bool) -> UnimodalWay:
    if config.unimodal == "auto":
        return "decompose" if is_additive else "ablate"
    if config.unimodal == "decompose" and not is_additive:
        raise RequestError(
            f"fusion {config.fusion.name!r} is not a sum over modalities, "
            'so model.unimodal = "decompose" cannot work',
            why="only additive fusions, such as concat and sum, split into logits per modality",
            fix="-s model.unimodal=ablate",
        )
    return config.unimodal


@torch.no_grad()
def check_decomposition(model: MultimodalModel, features: Mapping[Modality, Tensor]) -> None:
    """Fail unless the logits per modality add up to the fused ones on these features."""
    if model.way != "decompose":
        return
    fused = model.fuse(features).double()
    total = torch.stack([z.double() for z in model.unimodal(features).values()]).sum(0)
    worst = float((fused - total).abs().max()) if fused.numel() else 0.0
    if not worst <= _TOLERANCE * max(1.0, float(fused.abs().max())):
        raise Bug(
            f"the logits per modality of fusion {model.fusion_name!r} do not add up: "
            f"they are off by up to {worst:.3g}",
            why="an additive fusion's split must equal its forward",
            fix="-s model.unimodal=ablate, and report the fusion",
        )
