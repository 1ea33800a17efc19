"""mslr: a learning rate per modality that follows its validation accuracy."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import RequestError
from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.mslr import Method, Options, relative_accuracy
from mmtool.types import GradGroups

NAMES = ("audio", "image")
FACTS = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu"))
accuracies = st.lists(
    st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), min_size=1, max_size=9
)


def method_with(*rows, **options):
    """An mslr that has seen epochs with these validation accuracies."""
    method = Method(Options(**options))
    method.setup(FACTS)
    for row in rows:
        ctx = create_autospec(EpochContext, instance=True)
        ctx.modalities = NAMES
        ctx.metrics = {f"val.acc.{m}": a for m, a in zip(NAMES, row, strict=True)}
        method.end_epoch(ctx)
    return method


def factors_of(method):
    grads = create_autospec(GradGroups, instance=True)
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())
    method.edit_grads(grads, ctx)
    door = grads.scale if method.options.apply == "gradient" else grads.scale_update
    (other,) = {grads.scale, grads.scale_update} - {door}
    assert not other.called
    assert [call.args[0] for call in door.call_args_list] == list(NAMES)
    found = [float(call.args[1]) for call in door.call_args_list]
    assert [float(ctx.metrics[f"coef.{m}"]) for m in NAMES] == found
    return found


def test_the_rate_follows_accuracy_relative_to_earlier_epochs():
    method = method_with((0.2, 0.5), (0.4, 0.7), (0.6, 0.3), coefficients={"audio": 0.9})

    # audio: 0.9 times 0.6 over the mean of 0.2 and 0.4; image: 0.3 over that of 0.5 and 0.7
    assert factors_of(method) == pytest.approx([1.8, 0.5])


def test_only_the_last_epochs_are_compared_with():
    rows = [(1.0, 1.0), *[(0.2, 0.4)] * 5, (0.3, 0.4)]

    assert factors_of(method_with(*rows)) == pytest.approx([1.5, 1.0])
    # window 2: (0.2 + 0.2) / 2
    assert factors_of(method_with(*rows, window=2)) == pytest.approx([1.5, 1.0])
    # window 6 reaches back to the first: 0.3 / ((1 + 5 * 0.2) / 6) = 0.9
    assert factors_of(method_with(*rows, window=6))[0] == pytest.approx(0.9)


def test_without_an_earlier_epoch_the_coefficients_stand():
    assert factors_of(method_with(coefficients={"image": 1.1})) == pytest.approx([1.0, 1.1])
    assert factors_of(method_with((0.3, 0.6), coefficient=0.9)) == pytest.approx([0.9, 0.9])


def test_the_static_variant_never_leaves_the_coefficients():
    method = method_with((0.2, 0.5), (0.4, 0.1), variant="static", coefficient=0.7)

    assert factors_of(method) == pytest.approx([0.7, 0.7])


def test_the_gradient_can_be_scaled_instead_of_the_update():
    assert factors_of(method_with((0.2, 0.5), (0.4, 0.5), apply="gradient")) == [2.0, 1.0]


def test_a_modality_without_samples_or_right_answers_keeps_its_rate():
    nan = math.nan
    found = relative_accuracy(torch.tensor([[0.0, 0.5, nan, nan], [0.4, nan, 0.6, nan]]))

    assert found.tolist() == [1.0, 1.0, 1.0, 1.0]


@settings(deadline=None)
@given(accuracies, st.floats(0.1, 1.0), st.permutations(range(3)))
def test_the_ratio_ignores_scale_and_follows_a_permutation(rows, scale, order):
    table = torch.tensor(rows, dtype=torch.float64)
    found = relative_accuracy(table)

    torch.testing.assert_close(relative_accuracy(table * scale), found)
    torch.testing.assert_close(relative_accuracy(table[:, order]), found[order])
    assert (found > 0).all()


@settings(deadline=None)
@given(st.floats(0.01, 1.0), st.integers(1, 8))
def test_a_constant_accuracy_leaves_the_rate_alone(value, num):
    assert relative_accuracy(torch.full((num, 2), value)).tolist() == pytest.approx([1.0, 1.0])


def test_a_resumed_run_continues_with_the_same_rates():
    method = method_with((0.2, 0.5), (0.4, 0.1))
    other = method_with()

    other.load_state_dict(method.state_dict())

    assert factors_of(other) == factors_of(method) != [1.0, 1.0]


def test_a_coefficient_for_an_unknown_modality_is_refused():
    with pytest.raises(RequestError, match="'video'") as caught:
        method_with(coefficients={"video": 1.0})
    assert caught.value.where == "method.coefficients"


def test_it_needs_a_validation_split():
    assert Method.needs.held_out
    assert "regression" not in Method.needs.tasks
