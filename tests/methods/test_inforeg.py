"""inforeg: modalities ahead are pulled back to where the epoch began."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import RequestError
from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.inforeg import Method, Options, growth, lead, pull
from mmtool.types import GradGroups

NAMES = ("audio", "image")


def method_with(**options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu")))
    return method


def take(method, scores=(0.6, 0.2), count=10.0, is_skipped=None):
    """One step; gives the gradients of each encoder afterwards."""
    ctx, grads = (
        StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator()),
        create_autospec(GradGroups, instance=True),
    )
    weight = torch.tensor([[1.0, 2.0]])
    grads.tensors.side_effect = lambda _, kind="all": (
        [weight] if kind == "matrix" else [weight, torch.tensor([3.0])]
    )
    grads.values.return_value = [torch.tensor([[5.0, 5.0]]), torch.tensor([7.0])]
    grads.snapshot.return_value = [torch.tensor([[4.0, 6.0]]), torch.tensor([7.0])]
    ctx.stats = {"score": torch.tensor(scores) * count, "score_count": torch.full((2,), count)}
    method.edit_grads(grads, ctx)
    ctx.is_skipped = is_skipped
    method.end_step(ctx)
    assert all(call.args[1] == "epoch_start" for call in grads.snapshot.call_args_list)
    return {call.args[0]: call.args[1] for call in grads.replace.call_args_list}


def end_epoch(method):
    method.end_epoch(create_autospec(EpochContext, instance=True))


def test_the_modality_ahead_is_pulled_to_the_start_of_the_epoch():
    found = take(method_with())

    b = 0.95 * math.exp(math.tanh(0.6 - 0.2))
    torch.testing.assert_close(found["audio"][0], torch.tensor([[1 + b, 2 - b]]))
    assert found["audio"][1].tolist() == [3.0]
    assert [g.tolist() for g in found["image"]] == [[[1.0, 2.0]], [3.0]]


def test_a_modality_may_have_a_pull_of_its_own():
    found = take(method_with(betas={"image": 0.1}), scores=(0.2, 0.6))

    b = 0.1 * math.exp(math.tanh(0.4))
    torch.testing.assert_close(found["image"][0], torch.tensor([[1 + b, 2 - b]]))


def test_sums_of_scores_saturate_as_in_the_released_code():
    found = take(method_with(scores="sum"))

    b = 0.95 * math.exp(math.tanh(4.0))
    torch.testing.assert_close(found["audio"][0], torch.tensor([[1 + b, 2 - b]]))


def test_a_tie_pulls_nobody():
    assert take(method_with(), scores=(0.4, 0.4))["audio"][0].tolist() == [[1.0, 2.0]]


def test_the_growth_of_the_trace_worked_out_by_hand():
    traces = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    # window 2: (3 + 4 - 2 - 3) / 7; window 3: (2 + 3 + 4 - 1 - 2 - 3) / 9
    assert growth(traces, 2).tolist() == pytest.approx([2 / 7])
    assert growth(traces, 3).tolist() == pytest.approx([3 / 9])
    # epochs before the first count as 0: (1 + 2 + 3 + 4 - 1 - 2 - 3) / 10
    assert growth(traces, 10).tolist() == pytest.approx([4 / 10])
    assert growth(traces[:1], 10).tolist() == [1.0]
    assert growth(torch.zeros(3, 2), 2).tolist() == [0.0, 0.0]


def test_the_pull_ends_when_the_trace_no_longer_grows():
    method = method_with(window=2)
    for _ in range(3):
        take(method)
        end_epoch(method)

    # traces 5, 5, 5: the mean of two does not grow any more
    assert take(method)["audio"][0].tolist() == [[1.0, 2.0]]
    assert take(method_with(window=2, threshold=-1.0))["audio"][0].tolist() != [[1.0, 2.0]]


def test_the_trace_sums_squares_of_weights_over_the_steps_that_were_made():
    method = method_with()
    take(method)
    take(method, is_skipped=torch.tensor(True))
    take(method, is_skipped=torch.tensor(False))

    assert method.state_dict()["trace"].tolist() == [10.0, 10.0]  # twice 1 + 4
    end_epoch(method)
    assert method.state_dict()["traces"] == [[10.0, 10.0]]
    assert method.state_dict()["trace"].tolist() == [0.0, 0.0]


def test_a_resumed_run_continues_in_the_same_window():
    method, other = method_with(window=1), method_with(window=1)
    for _ in range(2):
        take(method)
        end_epoch(method)
    take(method)

    other.load_state_dict(method.state_dict())

    assert take(other)["audio"][0].tolist() == take(method)["audio"][0].tolist() == [[1.0, 2.0]]
    assert torch.equal(other.state_dict()["trace"], method.state_dict()["trace"])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.data())
def test_leads_sum_to_zero_and_follow_a_permutation(values, data):
    order = data.draw(st.permutations(range(len(values))))
    scores = torch.tensor(values, dtype=torch.float64)

    found = lead(scores)

    assert float(found.sum()) == pytest.approx(0.0, abs=1e-9)
    torch.testing.assert_close(lead(scores[order]), found[order])
    torch.testing.assert_close(lead(scores + 0.1), found)


def test_an_absent_modality_neither_leads_nor_counts():
    found = lead(torch.tensor([0.5, math.nan, 0.1], dtype=torch.float64))

    assert found.tolist() == pytest.approx([0.4, 0.0, -0.4])
    assert lead(torch.tensor([0.5, math.nan])).tolist() == [0.0, 0.0]


@settings(deadline=None)
@given(st.floats(-2, 2, width=32), st.floats(0.01, 3))
def test_the_pull_lies_between_beta_and_e_times_beta(gap, beta):
    found = pull(torch.tensor([gap]), torch.tensor([beta]), torch.tensor([True]))

    if gap > 0:
        assert beta * (1 - 1e-5) <= float(found[0]) <= math.e * beta * (1 + 1e-5)
    else:
        assert float(found[0]) == 0
    closed = pull(torch.tensor([gap]), torch.tensor([beta]), torch.tensor([False]))
    assert float(closed[0]) == 0


def test_a_pull_for_an_unknown_modality_is_refused():
    with pytest.raises(RequestError, match="'video'") as caught:
        method_with(betas={"video": 1.0})
    assert caught.value.where == "method.betas"
