"""opm: what it remembers, and opm with gradient modulation. Dropping itself is in test_dropping."""

import math
from unittest.mock import create_autospec

import pytest
import torch

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.opm import Method, Options
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image")


def method_with(**options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu")))
    return method


def context(epoch=0, scores=(0.6, 0.3)):
    ctx = StepContext(NAMES, 3, epoch, 0, 10, 10, torch.Generator().manual_seed(3))
    ctx.stats = {"score": torch.tensor(scores) * 8, "score_count": torch.full((2,), 8.0)}
    return ctx


def gradients():
    grads = create_autospec(GradGroups, instance=True)
    grads.tensors.return_value = [torch.ones(2, 2)]
    return grads


def remembered(method):
    return method.state_dict()["scores"].tolist()


def test_scores_are_remembered_at_the_end_of_the_step_alone():
    method, ctx = method_with(), context()

    method.edit_grads(gradients(), ctx)
    assert all(map(math.isnan, remembered(method)))

    method.end_step(ctx)
    assert remembered(method) == pytest.approx([0.6, 0.3])


def test_a_step_that_was_skipped_is_not_remembered():
    method = method_with()
    method.end_step(context())
    skipped = context(scores=(0.1, 0.9))
    skipped.is_skipped = torch.tensor(True)
    method.end_step(skipped)
    assert remembered(method) == pytest.approx([0.6, 0.3])

    made = context(scores=(0.1, 0.9))
    made.is_skipped = torch.tensor(False)
    method.end_step(made)
    assert remembered(method) == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(("task", "num_outputs"), [("multi_label", 3), ("regression", 1)])
def test_samples_are_counted_once_whatever_the_number_of_answers(task, num_outputs):
    method = method_with(warmup_epochs=0, execute_probability=1.0, q_base=1.0, lam=0.0)
    method.end_step(context())
    present = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    label = torch.ones(4, num_outputs)
    batch = Batch({}, {}, present, label, torch.arange(4), NAMES, task=task)
    method.edit_features({m: torch.ones(4, 4) for m in NAMES}, batch, context())
    logits = torch.zeros(4, num_outputs)
    outputs = Outputs({}, logits, dict.fromkeys(NAMES, logits))

    # Audio leads and is always dropped; the second sample has nothing else.
    assert (method.losses(outputs, batch, context())["fused"] > 0).tolist() == [True, False] + [
        True
    ] * 2
    assert float(method.statistics(outputs, batch, context())["weight"]) == 3.0


def test_gradients_are_left_alone_unless_asked_for():
    grads = gradients()
    method_with().edit_grads(grads, context())

    assert not grads.scale.called
    assert not grads.scale_update.called
    assert not grads.add_noise.called


@pytest.mark.parametrize(("apply", "door"), [("gradient", "scale"), ("update", "scale_update")])
def test_with_ogm_the_gradients_of_the_leader_are_scaled_down_too(apply, door):
    grads, ctx = gradients(), context()
    method_with(ogm={"alpha": 0.8, "apply": apply, "noise": False}).edit_grads(grads, ctx)

    asked = [(c.args[0], float(c.args[1])) for c in getattr(grads, door).call_args_list]
    # this step's scores: rho = 0.6 / 0.3
    assert asked == [("audio", pytest.approx(1 - math.tanh(0.8 * 2))), ("image", 1.0)]
    assert float(ctx.metrics["coef.audio"]) == pytest.approx(1 - math.tanh(1.6))
    assert "drop.audio" in ctx.metrics


def test_ogm_has_its_own_window_and_noise():
    method = method_with(ogm={"start_epoch": 2, "end_epoch": 5})
    inside, outside = gradients(), gradients()

    method.edit_grads(outside, context(epoch=6))
    method.edit_grads(inside, context(epoch=5))

    assert not outside.scale.called
    assert inside.add_noise.call_count == 2
