"""Combine fused and unimodal gradients where they conflict, and restore their length (MMPareto).

Wei and Hu, "MMPareto: boosting multimodal learning with innocent unimodal assistance", ICML 2024.

    g_f, g_u = gradients of CE(z) and of CE(z_m) with respect to encoder m
    c        = 1/2                                          if g_f . g_u > 0
             = argmin_c |c g_f + (1 - c) g_u|^2             otherwise
             = (|g_u|^2 - g_f . g_u) / |g_f - g_u|^2, or .999 / .001 at the ends
    h        = 2 c g_f + 2 (1 - c) g_u
    g       <- gain max(1, |g_f + g_u| / |h|) h             per tensor, gain = 1.5

c is one number per encoder, from its tensors as one vector; the length is restored tensor by
tensor. Heads and fusion keep g_f + g_u. CE(z_m) reaches encoder m alone, so one backward pass of
their sum gives every g_u, and two passes do for any number of modalities.

    point            paper                released code                 here
    backward passes  1 + M                2 + M, all retained           2
    dot products     -                    on the host, every step       on the device
    |h| = 0, or no   -                    NaN, or rounding errors       the gradient is zero
    more than                             at the length of the sum
    rounding
    g_f or g_u is    -                    solver's end, .999 or .001    the same; both zero: 1/2
    zero
    heads            plain sum            plain sum                     a tensor that one of the
                                                                        losses does not reach keeps
                                                                        the plain sum and is left
                                                                        out of c

BalanceBenchmark's version differs: both operands are clones of one running sum, so c is always 1/2
and the encoders' gradient three times the plain one, which AdamW undoes; that is multi_loss. AdamW
undoes the gain here as well, but not the direction.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._task import own_losses, sample_loss
from mmtool.types import Batch, GroupName, Needs, Outputs

STAGE = "objective, gradient"
COST = "one extra backward, a loss per modality"

FUSED, UNIMODAL = "fused", "unimodal"
_HIGHEST, _LOWEST = 0.999, 0.001
_ROUNDING = 1e-4
"""Length of h relative to its two parts up to which the parts cancel, as far as float32 tells."""


class Options(schema.Options):
    """Length of the combined gradient."""

    gain: schema.Positive = 1.5
    """Factor on the combined gradient of every encoder."""
    restore: bool = True
    """Lengthen a combined gradient that is shorter than the plain sum to the sum's length."""


class Method(BalancingMethod):
    """Pareto integration of fused and unimodal gradients."""

    needs: ClassVar[Needs] = Needs(
        unimodal="any", trains_heads=True, term_gradients=("fused", "unimodal")
    )
    options: Options

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and the sum of those of the modalities a sample has."""
        del ctx
        each = own_losses(outputs, batch).values()
        return {FUSED: sample_loss(outputs.logits, batch), UNIMODAL: torch.stack(list(each)).sum(0)}

    def combine(
        self, group: GroupName, gradients: Mapping[str, Sequence[Tensor]], ctx: StepContext
    ) -> Sequence[Tensor]:
        """Combine the two gradients of an encoder; everything else keeps their sum."""
        fused, unimodal = gradients[FUSED], gradients[UNIMODAL]
        if group not in ctx.modalities:
            return [f + u for f, u in zip(fused, unimodal, strict=True)]
        is_shared = [reaches(f) & reaches(u) for f, u in zip(fused, unimodal, strict=True)]
        weight = shared_weight(fused, unimodal, is_shared)
        ctx.log("fused_weight", weight, group)
        gain, restore = self.options.gain, self.options.restore
        return [
            torch.where(shared, combined(f, u, weight, gain, restore=restore), f + u)
            for f, u, shared in zip(fused, unimodal, is_shared, strict=True)
        ]


def reaches(gradient: Tensor) -> Tensor:
    """Give whether a loss reaches a tensor at all; 0-d bool."""
    return (gradient != 0).any()


def shared_weight(
    fused: Sequence[Tensor], unimodal: Sequence[Tensor], is_shared: Sequence[Tensor]
) -> Tensor:
    """Give c of one encoder from those of its tensors that both losses reach; 0-d."""
    pairs = list(zip(fused, unimodal, is_shared, strict=True))
    dots = [torch.stack([_dot(f, f), _dot(f, u), _dot(u, u)]) * shared for f, u, shared in pairs]
    square_f, dot, square_u = torch.stack(dots).sum(0).unbind()
    return fused_weight(square_f, dot, square_u)


def fused_weight(square_f: Tensor, dot: Tensor, square_u: Tensor) -> Tensor:
    """Give c from |g_f|^2, g_f . g_u and |g_u|^2; 0-d."""
    difference = square_f + square_u - 2 * dot
    inside = (square_u - dot) / torch.where(difference > 0, difference, 1.0)
    solved = torch.where(dot >= square_f, _HIGHEST, torch.where(dot >= square_u, _LOWEST, inside))
    is_agreed = (dot > 0) | ((square_f == 0) & (square_u == 0))
    return torch.where(is_agreed, 0.5, solved)


def combined(
    fused: Tensor, unimodal: Tensor, weight: Tensor, gain: float, *, restore: bool = True
) -> Tensor:
    """Give the gradient of one tensor; at least as long as the plain sum, before the gain."""
    exact = _exact(fused)
    f, u, c = fused.to(exact), unimodal.to(exact), weight.to(exact)
    parts = 2 * c * f, 2 * (1 - c) * u
    direction = parts[0] + parts[1]
    length = direction.norm()
    is_left = length > _ROUNDING * (parts[0].norm() + parts[1].norm())
    longer = ((f + u).norm() / length).clamp_min(1.0) if restore else torch.ones_like(length)
    return (torch.where(is_left, gain * longer, 0.0) * direction).to(fused.dtype)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    exact = _exact(one)
    return (one.to(exact) * other.to(exact)).sum()


def _exact(gradient: Tensor) -> torch.dtype:
    return torch.float32 if gradient.dtype.itemsize < 4 else gradient.dtype
