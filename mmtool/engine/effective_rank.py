"""In how many directions features spread: a detector of dead and collapsed encoders.

exp of the entropy of the normalised singular values of the centred features: 0 where every sample
has the same feature, 1 where all lie on a line. More is not richer: an encoder that learnt little
spreads noise in many directions (Roy and Vetterli, 2007, for the measure).
"""

import torch
from torch import Tensor

_CONSTANT = 1e-6
"""Deviation from the mean, relative to the size of the features, that rounding alone can cause."""


def effective_rank(features: Tensor) -> float:
    """Give the effective rank of [sample, dim] features; NaN of fewer than two samples.

    From the eigenvalues of the smaller of the two products of the centred features with themselves,
    in double precision: those are squares, of which single precision would lose the small ones.
    """
    if len(features) < 2:
        return float("nan")
    values = features.detach().double()
    if not bool(torch.isfinite(values).all()):
        return float("nan")
    centred = values - values.mean(0)
    size = values.abs().max()
    if bool(centred.abs().max() <= _CONSTANT * size):
        return 0.0
    is_wide = centred.shape[1] > centred.shape[0]
    product = centred @ centred.T if is_wide else centred.T @ centred
    found = torch.linalg.eigvalsh(product / product.diagonal().sum())
    # What is negative or tiny is rounding.
    singular = torch.where(found > found.max() * 1e-14, found, 0.0).sqrt()
    share = singular / singular.sum()
    entropy = -(share * share.clamp_min(1e-300).log()).sum()
    return float(entropy.exp())
