"""AUG: learners and their residual, when one is added, and what is predicted meanwhile."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.errors import RequestError
from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.aug import Method, Options, behind, boosting_losses, is_check
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image", "motion")
FACTS = ModelFacts(NAMES, 3, {"audio": 4, "image": 5, "motion": 2}, "concat", torch.device("cpu"))


def method_with(**options):
    torch.manual_seed(0)
    method = Method(Options(**{"hidden": 6, "max_learners": 3, **options}))
    return method, method.setup(FACTS)


def context(method, turn=0, epoch=0):
    ctx = StepContext(NAMES, 3, epoch, 0, 4, 1, torch.Generator())
    ctx.sub = method.plan_step(ctx)[turn]
    return ctx


def between(epoch, epochs=4):
    ctx = create_autospec(EpochContext, instance=True)
    ctx.epoch, ctx.epochs, ctx.modalities = epoch, epochs, NAMES
    return ctx


def sample(**more):
    torch.manual_seed(2)
    features = {m: torch.randn(4, d) for m, d in FACTS.feature_dims.items()}
    return Outputs(features, torch.randn(4, 3), **more)


def a_batch(present=None, weight=None):
    present = torch.ones(4, 3, dtype=torch.bool) if present is None else torch.tensor(present)
    label = torch.tensor([0, 1, 2, 1])
    return Batch({}, {}, present, label, torch.arange(4), NAMES, weight)


def a_step(method, scores, skipped=False):
    """Run the turns of one step with these summed scores of two samples each."""
    ctx = StepContext(NAMES, 3, 0, 0, 4, 1, torch.Generator())
    for turn, sub in enumerate(method.plan_step(ctx)):
        ctx.sub = sub
        one = torch.zeros(3)
        one[turn] = 1.0
        ctx.stats = {"score": one * scores[turn], "score_count": one * 2}
        method.edit_grads(create_autospec(GradGroups, instance=True), ctx)
    ctx.is_skipped = torch.tensor(skipped)
    method.end_step(ctx)
    return ctx


def an_epoch(method, scores, epoch):
    method.begin_epoch(between(epoch))
    a_step(method, scores)
    method.end_epoch(between(epoch))


def numbers(method):
    return method.state_dict()["numbers"]


def test_every_modality_has_a_turn_with_the_shared_head():
    method, _ = method_with()
    plan = method.plan_step(StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator()))

    assert [s.modalities for s in plan] == [("audio",), ("image",), ("motion",)]
    assert [s.groups for s in plan] == [(m, "fusion") for m in NAMES]


def test_all_learners_are_there_from_the_start_and_one_is_in_use():
    method, modules = method_with()

    assert list(modules) == [*NAMES, "fusion"]
    assert [len(modules[m].layers) for m in NAMES] == [3, 3, 3]
    assert modules["image"].layers[2].weight.shape == (6, 5)
    assert modules["image"].in_use.tolist() == [1.0, 0.0, 0.0]
    method.losses(sample(), a_batch(), context(method))["audio.all"].sum().backward()
    assert modules["audio"].layers[0].weight.grad is not None
    assert modules["audio"].layers[1].weight.grad is None


def test_one_learner_is_trained_with_the_cross_entropy_alone():
    torch.manual_seed(1)
    logits = torch.randn(4, 3)
    terms = boosting_losses([logits], a_batch(), 0.5)

    assert list(terms) == ["all"]
    expected = cross_entropy(logits, a_batch().label, reduction="none")
    torch.testing.assert_close(terms["all"], expected)


def test_the_losses_of_two_learners_in_an_example():
    # the first is even over 2 classes, q = 1/2; the second says 3 : 1, and so does their sum
    batch = Batch(
        {}, {}, torch.ones(1, 1, dtype=torch.bool), torch.tensor([0]), torch.arange(1), ("audio",)
    )
    first, second = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    terms = {k: float(v) for k, v in boosting_losses([first, second], batch, 0.5).items()}

    assert terms["all"] == pytest.approx(-math.log(0.75))
    assert terms["before"] == pytest.approx(-math.log(0.5))
    assert terms["residual"] == pytest.approx((1 - 0.5 * 0.5) * -math.log(0.75))


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0, 1))
def test_the_residual_term_is_a_cross_entropy_with_what_is_left_of_the_label(seed, residual):
    torch.manual_seed(seed)
    logits, batch = [torch.randn(4, 3) for _ in range(3)], a_batch()
    before = (logits[0] + logits[1]).softmax(1)
    hot = torch.nn.functional.one_hot(batch.label, 3)
    target = hot - residual * hot * before

    found = boosting_losses(logits, batch, residual)["residual"]
    torch.testing.assert_close(found, -(target * logits[2].log_softmax(1)).sum(1))


def test_what_earlier_learners_say_is_a_constant_of_the_residual():
    first, last = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    boosting_losses([first, last], a_batch(), 0.5)["residual"].sum().backward()

    assert first.grad is None
    assert last.grad.abs().sum() > 0


def test_scores_are_compared_after_the_first_epoch_and_so_often_in_a_run():
    assert [e for e in range(100) if is_check(e, 100, 10)] == [0, *range(9, 100, 10)]
    assert [e for e in range(12) if is_check(e, 12, 4)] == [0, 2, 5, 8, 11]
    assert [e for e in range(3) if is_check(e, 3, 10)] == [0, 1, 2]


def test_the_weakest_is_behind_if_the_others_are_far_enough_ahead():
    assert behind([0.6, 0.5], 1.01) == 1
    assert behind([0.5, 0.6], 1.01) == 0
    assert behind([0.5, 0.504], 1.01) is None
    assert behind([0.5, 0.506], 1.01) == 0
    assert behind([0.9, 0.5, 0.7], 1.5) == 1  # mean of the others 0.8
    assert behind([0.9, 0.5, 0.7], 1.7) is None
    assert behind([0.5, 0.5], 1.0) is None
    assert behind([0.0, 0.0], 1.01) is None
    assert behind([0.0, 0.1], 1.01) == 0
    assert behind([math.nan, 0.5, 0.9], 1.01) == 1
    assert behind([math.nan, 0.5], 1.01) is None


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5, unique=True),
    st.randoms(use_true_random=False),
    st.sampled_from([0.5, 2.0, 8.0]),
)
def test_who_is_behind_depends_on_neither_order_nor_scale(scores, random, scale):
    order = list(range(len(scores)))
    random.shuffle(order)
    found, again = behind(scores, 1.2), behind([scale * scores[i] for i in order], 1.2)

    assert (found is None) == (again is None) or math.isclose(min(scores), max(scores))
    if found is not None and again is not None:
        assert order[again] == found


def test_the_weakest_gets_a_learner_for_the_next_epoch():
    method, modules = method_with(checks=4)
    an_epoch(method, [1.6, 0.4, 1.0], epoch=0)
    assert numbers(method) == {"audio": 1, "image": 2, "motion": 1}
    assert modules["image"].in_use.tolist() == [1.0, 0.0, 0.0]  # weights of the epoch that ended

    method.begin_epoch(between(1))
    assert modules["image"].in_use.tolist() == [1.0, 1.0, 0.0]
    terms = method.losses(sample(), a_batch(), context(method, turn=1))
    assert list(terms) == ["image.all", "image.before", "image.residual"]
    sum(t.sum() for t in terms.values()).backward()
    assert modules["image"].layers[1].weight.grad.abs().sum() > 0


def test_no_modality_gets_more_learners_than_allowed():
    method, modules = method_with(checks=4)
    for epoch in range(4):
        an_epoch(method, [1.6, 0.4, 1.0], epoch)
    assert numbers(method)["image"] == 3
    method.begin_epoch(between(4))
    assert modules["image"].in_use.tolist() == [1.0, 1.0, 1.0]


def test_scores_of_a_skipped_step_and_of_earlier_epochs_do_not_count():
    method, _ = method_with(checks=4)
    a_step(method, [0.1, 1.9, 1.9], skipped=True)
    an_epoch(method, [1.6, 0.4, 1.0], epoch=0)
    assert numbers(method)["image"] == 2
    an_epoch(method, [1.0, 1.0, 1.0], epoch=1)
    assert numbers(method) == {"audio": 1, "image": 2, "motion": 1}


def test_scores_of_all_turns_are_logged():
    method, _ = method_with()
    ctx = a_step(method, [1.6, 0.4, 1.0])

    found = [float(ctx.metrics[f"score.{m}"]) for m in NAMES]
    assert found == pytest.approx([0.8, 0.2, 0.5])
    assert float(ctx.metrics["learners.image"]) == 1.0


def test_a_turn_counts_the_samples_that_have_the_modality():
    method, _ = method_with()
    has = [[True, False, True]] * 2 + [[True] * 3] * 2
    weight = torch.tensor([1.0, 1.0, 2.0, 0.0])
    batch, ctx = a_batch(has, weight).only(("image",)), context(method, turn=1)

    found = method.statistics(sample(), batch, ctx)
    assert found["score_count"].tolist() == [0.0, 1.0, 0.0]
    assert float(found["weight"]) == 2.0
    terms = method.losses(sample(), batch, ctx)
    assert [bool(v) for v in terms["image.all"]] == [False, False, True, True]


def test_the_prediction_is_the_weighted_mean_over_what_a_sample_has():
    method, modules = method_with(merge={"audio": 3.0})
    outputs = sample()

    def alone(m):
        return modules["fusion"](modules[m].layers[0](outputs.features[m]).relu())

    expected = (3 * alone("audio") + alone("image") + alone("motion")) / 5
    torch.testing.assert_close(method.predict(outputs), expected)
    has = torch.tensor([[True, False, True]] * 3 + [[False] * 3])
    found = method.predict(sample(present=has))
    expected = (3 * alone("audio") + alone("motion")) / 4
    torch.testing.assert_close(found[:3], expected[:3])
    assert not found[3].any()


def test_a_learner_in_use_adds_to_the_prediction():
    method, modules = method_with(checks=4)
    an_epoch(method, [1.6, 0.4, 1.0], epoch=0)
    before = method.predict(sample())
    method.begin_epoch(between(1))
    feature = sample().features["image"]

    more = modules["fusion"](modules["image"].layers[1](feature).relu()) / 3
    torch.testing.assert_close(method.predict(sample()), before + more)


def test_the_state_comes_back():
    method, _ = method_with(checks=4)
    an_epoch(method, [1.6, 0.4, 1.0], epoch=0)
    a_step(method, [1.0, 0.5, 0.2])
    again, modules = method_with(checks=4)
    again.load_state_dict(method.state_dict())

    assert numbers(again) == numbers(method)
    assert torch.equal(again.state_dict()["sums"], method.state_dict()["sums"])
    again.begin_epoch(between(1))
    assert modules["image"].in_use.tolist() == [1.0, 1.0, 0.0]


def test_a_merge_weight_for_an_unknown_modality_is_refused():
    with pytest.raises(RequestError, match="'video'") as caught:
        method_with(merge={"video": 1.0})
    assert caught.value.where == "method.merge"
