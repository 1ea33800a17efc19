"""The seventeen planted scenarios of two or three modalities, each a function of sizes and seed.

a, v and t are named audio, video and text; P(s) are class prototypes s standard deviations of the
noise away from the origin, Mix_K(s) K of them per class.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from mmtool.testing.planted.draw import (
    DIMS,
    directions,
    half_collapsed,
    marked,
    mixture,
    noise,
    prototypes,
    relabelled,
    rotation,
)
from mmtool.testing.planted.problem import HEALTHY, STARVED, Labels, Problem, Sizes, Truth

Generator: TypeAlias = Callable[[Sizes, int], Problem]

A, V, T = "audio", "video", "text"
BALANCED = Truth(HEALTHY)
MARK = 3.0


def source(name: str, seed: int) -> np.random.Generator:
    """Give the random numbers of a scenario; equal seeds of two scenarios share nothing."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


def drawn_labels(random: np.random.Generator, sizes: Sizes) -> Labels:
    """Give labels of all classes alike."""
    return random.integers(0, sizes.classes, sizes.total)


def starved(*modalities: str, finer: str) -> Truth:
    """Give the truth of modalities that could tell more than the model uses."""
    return Truth(STARVED, frozenset(modalities), finer=frozenset({finer}))


def names(code: str, *modalities: str) -> Truth:
    """Give the truth of one code about some modalities."""
    return Truth(frozenset({code}), frozenset(modalities))


def balanced(sizes: Sizes, seed: int) -> Problem:
    """a: P(3), v: P(3), with independent noise."""
    random = source("balanced", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 3.0), V: prototypes(random, y, c, 3.0)}
    return Problem("balanced", inputs, y, sizes.train, c, BALANCED)


