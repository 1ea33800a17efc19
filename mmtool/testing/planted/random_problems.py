"""Problems drawn at random, with no truth planted: what a large sample says of them is the truth.

The same training rows go with 300 or 1000 validation samples and with 3000, and training does not
look at validation; so both verdicts are about the same weights.
"""

from dataclasses import dataclass, replace

import numpy as np

from mmtool.testing.planted.draw import mixture, prototypes, relabelled
from mmtool.testing.planted.problem import Floats, Labels, Problem, Sizes, Truth
from mmtool.testing.planted.recipe import FUSION_KINDS, FusionKind
from mmtool.testing.planted.scenarios import A, T, V, source

MANY = 3000
_UNKNOWN = Truth(frozenset())


@dataclass(frozen=True, slots=True)
class Drawn:
    """A problem with `MANY` validation samples, how many of them are few, and a fusion for it."""

    many: Problem
    num_few: int
    fusion: FusionKind

    @property
    def few(self) -> Problem:
        """The same problem with the smaller validation split."""
        problem, size = self.many, self.many.num_train + self.num_few
        inputs = {m: x[:size] for m, x in problem.inputs.items()}
        name = f"{problem.name}-few"
        return replace(problem, name=name, inputs=inputs, labels=problem.labels[:size])


def drawn_problem(seed: int) -> Drawn:
    """Draw classes, sizes, and for each of two or three modalities how it shows the class."""
    random = source("random", seed)
    sizes = Sizes(
        train=int(random.integers(1000, 4001)), val=MANY, classes=int(random.choice([4, 8, 16]))
    )
    labels = random.integers(0, sizes.classes, sizes.total)
    modalities = (A, V, T) if random.random() < 0.2 else (A, V)
    inputs = {m: _shown(random, labels, sizes.classes) for m in modalities}
    problem = Problem(f"random{seed}", inputs, labels, sizes.train, sizes.classes, _UNKNOWN)
    few = int(random.choice([300, 1000]))
    return Drawn(problem, few, FUSION_KINDS[int(random.integers(len(FUSION_KINDS)))])


def _shown(random: np.random.Generator, labels: Labels, num_classes: int) -> Floats:
    """Show labels in one of the ways there are, some wrong, at some loudness."""
    wrong = random.uniform(0.1, 0.7) if random.random() < 0.25 else 0.0
    shown = relabelled(random, labels, num_classes, wrong)
    if random.random() < 0.35:
        parts = int(random.integers(2, 11))
        inputs = mixture(random, shown, num_classes, random.uniform(4.0, 8.0), parts)
    else:
        inputs = prototypes(random, shown, num_classes, random.uniform(0.5, 5.0))
    loudness = 10.0 ** random.uniform(-2.0, 0.0) if random.random() < 0.25 else 1.0
    return loudness * inputs
