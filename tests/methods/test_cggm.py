"""cggm: coefficients from the progress of classifiers, and directions that are aligned."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods._task import task_loss
from mmtool.methods.cggm import (
    Method,
    Options,
    along,
    coefficients,
    cosine_and_slope,
    logit_gradient,
)
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image")
progress_lists = st.lists(st.floats(-1, 1), min_size=2, max_size=5)


def context():
    return StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())


def method_with(**options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu")))
    return method


def batch_of(size=5, seed=0, present=None):
    torch.manual_seed(seed)
    label = torch.randint(3, (size,))
    if present is None:
        present = torch.ones(size, 2, dtype=torch.bool)
    batch = Batch({}, {}, present, label, torch.arange(size), NAMES)
    features = {m: torch.randn(size, 4) for m in NAMES}
    outputs = Outputs(features, torch.randn(size, 3), {m: torch.randn(size, 3) for m in NAMES})
    return outputs, batch


def take(method, right, counts=(10.0, 10.0), is_skipped=None):
    """One step with so many right answers; gives what each encoder was scaled by."""
    ctx, grads = context(), create_autospec(GradGroups, instance=True)
    outputs, batch = batch_of()
    ctx.stats = method.statistics(outputs, batch, ctx)
    ctx.stats |= {"right": torch.tensor(right), "right_count": torch.tensor(counts)}
    ctx.count = torch.tensor(5.0)
    method.edit_grads(grads, ctx)
    ctx.is_skipped = is_skipped
    method.end_step(ctx)
    door = grads.scale if method.options.apply == "gradient" else grads.scale_update
    return [float(call.args[1]) for call in door.call_args_list]


def test_coefficients_worked_out_by_hand():
    # sum of progress 0.4: (0.4 - 0.3) / 0.4 and (0.4 - 0.1) / 0.4
    found = coefficients(torch.tensor([0.3, 0.1], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.25, 0.75])

    three = coefficients(torch.tensor([0.3, 0.1, -0.2], dtype=torch.float64))
    assert three.tolist() == pytest.approx([-0.5, 0.5, 2.0])


def test_the_limit_keeps_coefficients_positive_and_bounded():
    three = coefficients(torch.tensor([0.3, 0.1, -0.2], dtype=torch.float64), 1.5)

    assert three.tolist() == pytest.approx([0.0, 0.5, 1.5])


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([0.2, -0.2], [0.5, 0.5]),
        ([0.2, 0.2, 0.2], [2 / 3] * 3),
        ([0.1, math.nan, 0.3], [0.75, 1.0, 0.25]),
        ([math.nan, math.nan], [1.0, 1.0]),
    ],
)
def test_ties_and_absent_modalities(progress, expected):
    assert coefficients(torch.tensor(progress)).tolist() == pytest.approx(expected)


def test_accuracies_that_cancel_but_for_rounding_count_as_level():
    before, after = torch.tensor([0.1, 0.7]), torch.tensor([0.4, 0.4])

    assert coefficients(after - before).tolist() == [0.5, 0.5]


@settings(deadline=None)
@given(progress_lists, st.floats(0.1, 10), st.data())
def test_coefficients_sum_up_ignore_scale_and_follow_a_permutation(values, scale, data):
    order = data.draw(st.permutations(range(len(values))))
    progress = torch.tensor(values, dtype=torch.float64)
    assume(abs(float(progress.sum())) > 1e-4)

    found = coefficients(progress)

    assert float(found.sum()) == pytest.approx(len(values) - 1, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(coefficients(progress * scale), found)
    torch.testing.assert_close(coefficients(progress[order]), found[order])


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_the_derivative_of_a_loss_is_the_one_of_autograd(task):
    torch.manual_seed(1)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    label = {
        "single_label": torch.randint(3, (6,)),
        "multi_label": torch.randint(2, (6, 3)).double(),
        "regression": torch.randn(6, 3, dtype=torch.float64),
    }[task]

    (expected,) = torch.autograd.grad(task_loss(logits, label, task).sum(), logits)

    torch.testing.assert_close(logit_gradient(logits, label, task), expected)


def test_the_slope_is_the_derivative_of_the_cosine():
    torch.manual_seed(2)
    fused = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    own = torch.randn(3, 4, dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(fused.flatten(), own.flatten(), dim=0)
    (expected,) = torch.autograd.grad(cosine, fused)

    found, slope = cosine_and_slope(fused.detach(), own)

    torch.testing.assert_close(found, cosine.detach())
    torch.testing.assert_close(slope, expected)


def test_a_gradient_of_zero_has_no_direction():
    cosine, slope = cosine_and_slope(torch.zeros(3, 4), torch.randn(3, 4))

    assert float(cosine) == 0
    assert not slope.any()


def test_the_gradient_of_a_linear_reading_is_what_is_compared():
    outputs, batch = batch_of()
    stats = method_with().statistics(outputs, batch, context())
    reading = torch.zeros(3, 4, requires_grad=True)
    features = outputs.features["audio"]
    # The fused logits as they are, with a reading of the audio feature added that is zero.
    logits = outputs.logits + features @ reading.T
    (expected,) = torch.autograd.grad(task_loss(logits, batch.label, "single_label").sum(), reading)

    torch.testing.assert_close(stats["fused.audio"], expected)


def test_the_loss_has_the_gradient_of_the_cosine_where_the_last_step_was_the_same():
    outputs, batch = batch_of()
    method, ctx = method_with(), context()
    ctx.stats = method.statistics(outputs, batch, ctx)
    ctx.stats |= {"right": torch.tensor([1.0, 2.0]), "right_count": torch.tensor([5.0, 5.0])}
    ctx.count = torch.tensor(5.0)
    method.end_step(ctx)
    ctx.stats["right"] = torch.tensor([2.0, 2.5])  # progress .2 and .1: B = 1/3, 2/3
    method.end_step(ctx)

    logits = outputs.logits.clone().requires_grad_()
    live = Outputs(outputs.features, logits, outputs.unimodal)
    term = method.losses(live, batch, context())["direction"].mean()
    (found,) = torch.autograd.grad(term, logits)

    exact = torch.zeros(())
    for modality, weight in zip(NAMES, (1 / 3, 2 / 3), strict=True):
        fused = logit_gradient(logits, batch.label, "single_label").T @ outputs.features[modality]
        own = ctx.stats[f"own.{modality}"]
        cosine = torch.nn.functional.cosine_similarity(fused.flatten(), own.flatten(), dim=0)
        exact = exact + (weight - weight * cosine) / 2
    (expected,) = torch.autograd.grad(exact, logits)

    torch.testing.assert_close(term, exact)
    torch.testing.assert_close(found, expected)


def test_encoders_are_scaled_by_rho_times_b_from_the_second_step_on():
    method = method_with(rho=1.3)

    assert take(method, (1.0, 5.0)) == [1.0, 1.0]
    # progress 0.3 and 0.1
    assert take(method, (4.0, 6.0)) == pytest.approx([1.3 * 0.25, 1.3 * 0.75], rel=1e-5)


def test_the_update_can_be_scaled_instead():
    method = method_with(apply="update", rho=1.0)
    take(method, (1.0, 5.0))

    assert take(method, (4.0, 6.0)) == pytest.approx([0.25, 0.75], rel=1e-5)


def test_a_step_that_was_skipped_is_not_compared_with():
    method = method_with(rho=1.0)
    take(method, (1.0, 5.0), is_skipped=torch.tensor(False))
    before = {k: v for k, v in method.state_dict().items() if k != "direction"}
    take(method, (9.0, 9.0), is_skipped=torch.tensor(True))

    after = method.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert take(method, (4.0, 6.0)) == pytest.approx([0.25, 0.75], rel=1e-5)


def test_a_modality_that_was_absent_is_compared_with_when_it_was_last_there():
    method = method_with(rho=1.0)
    take(method, (1.0, 5.0))
    assert take(method, (0.0, 6.0), counts=(0.0, 10.0)) == [1.0, 0.0]
    # audio 0.1 -> 0.4, image 0.6 -> 0.7
    assert take(method, (4.0, 7.0)) == pytest.approx([0.25, 0.75], rel=1e-5)


def test_samples_without_a_modality_and_padding_do_not_count():
    present = torch.tensor([[True, False], [True, True], [True, True]])
    torch.manual_seed(0)
    weight = torch.tensor([1.0, 1.0, 0.0])
    label = torch.tensor([0, 1, 2])
    batch = Batch({}, {}, present, label, torch.arange(3), NAMES, weight)
    sure = torch.eye(3) * 9
    features = {m: torch.randn(3, 4) for m in NAMES}
    outputs = Outputs(features, torch.randn(3, 3), {"audio": sure, "image": -sure})

    stats = method_with().statistics(outputs, batch, context())

    assert stats["right"].tolist() == [2.0, 0.0]
    assert stats["right_count"].tolist() == [2.0, 1.0]
    residual = logit_gradient(outputs.logits, label, "single_label")
    torch.testing.assert_close(
        stats["fused.image"], residual[1, :, None] * features["image"][1][None]
    )


def test_without_the_direction_loss_nothing_is_summed_for_it():
    outputs, batch = batch_of()
    method = method_with(lam=0.0)

    assert list(method.losses(outputs, batch, context())) == ["fused"]
    assert set(method.statistics(outputs, batch, context())) == {"right", "right_count"}
    assert take(method, (1.0, 5.0)) == [1.0, 1.0]


def test_a_resumed_run_continues_from_the_last_step():
    method, other = method_with(rho=1.0), method_with(rho=1.0)
    take(method, (1.0, 5.0))

    other.load_state_dict(method.state_dict())

    assert take(other, (4.0, 6.0)) == take(method, (4.0, 6.0))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5))
def test_the_inner_product_is_that_of_the_outer_product(num_classes, dim):
    generator = torch.Generator().manual_seed(num_classes * 7 + dim)
    residual = torch.randn(3, num_classes, generator=generator, dtype=torch.float64)
    feature = torch.randn(3, dim, generator=generator, dtype=torch.float64)
    direction = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)

    outer = residual[:, :, None] * feature[:, None, :]
    torch.testing.assert_close(along(residual, feature, direction), (outer * direction).sum((1, 2)))
