"""How a model hands its encoders' outputs to its fusion, to do it again with other features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

MAX_ORDERED = 5
"""Modalities up to which the order of a concatenation is searched."""


@dataclass(frozen=True, slots=True)
class One:
    """The output of one encoder."""

    modality: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The outputs of several encoders in one tensor, side by side or stacked."""

    modalities: tuple[str, ...]
    is_stacked: bool


@dataclass(frozen=True, slots=True)
class Several:
    """A list, tuple or mapping of parts."""

    kind: type
    parts: Mapping[Any, Part]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Something that is no tensor and stays as it was."""

    value: Any


@dataclass(frozen=True, slots=True)
class Foreign:
    """A tensor that no encoder gave."""


Part: TypeAlias = One | Joined | Several | Fixed | Foreign


def learn(value: Any, seen: Mapping[str, Tensor]) -> Part:
    """Tell how a value that the fusion was given is made of the encoders' outputs."""
    import torch

    if isinstance(value, torch.Tensor):
        return _tensor_part(value, seen)
    if isinstance(value, Mapping):
        return Several(dict, {key: learn(entry, seen) for key, entry in value.items()})
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        return Several(kind, {at: learn(entry, seen) for at, entry in enumerate(value)})
    return Fixed(value)


def rebuild(part: Part, features: Mapping[str, Tensor]) -> Any:
    """Make the value again from other features."""
    import torch

    if isinstance(part, One):
        return features[part.modality]
    if isinstance(part, Joined):
        listed = [features[m] for m in part.modalities]
        return torch.stack(listed, dim=1) if part.is_stacked else torch.cat(listed, dim=-1)
    if isinstance(part, Several):
        made = {key: rebuild(entry, features) for key, entry in part.parts.items()}
        return made if part.kind is dict else part.kind(made.values())
    return part.value if isinstance(part, Fixed) else None


def modalities_in(part: Part) -> set[str]:
    """Give the modalities that a value holds."""
    if isinstance(part, One):
        return {part.modality}
    if isinstance(part, Joined):
        return set(part.modalities)
    parts = part.parts.values() if isinstance(part, Several) else ()
    return set().union(*map(modalities_in, parts))


def is_known(part: Part) -> bool:
    """Tell whether a value is made of nothing but the encoders' outputs."""
    if isinstance(part, Several):
        return all(map(is_known, part.parts.values()))
    return not isinstance(part, Foreign)


def _tensor_part(value: Tensor, seen: Mapping[str, Tensor]) -> Part:
    for modality, output in seen.items():
        if value is output or _is_equal(value, output):
            return One(modality)
    if not 2 <= len(seen) <= MAX_ORDERED:
        return Foreign()
    for order in permutations(seen):
        for is_stacked in (False, True):
            joined = Joined(order, is_stacked)
            if _fits(value, [seen[m] for m in order], is_stacked) and _is_equal(
                value, rebuild(joined, seen)
            ):
                return joined
    return Foreign()


def _fits(value: Tensor, listed: list[Tensor], is_stacked: bool) -> bool:
    """Tell by shapes alone whether tensors can be joined to one like this."""
    first = listed[0].shape
    if is_stacked:
        return all(z.shape == first for z in listed) and value.shape == (
            first[0], len(listed), *first[1:],
        )  # fmt: skip
    sides_agree = all(z.dim() > 1 and z.shape[:-1] == first[:-1] for z in listed)
    return sides_agree and value.shape == (*first[:-1], sum(z.shape[-1] for z in listed))


def _is_equal(value: Tensor, other: Tensor) -> bool:
    import torch

    if value.shape != other.shape or value.device != other.device:
        return False
    return torch.equal(value.detach(), other.detach().to(value.dtype))
