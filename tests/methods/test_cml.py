import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.methods._base import StepContext
from mmtool.methods.cml import Method, Options, calibration, confidence, removal_ranks
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion")


def context(step=0, epoch=0, names=NAMES):
    generator = torch.Generator()
    generator.manual_seed(step)
    return StepContext(names, 3, epoch, step, 1, 1, generator)


def sample(names=NAMES, size=16, present=None, task="single_label"):
    torch.manual_seed(0)
    features = {m: torch.randn(size, 3) for m in names}
    absent = {m: torch.zeros(1, 3) for m in names}
    if present is None:
        present = torch.ones(size, len(names), dtype=torch.bool)
    label = torch.arange(size) % 3
    if task == "multi_label":
        label = torch.nn.functional.one_hot(label, 3).float()
    batch = Batch({}, {}, present, label, torch.arange(size), names, task=task)
    seen = []

    def fuse(given):
        seen.append(given)
        return sum(given.values())

    return Outputs(features, sum(features.values()), fuse=fuse, absent=absent), batch, seen


def terms_of(outputs, batch, ctx=None, **options):
    method = Method(Options(**options))
    ctx = ctx or context(names=batch.modalities)
    return method, method.losses(outputs, batch, ctx), ctx


def test_of_two_modalities_the_loss_follows_the_paper():
    outputs, batch, seen = sample(("audio", "image"))
    method, terms, ctx = terms_of(outputs, batch, lam=0.5)

    ((alone),) = seen
    z = outputs.features["audio"] + outputs.features["image"]
    z_alone = alone["audio"] + alone["image"]
    is_one = [
        torch.equal(z_alone[i], outputs.features["audio"][i])
        or torch.equal(z_alone[i], outputs.features["image"][i])
        for i in range(batch.size)
    ]
    assert all(is_one)
    fused = cross_entropy(z, batch.label, reduction="none")
    partial = cross_entropy(z_alone, batch.label, reduction="none")
    more_sure = (z_alone.softmax(1).amax(1) - z.softmax(1).amax(1)).clamp_min(0)
    assert bool((more_sure > 0).any())
    sums = {name: term.sum() for name, term in terms.items()}
    expected = (fused.sum() + partial.sum()) / 2 + 0.5 * more_sure.sum()
    torch.testing.assert_close(method.compose(sums, ctx), expected)


def test_sets_shrink_one_modality_at_a_time():
    outputs, batch, seen = sample()
    terms_of(outputs, batch)

    kept = torch.stack(
        [torch.stack([(s[m] != 0).any(1) for m in NAMES], dim=1) for s in seen]
    )  # [set, batch, modality]
    assert kept.sum(2).tolist() == [[1] * 16, [2] * 16]
    assert bool((kept[1] | ~kept[0]).all()), "a smaller set lies within the next"


def test_orders_differ_between_samples_or_only_between_epochs():
    def first_kept(**options):
        other, again, seen = sample(size=64)
        terms_of(other, again, context(epoch=options.pop("epoch", 0)), **options)
        return torch.stack([(seen[0][m] != 0).any(1) for m in NAMES], dim=1).int().argmax(1)

    assert len(set(first_kept().tolist())) == 3
    per_epoch = [set(first_kept(order="epoch", epoch=e).tolist()) for e in range(12)]
    assert all(len(found) == 1 for found in per_epoch)
    assert len(set.union(*per_epoch)) > 1


@settings(deadline=None)
@given(st.data())
def test_what_a_sample_lacks_is_removed_first(data):
    flags = st.lists(st.booleans(), min_size=4, max_size=4)
    present = torch.tensor(data.draw(st.lists(flags, min_size=1, max_size=5)))
    drawn = torch.rand(
        present.shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    )

    ranks = removal_ranks(drawn, present)

    assert ranks.sort(1).values.tolist() == [[0, 1, 2, 3]] * len(present)
    for has, rank in zip(present, ranks, strict=True):
        assert not bool(has.any()) or bool(has[rank == 0])
        if bool(has.any()) and not bool(has.all()):
            assert int(rank[has].max()) < int(rank[~has].min())


def test_a_set_that_is_less_sure_costs_nothing():
    sure = torch.tensor([[0.9, 0.4], [0.6, 0.5], [0.7, 0.6]])  # one, two, all modalities

    assert calibration(sure).tolist() == pytest.approx([0.2, 0.0])
    assert calibration(sure, "previous").tolist() == pytest.approx([0.3, 0.0])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_of_two_sets_both_comparisons_are_one(values):
    sure = torch.tensor(values).unsqueeze(1)

    assert torch.equal(calibration(sure, "full"), calibration(sure, "previous"))


@settings(deadline=None)
@given(st.floats(-10, 10))
def test_confidence_does_not_change_when_all_logits_move(shift):
    logits = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)

    torch.testing.assert_close(
        confidence(logits + shift, "single_label"), confidence(logits, "single_label")
    )


def test_confidence_of_several_answers_is_how_far_each_is_from_undecided():
    logits = torch.tensor([[math.log(3), -math.log(3), 0.0]])

    found = float(confidence(logits, "multi_label"))

    assert found == pytest.approx((0.75 + 0.75 + 0.5) / 3)
    outputs, batch, _ = sample(task="multi_label")
    assert terms_of(outputs, batch)[1]["partial"].shape == (16,)


def test_gradients_reach_both_confidences():
    sure = torch.tensor([[0.9], [0.7]], requires_grad=True)
    calibration(sure).sum().backward()

    assert sure.grad.tolist() == [[1.0], [-1.0]]


def test_one_modality_alone_is_refused(tmp_path):
    write_contract_store(tmp_path / "fake")
    with pytest.raises(RequestError, match="1 modality"):
        build_job(
            contract_recipe(
                "cml", Case(modalities=("audio",), encoders={"audio": {"name": "mlp"}})
            ),
            Ranks(),
            data_root=tmp_path,
        )
