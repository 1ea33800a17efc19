"""MLA: turns, the projector of the shared head, and fusion by certainty."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.errors import RequestError
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.mla import (
    Method,
    Options,
    entropy_weights,
    forgetting,
    kept_share,
    project,
    updated_projector,
)
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image", "motion")


def facts(dims=(2, 2, 2)):
    widths = dict(zip(NAMES, dims, strict=True))
    return ModelFacts(NAMES, 3, widths, "shared", torch.device("cpu"))


def method_with(**options):
    method = Method(Options(**options))
    method.setup(facts())
    return method


def context(method, step=0, turn=0):
    ctx = StepContext(NAMES, 3, 0, step, 1, 4, torch.Generator())
    ctx.sub = method.plan_step(ctx)[turn]
    return ctx


def a_batch(present=None):
    present = torch.ones(4, 3, dtype=torch.bool) if present is None else torch.tensor(present)
    return Batch({}, {}, present, torch.tensor([0, 1, 2, 1]), torch.arange(4), NAMES)


def outputs_of(logits=None, features=None, **more):
    torch.manual_seed(3)
    logits = logits or {m: torch.randn(4, 3) for m in NAMES}
    features = features or {m: torch.randn(4, 2) for m in NAMES}
    return Outputs(features, torch.stack(list(logits.values())).sum(0), logits, **more)


def gradients_for(matrix):
    grads = create_autospec(GradGroups, instance=True)
    grads.tensors.return_value = [matrix]
    return grads


def turn_of(method, mean, gradient, step=0, turn=0, before=True):
    """Run one sub-step with a mean feature and give the head's gradient that comes out."""
    ctx = StepContext(NAMES, 3, 0, step, 1, 4, torch.Generator())
    plan = method.plan_step(ctx) if before else [None] * 3
    ctx.sub = plan[turn]
    ctx.stats = {
        "score": torch.tensor([1.0, 0.0, 0.0]),
        "score_count": torch.tensor([2.0, 0.0, 0.0]),
        "feature_sum": torch.tensor(mean) * 2,
        "own_count": torch.tensor(2.0),
    }
    grads = gradients_for(gradient)
    method.edit_grads(grads, ctx)
    (group, tensors, kind), _ = grads.replace.call_args
    assert (group, kind) == ("fusion", "matrix")
    return tensors[0], ctx


def test_every_modality_has_a_turn_alone_with_the_head():
    method = method_with()
    plan = method.plan_step(StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator()))

    assert [s.modalities for s in plan] == [("audio",), ("image",), ("motion",)]
    assert [s.groups for s in plan] == [(m, "fusion") for m in NAMES]


def test_the_projector_follows_the_formula_on_an_example():
    # P = I, r = (3, 4): k = (3, 4), r k = 25, alpha = 0.1, so P = I - k k^T / 25.1
    expected = torch.tensor([[1 - 9 / 25.1, -12 / 25.1], [-12 / 25.1, 1 - 16 / 25.1]])

    found = updated_projector(torch.eye(2), torch.tensor([3.0, 4.0]), 0.1, normalize=False)

    torch.testing.assert_close(found, expected)
    norm = math.sqrt(float(expected.square().sum()))
    with_norm = updated_projector(torch.eye(2), torch.tensor([3.0, 4.0]), 0.1)
    torch.testing.assert_close(with_norm, expected / norm)


def test_alpha_falls_from_a_tenth_to_a_hundredth_within_an_epoch():
    assert forgetting(0.0) == pytest.approx(0.1)
    assert forgetting(0.5) == pytest.approx(0.1**1.5)
    assert forgetting(1.0) == pytest.approx(0.01)


def test_a_gradient_is_multiplied_from_the_right():
    projector = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    gradient = torch.tensor([[1.0, 10.0]])

    assert project(gradient, projector).tolist() == [[2.0, 31.0]]  # g P^T


vectors = st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3).map(torch.tensor)


@settings(deadline=None)
@given(st.lists(vectors, min_size=1, max_size=6), st.floats(0.01, 0.1))
def test_the_projector_stays_symmetric_finite_and_shrinks_what_it_has_seen(means, alpha):
    projector = torch.eye(3)
    for mean in means:
        plain = updated_projector(projector, mean, alpha, normalize=False)
        assert float(mean @ plain @ mean) <= float(mean @ projector @ mean) + 1e-4
        projector = updated_projector(projector, mean, alpha)
    torch.testing.assert_close(projector, projector.T, atol=1e-5, rtol=1e-4)
    assert bool(torch.isfinite(projector).all())
    assert float(projector.norm()) == pytest.approx(1.0, rel=1e-4)


def test_a_mean_of_zero_leaves_the_projector():
    torch.testing.assert_close(
        updated_projector(torch.eye(2), torch.zeros(2), 0.1, normalize=False), torch.eye(2)
    )


def test_the_very_first_turn_of_a_run_is_not_projected():
    method, gradient = method_with(), torch.randn(3, 2)
    first, ctx = turn_of(method, [3.0, 4.0], gradient)
    assert torch.equal(first, gradient)

    method.end_step(ctx)
    second, _ = turn_of(method, [3.0, 4.0], gradient, step=1, turn=1)
    alpha = 0.1 ** (1 / 4 + 1)
    k = torch.tensor([3.0, 4.0])
    projector = torch.eye(2) - torch.outer(k, k) / (alpha + 25)
    torch.testing.assert_close(second, gradient @ (projector / projector.norm()).T)


