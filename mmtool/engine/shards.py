"""Encoders whose parameters are spread over the ranks: `launch.sync = "fsdp"` (torch's FSDP2).

Each rank keeps a part of every large encoder and of its optimiser state; the whole of an encoder
exists only while it computes. The step never sees that: in `groups` a sharded parameter is a plain
tensor, the view of this rank's part, whose gradient FSDP2 has already summed over ranks.

Fusion, heads, probes and small encoders stay whole on every rank and are synchronised as usual.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mmtool.engine.distributed import Ranks
from mmtool.engine.grads import NamedParameters
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import GroupName, Modality


class Shards:
    """The sharded encoders of a model, and this rank's part of their parameters."""

    def __init__(self, model: MultimodalModel, ranks: Ranks, *, min_parameters: int) -> None:
        self._encoders: list[Any] = []
        self._local: dict[int, Parameter] = {}
        self._pairs: list[tuple[Parameter, Parameter]] = []
        self._whole_of: dict[int, Parameter] = {}
        self._modality_of: dict[int, Modality] = {}
        self._reached: set[Modality] = set()
        self._host_mesh: Any = None
        if ranks.world == 1:
            return
        from torch.distributed.fsdp import fully_shard

        mesh = ranks.mesh()
        self._host_mesh = mesh if ranks.device.type == "cpu" else ranks.mesh("cpu")
        for modality in model.modalities:
            encoder: nn.Module = model.encoders[modality]
            if sum(p.numel() for p in encoder.parameters()) < min_parameters:
                continue
            sharded: Any = fully_shard(encoder, mesh=mesh)
            # Losses are already divided by the global batch, so gradients add up. gloo knows no
            # other way to scale a sum either.
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_gradient_divide_factor(1.0)
            self._encoders.append(sharded)
            for whole in encoder.parameters():
                part = Parameter(_part(whole), requires_grad=whole.requires_grad)
                self._local[id(whole)] = part
                self._pairs.append((whole, part))
                self._whole_of[id(part)] = whole
                self._modality_of[id(part)] = modality

    @property
    def parameters(self) -> list[Parameter]:
        """This rank's parts."""
        return [part for _, part in self._pairs]

    def localised(
        self, groups: Mapping[GroupName, NamedParameters]
    ) -> dict[GroupName, list[tuple[str, Parameter]]]:
        """Give the groups with every sharded parameter replaced by this rank's part."""
        return {
            group: [(name, self._local.get(id(p), p)) for name, p in members]
            for group, members in groups.items()
        }

    def watch(self, encoded: dict[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give the features of a batch in a form that notes whether a loss reaches them."""
        sharded = set(self._modality_of.values())
        if not sharded:
            return encoded
        return {
            m: self._watched(m, f) if m in sharded and f.requires_grad else f
            for m, f in encoded.items()
        }

    def tie(self, encoded: Mapping[Modality, Tensor]) -> Tensor | float:
        """Give a zero that depends on every sharded encoder.

        FSDP2 communicates in the backward pass of an encoder, which therefore has to run on every
        rank, also where a method cut the features of a rank's samples off.
        """
        sharded = set(self._modality_of.values())
        ties = [f.sum() * 0.0 for m, f in encoded.items() if m in sharded and f.requires_grad]
        return torch.stack(ties).sum() if ties else 0.0

    def unreached(self) -> frozenset[int]:
        """Give ids of the parts whose gradients no loss of this rank had a part in."""
        return frozenset(p for p, m in self._modality_of.items() if m not in self._reached)

    def _watched(self, modality: Modality, features: Tensor) -> Tensor:
        watched = features.view_as(features)
        watched.register_hook(lambda _: self._reached.add(modality))
        return watched

    def collect_gradients(self) -> None:
        """Hand the gradients that FSDP2 reduced to the parts."""
        for whole, part in self._pairs:
            part.grad = None if whole.grad is None else _part(whole.grad)
            whole.grad = None

    def clear_gradients(self) -> None:
        """Forget the gradients of the last sub-step."""
        self._reached.clear()
        for whole, part in self._pairs:
            whole.grad = part.grad = None

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep every encoder whole: in evaluation ranks compute unequal numbers of batches."""
        for encoder in self._encoders:
            encoder.set_reshard_after_forward(False)
            encoder.unshard()
        try:
            yield
        finally:
            for encoder in self._encoders:
                encoder.set_reshard_after_forward(True)
                encoder.reshard()

    def whole_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Give the state of a model with every tensor whole; all ranks must call it."""
        return {name: _whole(value) for name, value in model.state_dict().items()}

    def load_whole_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put a state of whole tensors into a model, each rank taking its part."""
        own = model.state_dict()
        model.load_state_dict({name: _like(own[name], value) for name, value in state.items()})

    def whole_optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Give the state of an optimiser over parts as that of one over whole parameters."""
        found = optimizer.state_dict()
        wholes = self._wholes_in(optimizer)
        for number, slots in sorted(found["state"].items()):  # gathering is a collective
            if number in wholes:
                found["state"][number] = {
                    name: _gather(value, wholes[number]) for name, value in slots.items()
                }
        return found

    def load_whole_optimizer_state(
        self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
    ) -> None:
        """Take a state over whole parameters, keeping this rank's part."""
        wholes = self._wholes_in(optimizer)
        slots = {
            number: {n: _split(v, wholes[number]) for n, v in found.items()}
            if number in wholes
            else found
            for number, found in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": slots})

    def as_sharded(self, parameter: Tensor, value: Tensor) -> Tensor:
        """Give a tensor laid out like a parameter in the form torch shards it: itself if whole."""
        whole: Any = self._whole_of.get(id(parameter))
        if whole is None or value.dim() == 0:
            return value
        return _sharded(value, whole)

    def on_host(self, value: Any, part: Tensor) -> Any:
        """Give a sharded tensor whose part on this rank is a copy in host memory."""
        return _sharded(part, value, self._host_mesh)

    def whole_lists(
        self, lists: Mapping[str, Sequence[Tensor]], groups: Mapping[GroupName, NamedParameters]
    ) -> dict[str, list[Tensor]]:
        """Give `group@moment` copies of parameters whole; all ranks must call it."""
        return {
            name: [
                value if whole is None else _gather(value, whole)
                for value, whole in zip(values, self._wholes_of(name, groups), strict=True)
            ]
            for name, values in sorted(lists.items())
        }

    def part_lists(
        self, lists: Mapping[str, Sequence[Tensor]], groups: Mapping[GroupName, NamedParameters]
    ) -> dict[str, list[Tensor]]:
        """Give this rank's part of what `whole_lists` gave."""
        return {
            name: [
                value if whole is None else _split(value, whole)
                for value, whole in zip(values, self._wholes_of(name, groups), strict=True)
            ]
            for name, values in lists.items()
        }

    def _wholes_of(
        self, name: str, groups: Mapping[GroupName, NamedParameters]
    ) -> list[Parameter | None]:
        whole_of = {id(part): whole for whole, part in self._pairs}
        return [whole_of.get(id(p)) for _, p in groups[name.partition("@")[0]]]

    def _wholes_in(self, optimizer: torch.optim.Optimizer) -> dict[int, Parameter]:
        """Give the sharded parameter behind each of an optimiser's parameters, by its number."""
        whole_of = {id(part): whole for whole, part in self._pairs}
        listed: Sequence[Parameter] = [p for g in optimizer.param_groups for p in g["params"]]
        return {n: whole_of[id(p)] for n, p in enumerate(listed) if id(p) in whole_of}


def _part(tensor: Any) -> Tensor:
    part: Tensor = tensor.detach().to_local()
    return part


def _whole(value: Any) -> Tensor:
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def _like(own: Any, value: Tensor) -> Any:
    """Give a whole tensor in the form of the model's own: sharded where that is."""
    if not hasattr(own, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        value.to(own.device), own.device_mesh, own.placements, src_data_rank=None
    )


def _gather(value: Any, whole: Any) -> Any:
    """Give a slot of an optimiser whole; counters stay as they are."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return _sharded(value, whole).full_tensor()


def _sharded(value: Tensor, whole: Any, mesh: Any = None) -> Any:
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        value,
        mesh or whole.device_mesh,
        whole.placements,
        shape=whole.shape,
        stride=whole.stride(),
    )


def _split(value: Any, whole: Any) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return _part(_like(whole, value))
