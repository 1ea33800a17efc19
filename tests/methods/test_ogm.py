import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mmtool.errors import RequestError
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.ogm import Method, Options, coefficients
from mmtool.types import Batch, Outputs

alphas = st.floats(0.01, 3.0)
scores_lists = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=5)


class Noted:
    """Gradients that only note what was asked of them."""

    def __init__(self, **shapes):
        self.shapes = shapes
        self.asked = []

    def names(self):
        return (*sorted(self.shapes), "fusion")

    def tensors(self, group, kind="all"):
        smallest = {"all": 0, "matrix": 2, "conv": 4}[kind]
        return [torch.zeros(s) for s in self.shapes[group] if len(s) >= smallest]

    def scale(self, group, factor, kind="all"):
        self.asked.append(("scale", group, float(factor), kind))

    def scale_update(self, group, factor, kind="all"):
        self.asked.append(("scale_update", group, float(factor), kind))

    def add_noise(self, group, strength, kind="all"):
        self.asked.append(("add_noise", group, float(strength), kind))

    def norm(self, group):
        raise AssertionError(group)


def run(options, *, epoch=0, scores=(0.6, 0.3), shapes=((8, 1, 3, 3), (8,))):
    names = ("audio", "image", "motion", "text")[: len(scores)]
    ctx = StepContext(names, 3, epoch, 0, 10, 10, torch.Generator())
    ctx.stats = {
        "score": torch.tensor(scores) * 8,
        "score_count": torch.full((len(scores),), 8.0),
    }
    method = Method(options)
    method.setup(ModelFacts(names, 3, dict.fromkeys(names, 4), "concat", torch.device("cpu")))
    grads = Noted(**dict.fromkeys(names, shapes))
    method.edit_grads(grads, ctx)
    return grads.asked, ctx


def by_formula(first, second, alpha):
    def factor(rho):
        return 1 - math.tanh(alpha * rho) if rho > 1 else 1.0

    return factor(first / second), factor(second / first)


@given(first=st.floats(1e-3, 1.0), second=st.floats(1e-3, 1.0), alpha=alphas)
def test_two_modalities_follow_the_paper_to_six_digits(first, second, alpha):
    found = coefficients(torch.tensor([first, second], dtype=torch.float64), alpha)

    assert found.tolist() == pytest.approx(by_formula(first, second, alpha), abs=1e-6)


def test_a_tie_slows_nobody():
    assert coefficients(torch.tensor([0.4, 0.4]), 0.8).tolist() == [1.0, 1.0]


def test_the_factor_jumps_where_a_modality_gets_ahead_as_in_the_paper():
    ahead = coefficients(torch.tensor([0.5 + 1e-9, 0.5], dtype=torch.float64), 0.8)[0]

    assert float(ahead) == pytest.approx(1 - math.tanh(0.8), abs=1e-6)


@given(scores_lists, alphas)
def test_only_modalities_ahead_are_slowed(values, alpha):
    found = coefficients(torch.tensor(values, dtype=torch.float64), alpha)

    assert ((found >= 0) & (found <= 1)).all()
    for position, value in enumerate(values):
        others = values[:position] + values[position + 1 :]
        mean = sum(others) / len(others) if others else value
        assume(not math.isclose(value, mean, rel_tol=1e-9) or not others)
        assert (found[position] < 1) == (value > mean)


@given(scores_lists, alphas, st.floats(0.1, 10.0))
def test_the_scale_of_scores_does_not_matter(values, alpha, scale):
    scores = torch.tensor(values, dtype=torch.float64)
    means = (scores.sum() - scores) / max(len(values) - 1, 1)
    assume(len(values) == 1 or bool(((scores / means - 1).abs() > 1e-9).all()))

    torch.testing.assert_close(coefficients(scores, alpha), coefficients(scores * scale, alpha))


@given(st.permutations(range(4)), st.lists(st.floats(1e-3, 1.0), min_size=4, max_size=4), alphas)
def test_the_order_of_modalities_does_not_matter(order, values, alpha):
    scores = torch.tensor(values, dtype=torch.float64)
    means = (scores.sum() - scores) / 3
    assume(bool(((scores / means - 1).abs() > 1e-9).all()))

    torch.testing.assert_close(
        coefficients(scores[order], alpha), coefficients(scores, alpha)[order]
    )


def test_scores_of_nothing_give_usable_factors():
    assert coefficients(torch.tensor([0.5, 0.0]), 0.8).tolist() == [0.0, 1.0]
    assert coefficients(torch.tensor([0.5]), 0.8).tolist() == [1.0]
    assert coefficients(torch.tensor([0.5, math.nan]), 0.8).tolist() == [1.0, 1.0]


def test_inside_the_window_encoders_are_scaled_and_all_get_noise():
    asked, ctx = run(Options(alpha=0.8, params="conv"))

    slowed = pytest.approx(1 - math.tanh(1.6))
    assert asked == [
        ("scale", "audio", slowed, "conv"),
        ("add_noise", "audio", 1.0, "conv"),
        ("scale", "image", 1.0, "conv"),
        ("add_noise", "image", 1.0, "conv"),
    ]
    assert float(ctx.metrics["coef.audio"]) == slowed
    assert float(ctx.metrics["score.image"]) == pytest.approx(0.3)


def test_without_noise_it_is_plain_ogm():
    asked, _ = run(Options(noise=False), scores=(0.2, 0.9, 0.4))

    assert [(what, group) for what, group, _, _ in asked] == [
        ("scale", "audio"),
        ("scale", "image"),
        ("scale", "motion"),
    ]


def test_the_update_can_be_scaled_instead_of_the_gradient():
    asked, _ = run(Options(apply="update", noise=False))

    assert {what for what, *_ in asked} == {"scale_update"}


@pytest.mark.parametrize(("epoch", "is_active"), [(1, False), (2, True), (5, True), (6, False)])
def test_both_ends_of_the_window_are_inside(epoch, is_active):
    asked, ctx = run(Options(start_epoch=2, end_epoch=5), epoch=epoch)

    assert bool(asked) == is_active
    assert ("coef.audio" in ctx.metrics) == is_active
    assert "score.audio" in ctx.metrics


def test_a_window_without_end_never_closes():
    assert run(Options(end_epoch=None), epoch=10_000)[0]


def test_touching_nothing_is_refused_with_the_option_that_helps():
    with pytest.raises(RequestError, match="selects nothing in the encoder of 'audio'") as caught:
        run(Options(params="conv"), shapes=((8, 4), (8,)))
    assert caught.value.fix == "-s method.params=matrix"


def test_an_encoder_without_gradients_in_this_step_is_no_error():
    run(Options(params="conv"), shapes=())


def test_scores_come_from_the_logits_of_each_modality():
    label = torch.tensor([0, 1])
    sure = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    batch = Batch(
        {}, {}, torch.ones(2, 2, dtype=torch.bool), label, torch.arange(2), ("audio", "image")
    )
    outputs = Outputs({}, sure, {"audio": sure, "image": -sure})
    ctx = StepContext(("audio", "image"), 2, 0, 0, 1, 1, torch.Generator())

    score = Method(Options()).statistics(outputs, batch, ctx)["score"]

    assert score[0] > 1.99
    assert score[1] < 0.01
