"""Planted problems beyond the seventeen: faulty data, more modalities, other tasks."""

from collections.abc import Mapping

import numpy as np

from mmtool.testing.planted.draw import DIMS, directions, mixture, noise, prototypes, relabelled
from mmtool.testing.planted.problem import STARVED, Floats, Problem, Sizes, Truth
from mmtool.testing.planted.scenarios import (
    BALANCED,
    A,
    Generator,
    T,
    V,
    drawn_labels,
    names,
    source,
    starved,
)

D = "depth"
_MISSING = 0.2


def _shuffled_within_train(
    random: np.random.Generator, inputs: Floats, num_train: int, share: float
) -> Floats:
    """Give a share of the training rows the input of another of them."""
    chosen = np.flatnonzero(random.random(num_train) < share)
    found = inputs.copy()
    found[chosen] = inputs[random.permutation(chosen)]
    return found


def _misaligned(name: str, sizes: Sizes, seed: int, share: float) -> Problem:
    """Two P(4); in so many of the training pairs v belongs to another sample.

    The validation pairs are whole: v tells as much there as a does, and the model was taught not to
    trust it.
    """
    random = source(name, seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    video = _shuffled_within_train(random, prototypes(random, y, c, 4.0), sizes.train, share)
    inputs = {A: prototypes(random, y, c, 4.0), V: video}
    return Problem(name, inputs, y, sizes.train, c, Truth(STARVED, frozenset({V})))


def misaligned_some(sizes: Sizes, seed: int) -> Problem:
    """Two P(4); in a quarter of the training pairs v belongs to another sample."""
    return _misaligned("misaligned_some", sizes, seed, 0.25)


def misaligned_most(sizes: Sizes, seed: int) -> Problem:
    """Two P(4); in six of ten training pairs v belongs to another sample."""
    return _misaligned("misaligned_most", sizes, seed, 0.6)


def missing_balanced(sizes: Sizes, seed: int) -> Problem:
    """Two P(3); two samples in ten lack v, at random."""
    random = source("missing_balanced", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 3.0), V: prototypes(random, y, c, 3.0)}
    present = {V: random.random(sizes.total) >= _MISSING}
    return Problem("missing_balanced", inputs, y, sizes.train, c, BALANCED, present=present)


def missing_starved(sizes: Sizes, seed: int) -> Problem:
    """a P(4.2), v Mix_10(7); two samples in ten lack v, at random."""
    random = source("missing_starved", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 4.2), V: mixture(random, y, c, 7.0, 10)}
    present = {V: random.random(sizes.total) >= _MISSING}
    truth = starved(V, finer="under-trained")
    return Problem("missing_starved", inputs, y, sizes.train, c, truth, present=present)


def imbalanced_val(sizes: Sizes, seed: int) -> Problem:
    """Two P(3), all classes alike on train; half of the validation samples are of one class."""
    random = source("imbalanced_val", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    is_major = (np.arange(sizes.total) >= sizes.train) & (random.random(sizes.total) < 0.5)
    y = np.where(is_major, 0, y)
    inputs = {A: prototypes(random, y, c, 3.0), V: prototypes(random, y, c, 3.0)}
    return Problem("imbalanced_val", inputs, y, sizes.train, c, BALANCED)


def drifting_labels(sizes: Sizes, seed: int) -> Problem:
    """Two P(3.5); training labels get worse with the row, from none to four in ten random."""
    random = source("drifting_labels", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 3.5), V: prototypes(random, y, c, 3.5)}
    rate = np.where(
        np.arange(sizes.total) < sizes.train, 0.4 * np.arange(sizes.total) / sizes.train, 0.0
    )
    noisy = relabelled(random, y, c, rate)
    return Problem("drifting_labels", inputs, noisy, sizes.train, c, BALANCED)


def four(sizes: Sizes, seed: int) -> Problem:
    """Four times P(2.4)."""
    random = source("four", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {m: prototypes(random, y, c, 2.4) for m in (A, V, T, D)}
    return Problem("four", inputs, y, sizes.train, c, BALANCED)


def four_starved(sizes: Sizes, seed: int) -> Problem:
    """a P(4.2); the three others Mix_10(7)."""
    random = source("four_starved", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 4.2)}
    inputs |= {m: mixture(random, y, c, 7.0, 10) for m in (V, T, D)}
    truth = starved(V, T, D, finer="under-trained")
    return Problem("four_starved", inputs, y, sizes.train, c, truth)


def _value_shown(random: np.random.Generator, values: Floats, scale: float) -> Floats:
    axis = directions(random, 1)[0]
    return scale * values[:, None] * axis + noise(random, len(values), DIMS)


def _regression(name: str, sizes: Sizes, seed: int, scales: Mapping[str, float]) -> Problem:
    random = source(name, seed)
    values = random.standard_normal(sizes.total)
    inputs = {m: _value_shown(random, values, scale) for m, scale in scales.items()}
    truth = BALANCED if len(set(scales.values())) == 1 else names("low-information", V)
    y = (values > 0).astype(np.int64)
    return Problem(name, inputs, y, sizes.train, 2, truth, task="regression", values=values)


def regression_balanced(sizes: Sizes, seed: int) -> Problem:
    """A number, shown as twice itself along one direction of either modality."""
    return _regression("regression_balanced", sizes, seed, {A: 2.0, V: 2.0})


def regression_weak(sizes: Sizes, seed: int) -> Problem:
    """A number that a shows well and v hardly."""
    return _regression("regression_weak", sizes, seed, {A: 3.0, V: 0.6})


def _multi_label(name: str, sizes: Sizes, seed: int, scales: Mapping[str, float]) -> Problem:
    random = source(name, seed)
    sets = random.random((sizes.total, sizes.classes)) < 0.4
    inputs = {
        m: sets @ (scale * directions(random, sizes.classes)) + noise(random, sizes.total)
        for m, scale in scales.items()
    }
    truth = BALANCED if len(set(scales.values())) == 1 else names("low-information", V)
    y = np.full(sizes.total, -1, dtype=np.int64)
    return Problem(
        name,
        inputs,
        y,
        sizes.train,
        sizes.classes,
        truth,
        task="multi_label",
        label_sets=sets,
    )


def multi_label_balanced(sizes: Sizes, seed: int) -> Problem:
    """Each sample is a sum of prototypes of its classes, P(3) in either modality."""
    return _multi_label("multi_label_balanced", sizes, seed, {A: 3.0, V: 3.0})


def multi_label_weak(sizes: Sizes, seed: int) -> Problem:
    """Each sample is a sum of prototypes of its classes, P(4) in a and P(0.8) in v."""
    return _multi_label("multi_label_weak", sizes, seed, {A: 4.0, V: 0.8})


CONDITIONS: Mapping[str, Generator] = {
    make.__name__: make
    for make in (
        misaligned_some,
        misaligned_most,
        missing_balanced,
        missing_starved,
        imbalanced_val,
        drifting_labels,
        four,
        four_starved,
        regression_balanced,
        regression_weak,
        multi_label_balanced,
        multi_label_weak,
    )
}
