"""Prototypes, distances and coefficients by hand, and the classes that have no prototype."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.pmr import (
    Method,
    Options,
    coefficients,
    distances,
    log_probabilities,
    prototype_terms,
    renewed,
)
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
CPU = torch.device("cpu")
scores_lists = st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=5)


def renew(means, counts, before=None, known=None, momentum=0.2):
    found = torch.tensor(means)
    before = torch.zeros_like(found) if before is None else torch.tensor(before)
    was_known = torch.zeros(len(found), dtype=torch.bool) if known is None else torch.tensor(known)
    return renewed(before, was_known, found, torch.tensor(counts) > 0, momentum)


def method_of(scores=None, **options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 2, dict.fromkeys(NAMES, 2), "concat", CPU))
    if scores is not None:
        method.load_state_dict({**method.state_dict(), "scores": torch.tensor(scores)})
    return method


def begin(method, means, counts=(5.0, 5.0), epoch=0):
    asked = []

    def collect(statistic, split="train", share=1.0):
        asked.append((statistic, split, share))
        found = {m: torch.tensor(means) for m in NAMES}
        return found | {f"{m}.count": torch.tensor(counts) for m in NAMES}

    def nothing(*arguments):
        raise AssertionError(arguments)

    ctx = EpochContext(NAMES, 2, epoch, 10, collect, {}, CPU, nothing, nothing, {}, nothing)
    method.begin_epoch(ctx)
    return asked


def context(epoch=0):
    return StepContext(NAMES, 2, epoch, 0, 10, 5, torch.Generator())


def step(method, epoch=0):
    """One step's losses: both samples of class 0, at distances 1 and 3 of the prototypes."""
    features = {m: torch.tensor([[1.0, 0.0], [1.0, 0.0]]) for m in NAMES}
    present = torch.tensor([[True, True], [False, True]])
    batch = Batch({}, {}, present, torch.tensor([0, 0]), torch.arange(2), NAMES)
    outputs = Outputs(features, torch.zeros(2, 2))
    return method.losses(outputs, batch, context(epoch)), (outputs, batch)


PROTOTYPES = [[0.0, 0.0], [4.0, 0.0]]
RIGHT = 1 / (1 + math.exp(-2))  # softmax of -1 and -3


def test_distances_are_those_of_the_loop():
    torch.manual_seed(0)
    f, p = torch.randn(5, 3), torch.randn(4, 3)
    by_loop = torch.tensor([[(a - b).square().sum().sqrt() for b in p] for a in f])

    torch.testing.assert_close(distances(f, p), by_loop)


def test_distances_are_exact_far_from_the_origin():
    torch.manual_seed(0)
    f, p = torch.randn(5, 3), torch.randn(4, 3)

    torch.testing.assert_close(distances(f + 512, p + 512), distances(f, p), atol=1e-3, rtol=1e-3)


def test_a_feature_on_its_prototype_has_distance_zero_and_no_gradient():
    f = torch.tensor([[1.0, 2.0]], requires_grad=True)
    found = distances(f, torch.tensor([[1.0, 2.0], [1.0, 5.0]]))
    found[:, 0].sum().backward()

    assert found.tolist() == [[0.0, 3.0]]
    assert f.grad.tolist() == [[0.0, 0.0]]


def test_gradients_of_distances_are_those_of_finite_differences():
    torch.manual_seed(0)
    f = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    p = torch.randn(2, 4, dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda x: distances(x, p), f)


def test_the_first_means_are_taken_as_they_are():
    assert renew([[1.0], [3.0]], [2, 4]).tolist() == [[1.0], [3.0]]


def test_later_means_move_prototypes_by_the_rest_of_the_momentum():
    prototypes = renew([[10.0], [20.0]], [1, 1], before=[[0.0], [5.0]], known=[True, True])

    torch.testing.assert_close(prototypes, torch.tensor([[8.0], [17.0]]))


def test_means_that_did_not_change_leave_prototypes_bit_for_bit():
    means = [[1 / 3], [2 / 7]]

    assert (
        renew(means, [1, 1], before=means, known=[True, True]).tolist()
        == renew(means, [1, 1]).tolist()
    )


def test_a_class_without_samples_keeps_its_prototype_or_has_none():
    method = method_of()
    begin(method, PROTOTYPES, counts=(3.0, 0.0))
    first = method.state_dict()
    begin(method, [[9.0, 9.0], [9.0, 9.0]], counts=(0.0, 0.0), epoch=1)
    later = method.state_dict()

    assert first["known"].tolist() == later["known"].tolist() == [[True, False]] * 2
    assert later["prototypes"]["audio"].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_classes_without_a_prototype_are_left_out():
    similarity = -torch.tensor([[[1.0, 0.0, 3.0]]])
    logs = log_probabilities(similarity, torch.tensor([[True, False, True]]))

    assert logs.exp()[0].tolist() == [pytest.approx([RIGHT, 0.0, 1 - RIGHT])]


def test_samples_of_such_classes_add_nothing_and_break_no_gradient():
    f = torch.randn(2, 3, requires_grad=True)
    known = torch.tensor([[True, False, True]])
    label = torch.tensor([1, 0])
    logs = log_probabilities(-distances(f, torch.randn(3, 3))[None], known)
    loss, entropy = prototype_terms(logs, label, known[:, label])
    (loss + entropy).sum().backward()

    assert loss[0, 0] == 0
    assert entropy[0, 0] == 0
    assert loss[0, 1] > 0
    assert not f.grad[0].any()
    assert bool(f.grad[1].isfinite().all())


