"""What counts as right: worked examples, limits, and errors against drawing the samples anew."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.engine.scoring import (
    answers,
    average_precision,
    extra_scores,
    mean_score,
    moved,
    score,
)

WANTED = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
LOGITS = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [-2.0, -1.0], [1.0, 2.0]])


def test_label_accuracy_by_hand():
    # Wrong: sample 0 class 1, sample 1 class 0, sample 3 class 0; five of eight are right.
    found = score(answers(LOGITS, "multi_label"), WANTED, "multi_label")

    assert found.value == pytest.approx(5 / 8)


def test_macro_f1_and_mean_average_precision_by_hand():
    found = extra_scores(LOGITS, WANTED, "multi_label")

    # Class 0: 1 hit, 1 false alarm, 1 miss -> 2/4. Class 1: 2 hits, 1 false alarm -> 4/5.
    assert found["f1_macro"] == pytest.approx((0.5 + 0.8) / 2)
    # Class 0 by logit: samples 0 yes, 3 no, 1 yes, 2 no -> (1/1 + 2/3) / 2.
    # Class 1 by logit: samples 1 yes, 3 yes, 0 no, 2 no -> 1.
    assert found["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_a_class_that_nobody_has_is_left_out_of_both():
    wanted = torch.cat([WANTED, torch.zeros(4, 1)], 1)
    silent = torch.cat([LOGITS, torch.full((4, 1), -1.0)], 1)

    assert extra_scores(silent, wanted, "multi_label") == extra_scores(
        LOGITS, WANTED, "multi_label"
    )


def test_samples_of_equal_score_count_as_found_together():
    wanted = np.array([[True], [False], [True], [False]])

    # All tie: precision 1/2 at recall 1, whatever their order.
    assert average_precision(np.zeros((4, 1)), wanted) == pytest.approx(0.5)
    assert average_precision(np.zeros((4, 1)), wanted[::-1]) == pytest.approx(0.5)


def test_r2_mae_and_correlation_by_hand():
    said = torch.tensor([[1.0], [2.0], [6.0]])
    value = torch.tensor([[0.0], [3.0], [6.0]])
    # Squared errors 1 + 1 + 0; about the mean 3: 9 + 0 + 9.
    assert score(answers(said, "regression"), value, "regression").value == pytest.approx(
        1 - 2 / 18
    )
    extra = extra_scores(said, value, "regression")
    assert extra["mae"] == pytest.approx(2 / 3)
    # Deviations -2 -1 3 and -3 0 3: 15 / sqrt(14 * 18).
    assert extra["pearson"] == pytest.approx(15 / np.sqrt(14 * 18))


def test_a_constant_target_gives_one_where_it_is_met_and_zero_otherwise():
    value = torch.full((5, 1), 2.0)

    assert score(value.double(), value, "regression").value == 1.0
    assert score(value.double() + 1, value, "regression").value == 0.0
    assert extra_scores(value, value, "regression")["pearson"] == 0.0


def test_the_mean_of_the_samples_scores_zero_and_their_own_values_one():
    value = torch.tensor([[1.0], [2.0], [6.0]])

    assert score(torch.full((3, 1), 3.0).double(), value, "regression").value == pytest.approx(0)
    assert score(value.double(), value, "regression").value == 1.0


def test_several_outputs_count_alike_whatever_their_unit():
    value = torch.tensor([[0.0, 0.0], [3.0, 300.0], [6.0, 600.0]])
    said = torch.tensor([[1.0, 0.0], [2.0, 300.0], [6.0, 600.0]])

    assert score(said.double(), value, "regression").value == pytest.approx((1 - 2 / 18 + 1) / 2)


def test_predictions_shift_in_deviations_of_the_target_and_flip_as_a_share():
    value = torch.tensor([[0.0], [4.0]])  # deviation 2
    before, after = torch.tensor([[1.0], [1.0]]).double(), torch.tensor([[2.0], [0.0]]).double()

    assert moved(before, after, value, "regression").value == pytest.approx(0.5)
    assert moved(LOGITS > 0, LOGITS > 1.5, WANTED, "multi_label").value == pytest.approx(2 / 8)
    classes = torch.tensor([0, 1, 2])
    assert moved(classes, torch.tensor([0, 2, 2]), classes, "single_label").value == pytest.approx(
        1 / 3
    )


def test_a_large_shift_of_the_unit_of_the_target_changes_no_score():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(40, 1, generator=generator)
    said = value + 0.3 * torch.randn(40, 1, generator=generator)
    one = score(said.double(), value, "regression")
    other = score(said.double() * 100 + 7, value.double() * 100 + 7, "regression")

    assert other.value == pytest.approx(one.value)
    assert other.error == pytest.approx(one.error)


def test_the_error_of_r2_and_of_a_paired_drop_is_that_of_drawing_samples_anew():
    generator = np.random.default_rng(0)
    value = generator.normal(size=(400, 1))
    better = value + 0.5 * generator.normal(size=(400, 1))
    worse = better + 0.4 * generator.normal(size=(400, 1))
    label = torch.from_numpy(value)

    def both(rows):
        found = [
            score(torch.from_numpy(x[rows]), label[rows], "regression") for x in (better, worse)
        ]
        return found[0].value, found[0].value - found[1].value

    drawn = np.array([both(generator.integers(0, 400, 400)) for _ in range(800)])
    whole = [score(torch.from_numpy(x), label, "regression") for x in (better, worse)]

    assert whole[0].error == pytest.approx(drawn[:, 0].std(), rel=0.12)
    assert (whole[0] - whole[1]).error == pytest.approx(drawn[:, 1].std(), rel=0.12)
    assert mean_score([whole[0], whole[0]]).error == pytest.approx(whole[0].error)


def test_no_samples_have_no_score():
    for task, label in (
        ("single_label", torch.zeros(0, dtype=torch.int64)),
        ("multi_label", torch.zeros(0, 3)),
        ("regression", torch.zeros(0, 1)),
    ):
        found = score(answers(torch.zeros(0, 3 if task != "regression" else 1), task), label, task)
        assert np.isnan(found.value)
        assert np.isnan(found.error)
        assert extra_scores(torch.zeros(0, 3), label, task) == {}


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 999))
def test_average_precision_is_one_for_a_perfect_order_and_bounded_otherwise(samples, classes, seed):
    generator = np.random.default_rng(seed)
    wanted = generator.random((samples, classes)) < 0.5
    wanted[0] = True

    assert average_precision(wanted.astype(float), wanted) == pytest.approx(1.0)
    found = average_precision(generator.integers(0, 3, (samples, classes)), wanted)
    assert 0 < found <= 1
