import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.config.schema import TrainConfig
from mmtool.engine.optim import build_optimizer, learning_rate, step_if_finite
from mmtool.engine.precision import Precision

GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


def config(**fields: object) -> TrainConfig:
    return TrainConfig(**{"epochs": 10, "batch_size": 8, **fields})


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_bad_step_changes_neither_weights_nor_later_steps(name):
    def run(flags: list[torch.Tensor]) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.ones(64))
        optimizer = build_optimizer(config(optimizer=name, lr=0.1), [parameter])
        for flag in flags:
            parameter.grad = torch.full((64,), float("nan") if flag else 0.5)
            step_if_finite(optimizer, flag)
        return parameter.detach()

    assert torch.equal(run([GOOD, GOOD, GOOD]), run([BAD, GOOD, BAD, GOOD, GOOD]))


def test_zero_momentum_buffers_give_the_plain_first_step():
    ours = torch.nn.Parameter(torch.ones(4))
    plain = torch.nn.Parameter(torch.ones(4))
    optimizer = build_optimizer(config(lr=0.1), [ours])
    reference = torch.optim.SGD([plain], lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(3):
        for parameter in (ours, plain):
            parameter.grad = torch.full((4,), 0.3 + step)
        step_if_finite(optimizer, GOOD)
        reference.step()

    assert torch.allclose(ours, plain, atol=1e-7)


@given(st.integers(0, 999), st.sampled_from(["constant", "step", "cosine"]), st.floats(0, 5))
def test_the_rate_stays_between_zero_and_the_base(step, schedule, warmup):
    rate = learning_rate(config(schedule=schedule, warmup_epochs=warmup, lr=0.4), step, 100)

    assert 0 <= rate <= 0.4 + 1e-12


def test_schedules_have_their_known_values():
    assert learning_rate(config(schedule="step", step_epochs=3, lr=1.0), 299, 100) == 1.0
    assert learning_rate(config(schedule="step", step_epochs=3, lr=1.0), 300, 100) == 0.1
    assert learning_rate(config(schedule="cosine", lr=1.0), 500, 100) == pytest.approx(0.5)
    warm = [learning_rate(config(warmup_epochs=1, lr=1.0), s, 100) for s in (0, 99, 100)]
    assert warm == pytest.approx([1 / 101, 100 / 101, 1.0])


def test_the_loss_scale_halves_after_a_bad_step_and_grows_after_many_good_ones():
    precision = Precision("fp16", torch.device("cpu"))
    start = precision.scale.item()

    precision.update(BAD)
    halved = precision.scale.item()
    for _ in range(2000):
        precision.update(GOOD)

    assert halved == start / 2
    assert precision.scale.item() == start


def test_unscaled_gradients_are_those_of_the_plain_loss():
    precision = Precision("fp16", torch.device("cpu"))
    gradient = torch.tensor([1.5]) * precision.scale

    precision.unscale_([gradient])

    assert gradient.item() == pytest.approx(1.5)
