"""Multiplying what reaches an encoder: its gradient, or the optimiser's step."""

from typing import Literal, TypeAlias

from torch import Tensor

from mmtool.errors import RequestError
from mmtool.types import GradGroups, Modality, ParameterKind

Apply: TypeAlias = Literal["gradient", "update"]
"""A factor on the gradient is undone by Adam, which divides by the gradient's size; one on the
update, weight decay included, is a factor on the learning rate under any optimiser."""


def scale_by(
    grads: GradGroups,
    modality: Modality,
    factor: Tensor,
    apply: Apply,
    kind: ParameterKind = "all",
) -> None:
    """Multiply the gradients of a modality, or its coming update, by a 0-d factor."""
    if apply == "gradient":
        grads.scale(modality, factor, kind)
    else:
        grads.scale_update(modality, factor, kind)


def check_selects(grads: GradGroups, modality: Modality, kind: ParameterKind) -> None:
    """Refuse a kind of parameter that the encoder of a modality has none of."""
    if grads.tensors(modality) and not grads.tensors(modality, kind):
        raise RequestError(
            f'method.params = "{kind}" selects nothing in the encoder of {modality!r}',
            why="it has no such layer, so the method would silently do nothing",
            fix="-s method.params=matrix",
        )
