"""How well features fall into clusters of one class each: k-means in torch, and its purity.

Everything is a fixed sequence of tensor operations without atomic additions, and its only draws
come from a seeded generator on the host, so that ranks which hold the same features find the same
clusters.
"""

import torch
from torch import Tensor

_MOST_ROUNDS = 300
_TOLERANCE = 1e-4


def scaled(features: Tensor) -> Tensor:
    """Give features with each column moved and stretched to reach from -1 to 1."""
    low, high = features.amin(0), features.amax(0)
    width = torch.where(high > low, high - low, 1.0)
    return 2 * (features - low) / width - 1


def k_means(features: Tensor, num_clusters: int, *, seed: int = 0, num_starts: int = 1) -> Tensor:
    """Give the cluster of each row, from the best of several starts; [row]."""
    points = features.double()
    num_clusters = min(num_clusters, len(points))
    generator = torch.Generator().manual_seed(seed)
    best: Tensor | None = None
    smallest = float("inf")
    for _ in range(num_starts):
        centres = _spread_centres(points, num_clusters, generator)
        assigned, inertia = _settled(points, centres)
        if best is None or inertia < smallest:
            best, smallest = assigned, inertia
    assert best is not None, "num_starts is positive"
    return best


def _spread_centres(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Choose rows far from each other, with probability by squared distance (k-means++)."""
    uniform = torch.rand(num_clusters, generator=generator, dtype=torch.float64)
    last = len(points) - 1
    centres = [points[min(int(uniform[0] * len(points)), last)]]
    nearest = (points - centres[0]).square().sum(1)
    for number in range(1, num_clusters):
        # On the host, since running sums are not the same twice on a GPU. With all rows at distance
        # zero any will do.
        reach = nearest.cpu().cumsum(0)
        chosen = torch.searchsorted(reach, uniform[number] * reach[-1], right=True).clamp_max(last)
        centres.append(points[int(chosen)])
        nearest = torch.minimum(nearest, (points - centres[-1]).square().sum(1))
    return torch.stack(centres)


def _settled(points: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Move centres to the mean of their rows until they stay; give clusters and inertia."""
    still = _TOLERANCE * float(points.var(0, correction=0).mean())
    for _ in range(_MOST_ROUNDS):
        assigned = _distances(points, centres).argmin(1)
        members = torch.nn.functional.one_hot(assigned, len(centres)).to(points.dtype)
        counts = members.sum(0)
        means = members.T @ points / counts.clamp_min(1).unsqueeze(1)
        moved = torch.where(counts.unsqueeze(1) > 0, means, centres)
        shift = float((moved - centres).square().sum())
        centres = moved
        if shift <= still:
            break
    distances = _distances(points, centres)
    return distances.argmin(1), float(distances.amin(1).sum())


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Give squared distances; [point, centre]."""
    products = points @ centres.T
    squares = points.square().sum(1, keepdim=True) + centres.square().sum(1)
    return (squares - 2 * products).clamp_min(0)


def purity(assigned: Tensor, label: Tensor) -> Tensor:
    """Give the share of rows whose class is the most frequent one of their cluster; 0-d.

    Zero without any row.
    """
    if not len(label):
        return torch.zeros((), dtype=torch.float64, device=label.device)
    clusters = torch.nn.functional.one_hot(assigned).double()
    classes = torch.nn.functional.one_hot(label).double()
    return (clusters.T @ classes).amax(1).sum() / len(label)
