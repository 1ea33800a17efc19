from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.engine.optim import learning_rate
from mmtool.methods._base import ModelFacts
from mmtool.methods.smv_sample import Method, Options, num_copies, plan
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here

NAMES = ("audio", "image")
# Features are logits of two classes: both right; image wrong alone; both wrong; audio outvotes.
FOUND = {
    "audio": torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]]),
    "image": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]),
    "label": torch.zeros(4, dtype=torch.int64),
    "present": torch.ones(4, 2),
}


def made(**options):
    method = Method(Options(**options))
    facts = ModelFacts(NAMES, 2, dict.fromkeys(NAMES, 2), "sum", torch.device("cpu"))
    method.setup(facts)
    return method


def context(epoch=0, found=FOUND, asked=None):
    def collect(statistic, split="train", share=1.0):
        if asked is not None:
            asked.append((epoch, statistic, split, share))
        return found

    return SimpleNamespace(
        modalities=NAMES,
        epoch=epoch,
        collect=collect,
        fuse=lambda features: features["audio"] + features["image"],
        absent={m: torch.tensor([0.0, 0.1]) for m in NAMES},
    )


def test_copies_follow_the_thresholds_of_the_paper():
    values = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64)

    assert num_copies(values).tolist() == [3, 2, 1, 0, 0]


def test_a_fair_share_that_was_rounded_gets_no_copy():
    assert num_copies(torch.tensor([1.0 - 1e-12, 1 / 3 + 1 / 3 + 1 / 3]).double()).tolist() == [
        0,
        0,
    ]


@settings(deadline=None)
@given(st.lists(st.floats(-2, 3), min_size=2, max_size=9))
def test_what_is_worth_less_is_visited_more(values):
    copies = num_copies(torch.tensor(sorted(values), dtype=torch.float64)).tolist()

    assert copies == sorted(copies, reverse=True)
    assert all(0 <= c <= 3 for c in copies)


def test_an_epoch_is_every_sample_and_its_copies_with_one_modality():
    # phi: [1, 1], [1.5, 0.5], [0, 0], [-0.5, 0.5]
    found = made(warmup_epochs=0).plan_epoch(context())

    rows = [(int(i), *map(bool, k)) for i, k in zip(found.index, found.keep, strict=True)]
    assert rows[:4] == [(i, True, True) for i in range(4)]
    audio, image = (True, False), (False, True)
    assert sorted(rows[4:]) == sorted(
        [(2, *audio)] * 2 + [(3, *audio)] * 3 + [(1, *image)] + [(2, *image)] * 2 + [(3, *image)]
    )


def test_what_a_sample_lacks_or_has_alone_is_not_copied():
    present = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = made(warmup_epochs=0).plan_epoch(context(found={**FOUND, "present": present}))

    assert found.index.tolist() == [0, 1, 2, 3]


def test_a_copy_keeps_one_of_any_number_of_modalities():
    found = plan(torch.tensor([[0, 1, 2], [0, 0, 0]]))

    assert found.index.tolist() == [0, 1, 0, 0, 0]
    assert found.keep[2:].int().tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_warm_up_epochs_visit_each_sample_once():
    method, asked = made(warmup_epochs=2), []

    assert [method.plan_epoch(context(e, asked=asked)) is None for e in range(3)] == [
        True,
        True,
        False,
    ]
    assert asked == [(2, "features", "train", 1.0)]


def test_values_are_used_for_as_long_as_the_options_say_also_when_resumed():
    method, asked = made(warmup_epochs=0, every=2), []
    method.plan_epoch(context(0, asked=asked))
    other = made(warmup_epochs=0, every=2)
    other.load_state_dict(method.state_dict())

    plans = [m.plan_epoch(context(1, asked=asked)) for m in (method, other)]

    assert [epoch for epoch, *_ in asked] == [0]
    assert torch.equal(plans[0].index, plans[1].index)
    assert torch.equal(plans[0].keep, plans[1].keep)


def test_a_longer_epoch_ends_with_the_learning_rate_of_its_end(tmp_path):
    write_contract_store(tmp_path / "fake")
    train = {"select": "last", "schedule": "cosine", "epochs": 2}
    recipe = contract_recipe("smv_sample", Case({"warmup_epochs": 0}, train=train))
    steps = []

    train_here(
        recipe,
        data_root=tmp_path,
        checkpoints=tmp_path / "ckpt",
        emit=lambda kind, **fields: steps.append(fields) if kind == "step" else None,
    )

    by_epoch = [[s for s in steps if s["epoch"] == e] for e in (0, 1)]
    assert len(by_epoch[0]) > 4, "no copies were added"
    for epoch, taken in enumerate(by_epoch):
        number = len(taken)
        expected = [learning_rate(recipe.train, epoch * number + i, number) for i in range(number)]
        assert [s["lr"] for s in taken] == pytest.approx(expected)
    assert by_epoch[1][-1]["lr"] > 0
