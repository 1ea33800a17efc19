"""Which parameters belong to which modality."""

from torch.nn import Module, Parameter

from mmtool.models.exchange import Exchanging
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import FUSION_GROUP, PROBE_GROUP, GroupName


def parameter_groups(model: MultimodalModel) -> dict[GroupName, list[tuple[str, Parameter]]]:
    """Give named parameters by group: modalities sorted, then `fusion`, then `probes` if any.

    A modality's group holds its encoder, its auxiliary head and what the method added for it.
    """
    groups: dict[GroupName, list[tuple[str, Parameter]]] = {}
    for modality in model.modalities:
        groups[modality] = _named(model.encoders[modality], f"encoders.{modality}")
        if modality in model.heads:
            groups[modality] += _named(model.heads[modality], f"heads.{modality}")
    groups[FUSION_GROUP] = _named(model.fusion, "fusion")
    for name, module in model.extra.items():
        groups.setdefault(name, []).extend(_named(module, f"extra.{name}"))
    if model.probes:
        groups[PROBE_GROUP] = _named(model.probes, "probes")
    return groups


def exchange_views(model: MultimodalModel) -> dict[GroupName, list[tuple[str, Parameter]]]:
    """Give what of an exchanging fusion lets each encoder hear the others; else nothing.

    Names are `exchange.<modality>`. Layers that several encoders hear through are in all of theirs.
    """
    if not isinstance(model.fusion, Exchanging):
        return {}
    return {f"exchange.{m}": model.fusion.exchange_parameters(m) for m in model.modalities}


def _named(module: Module, prefix: str) -> list[tuple[str, Parameter]]:
    return [(f"{prefix}.{name}", parameter) for name, parameter in module.named_parameters()]
