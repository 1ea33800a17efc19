"""amss: part of each encoder's filters is updated."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import RequestError
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.amss import (
    Method,
    Options,
    drawn,
    feature_entropy,
    fractions,
    importance,
    information,
    label_entropy,
)
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def method_with(**options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu")))
    return method


def masked(gradients, *, losses=(2.0, 2.0), seed=0, **options):
    """What the gradients of every encoder become in a step with these mean losses."""
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, generator(seed))
    ctx.stats = {
        "labels": torch.tensor([2.0, 2.0, 0.0]),
        "losses": torch.tensor(losses) * 4,
        "entropies": torch.ones(2) * 4,
        "counts": torch.ones(2) * 4,
    }
    grads = create_autospec(GradGroups, instance=True)
    grads.tensors.return_value = gradients
    method_with(**options).edit_grads(grads, ctx)
    return {call.args[0]: call.args[1] for call in grads.replace.call_args_list}, ctx


def test_information_worked_out_by_hand():
    entropy = label_entropy(torch.tensor([2.0, 2.0, 0.0]))
    assert float(entropy) == pytest.approx(math.log(2))

    told = information(torch.tensor([0.2, 0.9]), entropy, torch.tensor([1.2, 0.6]))
    expected = [(math.log(2) - 0.2 + 0.5) / 1.2, (math.log(2) - 0.9 + 0.5) / 0.6]
    assert told.tolist() == pytest.approx(expected)


def test_the_entropy_of_a_feature_is_that_of_its_softmax():
    found = feature_entropy(
        torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, math.log(3.0), -99.0, -99.0]])
    )

    assert found.tolist() == pytest.approx(
        [math.log(4), 0.75 * math.log(4 / 3) + 0.25 * math.log(4)]
    )


def test_each_of_two_modalities_gets_the_others_share():
    found = fractions(torch.tensor([0.5, 0.3], dtype=torch.float64), 0.2, 0.1, 0.9)

    a, v = math.exp(0.5 / 0.2), math.exp(0.3 / 0.2)
    assert found.tolist() == pytest.approx([v / (a + v), a / (a + v)])


def test_shares_are_clipped_and_level_where_nothing_is_known():
    assert fractions(torch.tensor([9.0, 0.1]), 0.2, 0.1, 0.9).tolist() == pytest.approx([0.1, 0.9])
    assert fractions(torch.tensor([0.4, -0.1]), 0.2, 0.1, 0.9).tolist() == [0.5, 0.5]
    assert fractions(torch.tensor([0.4, 0.0]), 0.2, 0.1, 0.9).tolist() == [0.5, 0.5]
    nan = math.nan
    with_absent = fractions(torch.tensor([0.4, nan, 0.4]), 0.2, 0.1, 0.9)
    assert with_absent.tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert fractions(torch.tensor([nan, nan]), 0.2, 0.1, 0.9).tolist() == [0.5, 0.5]


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 2.0), min_size=2, max_size=5), st.floats(0.05, 2.0), st.data())
def test_who_tells_more_gets_no_larger_share(values, temperature, data):
    order = data.draw(st.permutations(range(len(values))))
    told = torch.tensor(values, dtype=torch.float64)
    found = fractions(told, temperature, 0.1, 0.9)

    assert (found[told.argsort()].diff() <= 1e-12).all()
    torch.testing.assert_close(fractions(told[order], temperature, 0.1, 0.9), found[order])
    torch.testing.assert_close(fractions(told + 0.3, temperature, 0.1, 0.9), found)


@settings(deadline=None)
@given(st.integers(1, 40), st.sampled_from([0.1, 0.2, 0.5, 0.55, 0.9]), st.integers(0, 99))
def test_the_number_of_filters_is_the_share_rounded_up(num, share, seed):
    likely = torch.rand(num, generator=generator(seed))
    likely = likely / likely.sum()

    mask = drawn(likely, torch.tensor(share), generator(seed))

    assert int(mask.sum()) == max(1, math.ceil(round(num * share, 6)))


def test_filters_are_drawn_without_replacement_by_their_importance():
    likely = torch.tensor([0.5, 0.3, 0.2])
    once = torch.stack([drawn(likely, torch.tensor(0.3), generator(s)) for s in range(4000)])
    assert once.float().mean(0).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)

    twice = torch.stack([drawn(likely, torch.tensor(0.6), generator(s)) for s in range(4000)])
    # The chance that a filter is the one left out, drawing in sequence:
    out = [0.3 * 0.2 / 0.7 + 0.2 * 0.3 / 0.8, 0.5 * 0.2 / 0.5 + 0.2 * 0.5 / 0.8]
    out.append(1 - sum(out))
    assert (1 - twice.float().mean(0)).tolist() == pytest.approx(out, abs=0.03)


def test_a_filter_without_gradient_is_drawn_last():
    likely = torch.tensor([0.5, 0.0, 0.5, 0.0])
    for seed in range(50):
        assert drawn(likely, torch.tensor(0.5), generator(seed)).tolist() == [True, False] * 2


def test_importance_is_the_share_of_the_square():
    gradient = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])

    assert importance(gradient).tolist() == pytest.approx([9 / 25, 16 / 25, 0])
    assert importance(torch.zeros(4, 2, 3)).tolist() == [0.25] * 4


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 50))
def test_the_loss_scale_does_not_matter(scale, seed):
    gradient = torch.randn(6, 2, 3, 3, generator=generator(seed))
    one, _ = masked([gradient], seed=seed, losses=(0.5, 0.6))
    other, _ = masked([gradient * scale], seed=seed, losses=(0.5, 0.6))

    torch.testing.assert_close(other["audio"][0], one["audio"][0] * scale)


def test_whole_filters_are_kept_or_zeroed_and_shares_are_logged():
    gradient = torch.randn(10, 2, 3, 3, generator=generator(1))
    found, ctx = masked([gradient, gradient[:, :, 0, 0]], losses=(0.2, 0.7))

    # I = ln 2 + .5 - CE: 0.993 and 0.493; shares 1 / (1 + e^2.5) = .0759 -> .1, and .9
    assert float(ctx.metrics["share.audio"]) == pytest.approx(0.1)
    assert float(ctx.metrics["share.image"]) == pytest.approx(0.9)
    for modality, num in (("audio", 1), ("image", 9)):
        for kept, whole in zip(found[modality], (gradient, gradient[:, :, 0, 0]), strict=True):
            alive = kept.flatten(1).any(1)
            assert int(alive.sum()) == num
            assert torch.equal(kept[alive], whole[alive])


def test_amss_plus_weights_filters_against_their_chance():
    gradient = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    found, _ = masked([gradient], losses=(0.2, 0.7), highest=1.0, variant="amss+")

    # image keeps both: 1 / (9/25 + 1/2) and 1 / (16/25 + 1/2)
    expected = [[3.0 / (0.36 + 0.5), 0.0], [0.0, 4.0 / (0.64 + 0.5)]]
    torch.testing.assert_close(found["image"][0], torch.tensor(expected))


def test_draws_are_the_same_for_the_same_step_and_others_for_another():
    gradient = torch.randn(40, 3, generator=generator(1))
    one, again, other = (masked([gradient], seed=s)[0]["audio"][0] for s in (5, 5, 6))

    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_statistics_leave_out_padding_and_absent_modalities():
    present = torch.tensor([[True, True], [True, False], [True, True]])
    weight = torch.tensor([1.0, 1.0, 0.0])
    batch = Batch({}, {}, present, torch.tensor([0, 0, 2]), torch.arange(3), NAMES, weight)
    zeros = torch.zeros(3, 3)
    outputs = Outputs({m: torch.zeros(3, 4) for m in NAMES}, zeros, dict.fromkeys(NAMES, zeros))
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, generator())

    stats = method_with().statistics(outputs, batch, ctx)

    assert stats["labels"].tolist() == [2.0, 0.0, 0.0]
    assert stats["counts"].tolist() == [2.0, 1.0]
    assert stats["losses"].tolist() == pytest.approx([2 * math.log(3), math.log(3)])
    assert stats["entropies"].tolist() == pytest.approx([2 * math.log(4), math.log(4)])


def test_an_encoder_without_such_layers_is_refused():
    grads = create_autospec(GradGroups, instance=True)
    grads.tensors.side_effect = lambda _, kind="all": [] if kind == "conv" else [torch.ones(2, 2)]
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, generator())
    ctx.stats = {
        "labels": torch.ones(3),
        "losses": torch.ones(2),
        "entropies": torch.ones(2),
        "counts": torch.ones(2),
    }
    with pytest.raises(RequestError, match="selects nothing in the encoder of 'audio'"):
        method_with(params="conv").edit_grads(grads, ctx)


def test_it_is_for_classes_alone():
    assert Method.needs.tasks == {"single_label"}