def test_without_any_prototype_there_is_no_nan():
    logs = log_probabilities(torch.randn(1, 2, 4), torch.zeros(1, 4, dtype=torch.bool))
    terms = prototype_terms(logs, torch.tensor([0, 3]), torch.zeros(1, 2, dtype=torch.bool))

    assert logs.exp().sum(2).tolist() == [pytest.approx([1.0, 1.0])]
    assert all(not t.any() for t in terms)


def test_coefficients_of_two_modalities_are_those_of_the_paper():
    # The paper's r is 6/5: its beta, for the first, is clip(1/r - 1) = 0, its gamma clip(r - 1).
    behind, ahead = coefficients(torch.tensor([0.6, 0.5]))

    assert behind.tolist() == pytest.approx([0.0, 0.2])
    assert ahead.tolist() == pytest.approx([0.2, 0.0])


def test_coefficients_end_at_one():
    behind, ahead = coefficients(torch.tensor([0.9, 0.1]))

    assert behind.tolist() == pytest.approx([0.0, 1.0])
    assert ahead.tolist() == pytest.approx([1.0, 0.0])


def test_the_released_switch_is_full_weight_for_who_is_behind():
    behind, ahead = coefficients(torch.tensor([0.6, 0.59]), "released")
    tie, _ = coefficients(torch.tensor([0.5, 0.5]), "released")

    assert behind.tolist() == [0.0, 1.0]
    assert not ahead.any()
    assert not tie.any()


def test_at_a_tie_at_zero_and_before_any_score_nobody_is_behind():
    for scores in ([0.5, 0.5], [0.0, 0.0], [math.nan, math.nan], [math.nan, 0.3]):
        behind, ahead = coefficients(torch.tensor(scores))
        assert not behind.any()
        assert not ahead.any()


@given(scores_lists, st.floats(0.1, 10.0))
def test_only_relations_between_scores_matter(scores, factor):
    values = torch.tensor(scores, dtype=torch.float64)
    for one, other in zip(coefficients(values), coefficients(factor * values), strict=True):
        torch.testing.assert_close(one, other)
        assert bool(((one >= 0) & (one <= 1)).all())


@given(scores_lists, st.randoms())
def test_the_order_of_modalities_does_not_matter(scores, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    values = torch.tensor(scores, dtype=torch.float64)

    torch.testing.assert_close(coefficients(values)[0][order], coefficients(values[order])[0])


def test_prototypes_come_from_a_share_of_the_training_split():
    method = method_of(share=0.25)

    assert begin(method, PROTOTYPES) == [("class_means", "train", 0.25)]
    assert method.state_dict()["prototypes"]["audio"].tolist() == PROTOTYPES


def test_the_losses_of_a_step_are_those_of_the_formula():
    method = method_of([0.6, 0.5])
    begin(method, PROTOTYPES)
    terms, _ = step(method)
    entropy = -(RIGHT * math.log(RIGHT) + (1 - RIGHT) * math.log(1 - RIGHT))

    assert terms["audio"].tolist() == pytest.approx([-math.log(RIGHT), 0.0])
    # Only the leader's entropy counts, which is audio's, of the first sample.
    assert terms["entropy"].tolist() == pytest.approx([0.2 * entropy, 0.0])
    total = method.compose({name: t.sum() for name, t in terms.items()}, context())
    fused, behind, ahead = 2 * math.log(2), 0.2 * -2 * math.log(RIGHT), 0.1 * 0.2 * entropy
    assert total.item() == pytest.approx(fused + behind - ahead)


def test_entropy_counts_in_early_epochs_and_only_as_in_the_paper():
    for options, epoch in (({}, 10), ({"variant": "released"}, 0), ({"entropy": 0.0}, 0)):
        method = method_of(**options)
        begin(method, PROTOTYPES)
        assert list(step(method, epoch)[0]) == ["fused", *NAMES]


def test_outside_of_its_epochs_it_is_joint_training_without_passes_over_data():
    method = method_of(start_epoch=2, end_epoch=4)
    for epoch in (1, 5):
        assert begin(method, PROTOTYPES, epoch=epoch) == []
        terms, (outputs, batch) = step(method, epoch)
        assert list(terms) == ["fused"]
        assert method.compose(terms, context(epoch)) is terms["fused"]
        assert method.statistics(outputs, batch, context(epoch)) == {}


def test_scores_are_means_over_the_samples_that_have_the_modality():
    method = method_of()
    begin(method, PROTOTYPES)
    _, (outputs, batch) = step(method)
    ctx = context()
    ctx.stats = method.statistics(outputs, batch, ctx)
    ctx.is_skipped = torch.tensor(True)
    method.end_step(ctx)
    skipped = method.state_dict()["scores"]
    ctx.is_skipped = torch.tensor(False)
    method.end_step(ctx)

    assert ctx.stats["prototype_score_count"].tolist() == [1, 2]
    assert bool(skipped.isnan().all())
    assert method.state_dict()["scores"].tolist() == pytest.approx([RIGHT, RIGHT])
