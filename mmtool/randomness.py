"""Random numbers as a pure function of (integers, sample id): no state to save, any rank order.

Works on int64 tensors of any device without importing torch. The mixing function is the finaliser
of SplitMix64 (Steele, Lea and Flood, 2014); int64 products wrap around as the algorithm expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(bits: Tensor, count: int) -> Tensor:
    # >> on int64 keeps the sign; the mask makes it a logical shift.
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_FIRST)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_SECOND)
    return bits ^ _shift_right(bits, 31)


def fold(*keys: int) -> int:
    """Fold integers (seed, epoch, salt, ...) into one 64-bit key; order matters."""
    state = 0
    for key in keys:
        bits = (state + (key & _MASK) * _GAMMA + _GAMMA) & _MASK
        bits = ((bits ^ (bits >> 30)) * _FIRST) & _MASK
        bits = ((bits ^ (bits >> 27)) * _SECOND) & _MASK
        state = bits ^ (bits >> 31)
    return state


def sample_uniform(index: Tensor, *keys: int) -> Tensor:
    """Give one float32 number in [0, 1) per sample: a function of its index and the keys alone."""
    bits = _mix(index * _signed(_GAMMA) + _signed(fold(*keys)))
    return _shift_right(bits, 40).float() * 2.0**-24
