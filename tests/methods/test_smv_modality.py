import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.smv_modality import Method, Options, added_shares, plan
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
FOUND = {
    "audio": torch.tensor([[2.0, 0.0]] * 4),
    "image": torch.tensor([[0.0, 1.0]] * 4),
    "label": torch.zeros(4, dtype=torch.int64),
    "present": torch.ones(4, 2),
}


def made(**options):
    method = Method(Options(**options))
    facts = ModelFacts(NAMES, 2, dict.fromkeys(NAMES, 2), "sum", torch.device("cpu"))
    method.setup(facts)
    return method


def context(epoch=0, asked=None):
    def collect(statistic, split="train", share=1.0):
        if asked is not None:
            asked.append((epoch, statistic, split, share))
        return FOUND

    return SimpleNamespace(
        modalities=NAMES,
        epoch=epoch,
        collect=collect,
        fuse=lambda features: features["audio"] + features["image"],
        absent={m: torch.tensor([0.0, 0.1]) for m in NAMES},
        train_size=30,
        seed=4,
    )


@pytest.mark.parametrize(
    ("form", "f"),
    [
        ("linear", lambda x: 1.2 * x),
        ("tanh", lambda x: math.tanh(1.2 * x)),
        ("square", lambda x: 1.2 * x * x),
    ],
)
def test_of_two_modalities_the_share_is_two_thirds_of_the_difference(form, f):
    found = added_shares(torch.tensor([1.3, 0.6], dtype=torch.float64), 1.2, form)

    assert found.tolist() == pytest.approx([0.0, f(2 / 3 * 0.7)])


@settings(deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=6), st.floats(0.1, 5.0))
def test_only_modalities_behind_the_mean_of_the_others_get_copies(values, alpha):
    found = added_shares(torch.tensor(values, dtype=torch.float64), alpha)

    assert ((found >= 0) & (found <= 1)).all()
    for position, value in enumerate(values):
        others = values[:position] + values[position + 1 :]
        if not others or value > sum(others) / len(others) + 1e-9:
            assert len(values) == 1 or found[position] == 0


@settings(deadline=None)
@given(st.permutations(range(3)), st.lists(st.floats(-0.5, 1.5), min_size=3, max_size=3))
def test_the_order_of_modalities_does_not_matter(order, values):
    found = torch.tensor(values, dtype=torch.float64)

    torch.testing.assert_close(added_shares(found[order], 1.0), added_shares(found, 1.0)[order])


def test_a_tie_adds_nothing():
    assert added_shares(torch.tensor([1.0, 1.0, 1.0]), 1.0).tolist() == [0.0, 0.0, 0.0]


def test_an_epoch_has_so_many_drawn_samples_with_the_weaker_modality():
    # phi is 1.5 and 0.5 for every sample, so p of the image is 2/3.
    method, asked = made(warmup_epochs=0, share=0.3), []
    found = method.plan_epoch(context(asked=asked))

    assert asked == [(0, "features", "train", 0.3)]
    assert len(found.index) == 30 + 20
    assert found.index[:30].tolist() == list(range(30))
    assert bool(found.keep[:30].all())
    assert found.keep[30:].int().tolist() == [[0, 1]] * 20
    assert len(set(found.index[30:].tolist())) == 20


def test_samples_are_drawn_anew_in_each_epoch_and_for_each_seed():
    draws = {
        tuple(plan(torch.tensor([0, 10]), 100, seed, epoch).index[100:].tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }

    assert len(draws) == 4


def test_a_resumed_run_draws_the_same_without_valuing_again():
    method, asked = made(warmup_epochs=0, every=3), []
    method.plan_epoch(context(0))
    other = made(warmup_epochs=0, every=3)
    other.load_state_dict(method.state_dict())

    plans = [m.plan_epoch(context(1, asked)) for m in (method, other)]

    assert asked == []
    assert torch.equal(plans[0].index, plans[1].index)
    assert made(warmup_epochs=1).plan_epoch(context(0)) is None


def test_an_empty_copy_counts_neither_in_the_loss_nor_in_its_mean():
    present = torch.tensor([[True, True], [False, False], [False, True]])
    batch = Batch({}, {}, present, torch.tensor([0, 1, 1]), torch.arange(3), NAMES)
    torch.manual_seed(0)
    outputs = Outputs({}, torch.randn(3, 2))
    ctx = StepContext(NAMES, 2, 0, 0, 1, 1, torch.Generator())

    loss = made().losses(outputs, batch, ctx)["fused"]

    full = cross_entropy(outputs.logits, batch.label, reduction="none")
    torch.testing.assert_close(loss, full * torch.tensor([1.0, 0.0, 1.0]))
    assert float(made().statistics(outputs, batch, ctx)["weight"]) == 2.0
    padded = replace(batch, weight=torch.tensor([1.0, 1.0, 0.0]))
    assert float(made().statistics(outputs, padded, ctx)["weight"]) == 1.0
