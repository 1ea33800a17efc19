import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.methods._valuation import (
    attributed,
    can_be_singled_out,
    coalitions,
    exact_weights,
    mean_values,
    only,
    sample_values,
    sampled_weights,
)

NAMES = ("audio", "image", "motion")


def values_of(numbers):
    return {
        chosen: torch.tensor(number, dtype=torch.float64)
        for chosen, number in zip(
            coalitions(int(math.log2(len(numbers) + 1))), numbers, strict=True
        )
    }


def test_coalitions_are_all_sets_but_the_empty_one():
    assert coalitions(2) == ((0,), (1,), (0, 1))
    assert [len(coalitions(n)) for n in range(1, 6)] == [1, 3, 7, 15, 31]


def test_of_two_modalities_each_gets_half_of_what_it_adds_and_of_what_it_reaches_alone():
    values = values_of([0.7, 0.2, 1.1])

    phi = attributed(values, exact_weights(2))

    audio, image = 0.5 * (1.1 - 0.2 + 0.7), 0.5 * (1.1 - 0.7 + 0.2)
    assert phi.tolist() == pytest.approx([audio, image])


def test_of_three_modalities_the_terms_weigh_a_third_and_a_sixth():
    a, i, m, ai, am, im, aim = 0.3, 0.1, -0.2, 0.9, 0.4, 0.25, 1.7

    phi = attributed(values_of([a, i, m, ai, am, im, aim]), exact_weights(3))

    audio = (aim - im) / 3 + (ai - i + am - m) / 6 + a / 3
    assert float(phi[0]) == pytest.approx(audio)
    assert float(phi.sum()) == pytest.approx(aim)


@settings(deadline=None)
@given(st.integers(2, 5), st.data())
def test_parts_add_up_to_everything_whatever_the_orders(count, data):
    numbers = st.lists(st.floats(-5, 5), min_size=2**count - 1, max_size=2**count - 1)
    values = values_of(data.draw(numbers))
    orders = data.draw(st.lists(st.permutations(range(count)), min_size=1, max_size=4))

    everything = float(values[tuple(range(count))])
    exact = attributed(values, exact_weights(count))
    sampled = attributed(values, sampled_weights(orders))
    assert float(exact.sum()) == pytest.approx(everything, abs=1e-9)
    assert float(sampled.sum()) == pytest.approx(everything, abs=1e-9)


@settings(deadline=None)
@given(st.integers(2, 4))
def test_all_orders_give_the_exact_weights(count):
    exact = exact_weights(count)
    sampled = sampled_weights(list(itertools.permutations(range(count))))

    assert set(sampled) == set(exact)
    for chosen, each in exact.items():
        assert sampled[chosen] == pytest.approx(each, abs=1e-12)


@settings(deadline=None)
@given(st.permutations(range(3)), st.lists(st.floats(-5, 5), min_size=7, max_size=7))
def test_the_order_of_modalities_does_not_matter(order, numbers):
    values = values_of(numbers)
    renamed = {tuple(sorted(order[p] for p in chosen)): v for chosen, v in values.items()}

    phi = attributed(values, exact_weights(3))
    other = attributed(renamed, exact_weights(3))
    torch.testing.assert_close(other[torch.tensor(order)], phi)


def test_outside_of_a_coalition_stands_what_was_given_for_it():
    features = {m: torch.full((2, 3), float(p + 1)) for p, m in enumerate(NAMES)}
    absent = {m: torch.full((3,), -1.0) for m in NAMES}

    found = only(features, (0, 2), NAMES, absent)

    assert [float(found[m][1, 0]) for m in NAMES] == [1.0, -1.0, 3.0]
    assert found["image"].shape == (2, 3)


def additive(features):
    return features["audio"] + features["image"]


def collected(audio, image, label, present=None):
    """Features that are logits of two classes; the fusion adds them."""
    return {
        "audio": torch.tensor(audio),
        "image": torch.tensor(image),
        "label": torch.tensor(label),
        "present": torch.ones(len(label), 2) if present is None else torch.tensor(present),
    }


def test_a_value_counts_the_modalities_that_give_the_right_class():
    # Both right alone and together; image wrong alone; both wrong; image right, outvoted by audio.
    found = collected(
        [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]],
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]],
        [0, 0, 0, 0],
    )
    absent = {m: torch.tensor([0.0, 0.1]) for m in ("audio", "image")}

    phi = sample_values(found, ("audio", "image"), additive, absent)

    assert phi.tolist() == [[1.0, 1.0], [1.5, 0.5], [0.0, 0.0], [-0.5, 0.5]]


def test_a_modality_that_a_sample_lacks_is_worth_nothing_to_it():
    absent = {"audio": torch.tensor([0.1, 0.0]), "image": torch.tensor([0.0, 0.1])}
    found = collected([[1.0, 0.0]], [[0.0, 0.1]], [0], [[1.0, 0.0]])

    phi = sample_values(found, ("audio", "image"), additive, absent)

    assert phi.tolist() == [[1.0, 0.0]]  # |S| counts what is there, so the fair share is 1


def test_the_mean_worth_is_over_the_samples_that_have_the_modality():
    values = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    present = torch.tensor([[True, False], [True, False]])

    assert mean_values(values, present).tolist() == [0.5, 1.0]


def test_only_a_modality_beside_another_can_be_singled_out():
    present = torch.tensor([[True, True], [True, False], [False, False]])

    assert can_be_singled_out(present).tolist() == [[True, True], [False, False], [False, False]]
