"""mlb: gradients up for the modality behind, down for the one ahead."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.mlb import Method, Options, coefficients
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image")
scores_lists = st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=5)


def context():
    return StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())


def method_with(**options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu")))
    return method


def test_two_modalities_worked_out_by_hand():
    found = coefficients(torch.tensor([0.6, 0.3], dtype=torch.float64), 0.8, 2.0)

    # audio: rho = 0.3 / 0.6, image: rho = 0.6 / 0.3
    expected = [1 + math.tanh(0.8 * (0.5 - 1)), 1 + math.tanh(0.8 * (2 - 1))]
    assert expected == pytest.approx([0.620051, 1.664037], abs=1e-6)
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_beta_is_the_most_a_modality_behind_can_get():
    found = coefficients(torch.tensor([0.6, 0.3], dtype=torch.float64), 0.8, 5.0)

    assert found.tolist() == pytest.approx([0.620051, 1 + 4 * 0.664037], abs=1e-5)
    assert coefficients(torch.tensor([1.0, 0.0]), 1.0, 5.0)[1] == 5.0


def test_three_modalities_are_compared_with_the_mean_of_the_others():
    found = coefficients(torch.tensor([0.8, 0.4, 0.2], dtype=torch.float64), 1.0, 2.0)

    rho = [0.3 / 0.8, 0.5 / 0.4, 0.6 / 0.2]
    assert found.tolist() == pytest.approx([1 + math.tanh(r - 1) for r in rho])


@settings(deadline=None)
@given(scores_lists, st.floats(0.01, 3.0), st.floats(1.0, 5.0))
def test_factors_lie_between_their_limits_and_sides_are_right(values, alpha, beta):
    scores = torch.tensor(values, dtype=torch.float64)
    found = coefficients(scores, alpha, beta)

    assert (found >= 1 - math.tanh(alpha) - 1e-9).all()
    assert (found <= beta + 1e-9).all()
    assert found[scores.argmax()] <= 1 + 1e-9
    assert found[scores.argmin()] >= 1 - 1e-9


@settings(deadline=None)
@given(scores_lists, st.floats(0.01, 1.0), st.data())
def test_factors_ignore_scale_and_follow_a_permutation(values, scale, data):
    order = data.draw(st.permutations(range(len(values))))
    scores = torch.tensor(values, dtype=torch.float64)

    found = coefficients(scores, 0.8, 2.0)

    torch.testing.assert_close(coefficients(scores * scale, 0.8, 2.0), found)
    torch.testing.assert_close(coefficients(scores[order], 0.8, 2.0), found[order])


def test_factors_are_continuous_where_modalities_draw_level():
    near = coefficients(torch.tensor([0.5 + 1e-7, 0.5], dtype=torch.float64), 2.0, 5.0)

    assert near.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_scores_of_nothing_give_usable_factors():
    assert coefficients(torch.tensor([0.0, 0.0]), 0.8, 2.0).tolist() == [1.0, 1.0]
    assert coefficients(torch.tensor([0.5, math.nan]), 0.8, 2.0).tolist() == [1.0, 1.0]
    extreme = coefficients(torch.tensor([0.5, 0.0]), 0.8, 2.0)
    assert extreme.tolist() == pytest.approx([1 - math.tanh(0.8), 2.0])


@pytest.mark.parametrize(("apply", "door"), [("gradient", "scale"), ("update", "scale_update")])
def test_encoders_are_scaled_and_the_fusion_is_left_alone(apply, door):
    ctx, grads = context(), create_autospec(GradGroups, instance=True)
    ctx.stats = {"score": torch.tensor([6.0, 3.0]), "score_count": torch.tensor([10.0, 10.0])}

    method_with(apply=apply).edit_grads(grads, ctx)

    asked = [(c.args[0], float(c.args[1])) for c in getattr(grads, door).call_args_list]
    assert asked == [
        ("audio", pytest.approx(0.620051, abs=1e-5)),
        ("image", pytest.approx(1.664037, abs=1e-5)),
    ]
    assert float(ctx.metrics["coef.image"]) == pytest.approx(1.664037, abs=1e-5)


def test_a_sample_counts_in_the_losses_of_the_modalities_it_has():
    torch.manual_seed(1)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    batch = Batch({}, {}, present, torch.tensor([0, 1, 2]), torch.arange(3), NAMES)
    outputs = Outputs({}, torch.randn(3, 3), {m: torch.randn(3, 3) for m in NAMES})

    terms = method_with().losses(outputs, batch, context())

    for position, modality in enumerate(NAMES):
        full = cross_entropy(outputs.unimodal[modality], batch.label, reduction="none")
        torch.testing.assert_close(terms[modality], full * present[:, position])
    sums = {"fused": torch.tensor(1.0), "audio": torch.tensor(2.0), "image": torch.tensor(4.0)}
    assert float(method_with(weight=0.5).compose(sums, context())) == 4.0
