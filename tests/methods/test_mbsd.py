"""The losses between modalities, worked out by hand for one sample with two classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.methods._base import StepContext
from mmtool.methods.mbsd import Method, Options, distillation
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion")
LOG3 = math.log(3.0)
seeds = st.integers(0, 10_000)


def logits_of(probability):
    """Two-class logits with this probability of class 0; exact for odds."""
    return torch.tensor([[math.log(probability), math.log(1 - probability)]], dtype=torch.float64)


def here(count, size=1):
    return torch.ones(size, count, dtype=torch.bool)


def random_case(seed, count, size=7, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = [
        3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
        for _ in range(count)
    ]
    return logits, torch.randint(classes, (size,), generator=generator)


def run(epoch, present=None, **options):
    torch.manual_seed(3)
    logits = {m: torch.randn(4, 3) for m in NAMES}
    present = here(3, 4) if present is None else present
    batch = Batch({}, {}, present, torch.tensor([0, 1, 2, 0]), torch.arange(4), NAMES)
    ctx = StepContext(NAMES, 3, epoch, 0, 10, 5, torch.Generator())
    outputs = Outputs({}, torch.randn(4, 3), logits)
    return Method(Options(**options)).losses(outputs, batch, ctx)


def test_the_losses_of_one_sample_are_those_of_the_formula():
    strong, weak = logits_of(0.75), logits_of(0.25)

    kl, rs = distillation([strong, weak], torch.tensor([0]), here(2))

    # w = 3/4 - 1/4; KL = 3/4 log 3 + 1/4 log 1/3; the logits differ by log 3 and -log 3.
    assert kl.item() == pytest.approx(0.5 * 0.5 * LOG3)
    assert rs.item() == pytest.approx(0.5 * LOG3**2)


def test_nothing_is_taught_where_neither_is_right():
    # Class 1 is the label, both say class 0.
    kl, rs = distillation([logits_of(0.9), logits_of(0.6)], torch.tensor([1]), here(2))

    assert kl.item() == 0.0
    assert rs.item() == 0.0


def test_equal_answers_teach_nothing():
    same = logits_of(0.8)
    kl, rs = distillation([same, same.clone()], torch.tensor([0]), here(2))

    assert kl.item() == 0.0
    assert rs.item() == 0.0


def test_three_modalities_take_the_mean_over_their_pairs():
    answers = [logits_of(0.75), logits_of(0.25), logits_of(0.75)]

    kl, rs = distillation(answers, torch.tensor([0]), here(3))

    # Two of the three pairs are the pair of the first test, the third agrees.
    assert kl.item() == pytest.approx(2 / 3 * 0.25 * LOG3)
    assert rs.item() == pytest.approx(2 / 3 * 0.5 * LOG3**2)


def test_a_pair_counts_only_for_samples_that_have_both():
    answers = [logits_of(0.75), logits_of(0.25), logits_of(0.6)]
    lacking = torch.tensor([[True, True, False]])

    pair = distillation(answers[:2], torch.tensor([0]), here(2))
    three = distillation(answers, torch.tensor([0]), lacking)
    alone = distillation(answers, torch.tensor([0]), torch.tensor([[True, False, False]]))

    torch.testing.assert_close(three, pair)
    assert [t.item() for t in alone] == [0.0, 0.0]


@given(seeds, st.permutations(range(3)))
def test_the_order_of_modalities_does_not_matter(seed, order):
    logits, label = random_case(seed, 3)

    plain = distillation(logits, label, here(3, 7))
    permuted = distillation([logits[i] for i in order], label, here(3, 7))

    torch.testing.assert_close(plain, permuted)


@given(seeds, st.integers(2, 4))
def test_losses_are_not_negative_and_finite(seed, count):
    logits, label = random_case(seed, count)
    for value in distillation([1e3 * z for z in logits], label, here(count, 7)):
        assert bool((value >= -1e-9).all())
        assert bool(value.isfinite().all())


def test_distillation_moves_only_the_student():
    strong, weak = logits_of(0.75).requires_grad_(), logits_of(0.25).requires_grad_()

    kl, _ = distillation([strong, weak], torch.tensor([0]), here(2))
    kl.sum().backward()

    assert strong.grad is None or not strong.grad.any()
    # d KL / d logits of the student is its probabilities minus the target's, times w = 1/2.
    torch.testing.assert_close(weak.grad, 0.5 * torch.tensor([[-0.5, 0.5]], dtype=torch.float64))


def test_the_released_variant_compares_two_numbers_and_moves_the_teacher_too():
    strong, weak = logits_of(0.75).requires_grad_(), logits_of(0.25)

    kl, rs = distillation([strong, weak], torch.tensor([0]), here(2), "released")
    kl.sum().backward()

    assert kl.item() == pytest.approx(0.5 * (0.25 * math.log(0.25) - 0.25 * 0.75))
    assert rs.item() == pytest.approx(0.5 * LOG3**2)
    assert strong.grad.any()


def test_released_with_three_modalities_measures_probabilities():
    answers = [logits_of(0.75), logits_of(0.25), logits_of(0.75)]
    _, rs = distillation(answers, torch.tensor([0]), here(3), "released")

    assert rs.item() == pytest.approx(2 / 3 * 0.5 * 0.25)


def test_losses_come_by_name_and_weights_scale_them():
    terms = run(epoch=0)
    scaled = run(epoch=0, kl_weight=2.0, rs_weight=0.0)

    assert list(terms) == ["fused", *NAMES, "kl", "rs"]
    torch.testing.assert_close(scaled["kl"], 2 * terms["kl"])
    assert not scaled["rs"].any()


def test_outside_of_its_epochs_it_is_joint_training():
    assert list(run(epoch=1, start_epoch=2)) == ["fused"]
    assert list(run(epoch=5, end_epoch=4)) == ["fused"]
    assert "kl" in run(epoch=4, start_epoch=2, end_epoch=4)


def test_a_sample_counts_in_the_losses_of_the_modalities_it_has():
    present = here(3, 4)
    present[1, 0] = False
    terms = run(epoch=0, present=present)

    assert terms["audio"][1] == 0
    assert terms["audio"][0] > 0
    assert terms["image"][1] > 0
