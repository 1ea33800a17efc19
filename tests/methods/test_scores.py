import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.methods._scores import (
    COUNT,
    SCORE,
    mean_scores,
    ratios,
    score_sums,
)
from mmtool.methods._task import sample_score, task_score
from mmtool.types import Batch

scores_lists = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=5)


def batch_of(present, weight=None):
    size, num = present.shape
    return Batch(
        inputs={},
        lengths={},
        present=present,
        label=torch.arange(size) % 3,
        index=torch.arange(size),
        modalities=tuple("abcd"[:num]),
        weight=weight,
    )


def test_the_probability_is_that_of_the_true_class():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])

    found = task_score(logits, torch.tensor([1, 0]), "single_label")

    torch.testing.assert_close(found, torch.tensor([0.75, 0.5]))


def test_half_precision_logits_are_scored_in_float32():
    found = task_score(torch.zeros(1, 2).bfloat16(), torch.tensor([0]), "single_label")

    assert found.dtype == torch.float32


def test_scores_count_present_samples_and_leave_out_padding():
    present = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    weight = torch.tensor([1.0, 1.0, 2.0, 0.0])
    torch.manual_seed(0)
    unimodal = {m: torch.randn(4, 3) for m in "ab"}
    batch = batch_of(present, weight)

    sums = score_sums(unimodal, batch)

    p = {m: sample_score(unimodal[m], batch) for m in "ab"}
    assert sums[COUNT].tolist() == [3, 2]
    torch.testing.assert_close(sums[SCORE], torch.stack([p["a"][:3].sum(), p["b"][[0, 2]].sum()]))


def test_sums_over_parts_of_a_batch_add_up():
    torch.manual_seed(0)
    unimodal = {m: torch.randn(6, 3) for m in "ab"}
    present = torch.rand(6, 2) > 0.3
    whole = batch_of(present)
    total = score_sums(unimodal, whole)
    parts = []
    for part in (slice(0, 2), slice(2, 6)):
        piece = Batch({}, {}, present[part], whole.label[part], whole.index[part], ("a", "b"))
        parts.append(score_sums({m: z[part] for m, z in unimodal.items()}, piece))

    for name, value in total.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)


def test_an_absent_modality_has_no_score_and_does_not_pull_others_ahead():
    stats = {SCORE: torch.tensor([2.0, 0.0, 1.0]), COUNT: torch.tensor([4.0, 0.0, 4.0])}

    scores = mean_scores(stats)

    assert scores[1].isnan()
    assert ratios(scores).tolist() == [2.0, 1.0, 0.5]


@given(first=st.floats(1e-3, 1.0), second=st.floats(1e-3, 1.0))
def test_two_modalities_have_the_ratio_of_the_paper_and_its_inverse(first, second):
    rho = ratios(torch.tensor([first, second], dtype=torch.float64))

    assert math.isclose(rho[0], first / second, rel_tol=1e-12)
    assert math.isclose(rho[1], second / first, rel_tol=1e-12)


@given(scores_lists)
def test_more_modalities_are_compared_with_the_mean_of_the_others(values):
    rho = ratios(torch.tensor(values, dtype=torch.float64))

    for position, value in enumerate(values):
        others = values[:position] + values[position + 1 :]
        expected = value / (sum(others) / len(others)) if others else 1.0
        assert math.isclose(rho[position], expected, rel_tol=1e-12)


def test_ratios_of_zeros_are_defined():
    assert ratios(torch.tensor([0.0, 0.0, 0.0])).tolist() == [1, 1, 1]
    assert ratios(torch.tensor([0.5, 0.0])).tolist() == [math.inf, 0.0]
    assert ratios(torch.tensor([0.5])).tolist() == [1.0]
    assert ratios(torch.full((2,), math.nan)).tolist() == [1.0, 1.0]