def redundant(sizes: Sizes, seed: int) -> Problem:
    """Both see the same noisy P(3.2), each in its own rotation."""
    random = source("redundant", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    seen = prototypes(random, y, c, 3.2)
    inputs = {m: seen @ rotation(random) + 0.05 * noise(random, sizes.total) for m in (A, V)}
    truth = Truth(HEALTHY, finer=frozenset({"balanced-redundant"}))
    return Problem("redundant", inputs, y, sizes.train, c, truth)


def null3(sizes: Sizes, seed: int) -> Problem:
    """Three times P(2.6)."""
    random = source("null3", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {m: prototypes(random, y, c, 2.6) for m in (A, V, T)}
    return Problem("null3", inputs, y, sizes.train, c, BALANCED)


def unique(sizes: Sizes, seed: int) -> Problem:
    """y = (y_a, y_v): a shows in which half of the classes, v which one of a pair."""
    random = source("unique", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y // 2, c // 2, 4.0), V: prototypes(random, y % 2, 2, 3.0)}
    truth = Truth(HEALTHY, finer=frozenset({"balanced-complementary"}))
    return Problem("unique", inputs, y, sizes.train, c, truth)


def class_specific(sizes: Sizes, seed: int) -> Problem:
    """Each modality tells apart one half of the classes; the other half looks all the same."""
    random = source("class_specific", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    first, second = np.arange(c // 2), np.arange(c // 2, c)
    inputs = {
        A: half_collapsed(random, y, c, 4.0, told=first),
        V: half_collapsed(random, y, c, 4.0, told=second),
    }
    truth = Truth(frozenset({"class-specific"}))
    return Problem("class_specific", inputs, y, sizes.train, c, truth)


def snr_info(sizes: Sizes, seed: int) -> Problem:
    """a P(4.5), v P(1.5): v knows little."""
    random = source("snr_info", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 4.5), V: prototypes(random, y, c, 1.5)}
    return Problem("snr_info", inputs, y, sizes.train, c, names("low-information", V))


def labelnoise(sizes: Sizes, seed: int) -> Problem:
    """v shows a random class in six samples of ten."""
    random = source("labelnoise", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    shown = relabelled(random, y, c, 0.6)
    inputs = {A: prototypes(random, y, c, 4.0), V: prototypes(random, shown, c, 4.0)}
    return Problem("labelnoise", inputs, y, sizes.train, c, names("low-information", V))


def speed(sizes: Sizes, seed: int) -> Problem:
    """a P(4.2), which is learnt at once, and v Mix_10(7), which takes long."""
    random = source("speed", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 4.2), V: mixture(random, y, c, 7.0, 10)}
    truth = starved(V, finer="under-trained")
    return Problem("speed", inputs, y, sizes.train, c, truth)


def scale(sizes: Sizes, seed: int) -> Problem:
    """a P(4) as it is; v another P(4) at a fiftieth of the size, which the head overhears."""
    random = source("scale", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 4.0), V: 0.02 * prototypes(random, y, c, 4.0)}
    return Problem("scale", inputs, y, sizes.train, c, starved(V, finer="neglected"))


def shortcut_iid(sizes: Sizes, seed: int) -> Problem:
    """a carries a mark that is always right; v Mix_6(7)."""
    random = source("shortcut_iid", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {
        A: marked(noise(random, sizes.total), y, c, MARK),
        V: mixture(random, y, c, 7.0, 6),
    }
    truth = starved(V, finer="under-trained")
    return Problem("shortcut_iid", inputs, y, sizes.train, c, truth)


def shortcut_ood(sizes: Sizes, seed: int) -> Problem:
    """a P(2.5) with a mark that is right on train and random in 70 % of validation; v P(3.2)."""
    random = source("shortcut_ood", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    is_val = np.arange(sizes.total) >= sizes.train
    shown = relabelled(random, y, c, np.where(is_val, 0.7, 0.0))
    inputs = {
        A: marked(prototypes(random, y, c, 2.5), shown, c, MARK),
        V: prototypes(random, y, c, 3.2),
    }
    return Problem("shortcut_ood", inputs, y, sizes.train, c, names("harmful", A))


def overfit(sizes: Sizes, seed: int) -> Problem:
    """a P(2); v P(2.5) in 400 values before an encoder 512 wide, which learns samples by heart."""
    random = source("overfit", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 2.0), V: prototypes(random, y, c, 2.5, dims=400)}
    return Problem(
        "overfit",
        inputs,
        y,
        sizes.train,
        c,
        names("overfit", V),
        epochs=25,
        hidden={V: (512, 64)},
    )


def dead_input(sizes: Sizes, seed: int) -> Problem:
    """v is noise."""
    random = source("dead_input", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 3.0), V: noise(random, sizes.total)}
    return Problem("dead_input", inputs, y, sizes.train, c, names("uninformative", V))


def dead_encoder(sizes: Sizes, seed: int) -> Problem:
    """v is as good as a, but its encoder's last ReLU never opens."""
    random = source("dead_encoder", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 3.0), V: prototypes(random, y, c, 3.0)}
    truth = names("dead-encoder", V)
    return Problem("dead_encoder", inputs, y, sizes.train, c, truth, dead=frozenset({V}))


def prior(sizes: Sizes, seed: int) -> Problem:
    """Half of all samples are of one class, and v is noise."""
    random = source("prior", seed)
    c = sizes.classes
    is_major = random.random(sizes.total) < 0.5
    y = np.where(is_major, 0, random.integers(1, c, sizes.total)).astype(np.int64)
    inputs = {A: prototypes(random, y, c, 3.0), V: noise(random, sizes.total)}
    return Problem("prior", inputs, y, sizes.train, c, names("uninformative", V))


def xor(sizes: Sizes, seed: int) -> Problem:
    """a shows a bit, v shows whether that bit differs from the label: neither tells anything."""
    random = source("xor", seed)
    bit, y = random.integers(0, 2, (2, sizes.total))
    axes = 3.0 * directions(random, 2, DIMS)
    inputs = {
        m: (2 * shown - 1)[:, None] * axis + noise(random, sizes.total)
        for m, shown, axis in ((A, bit, axes[0]), (V, bit ^ y, axes[1]))
    }
    truth = Truth(frozenset({"synergy"}), additive=Truth(frozenset({"no-signal"})))
    return Problem("xor", inputs, y.astype(np.int64), sizes.train, 2, truth)


def three(sizes: Sizes, seed: int) -> Problem:
    """a P(4.2); v and t Mix_10(7)."""
    random = source("three", seed)
    y, c = drawn_labels(random, sizes), sizes.classes
    inputs = {A: prototypes(random, y, c, 4.2)}
    inputs |= {m: mixture(random, y, c, 7.0, 10) for m in (V, T)}
    return Problem("three", inputs, y, sizes.train, c, starved(V, T, finer="under-trained"))


SCENARIOS: Mapping[str, Generator] = {
    make.__name__: make
    for make in (
        balanced,
        redundant,
        null3,
        unique,
        class_specific,
        snr_info,
        labelnoise,
        speed,
        scale,
        shortcut_iid,
        shortcut_ood,
        overfit,
        dead_input,
        dead_encoder,
        prior,
        xor,
        three,
    )
}
