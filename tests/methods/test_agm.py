import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.agm import (
    Method,
    Options,
    averaged,
    clip_factor,
    coefficients,
    modulated,
    orders_of_step,
    relative,
)
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion", "text", "depth")
losses = st.lists(st.floats(0.0, 18.0), min_size=2, max_size=5)


def made(count=2, **options):
    method = Method(Options(**options))
    names = NAMES[:count]
    method.setup(ModelFacts(names, 3, dict.fromkeys(names, 3), "sum", torch.device("cpu")))
    return method


def context(count=2, step=0):
    generator = torch.Generator()
    generator.manual_seed(step)
    return StepContext(NAMES[:count], 3, 0, step, 1, 10, generator)


def sample(count=2, size=4, *, present=None):
    """A fusion that multiplies, so that coalitions matter; it counts how often it is called."""
    torch.manual_seed(3)
    names = NAMES[:count]
    features = {m: torch.randn(size, 3, requires_grad=True) for m in names}
    absent = {m: torch.full((1, 3), 0.5) for m in names}
    called = []

    def fuse(given):
        called.append(1)
        return torch.stack([given[m] for m in names]).prod(0) + given[names[0]]

    if present is None:
        present = torch.ones(size, count, dtype=torch.bool)
    batch = Batch({}, {}, present, torch.arange(size) % 3, torch.arange(size), names)
    outputs = Outputs(features, fuse(features), fuse=fuse, absent=absent)
    called.clear()
    return outputs, batch, called


def test_the_loss_is_that_of_joint_training():
    outputs, batch, _ = sample(3)

    terms = made(3).losses(outputs, batch, context(3))

    expected = cross_entropy(outputs.logits, batch.label, reduction="none")
    torch.testing.assert_close(terms["fused"], expected)


@pytest.mark.parametrize(("count", "fusions"), [(2, 2), (3, 6), (4, 14)])
def test_the_fused_logits_serve_as_the_coalition_of_all(count, fusions):
    outputs, batch, called = sample(count)
    made(count).losses(outputs, batch, context(count))

    assert len(called) == fusions


def test_with_many_modalities_some_orders_stand_for_all():
    outputs, batch, called = sample(5)

    terms = made(5, orders=2).losses(outputs, batch, context(5))

    assert len(called) <= 2 * 4
    expected = cross_entropy(outputs.logits, batch.label, reduction="none")
    torch.testing.assert_close(terms["fused"], expected)
    assert orders_of_step(context(5, step=7), 2) == orders_of_step(context(5, step=7), 2)
    assert orders_of_step(context(5, step=7), 2) != orders_of_step(context(5, step=8), 2)


def test_with_all_coefficients_one_gradients_are_those_of_joint_training():
    outputs, batch, _ = sample()
    made().losses(outputs, batch, context())["fused"].sum().backward()
    found = {m: f.grad.clone() for m, f in outputs.features.items()}

    joint, _, _ = sample()
    cross_entropy(joint.logits, batch.label, reduction="none").sum().backward()

    for m, gradient in found.items():
        torch.testing.assert_close(joint.features[m].grad, gradient)


@pytest.mark.parametrize("is_open", [True, False])
def test_zero_inputs_pass_gradients_on_only_where_the_options_say_so(is_open):
    outputs, batch, _ = sample()
    blanks = {m: feature.clone().requires_grad_() for m, feature in outputs.absent.items()}
    outputs.absent.update(blanks)
    method = made(blank_gradient=is_open)
    method.load_state_dict({**method.state_dict(), "factors": torch.tensor([0.5, 2.0])})

    method.losses(outputs, batch, context())["fused"].sum().backward()

    assert all((blank.grad is not None) == is_open for blank in blanks.values())


def test_of_an_additive_fusion_each_encoder_gets_its_gradient_times_its_factor():
    torch.manual_seed(0)
    parts = torch.randn(2, 4, 3, requires_grad=True)  # contributions are the summands
    label = torch.tensor([0, 1, 2, 0])
    logits = parts.sum(0)
    factors = torch.tensor([0.25, 3.0])

    cross_entropy(modulated(logits, parts, factors), label).backward()
    z = logits.detach().requires_grad_()
    cross_entropy(z, label).backward()

    torch.testing.assert_close(parts.grad[0], 0.25 * z.grad)
    torch.testing.assert_close(parts.grad[1], 3.0 * z.grad)


def test_of_two_modalities_the_coefficient_follows_the_paper():
    audio, image = 0.5, 1.25  # losses: audio is ahead
    mean_audio, mean_image = 0.9, 1.0

    r = relative(torch.tensor([audio, image]))
    tau = relative(torch.tensor([mean_audio, mean_image]))
    found = coefficients(r, tau, 1.5, 10.0)

    by_hand = [
        math.exp(1.5 * (math.exp(mean_image - mean_audio) - math.exp(image - audio))),
        math.exp(1.5 * (math.exp(mean_audio - mean_image) - math.exp(audio - image))),
    ]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-5)
    assert by_hand[0] < 1 < by_hand[1]


def test_a_bound_holds_back_how_much_one_that_fell_behind_is_sped_up():
    now, before = torch.tensor([0.1]), torch.tensor([40.0])

    assert float(coefficients(now, before, 0.1, 10.0)) == pytest.approx(math.exp(1.0))
    assert float(coefficients(now, before, 0.1, None)) == pytest.approx(math.exp(3.99))


