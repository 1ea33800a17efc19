"""Gradients grouped by modality, as a method reads and edits them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.types import PROBE_GROUP, GroupName, ParameterKind

_SMALLEST_DIMENSION: dict[ParameterKind, int] = {"all": 0, "matrix": 2, "conv": 3}
# OGM-GE's released code adds this to the standard deviation.
_NOISE_FLOOR = 1e-8

NamedParameters = Sequence[tuple[str, Parameter]]


@dataclass(slots=True)
class _Edit:
    """What a method asked for one parameter, applied in one pass by `apply_edits`."""

    value: Tensor | None = None
    factor: Tensor | None = None
    noise: Tensor | None = None
    update_factor: Tensor | None = None


@dataclass(slots=True)
class Gradients:
    """The gradients a method may edit; edits are noted and applied together."""

    groups: Mapping[GroupName, NamedParameters]
    generator: torch.Generator | None = None
    ranks: Ranks = field(default_factory=Ranks)
    parts: frozenset[int] = frozenset()
    """Ids of parameters of which this rank holds a part only."""
    snapshots: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    """Earlier values as `group@moment`, one per parameter of the group."""
    views: Mapping[GroupName, NamedParameters] = field(default_factory=dict)
    """Parameters of the groups under further names, for reading."""
    are_replaced: bool = False
    """Whether this step's gradients are not those that backward gave."""
    _edits: dict[int, _Edit] = field(default_factory=dict)

    def names(self) -> tuple[GroupName, ...]:
        """Group names a method may edit, in collective order."""
        return tuple(name for name in self.groups if name != PROBE_GROUP)

    def parameters(self, group: GroupName, kind: ParameterKind = "all") -> list[Parameter]:
        """Parameters of a group that have a gradient now."""
        smallest = _SMALLEST_DIMENSION[kind]
        found = [p for _, p in self._members(group) if p.grad is not None]
        return [p for p in found if p.grad is not None and p.grad.dim() >= smallest]

    def _members(self, group: GroupName) -> NamedParameters:
        return self.groups[group] if group in self.groups else self.views[group]

    def trained(self) -> list[Parameter]:
        """Parameters with a gradient outside the probes."""
        return [p for name in self.names() for p in self.parameters(name)]

    def tensors(self, group: GroupName, kind: ParameterKind = "all") -> list[Tensor]:
        """Gradients of one group, before any edit of this step."""
        self._refuse_parts(group, "needs whole gradients")
        return [p.grad for p in self.parameters(group, kind) if p.grad is not None]

    def values(self, group: GroupName, kind: ParameterKind = "all") -> list[Tensor]:
        """Parameter values that belong to `tensors(group, kind)`."""
        self._refuse_parts(group, "reads whole parameters")
        return [p.detach() for p in self.parameters(group, kind)]

    def snapshot(self, group: GroupName, moment: str, kind: ParameterKind = "all") -> list[Tensor]:
        """Values at an earlier moment that belong to `tensors(group, kind)`."""
        self._refuse_parts(group, "reads whole parameters")
        chosen = {id(p) for p in self.parameters(group, kind)}
        remembered = self.snapshots[f"{group}@{moment}"]
        pairs = zip(self.groups[group], remembered, strict=True)
        return [value for (_, p), value in pairs if id(p) in chosen]

    def replace(
        self, group: GroupName, tensors: Sequence[Tensor], kind: ParameterKind = "all"
    ) -> None:
        """Put other gradients in the place of `tensors(group, kind)`."""
        self._refuse_parts(group, "replaces whole gradients")
        for parameter, value in zip(self.parameters(group, kind), tensors, strict=True):
            self._edit(parameter).value = value
            self.are_replaced = True

    def scale(self, group: GroupName, factor: Tensor, kind: ParameterKind = "all") -> None:
        """Multiply the gradients of a group."""
        for parameter in self.parameters(group, kind):
            edit = self._edit(parameter)
            edit.factor = factor if edit.factor is None else edit.factor * factor

    def scale_update(self, group: GroupName, factor: Tensor, kind: ParameterKind = "all") -> None:
        """Multiply the coming optimiser update of a group."""
        for parameter in self.parameters(group, kind):
            edit = self._edit(parameter)
            before = edit.update_factor
            edit.update_factor = factor if before is None else before * factor

    def add_noise(self, group: GroupName, strength: Tensor, kind: ParameterKind = "all") -> None:
        """Add N(0, (strength * std)^2), std being that of the gradient before `scale`."""
        self._refuse_parts(group, "adds noise to gradients")
        for parameter in self.parameters(group, kind):
            edit = self._edit(parameter)
            edit.noise = strength if edit.noise is None else edit.noise + strength

    def norm(self, group: GroupName) -> Tensor:
        """Euclidean norm over a group, before any edit; 0-d."""
        return self.norm_of(self.parameters(group))

    def norm_of(self, parameters: Sequence[Parameter]) -> Tensor:
        """Euclidean norm over the gradients of parameters as they are now; equal on all ranks."""
        whole = [p.grad for p in parameters if p.grad is not None and id(p) not in self.parts]
        norm = total_norm(whole, self._device())
        if not self.parts:
            return norm
        parts = [p.grad for p in parameters if p.grad is not None and id(p) in self.parts]
        square = self.ranks.sum_(total_norm(parts, self._device()).square(), "norm")
        return (norm.square() + square).sqrt()

    def _refuse_parts(self, group: GroupName, what: str) -> None:
        if any(id(p) in self.parts for _, p in self._members(group)):
            raise RequestError(
                f"this method {what}, which sharded encoders do not have",
                why='launch.sync = "fsdp" leaves a part of every gradient on each rank',
                fix="-s launch.sync=explicit",
            )

    def apply_edits(self) -> None:
        """Carry out `scale` and `add_noise`; update factors wait for `scaled_updates`."""
        for name in self.names():
            edited = [
                (p.grad, edit)
                for p in self.parameters(name)
                if p.grad is not None and (edit := self._edits.get(id(p))) is not None
            ]
            for gradient, edit in edited:
                if edit.value is not None:
                    gradient.copy_(edit.value)
            noisy = [(g, e.noise) for g, e in edited if e.noise is not None and g.numel() > 1]
            deviations = [gradient.std() for gradient, _ in noisy]  # before any factor
            scaled = [(g, e.factor) for g, e in edited if e.factor is not None]
            for factor, same in _by_number(scaled):
                torch._foreach_mul_(same, factor.to(same[0].dtype))
            self._add_noise(noisy, deviations)

    def _add_noise(
        self, noisy: Sequence[tuple[Tensor, Tensor]], deviations: Sequence[Tensor]
    ) -> None:
        if not noisy:
            return
        strengths = torch.stack([strength for _, strength in noisy])
        amounts = ((torch.stack(list(deviations)) + _NOISE_FLOOR) * strengths).unbind()
        # One tensor after the other: noise for all of them at once is slower on a CPU.
        for (gradient, _), amount in zip(noisy, amounts, strict=True):
            noise = torch.empty_like(gradient)
            # In memory order: torch draws one number at a time for any other layout on a CPU.
            noise.as_strided((noise.numel(),), (1,)).normal_(generator=self.generator)
            gradient.addcmul_(noise, amount.to(gradient.dtype))

    def begin_updates(self) -> list[tuple[Parameter, Tensor, Tensor]]:
        """Remember parameters whose update is to be scaled: (parameter, value now, factor)."""
        return [
            (p, p.detach().clone(), factor)
            for name in self.names()
            for p in self.parameters(name)
            if (edit := self._edits.get(id(p))) is not None
            and (factor := edit.update_factor) is not None
        ]

    @staticmethod
    @torch.no_grad()
    def finish_updates(remembered: Sequence[tuple[Parameter, Tensor, Tensor]]) -> None:
        """Shorten each remembered update by its factor."""
        for parameter, before, factor in remembered:
            parameter.copy_(before + (parameter - before) * factor.to(before.dtype))

    def forget_edits(self) -> None:
        """Start a new step."""
        self._edits.clear()
        self.are_replaced = False

    def _edit(self, parameter: Parameter) -> _Edit:
        return self._edits.setdefault(id(parameter), _Edit())

    def _device(self) -> torch.device:
        return next(p.device for members in self.groups.values() for _, p in members)


def _by_number(
    pairs: Sequence[tuple[Tensor, Tensor]],
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Give each distinct number (the same object) with all tensors it belongs to."""
    found: dict[int, tuple[Tensor, list[Tensor]]] = {}
    for tensor, number in pairs:
        found.setdefault(id(number), (number, []))[1].append(tensor)
    yield from found.values()


def total_norm(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Euclidean norm over a list of tensors; 0-d float32, zero for an empty list."""
    if not tensors:
        return torch.zeros((), device=device)
    return torch.stack(torch._foreach_norm(list(tensors))).float().norm()
