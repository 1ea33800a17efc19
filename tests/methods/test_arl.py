"""Weights of modalities by hand, where they act, and what becomes of odd values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.arl import Method, Options, dependence, logit_sums, means_of, weighed
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
positive = st.floats(1e-3, 10.0)


class Noted:
    """Gradients that only note what was asked of them."""

    def __init__(self):
        self.asked = []

    def scale(self, group, factor, kind="all"):
        self.asked.append(("scale", group, float(factor)))

    def scale_update(self, group, factor, kind="all"):
        self.asked.append(("scale_update", group, float(factor)))


def weights_of(entropy, size, floor=0.6, temperature=8.0):
    entropy, size = (torch.tensor(v, dtype=torch.float64) for v in (entropy, size))
    return dependence(entropy, size, floor=floor, temperature=temperature)


def context(epoch=0):
    ctx = StepContext(NAMES, 3, epoch, 0, 10, 5, torch.Generator())
    ctx.stats = {
        "entropy": torch.tensor([2.0, 6.0]),
        "size": torch.tensor([4.0, 12.0]),
        "own_count": torch.tensor([4.0, 4.0]),
    }
    return ctx


def method_of(**options):
    method = Method(Options(**options))
    facts = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu"))
    return method, method.setup(facts)


def sample():
    torch.manual_seed(0)
    present = torch.tensor([[True, True], [True, False]])
    batch = Batch({}, {}, present, torch.tensor([0, 2]), torch.arange(2), NAMES)
    unimodal = {m: torch.randn(2, 3) for m in NAMES}
    return Outputs({}, torch.stack(list(unimodal.values())).sum(0), unimodal), batch


def by_formula(first_entropy, second_entropy, first_size, second_size, temperature=8.0):
    """The two-modality rule, number by number."""
    first = max(first_entropy / (first_entropy + second_entropy), 0.3)
    second = max(second_entropy / (first_entropy + second_entropy), 0.3)
    a = (1 / first) / (1 / first + 1 / second)
    n = first_size / (first_size + second_size)
    up, down = math.exp(temperature * a * (1 - n)), math.exp(temperature * (1 - a) * n)
    return up / (up + down)


def test_a_worked_example():
    # Shares of entropy 1/4, which the floor makes 0.3, and 3/4; a = (3/4) / (3/4 + 3/10) = 5/7.
    # Shares of size 1/4 and 3/4: exponents 8 * 5/7 * 3/4 = 30/7 and 8 * 2/7 * 1/4 = 4/7.
    found = weights_of([1.0, 3.0], [1.0, 3.0])

    assert found[0].item() == pytest.approx(1 / (1 + math.exp(-26 / 7)))


@given(positive, positive, positive, positive)
def test_two_modalities_follow_the_rule_for_two(e1, e2, s1, s2):
    found = weights_of([e1, e2], [s1, s2])

    assert found[0].item() == pytest.approx(by_formula(e1, e2, s1, s2), rel=1e-6)


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=5), st.floats(0.1, 100.0))
def test_weights_add_up_to_one_and_do_not_depend_on_units(pairs, unit):
    entropy, size = map(list, zip(*pairs, strict=True))
    found = weights_of(entropy, size)
    scaled = weights_of([unit * e for e in entropy], [unit * s for s in size])

    assert found.sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(found, scaled, atol=1e-9, rtol=1e-6)


@given(st.lists(st.tuples(positive, positive), min_size=3, max_size=3), st.permutations(range(3)))
def test_the_order_of_modalities_does_not_matter(pairs, order):
    entropy, size = map(list, zip(*pairs, strict=True))
    found = weights_of(entropy, size)
    permuted = weights_of([entropy[i] for i in order], [size[i] for i in order])

    torch.testing.assert_close(found[list(order)], permuted)


def test_equal_modalities_have_equal_weights():
    assert weights_of([2.0] * 3, [5.0] * 3).tolist() == pytest.approx([1 / 3] * 3)


def test_temperature_zero_makes_weights_equal():
    assert weights_of([1.0, 3.0], [9.0, 1.0], temperature=0.0).tolist() == [0.5, 0.5]


def test_the_surer_and_the_outweighed_modality_gain():
    surer = weights_of([1.0, 2.0], [1.0, 1.0])
    outweighed = weights_of([1.0, 1.0], [1.0, 2.0])

    assert surer[0] > surer[1]
    assert outweighed[0] > outweighed[1]


def test_the_floor_bounds_how_sure_a_modality_may_look():
    # Shares 0.3 by the floor and 1: a = 10/13 against 3/13, both outweighed by a half.
    expected = 1 / (1 + math.exp(-8 * 0.5 * 7 / 13))

    assert weights_of([1e-9, 1.0], [1.0, 1.0])[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("floor", [0.0, 0.6])
def test_all_zeros_are_equal_and_not_nan(floor):
    assert weights_of([0.0, 0.0], [0.0, 0.0], floor=floor).tolist() == [0.5, 0.5]


def test_certain_answers_give_no_nan():
    logits = torch.tensor([[[1e4, -1e4]], [[0.0, 0.0]]])
    sums = logit_sums(logits, torch.ones(1, 2, dtype=torch.bool))

    assert sums["entropy"].tolist() == pytest.approx([0.0, math.log(2.0)])
    assert sums["size"].tolist() == [2e4, 0.0]


def test_sums_run_over_the_samples_that_have_the_modality():
    logits = torch.zeros(2, 3, 4)
    logits[0] = 1.0
    has = torch.tensor([[True, True], [False, True], [True, False]])

    sums = logit_sums(logits, has)

    assert sums["own_count"].tolist() == [2, 2]
    assert sums["size"].tolist() == [8.0, 0.0]
    assert sums["entropy"].tolist() == pytest.approx([2 * math.log(4.0)] * 2)


def test_a_modality_that_no_sample_had_takes_the_mean_of_the_others():
    stats = {
        "entropy": torch.tensor([2.0, 0.0, 4.0]),
        "size": torch.tensor([6.0, 0.0, 2.0]),
        "own_count": torch.tensor([2.0, 0.0, 2.0]),
    }
    entropy, size = means_of(stats)

    assert entropy.tolist() == [1.0, 1.5, 2.0]
    assert size.tolist() == [3.0, 2.0, 1.0]


def test_each_encoder_s_gradient_grows_by_its_weight():
    method, _ = method_of(start_epoch=3)
    grads, early = Noted(), Noted()
    method.edit_grads(early, context(epoch=2))
    method.edit_grads(grads, context(epoch=3))

    weight = by_formula(0.5, 1.5, 1.0, 3.0)
    assert early.asked == []
    assert [(what, group) for what, group, _ in grads.asked] == [("scale", m) for m in NAMES]
    factors = [factor for _, _, factor in grads.asked]
    assert factors == pytest.approx([1 + weight, 2 - weight])


def test_the_factor_can_go_to_the_update_instead():
    method, _ = method_of(start_epoch=0, apply="update")
    grads = Noted()
    method.edit_grads(grads, context())

    assert {what for what, _, _ in grads.asked} == {"scale_update"}
    assert method.scaling_option() is None
    assert method_of()[0].scaling_option() == "apply"


def test_own_losses_count_once_before_the_start_and_gamma_times_after():
    method, _ = method_of(start_epoch=3)
    outputs, batch = sample()
    before, after = (method.losses(outputs, batch, context(epoch)) for epoch in (2, 3))

    torch.testing.assert_close(after["audio"], 4 * before["audio"])
    torch.testing.assert_close(after["fused"], before["fused"])
    assert before["image"][1] == 0


def test_weighed_answers_with_equal_weights_are_the_sum():
    logits = torch.randn(3, 2, 4)

    torch.testing.assert_close(weighed(logits, torch.full((3,), 1 / 3)), logits.sum(0))
    only_first = weighed(logits, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(only_first, 3 * logits[0])


def test_weighing_answers_leaves_gradients_alone_and_predicts_with_the_last_weights():
    method, modules = method_of(start_epoch=0, weighting="fusion")
    grads, ctx = Noted(), context()
    outputs, _ = sample()
    torch.testing.assert_close(method.predict(outputs), outputs.logits)

    method.edit_grads(grads, ctx)
    method.end_step(ctx)

    weight = by_formula(0.5, 1.5, 1.0, 3.0)
    expected = 2 * (weight * outputs.unimodal["audio"] + (1 - weight) * outputs.unimodal["image"])
    assert grads.asked == []
    torch.testing.assert_close(method.predict(outputs), expected)
    assert list(modules["fusion"].state_dict()) == ["value"]
    assert list(modules["fusion"].parameters()) == []


def test_a_skipped_step_leaves_the_weights_of_the_answers():
    method, modules = method_of(start_epoch=0, weighting="fusion")
    ctx = context()
    ctx.is_skipped = torch.tensor(True)
    method.end_step(ctx)

    assert modules["fusion"].state_dict()["value"].tolist() == [0.5, 0.5]


def test_weighing_gradients_predicts_with_the_fused_logits():
    method, modules = method_of()
    outputs, _ = sample()

    assert method.predict(outputs) is outputs.logits
    assert not modules


def test_weighing_answers_asks_for_logits_that_add_up():
    assert method_of(weighting="fusion")[0].asked().unimodal == "decompose"
    assert method_of()[0].asked().unimodal == "any"
