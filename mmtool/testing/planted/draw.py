"""What problems are made of: prototypes, mixtures of them, marks and wrong labels.

All noise is standard normal, so that a scale says how many standard deviations a prototype lies
from the origin.
"""

import numpy as np

from mmtool.testing.planted.problem import Floats, Labels

DIMS = 32


def directions(random: np.random.Generator, count: int, dims: int = DIMS) -> Floats:
    """Give random unit vectors; [count, dims]."""
    drawn = random.standard_normal((count, dims))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def noise(random: np.random.Generator, count: int, dims: int = DIMS) -> Floats:
    """Give what tells nothing; [count, dims]."""
    return random.standard_normal((count, dims))


def prototypes(
    random: np.random.Generator,
    labels: Labels,
    num_classes: int,
    scale: float,
    dims: int = DIMS,
) -> Floats:
    """Show each label as one prototype plus noise: what a linear readout can tell."""
    centres = scale * directions(random, num_classes, dims)
    return centres[labels] + noise(random, len(labels), dims)


def mixture(
    random: np.random.Generator,
    labels: Labels,
    num_classes: int,
    scale: float,
    parts: int,
) -> Floats:
    """Show each label as one of several prototypes plus noise: slow to learn."""
    centres = scale * directions(random, num_classes * parts)
    part = random.integers(0, parts, len(labels))
    return centres[labels * parts + part] + noise(random, len(labels))


def half_collapsed(
    random: np.random.Generator, labels: Labels, num_classes: int, scale: float, told: Labels
) -> Floats:
    """Show as prototypes the classes that are `told`; all others look like one and the same."""
    centres = scale * directions(random, num_classes)
    rest = np.setdiff1d(np.arange(num_classes), told)
    centres[rest] = centres[rest].mean(axis=0)
    return centres[labels] + noise(random, len(labels))


def rotation(random: np.random.Generator, dims: int = DIMS) -> Floats:
    """Give a random orthogonal matrix."""
    found, _ = np.linalg.qr(random.standard_normal((dims, dims)))
    return found


def relabelled(
    random: np.random.Generator, labels: Labels, num_classes: int, rate: "float | Floats"
) -> Labels:
    """Replace labels by random classes, each with the probability `rate`, of all or of each."""
    random_ones = random.integers(0, num_classes, len(labels))
    return np.where(random.random(len(labels)) < rate, random_ones, labels)


def marked(inputs: Floats, shown: Labels, num_classes: int, strength: float) -> Floats:
    """Overwrite the first values by a mark that names a class."""
    found = inputs.copy()
    found[:, :num_classes] = strength * np.eye(num_classes)[shown]
    return found