def test_turns_within_a_batch_see_each_other_and_a_skipped_batch_leaves_no_trace():
    method = method_with()
    before = method.state_dict()
    _, ctx = turn_of(method, [1.0, 0.0], torch.ones(3, 2))
    ctx.sub = method_with().plan_step(ctx)[1]  # the second turn of the same batch
    grads = gradients_for(torch.ones(3, 2))
    method.edit_grads(grads, ctx)
    second = grads.replace.call_args[0][1][0]
    assert not torch.equal(second, torch.ones(3, 2))

    ctx.is_skipped = torch.tensor(True)
    method.end_step(ctx)
    after = method.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)

    ctx.is_skipped = torch.tensor(False)
    method.end_step(ctx)
    assert bool(method.state_dict()["is_started"])


def test_a_turn_without_samples_or_with_a_bad_mean_keeps_the_projector():
    for mean, count in (([0.0, 0.0], 0.0), ([math.nan, 1.0], 2.0)):
        method = method_with()
        _, ctx = turn_of(method, [1.0, 0.0], torch.ones(3, 2))
        method.end_step(ctx)
        kept = method.state_dict()["projector"]
        ctx = context(method, step=1)
        ctx.stats = {
            "score": torch.zeros(3),
            "score_count": torch.zeros(3),
            "feature_sum": torch.tensor(mean),
            "own_count": torch.tensor(count),
        }
        method.edit_grads(gradients_for(torch.ones(3, 2)), ctx)
        method.end_step(ctx)
        assert torch.equal(method.state_dict()["projector"], kept)


def test_without_projection_the_gradient_is_not_touched():
    method = method_with(project=False)
    ctx = context(method)
    ctx.stats = {"score": torch.ones(3), "score_count": torch.ones(3)}
    grads = gradients_for(torch.ones(3, 2))

    method.edit_grads(grads, ctx)

    grads.replace.assert_not_called()


def test_the_loss_is_that_of_the_whole_head_on_the_modality_of_the_turn():
    method, batch = method_with(), a_batch([[True] * 3, [False] * 3, [True] * 3, [True] * 3])
    outputs = outputs_of()
    terms = method.losses(outputs, batch, context(method, turn=1))

    expected = cross_entropy(3 * outputs.unimodal["image"], batch.label, reduction="none")
    expected[1] = 0.0
    assert list(terms) == ["image"]
    torch.testing.assert_close(terms["image"], expected)


def test_absent_and_padding_samples_are_in_no_mean():
    method, outputs = method_with(), outputs_of()
    whole = a_batch([[True] * 3, [False] * 3, [True] * 3, [True] * 3])
    batch = Batch(
        {}, {}, whole.present, whole.label, whole.index, NAMES, torch.tensor([1.0, 1.0, 0.0, 2.0])
    )
    found = method.statistics(outputs, batch, context(method, turn=2))

    features = outputs.features["motion"]
    torch.testing.assert_close(found["feature_sum"], features[0] + features[3])
    assert float(found["own_count"]) == 2.0
    assert float(found["weight"]) == 3.0


def test_weights_follow_the_entropies_of_an_example():
    certain, even = [0.0, 0.0, 100.0], [1.0, 1.0, 1.0]  # entropies 0 and log 3
    logits = torch.tensor([[certain], [even]])
    found = entropy_weights(logits, torch.ones(2, 1, dtype=torch.bool))

    torch.testing.assert_close(found[:, 0], torch.tensor([0.75, 0.25]))  # 1 : 1/3


@settings(deadline=None)
@given(st.permutations(range(3)), st.integers(0, 100))
def test_weights_go_with_the_modalities_and_add_up_to_one(order, seed):
    torch.manual_seed(seed)
    logits, present = torch.randn(3, 5, 4) * 4, torch.rand(3, 5) < 0.6
    found = entropy_weights(logits, present)

    torch.testing.assert_close(found.sum(0), torch.ones(5))
    assert not found[~present & present.any(0)].any()
    torch.testing.assert_close(
        entropy_weights(logits[list(order)], present[list(order)]), found[list(order)]
    )


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch():
    method, outputs = method_with(), outputs_of()
    whole = method.predict(outputs)
    one = outputs_of(
        {m: z[2:3] for m, z in outputs.unimodal.items()},
        {m: f[2:3] for m, f in outputs.features.items()},
    )
    torch.testing.assert_close(method.predict(one), whole[2:3])


def test_the_mean_is_the_fusion_itself_and_leaves_out_what_a_sample_lacks():
    method, outputs = method_with(fuse="mean"), outputs_of()
    assert torch.equal(method.predict(outputs), outputs.logits)

    everything = torch.ones(4, 3, dtype=torch.bool)
    torch.testing.assert_close(method.predict(outputs_of(present=everything)), outputs.logits)
    without = everything.clone()
    without[:, 1:] = False
    found = method.predict(outputs_of(present=without))
    torch.testing.assert_close(found, 3 * outputs.unimodal["audio"])


def test_the_share_kept_is_one_where_there_was_no_gradient():
    assert float(kept_share([torch.zeros(2, 2)], [torch.zeros(2, 2)])) == 1.0
    kept = kept_share([torch.tensor([[3.0, 4.0]])], [torch.tensor([[3.0, 0.0]])])
    assert float(kept) == pytest.approx(0.6)


def test_features_of_different_widths_are_refused():
    with pytest.raises(RequestError, match="equal width") as caught:
        Method(Options()).setup(facts((2, 3, 2)))
    assert "image: 3" in str(caught.value.why)


def test_the_state_comes_back():
    method = method_with()
    _, ctx = turn_of(method, [1.0, 2.0], torch.ones(3, 2))
    method.end_step(ctx)
    again = method_with()
    again.load_state_dict(method.state_dict())

    assert all(torch.equal(again.state_dict()[k], v) for k, v in method.state_dict().items())
