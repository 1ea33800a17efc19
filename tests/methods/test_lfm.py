"""The gap between answers, the weight of the fused loss, and how it is learnt."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.methods._base import EpochContext, GradientProducts, ModelFacts, StepContext
from mmtool.methods.lfm import (
    Method,
    Options,
    descent,
    gap,
    heuristic_weight,
    mean_logits,
    rate_at,
)
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion")
CPU = torch.device("cpu")
seeds = st.integers(0, 10_000)


def logits_of(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


def here(count, size=1):
    return torch.ones(size, count, dtype=torch.bool)


def method_of(**options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", CPU))
    return method


def products(fused, other, *, held=1.0, norms=(1.0, 1.0)):
    """Gradients of (fused, gap) on train against that of the fused loss held out."""
    table = torch.tensor([[fused, 0.0], [other, 0.0]], dtype=torch.float64)
    first = torch.tensor(norms, dtype=torch.float64)
    second = torch.tensor([held, 1.0], dtype=torch.float64)
    return GradientProducts(("fused", "gap"), table, first, second)


def begin(method, epoch, epochs=10, found=None):
    asked = []

    def compare(first, second, num_samples):
        asked.append((first, second, num_samples))
        return found

    def nothing(*arguments):
        raise AssertionError(arguments)

    ctx = EpochContext(
        NAMES, 3, epoch, epochs, nothing, {}, CPU, nothing, nothing, {}, nothing,
        gradient_products=compare,
    )  # fmt: skip
    method.begin_epoch(ctx)
    return asked, float(method.state_dict()["weight"])


def test_the_gap_of_opposite_certainties_is_log_two():
    value = gap([logits_of(1.0 - 1e-12, 1e-12), logits_of(1e-12, 1.0 - 1e-12)], here(2))

    assert value.item() == pytest.approx(math.log(2.0), abs=1e-9)


def test_the_gap_by_hand():
    # Means of (3/4, 1/4) and (1/4, 3/4) are halves: KL = 3/4 log 3/2 + 1/4 log 1/2 for both.
    value = gap([logits_of(0.75, 0.25), logits_of(0.25, 0.75)], here(2))

    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_the_released_divergence_exchanges_its_arguments():
    # KL of halves from (3/4, 1/4): 1/2 log 2/3 + 1/2 log 2.
    value = gap([logits_of(0.75, 0.25), logits_of(0.25, 0.75)], here(2), "reversed")

    assert value.item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2.0))


def test_three_modalities_take_the_mean_over_the_pairs_a_sample_has():
    apart = [logits_of(0.75, 0.25), logits_of(0.25, 0.75), logits_of(0.75, 0.25)]
    pair = gap(apart[:2], here(2)).item()

    assert gap(apart, here(3)).item() == pytest.approx(2 / 3 * pair)
    lacking = torch.tensor([[True, True, False]])
    assert gap(apart, lacking).item() == pytest.approx(pair)
    assert gap(apart, torch.tensor([[False, True, False]])).item() == 0.0


@given(seeds, st.integers(2, 4), st.sampled_from(["js", "reversed"]))
def test_a_gap_is_not_negative_zero_for_equal_answers_and_blind_to_order(seed, count, divergence):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(count)]
    value = gap(logits, here(count, 5), divergence)

    assert bool((value >= -1e-12).all())
    torch.testing.assert_close(value, gap(logits[::-1], here(count, 5), divergence))
    same = gap([logits[0], logits[0] + 3.0], here(2, 5), divergence)
    torch.testing.assert_close(same, torch.zeros_like(same))
    if divergence == "js":
        assert bool((value <= math.log(2.0)).all())


def test_extreme_answers_give_finite_losses_and_gradients():
    one = torch.tensor([[1e4, -1e4]], requires_grad=True)
    other = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    value = gap([one, other], here(2)).sum()
    value.backward()

    assert value.item() == pytest.approx(math.log(2.0))
    assert bool(one.grad.isfinite().all())


def test_logits_are_averaged_over_what_a_sample_has():
    logits = [torch.full((3, 2), value) for value in (1.0, 2.0, 6.0)]
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])

    assert mean_logits(logits, present)[:, 0].tolist() == [3.0, 3.5, 0.0]


def test_the_heuristic_weight_rises_from_its_first_value_to_its_last():
    values = [heuristic_weight(epoch, 10) for epoch in range(10)]

    assert values[0] == pytest.approx(0.2046)
    assert values[-1] == pytest.approx(0.95)
    assert values == sorted(values)
    assert heuristic_weight(0, 1) == pytest.approx(0.2046)


def test_the_loss_is_twice_the_weighed_terms():
    method = method_of()
    begin(method, epoch=0)
    terms = {"fused": torch.tensor(3.0), "gap": torch.tensor(5.0)}
    ctx = StepContext(NAMES, 3, 0, 0, 10, 5, torch.Generator())

    expected = 2 * (0.2046 * 3.0 + (1 - 0.2046) * 5.0)
    assert method.compose(terms, ctx).item() == pytest.approx(expected)


def test_descent_is_the_difference_of_products_over_their_lengths():
    assert descent(products(6.0, 2.0, held=2.0, norms=(3.0, 1.0))).item() == pytest.approx(0.5)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_descent_does_not_depend_on_the_length_of_gradients(first, held):
    torch.manual_seed(0)
    g, a, b = torch.randn(3, 8, dtype=torch.float64)

    def found(x, y):
        return products(
            float(y * g @ (x * a)),
            float(y * g @ (x * b)),
            held=float((y * g).norm()),
            norms=(float((x * a).norm()), float((x * b).norm())),
        )

    value = descent(found(first, held))
    torch.testing.assert_close(value, descent(found(1.0, 1.0)))
    assert -1 <= value.item() <= 1


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_gradients_that_vanish_or_are_not_finite_move_nothing(bad):
    assert descent(products(bad, 0.0, held=bad)).item() == 0.0


def test_the_learnt_weight_moves_towards_the_loss_that_helps_and_stays_in_its_range():
    method = method_of(schedule="learned", fused_weight=0.5, samples=8)
    asked, up = begin(method, 0, found=products(1.0, 0.0))
    _, down = begin(method, 1, found=products(-1.0, 1.0))

    assert asked == [("train", "val", 8)]
    assert up == pytest.approx(0.5 + 0.1 * 0.5)
    assert down == pytest.approx(up - 0.1)
    for epoch in range(2, 12):
        _, last = begin(method, epoch, found=products(-1.0, 1.0))
    assert last == pytest.approx(0.05)


def test_the_rate_is_halved_every_twenty_epochs():
    assert [rate_at(0.1, epoch) for epoch in (0, 19, 20, 40)] == [0.1, 0.1, 0.05, 0.025]


def test_only_the_learned_schedule_asks_for_gradients_and_held_out_data():
    heuristic, learned = method_of().asked(), method_of(schedule="learned").asked()
    from_train = method_of(schedule="learned", held_out="train").asked()

    assert (heuristic.gradient_products, heuristic.held_out) == (False, False)
    assert (learned.gradient_products, learned.held_out) == (True, True)
    assert (from_train.gradient_products, from_train.held_out) == (True, False)


def test_a_resumed_run_keeps_its_weight():
    method = method_of(schedule="learned", fused_weight=0.3)
    fresh = method_of(schedule="learned")
    fresh.load_state_dict(method.state_dict())

    assert float(fresh.state_dict()["weight"]) == pytest.approx(0.3)


def test_prediction_is_the_mean_of_what_is_there():
    torch.manual_seed(0)
    unimodal = {m: torch.randn(2, 3) for m in NAMES}
    present = torch.tensor([[True, True, True], [False, True, False]])
    method = method_of()

    whole = method.predict(Outputs({}, torch.zeros(2, 3), unimodal))
    partial = method.predict(Outputs({}, torch.zeros(2, 3), unimodal, present=present))

    torch.testing.assert_close(whole, torch.stack(list(unimodal.values())).mean(0))
    torch.testing.assert_close(partial[1], unimodal["image"][1])
    batch = Batch({}, {}, present, torch.tensor([0, 1]), torch.arange(2), NAMES)
    ctx = StepContext(NAMES, 3, 0, 0, 10, 5, torch.Generator())
    terms = method.losses(Outputs({}, torch.zeros(2, 3), unimodal), batch, ctx)
    expected = torch.nn.functional.cross_entropy(partial, batch.label, reduction="none")
    torch.testing.assert_close(terms["fused"], expected)
    assert terms["gap"][1] == 0