@settings(deadline=None)
@given(losses, st.floats(0.1, 3.0))
def test_a_lead_as_large_as_usual_changes_nothing(values, alpha):
    r = relative(torch.tensor(values, dtype=torch.float64))

    assert coefficients(r, r, alpha, 10.0).tolist() == [1.0] * len(values)


@settings(deadline=None)
@given(losses, st.floats(-3.0, 3.0))
def test_only_differences_of_losses_matter(values, shift):
    now = torch.tensor(values, dtype=torch.float64)

    torch.testing.assert_close(relative(now + shift), relative(now))


@settings(deadline=None)
@given(st.permutations(range(4)), st.lists(st.floats(0.0, 18.0), min_size=4, max_size=4))
def test_the_order_of_modalities_does_not_matter(order, values):
    now = torch.tensor(values, dtype=torch.float64)

    torch.testing.assert_close(relative(now[order]), relative(now)[order])


def test_a_modality_without_samples_is_neither_ahead_nor_behind():
    assert relative(torch.tensor([0.5, math.nan])).tolist() == [1.0, 1.0]
    found = relative(torch.tensor([0.5, 1.0, math.nan]))
    assert found.tolist() == pytest.approx([math.exp(0.5), math.exp(-0.5), 1.0])


def test_averages_are_over_the_steps_that_had_the_modality():
    means, steps = torch.full((2,), math.nan), torch.zeros(2)
    for now in ([1.0, 4.0], [2.0, math.nan], [6.0, 2.0]):
        means, steps = averaged(means, steps, torch.tensor(now))

    assert means.tolist() == [3.0, 3.0]
    assert steps.tolist() == [3.0, 2.0]


def test_losses_are_bounded_and_of_the_samples_that_have_the_modality():
    present = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    outputs, batch, _ = sample(present=present)
    method = made()
    method.losses(outputs, batch, context())
    method._responses = torch.zeros(2, 4, 3)
    method._responses[0, 0] = torch.tensor([-500.0, 500.0, 0.0])  # label 0

    found = method.statistics(outputs, batch, context())

    third = math.log(3)
    assert found["response_count"].tolist() == [3.0, 3.0]
    expected = [-math.log(1e-8) + 2 * third, 3 * third]
    assert found["response_loss"].tolist() == pytest.approx(expected, rel=1e-5)


def stepped(method, sums, *, is_skipped=False):
    ctx = context(len(sums))
    ctx.stats = {
        "response_loss": torch.tensor(sums),
        "response_count": torch.full((len(sums),), 2.0),
    }
    ctx.is_skipped = torch.tensor(is_skipped)
    method.end_step(ctx)
    return method.state_dict()


def test_the_first_step_compares_with_no_lead_and_later_ones_with_the_average_before():
    method = made(alpha=1.0)

    first = stepped(method, [2.0, 4.0])  # means 1 and 2
    r = math.exp(2 - 1)
    assert first["factors"].tolist() == pytest.approx([math.exp(1 - r), math.exp(1 - 1 / r)])

    second = stepped(method, [2.0, 2.0])  # level now, audio was ahead on average
    expected = [math.exp(r - 1), math.exp(1 / r - 1)]
    assert second["factors"].tolist() == pytest.approx(expected)
    assert second["means"].tolist() == [1.0, 1.5]


def test_a_skipped_step_leaves_the_state_as_it_was():
    method = made()
    before = {k: v.clone() for k, v in stepped(method, [2.0, 4.0]).items()}

    after = stepped(method, [math.inf, 1.0], is_skipped=True)

    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_resumed_run_goes_on_with_the_same_averages():
    method, resumed = made(), made()
    resumed.load_state_dict(stepped(method, [2.0, 4.0]))

    went_on, continued = stepped(method, [3.0, 1.0]), stepped(resumed, [3.0, 1.0])

    assert all(torch.equal(went_on[k], continued[k]) for k in went_on)


class Noted:
    def __init__(self, head):
        self.head, self.asked = head, []

    def names(self):
        return ("audio", "image", "fusion")

    def tensors(self, group, kind="all"):
        return [self.head] if group == "fusion" else []

    def norm(self, group):
        return {"audio": torch.tensor(2.0), "image": torch.tensor(1.0)}.get(
            group, torch.tensor(2.0)
        )

    def scale(self, group, factor, kind="all"):
        self.asked.append((group, float(factor)))


def edited(head, **options):
    method, ctx = made(**options), context()
    ctx.stats = {"response_loss": torch.ones(2), "response_count": torch.ones(2)}
    grads = Noted(head)
    method.edit_grads(grads, ctx)
    return grads.asked


def test_everything_is_clipped_where_a_gradient_of_the_fusion_is_large():
    third = pytest.approx(1 / 3)
    assert edited(torch.tensor([0.5, -1.5]), clip_above=1.0) == [
        ("audio", third),
        ("image", third),
        ("fusion", third),
    ]
    assert {f for _, f in edited(torch.tensor([0.5, -0.9]), clip_above=1.0)} == {1.0}
    assert edited(torch.tensor([0.5, -1.5])) == []


def test_clipping_never_enlarges():
    assert float(clip_factor(torch.tensor(0.9), torch.tensor(0.1), 0.5)) == 1.0
